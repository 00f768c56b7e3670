#!/usr/bin/python3
"""Compare the engine with PyTorch and ONNX Runtime: forward pass only, one backbone, random weights.

All take turns in one session, a few seconds each, because a shared machine's
speed drifts: read the ratios, which are medians over the rounds of the ratio
within one round.  On a machine that is busy with other work, wall time punishes
threads that spin while they wait for each other, as OpenMP's do; there compare
CPU time with --program bench_net --threads 1 (cpu_ratio).

Every peer gets what helps it: as many threads, a malloc tuned not to give memory
back, for PyTorch channels_last, no_grad and its graph optimisers, for ONNX
Runtime all optimisations; and its own best batch, when several are given.  A
peer's process waits between turns without using the CPU.

    peer           precision  what it is
    torch:eager    fp32       PyTorch as it comes
    torch:freeze   fp32       traced and frozen
    torch:ofi      fp32       and torch.jit.optimize_for_inference
    onnx           fp32       ONNX Runtime's CPU provider, from PyTorch's own export
    torch:autocast bf16       traced under torch.autocast and frozen
    torch:mkldnn   bf16       torch.utils.mkldnn.to_mkldnn
    onnx:int8      int8       statically quantised: QDQ, u8 activations, s8 weights by channel, random calibration

    tests/bench/compare.py densenet121 resnet50 [--precision fp32] [--batch 1,8,32] [--rounds 3] [--peers onnx]

PyTorch is Debian's (python3-torch, python3-torchvision); for ViTs it also needs
OpenBLAS (libopenblas0), or it crawls.  ONNX Runtime comes from PyPI:

    python3 -m venv build/onnx && build/onnx/bin/pip install onnxruntime onnx sympy

A peer that is not there is named on stderr and in the output, as is whoever fails.

The share of the peak is the network's arithmetic at our speed over what the cores
can do (build/t/bench/bench_peak, if there is one).  Winograd saves arithmetic
that is counted here, so the share may exceed 1.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# glibc reads these as int and ignores an mmap threshold over 32 MB, so mmap is turned off instead.
TUNED_MALLOC = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(64 << 20),
}

PEERS = {
    "fp32": ("torch:eager", "torch:freeze", "torch:ofi", "onnx"),
    "bf16": ("torch:autocast", "torch:mkldnn"),
    "int8": ("onnx:int8",),
}


class Missing(Exception):
    """A peer that cannot be had here, with the reason."""


# ---- in the children ----


def take_turns(work, batch):
    """Time work for as many seconds as each line of stdin says."""
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


def side_of(backbone):
    return 224 if backbone.startswith("vit") else 256


def torch_net(backbone, **options):
    """torchvision's network, untrained, ready for inference."""
    import torch
    import torchvision
    from torchvision.models import resnet

    torch.manual_seed(1)
    if backbone == "resnext101_32x4d":  # torchvision has the class and not the name
        return resnet.ResNet(resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4, **options).eval()
    return getattr(torchvision.models, backbone)(weights=None, **options).eval()


def torch_child(mode, backbone, batch, threads):
    import contextlib

    import torch

    torch.set_num_threads(threads)
    x = torch.rand(batch, 3, side_of(backbone), side_of(backbone))
    with torch.no_grad(), (
            torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False) if mode == "autocast" else contextlib.nullcontext()):
        net = torch_net(backbone)
        if mode == "mkldnn":
            import torch.utils.mkldnn

            net = torch.utils.mkldnn.to_mkldnn(net, torch.bfloat16)
            x = x.to_mkldnn(torch.bfloat16)
        else:
            net = net.to(memory_format=torch.channels_last)
            x = x.contiguous(memory_format=torch.channels_last)
        if mode in ("freeze", "ofi", "autocast"):
            net = torch.jit.freeze(torch.jit.trace(net, x, check_trace=False))
        if mode == "ofi":
            net = torch.jit.optimize_for_inference(net)
        for _ in range(3):
            net(x)
        take_turns(lambda: net(x), batch)


def export_child(backbone, path):
    """Write the network for ONNX Runtime, for any batch."""
    import torch

    x = torch.rand(1, 3, side_of(backbone), side_of(backbone))
    torch.onnx.export(torch_net(backbone), x, path, opset_version=17, input_names=["image"], output_names=["logits"],
                      dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}})


