#!/usr/bin/python3
"""Golden gradients and training steps, from PyTorch and torchvision: tests/golden/grads.

    ops.txt         the cases of make_ops.py in training mode, two images: a section for each, with the
                    gradient by the input, that by each parameter, and running statistics as they are afterwards;
                    the loss is the outputs' sum, weighted by the numbers of the formula (seed 11, name "loss")
    <network>.txt   the seed of the weights, and five steps of Adam (lr 1e-4, weight decay 1e-3) on a batch with
                    weighted cross entropy:
                    grad        of the first step, by each parameter
                    state       running statistics after the first forward pass
                    loss        before each step
                    moved       how far each parameter, and each running statistic, has come after five

    make_grads.py [--only NAME]...

Networks are those of tests/unit/tiny_nets.h, built from torchvision's classes, the tri-branch head, and one
published network; three classes, weights by the formula (make_nets.py), image k of a batch
is pattern(k), every so-manieth pixel of it, with the class k mod 3.  Dropout and stochastic depth have probability
0.  All in float64 from float32 weights.  Vectors are thinned as in make_nets.py.
"""
import argparse
import math
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models import densenet, efficientnet, resnet, vision_transformer

import make_nets
import make_ops

OUT = os.path.join(make_nets.HERE, "grads")
OP_IMAGES, OP_KEPT = 2, 24
NET_KEPT, CLASSES = 6, 3
CLASS_WEIGHT = (0.2, 0.3, 0.5)
STEPS, LR, WEIGHT_DECAY = 5, 1e-4, 1e-3
ROUNDING = 1e-12
HEADING = ("# make_grads.py: section NAME VECTORS, max |x| of all; name, length, step, L2 norm, max |x|, min; "
           "every step-th number\n")


# ---- the networks ----

def reduced_resnet(block, depth, planes, **kw):
    """torchvision's ResNet, whose stages are planes, 2 planes, ... wide instead of 64, 128, ..."""
    m = resnet.ResNet(block, depth, num_classes=CLASSES, **kw)
    m.inplanes = planes
    m.conv1 = nn.Conv2d(3, planes, 7, stride=2, padding=3, bias=False)
    m.bn1 = nn.BatchNorm2d(planes)
    for i in range(4):
        setattr(m, "layer%d" % (i + 1), m._make_layer(block, planes << i, depth[i], stride=2 if i else 1))
    m.fc = nn.Linear(m.inplanes, CLASSES)
    return m


def reduced_efficientnet(width, depth):
    setting, last = efficientnet._efficientnet_conf("efficientnet_b0", width_mult=width, depth_mult=depth)
    return efficientnet.EfficientNet(setting, 0.0, stochastic_depth_prob=0.0, num_classes=CLASSES, last_channel=last)


class LoneHead(nn.Module):
    """The tri-branch net's head over 3 x 1 x D floats, its parameters named as in the whole."""

    def __init__(self):
        super().__init__()
        self.head = make_nets.Head(1)

    def forward(self, x):
        return self.head(x[:, :, 0])


# Name, images of a batch, seed, input C H W, model.  The seeds are those, of many tried, with which no input of a ReLU
# comes so near to 0, and no two maxima of a pool so near to each other, that rounding to float32 decides; but for
# resnet18, which is too large for that.
NETS = (
    ("tiny_densenet", 4, 26, (3, 64, 64), lambda: densenet.DenseNet(16, (2, 3, 2, 2), 32, num_classes=CLASSES)),
    ("tiny_resnet", 4, 40, (3, 64, 64), lambda: reduced_resnet(resnet.BasicBlock, (2, 1, 1, 1), 16)),
    ("tiny_resnext", 4, 54, (3, 64, 64), lambda: reduced_resnet(resnet.Bottleneck, (1, 1, 1, 1), 16, groups=8,
                                                             width_per_group=8)),
    ("tiny_efficientnet", 4, 3, (3, 64, 64), lambda: reduced_efficientnet(0.1, 0.5)),
    ("tiny_vit", 4, 3, (3, 64, 64), lambda: vision_transformer.VisionTransformer(64, 16, 2, 2, 64, 128,
                                                                              num_classes=CLASSES)),
    ("head", 4, 3, (3, 1, 16), LoneHead),
    ("resnet18", 2, 2, (3, 256, 256), lambda: models.resnet18(num_classes=CLASSES)),
)


