#!/usr/bin/python3
"""Golden outputs of whole networks, from PyTorch and torchvision.

Fills torchvision's models by the formula of DESIGN 8 (docs/ARCHITECTURE.md),
runs them in evaluation mode in float64, and writes tests/golden/nets:

    keys.txt          per network: how many parameters, and a hash of their names and shapes
    weights.txt       single elements of the formula, as float bits
    <network>.txt     features and logits per seed and image, thinned
    trinet_<network>_s<stride>.txt

    make_nets.py [--only NAME]... [keys | outputs]      (default: both)

Inputs are 256 x 256 x 3 uint8: pattern:0 to 2 by a formula (pattern() below, and
golden_pattern() in tests/unit/golden_net.h), and three encoded files of
tests/golden/images, decoded and resized as METHOD "Preprocessing" says; a ViT
sees the middle 224 x 224.
Only every step-th number is kept, with norm, largest magnitude and minimum of all.
"""
import argparse
import os

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "nets")
PHI = np.uint64(0x9E3779B97F4A7C15)
MASK = (1 << 64) - 1
SEEDS = (1, 20240415)
FILES = ("photo-420-q90.jpg", "photo-progressive.jpg", "png-c2-b8.png")
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


# ---- the formula ----

def fnv1a(text):
    """The standard 64-bit hash of text (as UTF-8) or bytes."""
    h = 0xCBF29CE484222325
    for byte in text if isinstance(text, bytes) else text.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(seed, name, n):
    """n numbers in [-1, 1) as DESIGN 8 draws them for the parameter of this name."""
    start = np.uint64((seed & MASK) ^ fnv1a(name))
    with np.errstate(over="ignore"):
        z = mix(start + np.arange(n, dtype=np.uint64) * PHI)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0 ** -53 * 2 - 1


def values(seed, name, shape, norm):
    """The float32 array of a parameter; norm: it belongs to a BatchNorm or LayerNorm."""
    leaf = name.rsplit(".", 1)[-1]
    u = uniform(seed, name, int(np.prod(shape)))
    if leaf == "running_var":
        u = 1 + 0.2 * u
    elif leaf in ("running_mean", "bias", "in_proj_bias"):
        u = 0.05 * u
    elif leaf in ("class_token", "pos_embedding"):
        u = 0.02 * u
    elif norm:
        u = 0.7 + 0.1 * u
    else:
        u = u * np.sqrt(6.0 / np.prod(shape[1:]))
    return u.astype(np.float32).reshape(shape)


def parameters(model):
    """(name, tensor, norm) of everything that has weights, num_batches_tracked left out."""
    norms = {n for n, m in model.named_modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm))}
    for name, t in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            yield name, t, name.rsplit(".", 1)[0] in norms


def fill(model, seed):
    for name, t, norm in parameters(model):
        t.copy_(torch.from_numpy(values(seed, name, tuple(t.shape), norm)))


# ---- the networks ----

def resnext101_32x4d(**kw):
    return torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 23, 3], groups=32,
                                            width_per_group=4, **kw)


BACKBONES = {n: getattr(torchvision.models, n) for n in
             ("densenet121", "densenet161", "densenet169", "densenet201", "efficientnet_b0", "efficientnet_b4",
              "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext101_32x8d", "vit_b_16", "vit_b_32")}
BACKBONES["resnext101_32x4d"] = resnext101_32x4d
TRINETS = (("densenet121", 1), ("efficientnet_b0", 1), ("resnet18", 1), ("resnet18", 2), ("resnext101_32x4d", 2),
           ("vit_b_32", 2))


def side(backbone):
    """Pixels a side: 256, of which a ViT sees the middle."""
    return 224 if backbone.startswith("vit") else 256


def classifier_name(model):
    return next(name for name in ("classifier", "fc", "heads") if hasattr(model, name))


def split(model):
    """Take the classifier off: the model then gives its features."""
    name = classifier_name(model)
    last = getattr(model, name)
    setattr(model, name, nn.Identity())
    return last


class Head(nn.Module):
    """METHOD "Complete model": convolution, ReLU, BatchNorm; the last without BatchNorm."""

    def __init__(self, stride):
        super().__init__()
        layers, cin = [], 3
        for i, (cout, k) in enumerate(((16, 7), (64, 5), (256, 3), (512, 3), (1024, 3))):
            layers += [nn.Conv1d(cin, cout, k, stride if i < 2 else 1, padding=1), nn.ReLU()]
            if i < 4:
                layers.append(nn.BatchNorm1d(cout))
            cin = cout
        self.convs = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(1024, 3))

    def forward(self, x):
        return self.classifier(self.convs(x).mean(dim=2))


class TriNet(nn.Module):
    def __init__(self, backbone, stride):
        super().__init__()
        self.dm, self.gan, self.real = (BACKBONES[backbone]() for _ in range(3))
        for branch in (self.dm, self.gan, self.real):
            split(branch)
        self.head = Head(stride)

    def forward(self, x):
        features = torch.stack([self.dm(x), self.gan(x), self.real(x)], dim=1)
        return features.flatten(1), self.head(features)


class Backbone(nn.Module):
    """Features and logits at once, with the parameters named as torchvision names them."""

    def __init__(self, name):
        super().__init__()
        self.body = BACKBONES[name]()

    def fill(self, seed):
        fill(self.body, seed)
        self.body.eval()

    def forward(self, x):
        name = classifier_name(self.body)
        last = split(self.body)
        features = self.body(x)
        setattr(self.body, name, last)
        return features, last(features)


