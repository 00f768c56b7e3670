#!/usr/bin/python3
"""The weights that the starter model's networks start from: a DenseNet-121 set up as a meter of residuals.

    make_start.py --data DIR --out START.safetensors [--seed 1] [--threads 2]

DIR has the images and manifest.csv (models/make_starter.sql says which columns).  Only the groups whose images train
the Base Models are looked at.

A network that starts from random weights learns, from a thousand pictures, what these show.  What tells the classes apart is
faint: how differences between neighbouring pixels are distributed.  So the network starts as a meter of that, by
data-dependent initialisation (Krahenbuhl, Doersch, Donahue, Darrell: Data-dependent Initializations of Convolutional
Neural Networks, ICLR 2016):

    first filters    zero-sum, random, of 3, 5 and 7 pixels' width, in luma and two colour differences (in kind the
                     residual filters of Fridrich and Kodovsky: Rich Models for Steganalysis of Digital Images,
                     TIFS 2012); the biases of norm0 are thresholds, so that each measures another part of the distribution
    dense layers     random, as torchvision draws them
    transitions      whitened principal components of the mean (over the picture) of what they see, so that
                     faint statistics reach the classifier at the size of strong ones; half of the last one's outputs
                     lie along the directions in which a logistic regression separates the classes
    normalisations   running statistics of an eighth of the images

Needs Debian's python3-torch, python3-torchvision, python3-pil, python3-numpy.
"""
import argparse
import csv
import hashlib
import os
import sys

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tools"))
from convert_weights import save    # noqa: E402

SIDE = 256
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
COLOUR_AXES = np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0, -1, 1]])
FILTER_RADII = (1.5, 2.3, 3.2)
THRESHOLDS = torch.tensor([0, 0.1, 0.3, 1.0])   # in standard deviations of a filter's response
PASS_ALL = 2.0          # a bias, in standard deviations, that lets a normalised value pass a ReLU nearly unbent
BATCH = 16
CALIBRATION_BATCH = 32
CALIBRATION_EVERY = 8
CLASSES = ("dm", "gan", "real")
REGRESSION_COMPONENTS = 192
REGRESSION_L2 = 0.03
FEATURE_SIZE = 4.0      # norm5's weights: a small learning rate then moves the verdicts sooner than the network


def base_images(data):
    """-> (paths, classes) of the images that train Base Models, by the draw of make_starter.sql, in the manifest's order."""
    with open(os.path.join(data, "manifest.csv"), newline="") as f:
        rows = [row for row in csv.DictReader(f)
                if int(hashlib.md5(row["group"].encode()).hexdigest()[:8], 16) % 100 < 40]
    return [os.path.join(data, row["path"]) for row in rows], torch.tensor([CLASSES.index(row["class"]) for row in rows])


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BILINEAR))


