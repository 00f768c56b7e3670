#!/usr/bin/python3
"""Golden outputs of single ops, from PyTorch: tests/golden/ops/ops.txt.

Each case is a small module, its parameters filled as in make_nets.py (seed 3,
under the names the module has here), its input the numbers 2 u of the same
formula (seed 11, name "input"), run in float64.  The same cases stand in
tests/unit/test_ref_ops.c as graphs.  A case in the file: its name and the
output's C H W (of one image), then all of its numbers.
"""
import os

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import make_nets

HERE = os.path.dirname(os.path.abspath(__file__))
WEIGHT_SEED, INPUT_SEED = 3, 11


class Net(nn.Module):
    """Named modules and a function of them and the input."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


class Tokens(nn.Module):
    """ViT's class token and position embedding, as torchvision's forward applies them."""

    def __init__(self, c, n):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, c))
        self.pos_embedding = nn.Parameter(torch.zeros(1, n + 1, c))

    def forward(self, x):
        x = x.flatten(2).permute(0, 2, 1)
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embedding


def tokens(x):
    """C x T x 1, as the graph keeps tokens, to PyTorch's T x C."""
    return x[:, :, :, 0].permute(0, 2, 1)


def graph(x):
    return x.permute(0, 2, 1)[..., None]


def attend(m, x):
    t = tokens(x)
    return graph(m.attention(t, t, t, need_weights=False)[0])


def conv(*args, **kw):
    return Net(lambda m, x: m.conv(x), conv=nn.Conv2d(*args, **kw))


def plain(function):
    return Net(lambda m, x: function(x))


# name, input C H W, module
CASES = (
    ("conv_3x3", (5, 7, 6), conv(5, 6, 3, padding=1)),
    ("conv_no_bias", (5, 7, 6), conv(5, 4, 3, bias=False)),
    ("conv_stride", (3, 9, 8), conv(3, 4, 3, stride=2, padding=1)),
    ("conv_stem", (3, 12, 11), conv(3, 4, 7, stride=2, padding=3)),
    ("conv_1x1", (8, 4, 3), conv(8, 5, 1)),
    ("conv_1x1_stride", (8, 5, 4), conv(8, 5, 1, stride=2)),
    ("conv_rectangle", (3, 8, 7), conv(3, 4, (3, 2), stride=(2, 1), padding=(1, 0))),
    ("conv_groups", (8, 6, 5), conv(8, 12, 3, padding=1, groups=4)),
    ("conv_depthwise", (6, 7, 7), conv(6, 6, 5, stride=2, padding=2, groups=6)),
    ("conv_patch", (3, 8, 12), conv(3, 8, 4, stride=4)),
    ("conv1d", (3, 1, 29), Net(lambda m, x: m.conv(x[:, :, 0])[:, :, None], conv=nn.Conv1d(3, 5, 7, 2, padding=1))),
    ("bn", (6, 4, 5), Net(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(6, eps=1e-3))),
    ("pool_max", (3, 7, 6), plain(lambda x: F.max_pool2d(x, 3, 2, 1))),
    ("pool_max_even", (3, 8, 8), plain(lambda x: F.max_pool2d(x, 3, 2, 1))),
    ("pool_max_rest", (2, 8, 6), plain(lambda x: F.max_pool2d(x, 3, 3))),
    ("pool_avg", (3, 6, 4), plain(lambda x: F.avg_pool2d(x, 2, 2))),
    ("pool_avg_rest", (3, 5, 7), plain(lambda x: F.avg_pool2d(x, 2, 2))),
    ("pool_global_avg", (4, 5, 3), plain(lambda x: F.adaptive_avg_pool2d(x, 1))),
    ("pool_global_max", (4, 5, 3), plain(lambda x: F.adaptive_max_pool2d(x, 1))),
    ("linear", (9, 1, 1), Net(lambda m, x: m.fc(x.flatten(1))[..., None, None], fc=nn.Linear(9, 4))),
    ("linear_tokens", (6, 5, 1), Net(lambda m, x: graph(m.fc(tokens(x))), fc=nn.Linear(6, 8))),
    ("layernorm", (8, 5, 1), Net(lambda m, x: graph(m.norm(tokens(x))), norm=nn.LayerNorm(8, eps=1e-6))),
    ("attention", (8, 5, 1), Net(attend, attention=nn.MultiheadAttention(8, 2, batch_first=True))),
    ("relu", (3, 4, 4), plain(F.relu)),
    ("silu", (3, 4, 4), plain(F.silu)),
    ("gelu", (3, 4, 4), plain(F.gelu)),
    ("sigmoid", (3, 4, 4), plain(torch.sigmoid)),
    ("add", (4, 3, 5), Net(lambda m, x: m.conv(x) + x, conv=nn.Conv2d(4, 4, 1))),
    ("mul", (4, 3, 5), Net(lambda m, x: m.conv(x) * x, conv=nn.Conv2d(4, 4, 1))),
    ("mul_channel", (4, 3, 5), plain(lambda x: x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1)))),
    ("concat", (4, 3, 5), Net(lambda m, x: torch.cat([x, m.conv(x), F.relu(x)], 1), conv=nn.Conv2d(4, 3, 1))),
    ("stack", (4, 3, 5), plain(lambda x: torch.stack([F.adaptive_avg_pool2d(x, 1).flatten(1),
                                                      F.adaptive_max_pool2d(x, 1).flatten(1)], 1)[:, :, None])),
    ("tokens", (4, 2, 3), Net(lambda m, x: graph(m.embed(x)), embed=Tokens(4, 6))),
    ("take", (4, 5, 1), plain(lambda x: tokens(x)[:, 3][..., None, None])),
    ("drop", (4, 5, 1), Net(lambda m, x: m.drop(x), drop=nn.Dropout(0.5))),
)


def fill(model):
    for name, t, norm in make_nets.parameters(model):
        shape = tuple(t.shape)
        if name.endswith(("class_token", "pos_embedding")):
            u = 0.02 * make_nets.uniform(WEIGHT_SEED, name, t.numel())
            t.copy_(torch.from_numpy(u.astype(np.float32).reshape(shape)))
        elif name.endswith("in_proj_bias"):
            u = 0.05 * make_nets.uniform(WEIGHT_SEED, name, t.numel())
            t.copy_(torch.from_numpy(u.astype(np.float32)))
        else:
            t.copy_(torch.from_numpy(make_nets.values(WEIGHT_SEED, name, shape, norm)))


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    os.makedirs(os.path.join(HERE, "ops"), exist_ok=True)
    with open(os.path.join(HERE, "ops", "ops.txt"), "w") as f:
        f.write("# make_ops.py: name C H W; the numbers of the output\n")
        for name, shape, model in CASES:
            model.eval()
            fill(model)
            x = (2 * make_nets.uniform(INPUT_SEED, "input", int(np.prod(shape)))).astype(np.float32)
            y = model.double()(torch.from_numpy(x.astype(np.float64).reshape(1, *shape)))[0]
            assert y.dim() == 3, name
            f.write("%s %d %d %d\n" % (name, *y.shape))
            f.write(" ".join("%.9g" % v for v in y.flatten().tolist()) + "\n")


if __name__ == "__main__":
    main()
