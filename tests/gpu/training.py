#!/usr/bin/env python3
"""Part 7 of run.sh: a training step (forward, backward, Adam) beside PyTorch, in alternation.

ResNet-18 and DenseNet-121, batch 32, two classes, in fp32 (TF32 off) and in bf16 (PyTorch: autocast).  PyTorch gets
channels_last, fused Adam and cudnn.benchmark, eager and compiled, the better of which counts; its pixels are on the
device already, ours go up with each step.  Read ratios: medians over the rounds of the ratio within one round.

    training.py --bench bench_train [--only resnet18] [--precision bf16] [--rounds 5] [--seconds 2]
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import entries

BATCH, CLASSES, SIDE = 32, 2, 256
NETS, PRECISIONS = ("resnet18", "densenet121"), ("fp32", "bf16")


def torch_ways(name, precision):
    """Label -> function that does one step; a way that cannot be built is reported and left out."""
    import torch
    import torchvision

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    x = torch.rand(BATCH, 3, SIDE, SIDE, device="cuda").to(memory_format=torch.channels_last)
    label = torch.arange(BATCH, device="cuda") % CLASSES

    def build(wrap):
        net = getattr(torchvision.models, name)(num_classes=CLASSES).cuda().to(memory_format=torch.channels_last).train()
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-3, fused=True)
        run = wrap(net)

        def step():
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
                loss = torch.nn.functional.cross_entropy(run(x), label)
            loss.backward()
            optimiser.step()
        for _ in range(5):
            step()
        torch.cuda.synchronize()
        return step

    ways = {}
    for label_, wrap in (("eager", lambda net: net), ("compiled", torch.compile)):
        start = time.monotonic()
        try:
            ways[label_] = build(wrap)
        except Exception as e:  # whatever the compiler throws: the other way still counts
            print(f"# PyTorch {label_}: {type(e).__name__}: {str(e)[:200]}", file=sys.stderr)
        print(f"# PyTorch {label_}: ready after {time.monotonic() - start:.0f} s", file=sys.stderr)
    return ways


def torch_ms(step, seconds):
    import torch

    took, end = [], time.monotonic() + seconds
    while len(took) < 5 or time.monotonic() < end:
        torch.cuda.synchronize()
        began = time.monotonic()
        for _ in range(10):
            step()
        torch.cuda.synchronize()
        took.append((time.monotonic() - began) * 100)
    return statistics.median(took)


def our_ms(args, name, precision):
    out = subprocess.run([args.bench, name, str(BATCH), precision, str(args.seconds)], capture_output=True, text=True,
                         env=entries.carried())
    if out.returncode != 0:
        raise RuntimeError((out.stderr.strip() or out.stdout.strip())[-300:])
    return json.loads(out.stdout.splitlines()[-1])


def one(args, name, precision):
    ways = torch_ways(name, precision)
    ours, theirs = [], {way: [] for way in ways}
    for _ in range(args.rounds):
        row = our_ms(args, name, precision)
        ours.append(row["ms"])
        for way, step in ways.items():
            theirs[way].append(torch_ms(step, args.seconds))
    best = min(theirs, key=lambda way: statistics.median(theirs[way]), default=None)
    return {"backbone": name, "batch": BATCH, "precision": precision, "ms": round(statistics.median(ours), 3),
            "images_per_second": round(1000 * BATCH / statistics.median(ours), 1), "plan_mb": row["plan_mb"],
            "torch": best, "torch_ms": round(statistics.median(theirs[best]), 3) if best else None,
            "speedup": round(statistics.median(b / a for a, b in zip(ours, theirs[best])), 3) if best else None,
            "all_torch_ms": {w: round(statistics.median(v), 3) for w, v in theirs.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", required=True)
    parser.add_argument("--only", nargs="+", choices=NETS, default=NETS)
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--json", help="write the rows there")
    args = parser.parse_args()
    rows, bad = [], 0
    for precision in args.precision:
        for name in args.only:
            try:
                row = one(args, name, precision)
                print("ok - %s %s: a step of %d in %.2f ms (%.0f images/s), PyTorch %s (%s), speedup %s" %
                      (name, precision, BATCH, row["ms"], row["images_per_second"], row["torch_ms"], row["torch"],
                       row["speedup"]), flush=True)
            except (RuntimeError, ValueError, OSError, ImportError) as e:
                row, bad = {"backbone": name, "precision": precision, "error": str(e)[:300]}, bad + 1
                print(f"not ok - {name} {precision}: {str(e)[:200]}", flush=True)
            rows.append(row)
            if args.json:
                with open(args.json, "w") as f:
                    json.dump(rows, f, indent=1)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
