"""Entries that share a part's time, for parts 6 and 8 of run.sh.

Each entry is a process of its own, so that one that fails or hangs costs only itself, and gets an equal share of the
time that is left: what one does not use the later ones have. It prints JSON, one line each time that it knows more;
later lines add to it, so an entry that is ended in the middle has what it had found by then.
"""
import json
import os
import signal
import subprocess
import time


def carried():
    """The environment of a program that the pack carried, with its libraries."""
    return {**os.environ, "LD_LIBRARY_PATH": os.environ.get("LIBS", "")}


def measure(command, seconds, env=None):
    """What the command printed, as a row, and why there is no more of it (None: it is complete)."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
    try:
        out, _ = child.communicate(timeout=seconds)
        why = None if child.returncode == 0 else f"exit status {child.returncode}"
    except subprocess.TimeoutExpired:
        # With all that it has started: compilers, the engine.
        os.killpg(child.pid, signal.SIGKILL)
        out, _ = child.communicate()
        why = f"not done in its {seconds:.0f} s"
    row, lines = {}, out.splitlines()
    for line in lines:
        if line.startswith("{"):
            try:
                row.update(json.loads(line))
            except ValueError:  # torn
                pass
    if not row:
        why = "%s; %s" % (why or "no figures", lines[-1] if lines else "it printed nothing")
    return row, why


def run(entries, limit, command, label, show, path, enough=lambda row: False, env=None):
    """Measure each entry and print a line for it; the file grows with them. How many were not as they should be.

    command(entry) -> the arguments of its process; label(entry) -> its name; show(row) -> what to say of a row that is
    complete, or enough for show, and whether it is as it should be.
    """
    rows, bad, end = [], 0, time.monotonic() + limit
    for i, entry in enumerate(entries):
        seconds = max(1.0, (end - time.monotonic()) / (len(entries) - i))
        row, why = measure(command(entry), seconds, env)
        row = {**entry, **row}
        if why and not enough(row):
            found = {k: v for k, v in row.items() if k not in entry and k != "error"}
            row.setdefault("error", why)
            text, good = f"{label(entry)}: {row['error']}" + (f"; so far {json.dumps(found)}" if found else ""), False
        else:
            text, good = show(row)
        print("%s - %s" % ("ok" if good else "not ok", text), flush=True)
        row["passed"] = good
        bad += not good
        rows.append(row)
        if path:
            with open(path, "w") as f:
                json.dump(rows, f, indent=1)
    return bad