# ---- the inputs ----

def pattern(k):
    """Image k: a coarse random lattice, interpolated in integers; k = 1 adds fine noise, k = 2 is all noise."""
    i = np.arange(256 * 256 * 3, dtype=np.uint64)
    with np.errstate(over="ignore"):
        noise = (mix(np.uint64(7000 + k) + i * PHI) >> np.uint64(56)).astype(np.int64).reshape(256, 256, 3)
        lattice = (mix(np.uint64(9000 + k) + np.arange(9 * 9 * 3, dtype=np.uint64) * PHI) >> np.uint64(56))
    lattice = lattice.astype(np.int64).reshape(9, 9, 3)
    if k == 2:
        return noise.astype(np.uint8)
    at, frac = np.arange(256) // 32, np.arange(256) % 32
    fy, fx = frac[:, None, None], frac[None, :, None]
    y0, x0 = at[:, None], at[None, :]
    v = (lattice[y0, x0] * (32 - fy) * (32 - fx) + lattice[y0, x0 + 1] * (32 - fy) * fx +
         lattice[y0 + 1, x0] * fy * (32 - fx) + lattice[y0 + 1, x0 + 1] * fy * fx) >> 10
    if k == 1:
        v = (v * 7 + noise) >> 3
    return v.astype(np.uint8)


def decoded(name):
    with Image.open(os.path.join(HERE, "images", name)) as im:
        return np.asarray(im.convert("RGB").resize((256, 256), Image.BILINEAR))


def images(seed):
    for k in range(3):
        yield "pattern:%d" % k, pattern(k)
    if seed == SEEDS[0]:
        for name in FILES:
            yield name, decoded(name)


def batch(pixels, size):
    margin = (256 - size) // 2
    x = pixels[margin:margin + size, margin:margin + size].astype(np.float64) / 255
    x = (x - MEAN.astype(np.float64)) / STD.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None]


# ---- the files ----

def write_vector(f, name, v, step):
    f.write("%s %d %d %.9g %.9g %.9g\n" % (name, len(v), step, np.sqrt((v * v).sum()), np.abs(v).max(), v.min()))
    f.write(" ".join("%.9g" % a for a in v[::step]) + "\n")


def outputs(path, model, fill_model, size, feature_step, logit_step):
    with open(path + ".new", "w") as f:
        f.write("# make_nets.py: case SEED IMAGE, FNV-1a of its pixels; "
                "name, length, step, L2 norm, max |x|, min; every step-th number\n")
        for seed in SEEDS:
            model.float()
            fill_model(seed)
            model.double().eval()
            for name, pixels in images(seed):
                features, logits = (t[0].numpy() for t in model(batch(pixels, size)))
                f.write("case %d %s %016x\n" % (seed, name, fnv1a(pixels.tobytes())))
                write_vector(f, "features", features, feature_step)
                write_vector(f, "logits", logits, logit_step)
                f.flush()
    os.rename(path + ".new", path)


def keys(names):
    """One line a network; the hash is FNV-1a over "name dim,dim,...\n" in byte order of name."""
    with open(os.path.join(OUT, "keys.txt"), "w") as f:
        f.write("# make_nets.py: network, parameters, FNV-1a of the sorted lines \"name d0,d1,...\\n\"\n")
        for name in names:
            lines = sorted("%s %s\n" % (n, ",".join(map(str, t.shape))) for n, t, _ in parameters(BACKBONES[name]()))
            f.write("%s %d %016x\n" % (name, len(lines), fnv1a("".join(lines))))
        lines = sorted("%s %s\n" % (n, ",".join(map(str, t.shape))) for n, t, _ in parameters(TriNet("resnet18", 1)))
        f.write("trinet:resnet18 %d %016x\n" % (len(lines), fnv1a("".join(lines))))
    with open(os.path.join(OUT, "weights.txt"), "w") as f:
        f.write("# make_nets.py: trinet of resnet18: seed, parameter, element, float bits\n")
        model = TriNet("resnet18", 1)
        for seed in (0, 1, SEEDS[1], MASK):
            for name, t, norm in parameters(model):
                if fnv1a(name) % 4 == seed % 4 or "head" in name:
                    v = values(seed, name, tuple(t.shape), norm).reshape(-1).view(np.uint32)
                    i = fnv1a(name) % len(v)
                    f.write("%d %s %d %08x\n" % (seed, name, i, v[i]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="?", choices=("keys", "outputs", "all"), default="all")
    parser.add_argument("--only", action="append", help="these networks (trinets: trinet_NAME_sSTRIDE)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    os.makedirs(OUT, exist_ok=True)
    if args.what != "outputs":
        keys(BACKBONES)
    if args.what == "keys":
        return
    for name in BACKBONES:
        if not args.only or name in args.only:
            model = Backbone(name)
            outputs(os.path.join(OUT, name + ".txt"), model, model.fill, side(name), 32, 32)
    for name, stride in TRINETS:
        label = "trinet_%s_s%d" % (name, stride)
        if not args.only or label in args.only:
            model = TriNet(name, stride)
            outputs(os.path.join(OUT, label + ".txt"), model, lambda seed, m=model: fill(m, seed), side(name),
                    64, 1)


if __name__ == "__main__":
    main()
