#!/usr/bin/python3
"""A golden heatmap: what hiding each part of an image does to a class's log odds, from PyTorch and torchvision.

Fills a ResNet-18 with two classes by make_nets.py's formula and covers the image by windows as src/image/occlude.h says,
in float64.  Writes tests/golden/nets/heatmap.txt: kind, classes, backbone, seed, image, class and its log odds, then the
fall of the log odds by window, row by row.
"""
import os

import torch

from make_nets import OUT, batch, decoded
from make_verdicts import network

CLASSES, BACKBONE, SEED, IMAGE = "synthetic,real", "resnet18", 1, "photo-progressive.jpg"
CELLS, CELL = 16, 16
GREY = (124, 116, 104)


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    names = CLASSES.split(",")
    net = network(BACKBONE, names, "", SEED)
    image = decoded(IMAGE)

    def log_odds(pixels):
        logits = net(batch(pixels, 256))[0]
        return logits[0] - logits[1]

    whole = log_odds(image)
    assert whole > 0, "the class explained is the verdict's"
    fall = []
    for y in range(CELLS - 1):
        for x in range(CELLS - 1):
            covered = image.copy()
            covered[y * CELL:(y + 2) * CELL, x * CELL:(x + 2) * CELL] = GREY
            fall.append(whole - log_odds(covered))
    with open(os.path.join(OUT, "heatmap.txt"), "w") as f:
        f.write("# make_heatmap.py: kind classes backbone seed image class log_odds; the fall by window\n")
        f.write("classifier %s %s %d %s %s %.9g\n" % (CLASSES, BACKBONE, SEED, IMAGE, names[0], whole))
        f.write(" ".join("%.9g" % v for v in fall) + "\n")


if __name__ == "__main__":
    main()
