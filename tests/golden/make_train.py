#!/usr/bin/python3
"""Golden values of training's parts, from PyTorch and torchvision: tests/golden/train.txt.

	loss NCLASS N WEIGHTED value, then N lines: label, logits, gradient by the logits
	lr LR STEP_SIZE GAMMA, then the rates of its epochs
	init FAMILY NETWORK, then lines: parameter's name, standard deviation, largest magnitude; end

Losses are nn.CrossEntropyLoss(weight, reduction='mean') in float64 of the
float32 logits.  Of a new torchvision network's parameters those are kept that
have at least 1000 elements (deviations of fewer say little) or are constant;
the last linear layer is left out, which training replaces.
"""
import os

import torch
import torchvision
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))


def loss(out, nclass, n, weight, scale):
    logits = (torch.randn(n, nclass) * scale).double().requires_grad_()
    label = torch.randint(0, nclass, (n,))
    value = nn.CrossEntropyLoss(weight=weight)(logits, label)
    value.backward()
    weights = " ".join("%.17g" % w for w in weight) if weight is not None else "none"
    out.write("loss %d %d %.17g\n%s\n" % (nclass, n, value.item(), weights))
    for i in range(n):
        numbers = torch.cat([logits[i].detach(), logits.grad[i]])
        out.write("%d %s\n" % (label[i], " ".join("%.17g" % x for x in numbers)))


def rates(out, lr, step_size, gamma, epochs):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], lr=lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma)
    out.write("lr %.17g %d %.17g %d\n" % (lr, step_size, gamma, epochs))
    for _ in range(epochs):
        out.write("%.17g\n" % optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def init(out, family, name, last):
    network = getattr(torchvision.models, name)(weights=None)
    out.write("init %s %s\n" % (family, name))
    for key, p in network.named_parameters():
        constant = p.max() == p.min()
        if key.startswith(last) or (p.numel() < 1000 and not constant):
            continue
        out.write("%s %.6g %.6g\n" % (key, 0 if constant else p.double().std().item(), p.abs().max().item()))
    out.write("end\n")


def main():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float32)
    with open(os.path.join(HERE, "train.txt"), "w") as out:
        loss(out, 3, 5, None, 1)
        loss(out, 2, 4, torch.tensor([0.25, 3.0], dtype=torch.float64), 10)
        loss(out, 3, 7, torch.tensor([1 / 19, 1 / 37, 1 / 15], dtype=torch.float64), 100)
        rates(out, 1e-4, 10, 0.1, 50)
        rates(out, 3e-3, 3, 0.7, 10)
        init(out, "resnet", "resnet18", "fc.")
        init(out, "densenet", "densenet121", "classifier.")
        init(out, "efficientnet", "efficientnet_b0", "classifier.")
        init(out, "vit", "vit_b_32", "heads.")


if __name__ == "__main__":
    main()
