#!/usr/bin/python3
"""Golden verdicts of the kinds of models that classify without the tri-branch head, from PyTorch and torchvision.

Fills torchvision's models by make_nets.py's formula, runs them in evaluation mode in float64 on encoded files of
tests/golden/images, and writes tests/golden/nets/verdicts.txt, one verdict a line:

    kind classes backbone seed image label p_synthetic p_dm p_gan p_real generator

with - for what a model does not say.  `dfx-engine init` makes the same models (test_cli.sh).
"""
import os

import torch

from make_nets import BACKBONES, FILES, OUT, batch, decoded, parameters, side, values

# Seeds are chosen so that labels and generators are not all the same.
MODELS = (
    ("base", "others,real", "resnet18", (5, 6)),
    ("classifier", "synthetic,real", "resnet18", (1, 2)),
    ("classifier", "dm,gan,real", "densenet121", (1, 2)),
    ("hierarchy", "synthetic,real;dm,gan;ddpm,ldm,sd;progan,stylegan", "resnet18", (1, 8, 9)),
    ("hierarchy", "synthetic,real;dm,gan;;a,b,c,d", "resnet18", (1, 3)),
)
SCOPES = ("ai", "type", "dm", "gan")


def network(backbone, classes, prefix, seed):
    """A backbone with one output a class, its parameters drawn by their names below prefix."""
    model = BACKBONES[backbone](num_classes=len(classes))
    for name, t, norm in parameters(model):
        t.copy_(torch.from_numpy(values(seed, prefix + name, tuple(t.shape), norm)))
    return model.double().eval()


def single(kind, classes, p):
    """label, p_synthetic, p_dm, p_gan, p_real of one network's probabilities."""
    if len(classes) == 3:
        dm, gan, real = p
        return classes[int(p.argmax())], dm + gan, dm, gan, real, None
    return "real" if p[1] >= p[0] else "synthetic", p[0], None, None, p[1], None


def hierarchy(lists, ai, kind, generators):
    """ai: synthetic, real; kind: dm, gan; generators: of dm, of gan, None where there is no network."""
    dm, gan = ai[0] * kind[0], ai[0] * kind[1]
    if ai[1] >= ai[0]:
        return "real", ai[0], dm, gan, ai[1], None
    at = int(kind[1] > kind[0])
    which = lists[2 + at][int(generators[at].argmax())] if lists[2 + at] else None
    return ("dm", "gan")[at], ai[0], dm, gan, ai[1], which


def verdicts(kind, classes, backbone, seed):
    lists = [names.split(",") if names else [] for names in classes.split(";")]
    prefixes = ["%s." % s for s in SCOPES] if kind == "hierarchy" else [""]
    nets = [network(backbone, names, prefix, seed) if names else None for names, prefix in zip(lists, prefixes)]
    for name in FILES:
        x = batch(decoded(name), side(backbone))
        p = [net(x)[0].softmax(0) if net else None for net in nets]
        yield name, hierarchy(lists, p[0], p[1], p[2:]) if kind == "hierarchy" else single(kind, lists[0], p[0])


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with open(os.path.join(OUT, "verdicts.txt"), "w") as f:
        f.write("# make_verdicts.py: kind classes backbone seed image label p_synthetic p_dm p_gan p_real generator\n")
        for kind, classes, backbone, seeds in MODELS:
            for seed in seeds:
                for image, (label, *p, generator) in verdicts(kind, classes, backbone, seed):
                    numbers = " ".join("-" if v is None else "%.9g" % v for v in p)
                    f.write("%s %s %s %d %s %s %s %s\n" % (kind, classes, backbone, seed, image, label, numbers,
                                                         generator or "-"))


if __name__ == "__main__":
    main()
