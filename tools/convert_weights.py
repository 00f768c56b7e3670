#!/usr/bin/env python3
"""Weights of PyTorch (.pt, .pth) as a safetensors file that dfx_import_model() and dfx_import_backbone() read.

    convert_weights.py [--mean M --std S] WEIGHTS.pt OUT.safetensors

Runs anywhere where PyTorch (1.13 or later) is; deepfeaturex itself is not needed, nor any other package.  The file is
read with weights_only=True: nothing in it is executed.  See docs/WEIGHTS.md.

Names stay as they are, but for two things that a checkpoint may have and the importer does not take:
"module." of DataParallel is dropped, and NVIDIA's EfficientNet (torch.hub "nvidia_efficientnet_b0", "..._b4"; also in
the three branches of the authors' complete checkpoints) gets torchvision's names.  NVIDIA's BatchNorm adds 1e-3 to the
variance where torchvision's adds 1e-5; the difference goes into the variances, so that the network computes the same.
"""
import argparse
import inspect
import json
import re
import struct
import sys

import torch

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}

# NVIDIA's parts of a block: first those of the first stage, which has no expansion, then the others'.
NVIDIA_PART = ({"depsep": "0", "se": "1", "proj": "2"}, {"expand": "0", "depsep": "1", "se": "2", "proj": "3"})
NVIDIA_LEAF = {"conv": "0", "bn": "1", "squeeze": "fc1", "expand": "fc2"}
NVIDIA_EPS, TORCHVISION_EPS = 1e-3, 1e-5


def load(path):
    if "weights_only" not in inspect.signature(torch.load).parameters:
        sys.exit("convert_weights.py: this PyTorch cannot load weights without executing what is in the file; "
                 "use 1.13 or later")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:
        sys.exit(f"convert_weights.py: {path}: {e}\n"
                 "convert_weights.py: if the file holds a whole model rather than its state_dict(), load it where you "
                 "trust it and have its code, and save model.state_dict()")
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(t) for t in state.values()):
        sys.exit(f"convert_weights.py: {path} holds no state_dict: names and tensors, nothing else")
    return {name.removeprefix("module."): t for name, t in state.items()}


def from_nvidia(name, t):
    """One tensor of NVIDIA's EfficientNet, without a branch's prefix."""
    name = re.sub(r"^layer(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.", name)  # their first release
    if name.endswith("running_var"):
        t = (t.double() + (NVIDIA_EPS - TORCHVISION_EPS)).to(t.dtype)
    block = re.match(r"layers\.(\d+)\.block(\d+)\.(\w+)\.(\w+)\.(\w+)$", name)
    outer = re.match(r"(stem|features)\.(conv|bn)\.(\w+)$", name)
    if block:
        stage, number, part, leaf, what = block.groups()
        name = f"features.{int(stage) + 1}.{number}.block.{NVIDIA_PART[stage != '0'][part]}.{NVIDIA_LEAF[leaf]}.{what}"
        if part == "se" and what == "weight" and t.dim() == 2:
            t = t[:, :, None, None]
    elif outer:
        name = f"features.{'0' if outer[1] == 'stem' else '8'}.{NVIDIA_LEAF[outer[2]]}.{outer[3]}"
    elif name.startswith("classifier.fc."):
        name = name.replace("fc", "1")
    return name, t


def rename(state):
    nvidia = {re.match(r"(model[123]\.)?", n)[0] for n in state if re.match(r"(model[123]\.)?stem\.conv\.weight$", n)}
    renamed = {}
    for name, t in state.items():
        prefix = re.match(r"(model[123]\.)?", name)[0]
        if prefix in nvidia and not name.startswith("convs."):
            name, t = from_nvidia(name[len(prefix):], t)
            name = prefix + name
        if name in renamed:
            sys.exit(f"convert_weights.py: {name} is there twice, under two names")
        renamed[name] = t
    return renamed


def fold_normalisation(state, mean, std):
    """A ViT trained on (x - mean) / std, as one on ImageNet's: exact, because its patches have no padding."""
    patches = [n for n in state if re.search(r"(^|\.)(patch_embed\.proj|conv_proj)\.weight$", n)]
    if not patches:
        sys.exit("convert_weights.py: --mean and --std are for ViT only; other networks pad the normalised image")
    ours_mean, ours_std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    for name in patches:
        bias = name[:-len("weight")] + "bias"
        w, b = state[name].double(), state[bias].double()
        state[bias] = (b + (w.sum((2, 3)) * ((ours_mean - mean) / std)).sum(1)).to(state[bias].dtype)
        state[name] = (w * (ours_std / std)[None, :, None, None]).to(state[name].dtype)


def save(state, path):
    """https://huggingface.co/docs/safetensors: length of the header, the header as JSON, the data."""
    header, end = {}, 0
    for name in sorted(state):
        t = state[name] = state[name].float() if state[name].dtype == torch.float64 else state[name]
        if t.dtype not in DTYPES:
            sys.exit(f"convert_weights.py: {name} is of type {t.dtype}")
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape),
                        "data_offsets": [end, end := end + t.numel() * t.element_size()]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in header:
            t = state[name].contiguous()
            f.write((t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy().tobytes())


def main():
    parser = argparse.ArgumentParser(description="PyTorch weights to safetensors, for deepfeaturex")
    parser.add_argument("weights")
    parser.add_argument("out")
    parser.add_argument("--mean", type=float, help="of every channel, of a ViT that was not trained with ImageNet's")
    parser.add_argument("--std", type=float)
    a = parser.parse_args()
    if (a.mean is None) != (a.std is None):
        parser.error("--mean and --std go together")
    state = rename(load(a.weights))
    if a.mean is not None:
        fold_normalisation(state, a.mean, a.std)
    save(state, a.out)


if __name__ == "__main__":
    main()
