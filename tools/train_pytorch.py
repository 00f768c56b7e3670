#!/usr/bin/python3
"""The training of dfx_train(), done by PyTorch on the same images: a second opinion on its accuracy and its speed.

    train_pytorch.py --images DIR --samples SAMPLES.csv --init MODEL.safetensors [options] > result.json

SAMPLES.csv says which image served for what, as the run that is compared with wrote it down:

    \\copy (SELECT key AS path, label, split, base FROM dfx_samples WHERE run = 2) TO samples.csv (FORMAT csv, HEADER)

path is relative to DIR.  --init is a backbone or a classifier that the three Base Models start from, as init => does.
Everything else follows docs/TRAINING.md, "What is computed"; only the random draws (order, augmentation, the new
layers' first weights) are PyTorch's own.  channels_last; float32, or with --bf16 its automatic mixed precision for the
networks' training.  Needs Debian's python3-torch, python3-torchvision, python3-pil, python3-numpy.
"""
import argparse
import csv
import io
import json
import os
import struct
import sys
import time

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn

CLASSES = ("dm", "gan", "real")
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
SIDE = 256
TILES = 4
LAST = {"densenet": "classifier", "efficientnet": "classifier.1", "resnet": "fc", "resnext": "fc"}


# ---- images ----

def read_samples(path, images):
    """-> list of dicts with pixels (uint8 SIDE x SIDE x 3), label, split, base (set of classes)."""
    samples = []
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            with Image.open(os.path.join(images, row["path"])) as image:
                pixels = np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.BILINEAR))
            samples.append({"pixels": pixels, "label": CLASSES.index(row["label"]), "split": row["split"],
                            "base": set(row["base"].strip("{}").split(",")) - {""}})
    return samples


def augment(pixels, args, draw):
    """crop, JPEG, shuffled tiles, turn, mirror, each drawn for itself."""
    image = Image.fromarray(pixels)
    if draw.random() < args.crop:
        cut = round(SIDE * draw.uniform(args.crop_min, 1))
        x, y = draw.integers(0, SIDE - cut, endpoint=True, size=2)
        image = image.crop((x, y, x + cut, y + cut)).resize((SIDE, SIDE), Image.BILINEAR)
    if draw.random() < args.jpeg:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(draw.integers(args.jpeg_min, args.jpeg_max, endpoint=True)), subsampling=0)
        image = Image.open(buffer)
    pixels = np.asarray(image)
    if draw.random() < args.shuffle:
        side = SIDE // TILES
        tiles = pixels.reshape(TILES, side, TILES, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
        tiles = draw.permutation(tiles).reshape(TILES, TILES, side, side, 3)
        pixels = tiles.swapaxes(1, 2).reshape(SIDE, SIDE, 3)
    if draw.random() < args.turn:
        pixels = np.rot90(pixels, draw.integers(1, 3, endpoint=True))
    if draw.random() < args.flip:
        pixels = pixels[:, ::-1]
    return pixels


def tensor(batch):
    x = torch.from_numpy(np.stack([np.ascontiguousarray(p) for p in batch])).permute(0, 3, 1, 2).float() / 255
    return ((x - MEAN) / STD).contiguous(memory_format=torch.channels_last)


# ---- networks ----

def read_safetensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    dtypes = {"F32": np.float32, "F16": np.float16}
    tensors = {}
    for name, t in header.items():
        if name != "__metadata__":
            array = np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], dtypes[t["dtype"]])
            tensors[name] = torch.from_numpy(array.astype(np.float32).reshape(t["shape"]))
    return tensors


def backbone(name, nclass, init):
    """A torchvision network with weights of init and a new last layer; and that layer's name."""
    last = next(v for k, v in LAST.items() if name.startswith(k))
    net = getattr(torchvision.models, name)(weights=None, num_classes=nclass)
    ours = {k: init[k] for k in net.state_dict() if k in init and not k.startswith(last + ".")}
    missing, _ = net.load_state_dict(ours, strict=False)
    lost = [k for k in missing if not k.startswith(last + ".") and not k.endswith("num_batches_tracked")]
    if lost:
        sys.exit(f"train_pytorch.py: --init lacks {lost[0]} and {len(lost) - 1} more")
    return net.to(memory_format=torch.channels_last), last


def head(stride):
    layers, channels = [], (3, 16, 64, 256, 512, 1024)
    for i, kernel in enumerate((7, 5, 3, 3, 3)):
        layers += [nn.Conv1d(channels[i], channels[i + 1], kernel, stride=stride if i < 2 else 1, padding=1), nn.ReLU()]
        if i < 4:
            layers.append(nn.BatchNorm1d(channels[i + 1]))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(1024, len(CLASSES)))


# ---- the loop of one network ----

def validate(net, load, n, label, weight, batch):
    """-> (loss, logits): weighted sums over the whole set."""
    net.eval()
    with torch.no_grad():
        logits = torch.cat([net(load(range(i, min(i + batch, n)))) for i in range(0, n, batch)])
    each = nn.functional.cross_entropy(logits, label, weight=weight, reduction="sum")
    return (each / (n if weight is None else weight[label].sum())).item(), logits