def normalised(pixels):
    x = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float()
    return ((x / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def first_filters(shape):
    """shape (N, 3, s, s) -> zero-sum filters over grey levels, each of absolute sum 1."""
    count, _, side, _ = shape
    draw = np.random.default_rng(1)
    half = side // 2
    distance = np.hypot(*np.mgrid[-half:half + 1, -half:half + 1])
    filters = np.zeros(shape)
    for i in range(count):
        support = distance < FILTER_RADII[i % len(FILTER_RADII)]
        kernel = draw.normal(size=(side, side)) * support
        kernel -= kernel.sum() / support.sum() * support
        filters[i] = COLOUR_AXES[i % len(COLOUR_AXES)][:, None, None] * kernel
    filters /= np.abs(filters).sum((1, 2, 3), keepdims=True)
    return torch.tensor(filters).float()


def calibrate(part, inputs):
    """Set the running statistics of part's normalisations from a sample of its inputs."""
    part.train()
    with torch.no_grad():
        sample = range(0, len(inputs), CALIBRATION_EVERY)
        for i in range(0, len(sample), CALIBRATION_BATCH):
            part(inputs.batch(sample[i:i + CALIBRATION_BATCH]))
    part.eval()


def outputs(part, inputs, reduce):
    with torch.no_grad():
        return torch.cat([reduce(part(inputs.batch(range(i, min(i + BATCH, len(inputs))))))
                          for i in range(0, len(inputs), BATCH)])


class Pixels:
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def batch(self, indexes):
        return normalised(self.pixels[list(indexes)])


class Maps(Pixels):
    """What a part made of all images, kept in 16 bits."""

    def batch(self, indexes):
        return self.pixels[list(indexes)].float()


def whitened(means, count):
    """means: images x channels -> count rows: projections on the first principal components, each of variance 1."""
    means = means.double()
    _, sizes, components = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    deviation = sizes / np.sqrt(len(means) - 1)
    return components[:count] / deviation[:count].clamp(min=1e-4 * deviation[0])[:, None]


def class_directions(means, classes):
    """-> 3 rows: projections of variance 1 along which multinomial logistic regression separates the classes."""
    rows = whitened(means, REGRESSION_COMPONENTS)
    x = (means.double() - means.double().mean(0)) @ rows.T
    weight = torch.zeros(x.shape[1], len(CLASSES), dtype=torch.double, requires_grad=True)
    bias = torch.zeros(len(CLASSES), dtype=torch.double, requires_grad=True)
    fit = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        fit.zero_grad()
        value = nn.functional.cross_entropy(x @ weight + bias, classes) + REGRESSION_L2 * (weight ** 2).sum()
        value.backward()
        return value
    fit.step(loss)
    directions = rows.T @ weight.detach()
    directions -= directions.mean(1, keepdim=True)
    return (directions / ((means.double() - means.double().mean(0)) @ directions).std(0)).T


def components_and_classes(means, count, classes, seed):
    """-> count rows: half whitened components, half random mixtures of the class directions."""
    mixtures = torch.randn(count - count // 2, len(CLASSES), dtype=torch.double, generator=torch.Generator().manual_seed(seed))
    mixtures /= mixtures.norm(dim=1, keepdim=True)
    return torch.cat([whitened(means, count // 2), mixtures @ class_directions(means, classes)])


def transition(before, part, inputs, rows=whitened):
    """before: everything from inputs to the transition part; rows: makes its convolution.  -> what leaves the transition."""
    part.norm.bias.data[:] = PASS_ALL
    seen = nn.Sequential(before, part.norm, part.relu)
    calibrate(seen, inputs)
    weight = rows(outputs(seen, inputs, lambda x: x.mean((2, 3))), part.conv.weight.shape[0])
    part.conv.weight.data = weight[:, :, None, None].float().contiguous()
    return Maps(outputs(nn.Sequential(seen, part.conv, part.pool), inputs, torch.Tensor.half))


def make(pixels, classes, seed):
    torch.manual_seed(seed)
    net = torchvision.models.densenet121(weights=None).to(memory_format=torch.channels_last)
    f = net.features
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None          # running statistics are plain means
    f.conv0.weight.data = first_filters(f.conv0.weight.shape) * STD * 255
    f.norm0.bias.data = -THRESHOLDS[torch.randperm(len(f.norm0.bias)) % len(THRESHOLDS)]

    stem = nn.Sequential(f.conv0, f.norm0, f.relu0, f.pool0, f.denseblock1)
    x = transition(stem, f.transition1, Pixels(pixels))
    x = transition(f.denseblock2, f.transition2, x)
    x = transition(f.denseblock3, f.transition3, x, lambda means, count: components_and_classes(means, count, classes, seed))
    f.norm5.weight.data[:] = FEATURE_SIZE
    calibrate(nn.Sequential(f.denseblock4, f.norm5), x)
    return net


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    args = p.parse_args()

    torch.set_num_threads(args.threads)
    paths, classes = base_images(args.data)
    net = make(np.stack([read_pixels(path) for path in paths]), classes, args.seed)
    save({name: tensor for name, tensor in net.state_dict().items() if not name.startswith("classifier.")}, args.out)


if __name__ == "__main__":
    main()