def quantised(path, side):
    """The file's int8 twin, beside it."""
    import numpy
    from onnxruntime import quantization as q

    class Noise(q.CalibrationDataReader):
        def __init__(self):
            draw = numpy.random.default_rng(1)
            self.left = [{"image": draw.random((1, 3, side, side), numpy.float32)} for _ in range(8)]

        def get_next(self):
            return self.left.pop() if self.left else None

    q.shape_inference.quant_pre_process(path, path + ".pre")
    q.quantize_static(path + ".pre", path + ".int8", Noise(), quant_format=q.QuantFormat.QDQ, per_channel=True,
                      activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8)
    return path + ".int8"


def onnx_child(mode, backbone, batch, threads, path):
    import numpy
    import onnxruntime

    side = side_of(backbone)
    if mode == "int8":
        path = quantised(path, side)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # or it works through the others' turns
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = numpy.random.default_rng(1).random((batch, 3, side, side), numpy.float32)
    for _ in range(3):
        session.run(None, {"image": x})
    take_turns(lambda: session.run(None, {"image": x}), batch)


def child(kind, *args):
    if kind == "export":
        export_child(*args)
        return
    mode, backbone, batch, threads, *rest = args
    run = torch_child if kind == "torch" else onnx_child
    run(mode, backbone, int(batch), int(threads), *rest)


# ---- the peers' processes ----