def learn(name, net, train, val, weight, epochs, args):
    """train, val: (load(indexes, augmented) -> batch, labels).  Leaves net at its lowest validation loss; -> images/s."""
    adam = torch.optim.Adam(net.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.StepLR(adam, args.step_size or epochs + 1, args.gamma)
    criterion = nn.CrossEntropyLoss(weight=weight)
    load, label = train
    best, kept, images, seconds = float("inf"), None, 0, 0.0
    for epoch in range(epochs):
        net.train()
        order = torch.randperm(len(label))
        start = time.monotonic()
        for i in range(0, len(order) - 1, args.batch):      # one image alone is no batch
            item = order[i:i + args.batch]
            with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                logits = net(load(item, True))
            loss = criterion(logits.float(), label[item])
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            images += len(item)
        seconds += time.monotonic() - start
        schedule.step()
        value, _ = validate(net, lambda r: val[0](r, False), len(val[1]), val[1], weight, args.batch)
        if value < best:
            best, kept = value, {k: v.clone() for k, v in net.state_dict().items()}
        print(f"{name} epoch {epoch + 1}/{epochs}: validation loss {value:.4f} (lowest {best:.4f}), "
              f"{images / seconds:.2f} images/s", file=sys.stderr)
    net.load_state_dict(kept)
    return images / seconds


# ---- the run ----

def pixels_of(samples, args, draw):
    def load(item, augmented):
        chosen = [samples[i]["pixels"] for i in item]
        return tensor([augment(p, args, draw) for p in chosen] if augmented else chosen)
    return load


def train_base(name, samples, init, args, draw):
    main = CLASSES.index(name)
    sets, labels = [], []
    for split in ("base_train", "base_val"):
        chosen = [s for s in samples if s["split"] == split and name in s["base"]]
        sets.append(pixels_of(chosen, args, draw))
        labels.append(torch.tensor([int(s["label"] == main) for s in chosen]))
    net, last = backbone(args.backbone, 2, init)
    rate = learn(name, net, (sets[0], labels[0]), (sets[1], labels[1]), None, args.epochs, args)
    test = [s for s in samples if s["split"] == "test"]
    label = torch.tensor([int(s["label"] == main) for s in test])
    _, logits = validate(net, lambda r: pixels_of(test, args, draw)(r, False), len(test), label, None, args.batch)
    accuracy = (logits.argmax(1) == label).double().mean().item()
    parent = net.get_submodule(last.rpartition(".")[0]) if "." in last else net
    setattr(parent, last.rpartition(".")[2], nn.Identity())
    return net, {"accuracy": accuracy, "images_per_second": rate}


def features(nets, samples, args):
    out = []
    for net in nets:
        net.eval()
    with torch.no_grad():
        for i in range(0, len(samples), args.batch):
            x = tensor([s["pixels"] for s in samples[i:i + args.batch]])
            out.append(torch.stack([net(x) for net in nets], 1))
    return torch.cat(out)


def train_head(nets, samples, args):
    data = {}
    for split in ("head_train", "head_val", "test"):
        chosen = [s for s in samples if s["split"] == split]
        data[split] = features(nets, chosen, args), torch.tensor([s["label"] for s in chosen])
    label = data["head_train"][1]
    weight = 1 / torch.bincount(label, minlength=len(CLASSES)).float()
    net = head(args.head_stride)
    sets = {k: ((lambda item, augmented=False, x=x: x[item]), y) for k, (x, y) in data.items()}
    rate = learn("head", net, sets["head_train"], sets["head_val"], weight, args.head_epochs, args)
    x, y = data["test"]
    _, logits = validate(net, lambda r: x[list(r)], len(y), y, weight, args.batch)
    return logits.argmax(1), y, rate


def judge(predicted, label):
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    for p, t in zip(predicted, label):
        confusion[t, p] += 1
    recall = confusion.diag() / confusion.sum(1)
    return {"n": len(label), "accuracy": (predicted == label).double().mean().item(),
            "balanced_accuracy": recall.double().mean().item(), "confusion": confusion.tolist()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", required=True)
    p.add_argument("--samples", required=True)
    p.add_argument("--init", required=True)
    p.add_argument("--backbone", default="efficientnet_b0")
    p.add_argument("--threads", type=int, default=1)
    for name, kind, value in (("epochs", int, 50), ("head_epochs", int, 50), ("batch", int, 32), ("head_stride", int, 1),
                              ("learning_rate", float, 1e-4), ("weight_decay", float, 1e-3), ("step_size", int, 0),
                              ("gamma", float, 0.1), ("flip", float, 0), ("turn", float, 0), ("shuffle", float, 0),
                              ("crop", float, 0), ("crop_min", float, 0.5), ("jpeg", float, 0), ("jpeg_min", int, 30),
                              ("jpeg_max", int, 100), ("seed", int, 1)):
        p.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    p.add_argument("--bf16", action="store_true")
    args = p.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    samples = read_samples(args.samples, args.images)
    init = read_safetensors(args.init)
    nets, result = [], {"torch": torch.__version__, "networks": {}}
    for name in CLASSES:
        net, figures = train_base(name, samples, init, args, draw)
        nets.append(net)
        result["networks"][name] = figures
    predicted, label, rate = train_head(nets, samples, args)
    result["three"] = judge(predicted, label)
    result["head_images_per_second"] = rate
    json.dump(result, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
