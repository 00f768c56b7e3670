#!/usr/bin/python3
"""Compare a training step of the CPU backend with PyTorch's: forward, backward, Adam, in fp32 or bf16.

As compare.py, whose child process and rules this borrows: both take turns in
one session, and the ratios are what to read.  PyTorch trains channels_last,
with a tuned malloc and as many threads; its bf16 is autocast.  On a machine
that is busy with other work compare CPU time with --threads 1 (cpu_ratio).

    tests/bench/compare_train.py resnet18 densenet121 [--batch 32] [--rounds 3]

Needs python3-torch and python3-torchvision, and build/t/bench/bench_train
(make -f mk/engine.mk build/t/bench/bench_train).
"""
import argparse
import json
import os
import subprocess
import sys

import compare


def torch_child(backbone, batch, threads, precision):
    """Build the network, then time its steps when asked."""
    import torch

    torch.set_num_threads(threads)
    net = compare.torch_net(backbone, num_classes=2).train()
    net = net.to(memory_format=torch.channels_last)
    side = compare.side_of(backbone)
    x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    y = torch.arange(batch) % 2
    adam = torch.optim.Adam(net.parameters(), lr=1e-4, weight_decay=1e-3)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(net(x), y)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()

    step()
    compare.take_turns(step, batch)


def ours(backbone, args):
    command = [os.path.join(compare.TOP, "build/t/bench/bench_train"), backbone, str(args.batch), str(args.threads),
               str(args.seconds), args.precision]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        torch_child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
        return
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("backbone", nargs="+")
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=5)
    args = p.parse_args()
    for backbone in args.backbone:
        row = {"backbone": backbone, "batch": args.batch, "threads": args.threads, "peer_precision": args.precision}
        child = [sys.executable, __file__, "--child", backbone, str(args.batch), str(args.threads), args.precision]
        print(json.dumps(compare.compare(row, lambda: ours(backbone, args), {"torch": lambda: compare.Peer(child)}, args)), flush=True)


if __name__ == "__main__":
    main()