class Peer:
    """A child process that does its work in turns.  Missing when it does not come to its first."""

    def __init__(self, command):
        said = tempfile.TemporaryFile("w+")  # a pipe would fill up: some libraries have much to say
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True,
                                      env={**os.environ, **TUNED_MALLOC})
        while (line := self.child.stdout.readline()) != "ready\n":
            if line == "":
                said.seek(0)
                raise Missing((said.read().strip().splitlines() or ["it ended"])[-1])

    def turn(self, seconds):
        self.child.stdin.write(f"{seconds}\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        self.child.wait()


def onnx_python():
    """An interpreter that has ONNX Runtime."""
    for python in (os.path.join(TOP, "build", "onnx", "bin", "python"), sys.executable):
        if os.path.exists(python) and subprocess.run([python, "-c", "import onnxruntime"], capture_output=True).returncode == 0:
            return python
    raise Missing("onnxruntime is not installed (see tests/bench/compare.py)")


def start_peer(name, backbone, batch, args, scratch):
    """The process of one peer; Missing."""
    library, _, mode = name.partition(":")
    tail = [mode, backbone, str(batch), str(args.threads)]
    if library == "torch":
        return Peer([sys.executable, __file__, "--child", "torch", *tail])
    python = onnx_python()
    path = os.path.join(scratch, backbone + ".onnx")
    if not os.path.exists(path):
        export = subprocess.run([sys.executable, __file__, "--child", "export", backbone, path], capture_output=True, text=True)
        if export.returncode != 0:
            raise Missing("torch.onnx.export: " + export.stderr.strip().splitlines()[-1])
    return Peer([python, __file__, "--child", "onnx", *tail, path])


# ---- the comparison ----


def engine(backbone, batch, args):
    """One turn of ours: build/dfx-engine, or a program of build/t/bench that also tells CPU time."""
    if args.program == "bench_net":
        command = [os.path.join(TOP, "build/t/bench/bench_net"), backbone, "1", str(batch), str(args.threads), str(args.seconds),
                   args.precision]
    else:
        command = [os.path.join(TOP, "build/dfx-engine"), "bench", "--backbone", backbone, "--branches", "1", "--batch", str(batch),
                   "--threads", str(args.threads), "--precision", args.precision, "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise Missing(run.stderr.strip().splitlines()[-1])
    return json.loads(run.stdout)


def summary(turns):
    """Medians over the rounds."""
    s = {"images_per_second": round(statistics.median(t["images_per_second"] for t in turns), 2),
         "peak_rss_mb": round(max(t["peak_rss_mb"] for t in turns))}
    if all("cpu_ms_per_image" in t for t in turns):
        s["cpu_ms_per_image"] = round(statistics.median(t["cpu_ms_per_image"] for t in turns), 1)
    return s


def against(ours, theirs):
    """A peer's figures, and how much faster we are in each round, at the median."""
    s = summary(theirs)
    s["ratio"] = round(statistics.median(a["images_per_second"] / b["images_per_second"] for a, b in zip(ours, theirs)), 3)
    if "cpu_ms_per_image" in ours[0]:
        s["cpu_ratio"] = round(statistics.median(b["cpu_ms_per_image"] / a["cpu_ms_per_image"] for a, b in zip(ours, theirs)), 3)
    return s


def compare(row, mine, start, args):
    """Fill row by rounds of turns: mine() is one of ours, start[name]() starts a peer.  Whoever is missing is named."""
    row.update(missing={}, load_before=round(os.getloadavg()[0], 2))
    peers = {}
    for name, begin in start.items():
        try:
            peers[name] = begin()
        except Missing as e:
            row["missing"][name] = str(e)
    ours, theirs = [], {name: [] for name in peers}
    try:
        for _ in range(args.rounds):
            ours.append(mine())
            for name, peer in peers.items():
                theirs[name].append(peer.turn(args.seconds))
        row["engine"] = summary(ours)
        row["peers"] = {name: against(ours, turns) for name, turns in theirs.items()}
    except Missing as e:
        row["missing"]["engine"] = str(e)
    for peer in peers.values():
        peer.close()
    row["load_after"] = round(os.getloadavg()[0], 2)
    return row


def peak(precision, threads):
    """What the cores can do in GFLOP/s; None: not measured."""
    program = os.path.join(TOP, "build/t/bench/bench_peak")
    if not os.path.exists(program):
        return None
    found = json.loads(subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout)
    return found.get({"fp32": "fp32_gflops", "bf16": "bf16_gflops", "int8": "int8_gops"}[precision])


def arithmetic():
    """GFLOP an image of each backbone."""
    run = subprocess.run([os.path.join(TOP, "build/dfx-engine"), "backbones", "--json"], check=True, capture_output=True, text=True)
    return {b["name"]: b["gflops"] for b in map(json.loads, run.stdout.splitlines())}


def compare_net(backbone, batch, args, scratch):
    """One network at one batch, as an object for the output."""
    row = {"backbone": backbone, "precision": args.precision, "batch": batch, "threads": args.threads}
    names = PEERS[args.precision] if args.peers is None else args.peers
    start = {name: lambda name=name: start_peer(name, backbone, batch, args, scratch) for name in names}
    compare(row, lambda: engine(backbone, batch, args), start, args)
    limit = peak(args.precision, args.threads)
    if limit and "engine" in row:
        row["peak_gflops"] = limit
        row["engine"]["share_of_peak"] = round(row["engine"]["images_per_second"] * arithmetic()[backbone] / limit, 3)
    return row


def best(rows):
    """Each side's best batch: {name: (images per second, batch)}."""
    found = {}
    for row in rows:
        for name, s in {"engine": row.get("engine"), **row.get("peers", {})}.items():
            if s and s["images_per_second"] > found.get(name, (0, 0))[0]:
                found[name] = (s["images_per_second"], row["batch"])
    return found


def show(rows):
    """The network's lines of the table, on stderr: stdout has the JSON."""
    backbone, precision = rows[0]["backbone"], rows[0]["precision"]
    found = best(rows)
    for name, (speed, batch) in found.items():
        ratio = f"{found['engine'][0] / speed:8.2f}" if name != "engine" and "engine" in found else " " * 8
        share = next(r[name].get("share_of_peak") for r in rows if r["batch"] == batch) if name == "engine" else None
        tail = f"  {share:.0%} of the peak" if share else ""
        print(f"{backbone:18} {precision:5} {name:15} {speed:8.1f} images/s (batch {batch:2}) {ratio}{tail}", file=sys.stderr)
    for name, why in {k: v for row in rows for k, v in row["missing"].items()}.items():
        print(f"{backbone:18} {precision:5} {name:15} missing: {why}", file=sys.stderr)


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(*sys.argv[2:])
        return
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("backbone", nargs="+")
    p.add_argument("--precision", choices=PEERS, default="fp32")
    p.add_argument("--peers", type=lambda s: [p for p in s.split(",") if p],
                   help="of the table above; all of the precision's by default, '' for none")
    p.add_argument("--batch", type=lambda s: [int(n) for n in s.split(",")], default=[8])
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=2)
    p.add_argument("--program", choices=("dfx-engine", "bench_net"), default="dfx-engine",
                   help="what runs our side; bench_net also tells CPU time")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for backbone in args.backbone:
            rows = [compare_net(backbone, batch, args, scratch) for batch in args.batch]
            for row in rows:
                print(json.dumps(row), flush=True)
            show(rows)


if __name__ == "__main__":
    main()