# ---- the files ----

def thinning(n, kept):
    """A step that keeps about so many of n, and has no factor in common with a kernel's or a vector's sides."""
    step = n // kept if n > 3 * kept else 1
    while step > 1 and math.gcd(step, 210) > 1:
        step += 1
    return step


def write_section(f, name, vectors, kept):
    """vectors: (name, tensor).  What is 0 but for rounding, as a bias that BatchNorm takes away, is written as 0."""
    vectors = [(n, t.detach().numpy().reshape(-1)) for n, t in vectors]
    largest = max(np.abs(v).max() for _, v in vectors) if vectors else 0
    f.write("section %s %d %.9g\n" % (name, len(vectors), largest))
    for n, v in vectors:
        v = v * (np.abs(v).max() > ROUNDING * largest)
        make_nets.write_vector(f, n, v, thinning(len(v), kept))


def no_drop(model):
    for m in model.modules():
        if isinstance(m, nn.Dropout):
            m.p = 0.0


def gradients(model):
    return [(n, p.grad) for n, p in model.named_parameters()]


def statistics(model):
    return [(n, t.clone()) for n, t in model.named_buffers()
            if not n.endswith("num_batches_tracked")]


def numbers(name, count):
    return make_nets.uniform(make_ops.INPUT_SEED, name, count).astype(np.float32).astype(np.float64)


def ops(path):
    with open(path + ".new", "w") as f:
        f.write(HEADING)
        for name, shape, model in make_ops.CASES:
            with torch.no_grad():
                make_ops.fill(model)
            model.double().train()
            no_drop(model)
            x = 2 * numbers("input", OP_IMAGES * int(np.prod(shape)))
            x = torch.from_numpy(x.reshape(OP_IMAGES, *shape)).requires_grad_()
            y = model(x)
            (y.flatten() * torch.from_numpy(numbers("loss", y.numel()))).sum().backward()
            write_section(f, name, [("input", x.grad)] + gradients(model) + statistics(model), OP_KEPT)
    os.rename(path + ".new", path)


def images(n, shape):
    if shape[1] == 1:
        return torch.from_numpy(2 * numbers("input", n * int(np.prod(shape))).reshape(n, *shape))
    every = 256 // shape[1]
    return torch.cat([make_nets.batch(make_nets.pattern(k), 256)[:, :, ::every, ::every] for k in range(n)])


def network(path, model, n, seed, shape):
    with torch.no_grad():
        make_nets.fill(model, seed)
    model.double().train()
    no_drop(model)
    x, y = images(n, shape), torch.arange(n) % CLASSES
    weight = torch.tensor(CLASS_WEIGHT, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    before = {name: t.detach().clone() for name, t in model.state_dict().items()}
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y, weight=weight)
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            grad = [(name, g.clone()) for name, g in gradients(model)]
            state = statistics(model)
        optimizer.step()
    moved = [(name, t - before[name]) for name, t in list(model.named_parameters()) + statistics(model)]
    with open(path + ".new", "w") as f:
        f.write(HEADING + "seed %d\n" % seed)
        write_section(f, "grad", grad, NET_KEPT)
        write_section(f, "state", state, NET_KEPT)
        write_section(f, "loss", [("loss", torch.tensor(losses, dtype=torch.float64))], STEPS)
        write_section(f, "moved", moved, NET_KEPT)
    os.rename(path + ".new", path)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", help="these files, without .txt")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.makedirs(OUT, exist_ok=True)
    if not args.only or "ops" in args.only:
        ops(os.path.join(OUT, "ops.txt"))
    for name, n, seed, shape, make in NETS:
        if not args.only or name in args.only:
            network(os.path.join(OUT, name + ".txt"), make(), n, seed, shape)


if __name__ == "__main__":
    main()
