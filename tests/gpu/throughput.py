#!/usr/bin/env python3
"""Part 6 of run.sh: images per second of the tri-branch net beside PyTorch, in alternation.

Networks and batches: DenseNet-121, DenseNet-161, ResNet-50, EfficientNet-b0, ViT-b16 at 1, 8, 64.  PyTorch gets
half precision, channels_last, no_grad and torch.compile: max-autotune for DenseNet-121 at 64, the mode with
CUDA graphs elsewhere; and the better of two ways to run three branches: one after the other in one compiled
graph, or their weights stacked and one vmapped network.  Pixels are on the device already for PyTorch, which
favours it; ours uploads them, one batch after the other, and once with two batches in flight as the engine has
them (--overlap).  Read ratios, which are medians over the rounds of the ratio within one round.

The share of the roofline is images/s over the bound of max(compute, memory) summed over the layers, as computed
in the reference for 800 TFLOP/s and 3 TB/s.

    throughput.py --engine dfx-engine [--rounds 5] [--seconds 2] [ENTRY...]

An entry is NETWORK or NETWORK:BATCH, by default all of them. They share the time (entries.py), and PyTorch's compiler
takes minutes for the larger ones: name a few to have them complete. Ours comes first and is printed in any case.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import entries

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "golden"))

# images/s of three branches at 800 TFLOP/s and 3 TB/s
ROOFLINE = {"densenet121": 17000, "densenet161": 8900, "resnet50": 12100, "efficientnet_b0": 27500, "vit_b_16": 6400}
BATCHES = (1, 8, 64)


def torch_ways(name, batch):
    """Label -> function that runs one batch; a way that cannot be built is reported and left out."""
    import torch
    import make_nets

    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    mode = "max-autotune" if (name, batch) == ("densenet121", 64) else "reduce-overhead"
    half = {"device": "cuda", "dtype": torch.float16, "memory_format": torch.channels_last}
    side = make_nets.side(name)
    x = torch.rand(batch, 3, side, side).to(**half)
    net = make_nets.TriNet(name, 1)
    make_nets.fill(net, 1)
    net = net.eval().to(**half)

    def sequential():
        return torch.compile(net, mode=mode)

    def stacked():
        import copy
        branches = [net.dm, net.gan, net.real]
        params, buffers = torch.func.stack_module_state(branches)
        skeleton = copy.deepcopy(branches[0]).to("meta")

        def one(p, b, image):
            return torch.func.functional_call(skeleton, (p, b), (image,))

        def run(image):
            features = torch.vmap(one, in_dims=(0, 0, None))(params, buffers, image)
            return net.head(features.transpose(0, 1))
        return torch.compile(run, mode=mode)

    ways = {}
    for build in (sequential, stacked):
        start = time.monotonic()
        try:
            run = build()
            for _ in range(5):
                run(x)
            torch.cuda.synchronize()
            ways[f"{build.__name__}, {mode}"] = lambda run=run: run(x)
        except Exception as e:  # whatever the compiler throws: the other way still counts
            print(f"# PyTorch {build.__name__}: {type(e).__name__}: {str(e)[:200]}", file=sys.stderr)
        print(f"# PyTorch {build.__name__}: ready after {time.monotonic() - start:.0f} s", file=sys.stderr)
    return ways


def torch_rate(run, batch, seconds):
    import torch

    took, end = [], time.monotonic() + seconds
    while len(took) < 5 or time.monotonic() < end:
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        run()
        b.record()
        b.synchronize()
        took.append(a.elapsed_time(b))
    return 1000 * batch / statistics.median(took)


def our_rate(engine, device, name, batch):
    out = subprocess.run([engine, "bench", "--backbone", name, "--branches", "3", "--batch", str(batch), "--head-stride", "1",
                          "--device", device, "--json"], capture_output=True, text=True)
    if out.returncode != 0:
        raise RuntimeError(out.stderr.strip()[-300:])
    return json.loads(out.stdout)


def overlapped_rate(bench, name, batch):
    out = subprocess.run([bench, name, "3", str(batch), "4"], capture_output=True, text=True, env=entries.carried())
    if out.returncode != 0:
        raise RuntimeError((out.stderr.strip() or out.stdout.strip())[-300:])
    return json.loads(out.stdout.splitlines()[-1])["all"]


def summary(name, row, ours, theirs):
    best = max(theirs, key=lambda way: statistics.median(theirs[way]), default=None)
    rate = statistics.median(ours)
    return {
        "precision": row["precision"], "device": row["device"],
        "images_per_second": round(rate, 1), "median_ms": row["median_ms"], "roofline_share": round(rate / ROOFLINE[name], 3),
        "torch": best, "torch_images_per_second": round(statistics.median(theirs[best]), 1) if best else None,
        "ratio": round(statistics.median(a / b for a, b in zip(ours, theirs[best])), 3) if best else None,
        "all_torch": {w: round(statistics.median(v), 1) for w, v in theirs.items()}}


def one(args, name, batch):
    """The child: one network and batch; a line of JSON after ours alone and after each round."""
    row = our_rate(args.engine, args.device, name, batch)
    print(json.dumps(summary(name, row, [row["images_per_second"]], {})), flush=True)
    if args.overlap and args.device != "cpu":
        print(json.dumps({"overlapped_images_per_second": overlapped_rate(args.overlap, name, batch)}), flush=True)
    ways = torch_ways(name, batch) if args.device != "cpu" else {}
    if args.device != "cpu" and not ways:
        raise RuntimeError("PyTorch runs it in no way")
    ours, theirs = [], {way: [] for way in ways}
    for _ in range(args.rounds):
        row = our_rate(args.engine, args.device, name, batch)
        ours.append(row["images_per_second"])
        for way, run in ways.items():
            theirs[way].append(torch_rate(run, batch, args.seconds))
        print(json.dumps(summary(name, row, ours, theirs)), flush=True)


def show(row):
    return ("%s batch %d: %.0f images/s, two batches in flight %s, PyTorch %s (%s), ratio %s, roofline %.2f" %
            (row["backbone"], row["batch"], row["images_per_second"], row.get("overlapped_images_per_second"),
             row["torch_images_per_second"], row["torch"], row["ratio"], row["roofline_share"])), True


def parse(text):
    """What an ENTRY stands for."""
    name, _, batch = text.partition(":")
    if name not in ROOFLINE or (batch and not (batch.isdigit() and 1 <= int(batch) <= 128)):
        raise argparse.ArgumentTypeError(f"{text}: not one of {', '.join(ROOFLINE)}, nor with :BATCH of 1 to 128")
    return [{"backbone": name, "batch": b} for b in ([int(batch)] if batch else sorted(BATCHES, reverse=True))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", type=parse, metavar="ENTRY")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--overlap", help="the program bench_overlap")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--limit", type=float, default=450, help="seconds for everything")
    parser.add_argument("--json", help="write the rows there")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    todo = [e for group in args.entries for e in group] or \
        [{"backbone": n, "batch": b} for b in sorted(BATCHES, reverse=True) for n in ROOFLINE]
    if args.child:
        try:
            one(args, todo[0]["backbone"], todo[0]["batch"])
        except RuntimeError as e:
            print(json.dumps({"error": str(e)}))
            sys.exit(1)
        return

    def label(entry):
        return "%s:%d" % (entry["backbone"], entry["batch"])

    def command(entry):
        return [sys.executable, __file__, "--child", "--engine", args.engine, "--device", args.device,
                *(["--overlap", args.overlap] if args.overlap else []),
                "--rounds", str(args.rounds), "--seconds", str(args.seconds), label(entry)]

    # Fewer rounds than wanted are enough.
    sys.exit(1 if entries.run(todo, args.limit, command, label, show, args.json,
                              enough=lambda row: row.get("ratio") is not None) else 0)


if __name__ == "__main__":
    main()
