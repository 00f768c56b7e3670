#!/usr/bin/env python3
"""Part 8 of run.sh: page-locked memory and overlapping batches, by the clock (tests/gpu/bench_overlap.c).

Bounds are far below what is expected, for what else goes on on the machine: pixels from page-locked memory are spared a
copy, which an upload of 64 images should show; with two forwards at a time no rate may fall, that of a quick network,
whose gathering and copies take a good part of a batch's time, must rise, and the device must compute most of the time.

    overlap.py --bench bench_overlap [--seconds 6]
"""
import argparse
import sys

import entries

# what, branches (0: none), batch, least gain, least share of the time that the device computes
UPLOAD = {"what": "upload", "branches": 0, "batch": 64, "gain": 1.05}
NETS = [{"what": "resnet18", "branches": 1, "batch": 64, "gain": 1.05, "busy": 0.5},
        {"what": "resnet50", "branches": 3, "batch": 32, "gain": 0.97, "busy": 0.7},
        {"what": "densenet121", "branches": 3, "batch": 64, "gain": 0.97, "busy": 0.8}]


def show(row):
    if row["what"] == "upload":
        return ("%.1f MB go up in %.3f ms from page-locked memory, in %.3f ms from other memory: %.2f times" %
                (row["mb"], row["locked_ms"], row["other_ms"], row["ratio"])), row["ratio"] >= row["gain"]
    return ("%s, %d branch(es), batch %d: %.0f images/s by one forward at a time, %.0f by %d: %.2f times; the device "
            "computes %.0f %% of the time, then %.0f %%" %
            (row["what"], row["branches"], row["batch"], row["one"], row["all"], row["lanes"], row["ratio"],
             100 * row["busy_one"], 100 * row["busy_all"])), \
        row["ratio"] >= row["gain"] and row["busy_all"] >= row["busy"] and row["busy_all"] >= row["busy_one"] - 0.03


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--seconds", type=float, default=6, help="measure for so long, each")
    parser.add_argument("--limit", type=float, default=450, help="seconds for everything")
    parser.add_argument("--json", help="write the rows there")
    args = parser.parse_args()

    def label(entry):
        return "%s, %d branch(es), batch %d" % (entry["what"], entry["branches"], entry["batch"])

    def command(entry):
        return [args.bench, entry["what"], *([str(entry["branches"])] if entry["branches"] else []),
                str(entry["batch"]), str(args.seconds)]

    sys.exit(1 if entries.run([UPLOAD, *NETS], args.limit, command, label, show, args.json, env=entries.carried()) else 0)


if __name__ == "__main__":
    main()
