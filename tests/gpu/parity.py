#!/usr/bin/env python3
"""Part 3 of run.sh: every backbone and the tri-branch net against PyTorch on the same weights.

Both fill their parameters by the formula of DESIGN 8 (tests/golden/make_nets.py).
PyTorch runs in float64.  fp32 must agree within 1e-4 of the largest output, fp16
and bf16 within 2e-2, and the tri-branch net must give the same verdict unless
its two best classes are closer than that.

    parity.py --engine dfx-engine --device cuda [--precision fp32 ...] [--only resnet18 ...]
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(os.path.dirname(HERE), "golden")
sys.path.insert(0, GOLDEN)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import make_nets  # noqa: E402

SEED = 1
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2, "bf16": 2e-2}
FILES = [os.path.join(GOLDEN, "images", f) for f in make_nets.FILES]


def pixels(engine):
    """The 256 x 256 RGB bytes of each image, by the engine itself: this part is about the network alone."""
    with tempfile.NamedTemporaryFile() as out:
        for f in FILES:
            subprocess.run([engine, "decode", f, "--out", out.name], check=True, stdout=subprocess.DEVNULL)
            yield np.fromfile(out.name, np.uint8).reshape(256, 256, 3)


def expected(model, size, images):
    """Features and logits of each image, float64, on the GPU where PyTorch has one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.double().eval().to(device)
    x = torch.cat([make_nets.batch(p, size) for p in images]).to(device)
    return list(zip(*[t.flatten(1).cpu().numpy() for t in model(x)]))


def ours(args, command, precision):
    out = subprocess.run([args.engine, *command, "--device", args.device, "--precision", precision, "--json", *FILES],
                         capture_output=True, text=True)
    if out.returncode != 0:
        raise RuntimeError((out.stderr.strip() or out.stdout.strip())[-500:])
    return [json.loads(line) for line in out.stdout.splitlines()]


def error(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.abs(a - b).max() / np.abs(b).max()) if np.isfinite(a).all() else float("inf")


def same_verdict(a, b, tolerance):
    best = np.sort(b)
    return int(np.argmax(a)) == int(np.argmax(b)) or best[-1] - best[-2] < tolerance * np.abs(b).max()


def check(args, rows, label, command, wanted, trinet):
    """One network in every precision; rows, and the file, grow: a part that runs out of time leaves what it has."""
    for precision in args.precision:
        row = {"net": label, "precision": precision, "tolerance": TOLERANCE[precision]}
        try:
            got = ours(args, command, precision)
            row["features"] = max(error(g["features"], w[0]) for g, w in zip(got, wanted))
            row["logits"] = max(error(g["logits"], w[1]) for g, w in zip(got, wanted))
            row["passed"] = row["features"] <= row["tolerance"] and row["logits"] <= row["tolerance"] and \
                (not trinet or all(same_verdict(np.asarray(g["logits"]), w[1], row["tolerance"])
                                   for g, w in zip(got, wanted)))
        except (RuntimeError, ValueError, KeyError) as e:
            row.update(passed=False, error=str(e))
        print("%s - %s %s: %s" % ("ok" if row["passed"] else "not ok", label, precision, row.get("error") or
              "features %.1e, logits %.1e" % (row["features"], row["logits"])), flush=True)
        rows.append(row)
        if args.json:
            with open(args.json, "w") as f:
                json.dump(rows, f, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", nargs="+", choices=TOLERANCE, default=None)
    parser.add_argument("--only", nargs="+", help="these networks (trinets: trinet_NAME_sSTRIDE)")
    parser.add_argument("--json", help="write the rows there")
    args = parser.parse_args()
    args.precision = args.precision or (["fp32"] if args.device == "cpu" else list(TOLERANCE))
    torch.set_grad_enabled(False)
    images = list(pixels(args.engine))
    rows = []
    for name in make_nets.BACKBONES:
        if not args.only or name in args.only:
            model = make_nets.Backbone(name)
            model.fill(SEED)
            command = ["logits", "--backbone", name, "--random-weights", str(SEED)]
            check(args, rows, name, command, expected(model, make_nets.side(name), images), False)
    for name, stride in make_nets.TRINETS:
        label = "trinet_%s_s%d" % (name, stride)
        if not args.only or label in args.only:
            model = make_nets.TriNet(name, stride)
            make_nets.fill(model, SEED)
            command = ["trinet", "--backbone", name, "--random-weights", str(SEED), "--head-stride", str(stride)]
            check(args, rows, label, command, expected(model, make_nets.side(name), images), True)
    sys.exit(0 if rows and all(r["passed"] for r in rows) else 1)


if __name__ == "__main__":
    main()
