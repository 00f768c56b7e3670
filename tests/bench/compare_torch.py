#!/usr/bin/python3
"""Compare the CPU backend with PyTorch, forward pass only, fp32.

Both run in one session and take turns, a few seconds each, because a shared
machine's speed drifts: read the ratios, which are medians over the rounds of
the ratio within one round.  On a machine that is busy with other work, wall
time punishes PyTorch's OpenMP threads, which spin while they wait for each
other; there compare CPU time with --threads 1 --mode ofi (cpu_ratio).  Not
with eager: PyTorch 1.13 with one thread leaves oneDNN for a path that takes
more than a second an image.

PyTorch gets what helps it: channels_last, no_grad, as many threads, a malloc
tuned not to give memory back, and (modes "freeze" and "ofi") its graph
optimiser.  Its child process waits between turns without using the CPU.
For the ViTs it also needs OpenBLAS (libopenblas0, or LD_LIBRARY_PATH): on
Debian's default BLAS they crawl.

    tests/bench/compare_torch.py densenet121 resnet50 [--batch 8] [--mode eager] [--rounds 5]

Needs python3-torch and python3-torchvision, and build/t/bench/bench_net
(make -f mk/engine.mk build/t/bench/bench_net).
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

# glibc reads these as int and ignores an mmap threshold over 32 MB, so mmap is turned off instead.
TUNED_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


def take_turns(work, batch):
    """In the child: time work for as many seconds as each line of stdin says."""
    import resource
    import time

    print("ready", flush=True)
    for line in sys.stdin:
        took, cpu = [], []
        end = time.monotonic() + float(line)
        while len(took) < 2 or time.monotonic() < end:
            start, start_cpu = time.monotonic(), time.process_time()
            work()
            took.append(time.monotonic() - start)
            cpu.append(time.process_time() - start_cpu)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"images_per_second": batch / statistics.median(took),
                          "cpu_ms_per_image": 1000 * statistics.median(cpu) / batch,
                          "peak_rss_mb": peak}), flush=True)


def torch_child(backbone, batch, threads, mode):
    """Build the network, then time it when asked."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    with torch.no_grad():
        net = getattr(torchvision.models, backbone)(weights=None).eval()
        net = net.to(memory_format=torch.channels_last)
        side = 224 if backbone.startswith("vit") else 256
        x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
        if mode != "eager":
            net = torch.jit.freeze(torch.jit.trace(net, x))
        if mode == "ofi":
            net = torch.jit.optimize_for_inference(net)
        for _ in range(3):
            net(x)
        take_turns(lambda: net(x), batch)


class Torch:
    """The child process, one turn at a time."""

    def __init__(self, script, backbone, args):
        self.child = subprocess.Popen(
            [sys.executable, script, "--child", backbone, str(args.batch), str(args.threads), args.mode],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **TUNED_MALLOC})
        if self.child.stdout.readline() != "ready\n":
            sys.exit("the PyTorch child did not start")

    def turn(self, seconds):
        self.child.stdin.write(f"{seconds}\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.wait()


def ours(bench, backbone, args):
    command = [bench, backbone, "1", str(args.batch), str(args.threads), str(args.seconds)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(bench, script, run, backbone, args):
    """One network: run(bench, backbone, args) and a child of script take turns."""
    torch = Torch(script, backbone, args)
    a, b = [], []
    for _ in range(args.rounds):
        a.append(run(bench, backbone, args))
        b.append(torch.turn(args.seconds))
    torch.close()
    speed = [[r["images_per_second"] for r in side] for side in (a, b)]
    cpu = [[r["cpu_ms_per_image"] for r in side] for side in (a, b)]
    print(json.dumps({
        "backbone": backbone,
        "batch": args.batch,
        "threads": args.threads,
        "mode": args.mode,
        "images_per_second": round(statistics.median(speed[0]), 1),
        "torch_images_per_second": round(statistics.median(speed[1]), 1),
        "ratio": round(statistics.median(x / y for x, y in zip(*speed)), 2),
        "cpu_ms_per_image": round(statistics.median(cpu[0]), 1),
        "torch_cpu_ms_per_image": round(statistics.median(cpu[1]), 1),
        "cpu_ratio": round(statistics.median(y / x for x, y in zip(*cpu)), 2),
        "peak_rss_mb": round(max(r["peak_rss_mb"] for r in a)),
        "torch_peak_rss_mb": round(max(r["peak_rss_mb"] for r in b)),
    }), flush=True)


def compare_all(program, script, run, args):
    """Every network of the command line, with this program of build/t/bench."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    bench = os.path.join(top, "build", "t", "bench", program)
    if not os.path.exists(bench):
        sys.exit(f"{bench} is missing: make -f mk/engine.mk build/t/bench/{program}")
    for backbone in args.backbone:
        compare(bench, script, run, backbone, args)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        torch_child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        return
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("backbone", nargs="+")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--mode", choices=["eager", "freeze", "ofi"], default="eager")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=2)
    args = p.parse_args()
    compare_all("bench_net", __file__, ours, args)


if __name__ == "__main__":
    main()
