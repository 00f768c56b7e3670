#!/usr/bin/python3
"""The PyTorch half of test_convert.sh: makes checkpoints as the world has them, and what they compute.

    convert_models.py DIRECTORY

Writes NAME.pt and NAME.json (backbone, side, pixels, logits); all weights are random.
"""
import functools
import json
import os
import sys

import torch
import torchvision

OUT = sys.argv[1]


def randomise(model, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name.endswith("running_var"):
                t.uniform_(0.001, 0.01)  # so small that an eps of 1e-3 shows
            elif t.is_floating_point() and t.dim() > 1:
                t.normal_(0, 0.5 / (t[0].numel() ** 0.5))
            elif t.is_floating_point():
                t.uniform_(-0.05, 0.1)
    return model.eval()


def write(name, backbone, model, state, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)):
    """The image is flat in each of four quarters, so that decoding and resizing cannot make a difference."""
    side = 224 if backbone.startswith("vit") else 256
    pixels = torch.zeros(256, 256, 3, dtype=torch.uint8)
    for i, colour in enumerate(((200, 30, 90), (20, 160, 250), (0, 0, 0), (130, 255, 64))):
        pixels[128 * (i // 2):128 * (i // 2) + 128, 128 * (i % 2):128 * (i % 2) + 128] = torch.tensor(colour)
    edge = (256 - side) // 2
    x = pixels[edge:edge + side, edge:edge + side].permute(2, 0, 1)[None].double() / 255
    x = (x - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[:, None, None]
    with torch.no_grad():
        logits = model.double()(x)[0].tolist()
    torchvision.io.write_png(pixels.permute(2, 0, 1), os.path.join(OUT, "image.png"))
    torch.save(state, os.path.join(OUT, name + ".pt"))
    with open(os.path.join(OUT, name + ".json"), "w") as f:
        json.dump({"backbone": backbone, "logits": logits}, f)


def clone(model):
    return {n: t.clone() for n, t in model.state_dict().items()}


def nvidia_names(state):
    """torchvision's names of EfficientNet b0 as torch.hub's nvidia_efficientnet_b0 has them."""
    leaf = {"0": "conv", "1": "bn", "fc1": "squeeze", "fc2": "expand"}
    renamed = {}
    for name, t in state.items():
        words = name.split(".")
        if words[0] == "classifier":
            words = ["classifier", "fc", words[2]]
        elif words[1] in ("0", "8"):
            words = ["stem" if words[1] == "0" else "features", leaf[words[2]], words[3]]
        else:
            parts = ["depsep", "se", "proj"] if words[1] == "1" else ["expand", "depsep", "se", "proj"]
            words = ["layers", str(int(words[1]) - 1), "block" + words[2], parts[int(words[4])], leaf[words[5]], words[6]]
            if "se" in words and words[-1] == "weight":
                t = t.flatten(1)  # their later releases have linear layers there
        renamed[".".join(words)] = t
    return renamed


def main():
    models = torchvision.models
    m = randomise(models.resnet18(num_classes=10), 1)
    write("plain", "resnet18", m, clone(m))
    write("wrapped", "resnet18", m, {"epoch": 3, "state_dict": {"module." + n: t for n, t in clone(m.float()).items()}})

    m = randomise(models.efficientnet_b0(norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=1e-3)), 2)
    write("nvidia", "efficientnet_b0", m, nvidia_names(clone(m)))

    branch = {"stem.conv.weight": torch.ones(1), "stem.bn.running_var": torch.ones(1), "layer7.block0.se.expand.weight": torch.ones(2, 1),
              "classifier.fc.bias": torch.ones(1)}  # "layer7": as their first release has it
    torch.save({**{f"model{i}.{n}": t for i in (1, 2, 3) for n, t in branch.items()}, "convs.0.weight": torch.ones(1),
                "classifier.0.bias": torch.ones(1)}, os.path.join(OUT, "authors.pt"))

    m = randomise(models.vit_b_32(num_classes=10), 3)
    write("half", "vit_b_32", m, clone(m), (0.5,) * 3, (0.5,) * 3)

    # A file that runs code when it is unpickled, and one that holds something else
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {OUT}/evil_was_run",)
    torch.save({"conv1.weight": Evil()}, os.path.join(OUT, "evil.pt"))
    torch.save([1, 2], os.path.join(OUT, "list.pt"))

    # Every type, alignment and order; its bytes are tests/golden/names/converted.safetensors
    torch.save({"b": torch.arange(3, dtype=torch.float16) / 4, "a.weight": torch.arange(6.0).reshape(2, 3).t(),
                "c": torch.tensor([1.5, -2], dtype=torch.bfloat16), "count": torch.tensor(7),
                "d": torch.tensor([[0.1]], dtype=torch.float64)}, os.path.join(OUT, "types.pt"))


main()
