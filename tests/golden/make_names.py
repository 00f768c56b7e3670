#!/usr/bin/python3
"""Tensor names of timm's networks beside torchvision's, from the libraries themselves.

Writes tests/golden/names/<torchvision's name>.txt: per tensor timm's name, torchvision's, the shape.
The two libraries list a network's tensors in the same order (but for a ViT's patches and positions), so pairing needs
no rule that could be wrong in the same way as ours.  That the networks compute the same is checked on the way: both,
with the same random weights, in float64, over the same image.

Needs timm beside Debian's PyTorch (0.9.16 was used), which Debian does not have: without it nothing is written.
"""
import os
import sys

import torch
import torchvision

PAIRS = {"efficientnet_b0": "efficientnet_b0", "efficientnet_b4": "efficientnet_b4",
         "vit_b_16": "vit_base_patch16_224", "vit_b_32": "vit_base_patch32_224"}
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "names")


def keys(model):
    names = [n for n in model.state_dict() if not n.endswith("num_batches_tracked")]
    if "pos_embed" in names:
        names.remove("pos_embed")
        names.insert(names.index("patch_embed.proj.bias") + 1, "pos_embed")
    return names


def randomise(model):
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name.endswith("running_var"):
                t.uniform_(0.5, 1.5)
            elif t.is_floating_point() and t.dim() > 1:
                t.normal_(0, 1.5 / (t[0].numel() ** 0.5))
            elif t.is_floating_point():
                t.uniform_(-0.5, 1)


def main():
    try:
        import timm
    except ImportError:
        print("make_names.py: no timm here; tests/golden/names stays as it is", file=sys.stderr)
        return
    os.makedirs(OUT, exist_ok=True)
    torch.manual_seed(1)
    for ours, theirs in PAIRS.items():
        a = getattr(torchvision.models, ours)().double().eval()
        b = timm.create_model(theirs).double().eval()
        randomise(b)
        pairs = list(zip(keys(b), keys(a)))
        state = b.state_dict()
        assert len(keys(a)) == len(keys(b))
        assert all(state[t].shape == a.state_dict()[o].shape for t, o in pairs), ours
        a.load_state_dict({o: state[t] for t, o in pairs}, strict=False)
        x = torch.rand(2, 3, *([224, 224] if ours.startswith("vit") else [256, 256])).double()
        with torch.no_grad():
            want, got = a(x), b(x)
        worst = ((want - got).abs().max() / want.abs().max()).item()
        print(f"{ours}: {len(pairs)} tensors, logits differ by {worst:.1e}")
        assert worst < 1e-12, ours
        with open(os.path.join(OUT, ours + ".txt"), "w") as f:
            f.write(f"# timm {theirs}, torchvision {ours}, shape; made by make_names.py\n")
            for t, o in pairs:
                f.write(f"{t} {o} {','.join(map(str, state[t].shape))}\n")


if __name__ == "__main__":
    main()
