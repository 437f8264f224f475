"""Fixup: a residual net of a hundred layers that trains without any normalisation.

Zhang, Dauphin, Ma, "Fixup Initialization: Residual Learning Without Normalization", 2019. New in it: what
batch norm does for a residual net at the start can be had from the initialisation. Without norm, each block
adds a variance of its own to that of its input, so the signal grows exponentially with depth; Fixup draws the
first layers of the L blocks L^(-1/2) times smaller and starts the last layer of each block, and the
classifier, at zero. The net starts as its shortcuts alone, and one step of gradient descent changes its
function by as much at any depth (section 3).

What norms also gave is put back as scalars: a bias before each convolution and activation, one multiplier a
block.

Differs from the paper: not stated in it, a shortcut that changes the shape takes every second pixel and adds
zero channels *after* the others, as the authors' code does (option A of He et al. has zeros on both sides
here).
Weights that fit: none are published.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.joins import Chain, Sum
from convarium.models.registry import Variant, register
from convarium.models.residual import blocks_of
from convarium.net import Head, Net, Stage

PAPER = "Zhang et al., Fixup Initialization: Residual Learning Without Normalization, 2019"


class Bias(nn.Module):
    """x + b, one trained number for all channels, at first 0."""

    rate = 0.1  # scalars learn ten times slower than weights (section 4.1)

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def reset_parameters(self) -> None:
        """At zero."""
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class Scale(nn.Module):
    """s x, one trained number for all channels, at first 1."""

    rate = 0.1  # scalars learn ten times slower than weights (section 4.1)

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def reset_parameters(self) -> None:
        """At one."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class ScaledConv2d(nn.Conv2d):
    """A 3x3 convolution without bias whose fresh weights are He's, times a number.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.
        scale: times He's standard deviation, sqrt(2 / fan-out); 0 for weights that start at zero.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, scale: float = 1.0) -> None:
        self.scale = scale
        super().__init__(in_channels, out_channels, 3, stride, padding=1, bias=False)

    def reset_parameters(self) -> None:
        """Normal with standard deviation scale x sqrt(2 / fan-out)."""
        fan_out = self.out_channels * 9
        nn.init.normal_(self.weight, std=self.scale * math.sqrt(2 / fan_out))


class GrowShortcut(nn.Module):
    """The identity without parameters: every stride-th pixel, zero channels added after the others.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.out_channels - self.in_channels))

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


def fixup_block(in_channels: int, out_channels: int, stride: int, blocks: int) -> nn.Module:
    """b1a, 3x3 /stride, b1b, ReLU, b2a, 3x3, x s, b2b; + x; ReLU (figure 1, right).

    Where the shape changes, both ways begin after b1a.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.
        blocks: of the whole net, the paper's L; with m = 2 layers a block, its L^(-1/(2m - 2)) is L^(-1/2).

    Returns:
        A Sum; a Chain of a bias and a Sum where the shape changes.
    """
    parts: dict[str, nn.Module] = {
        "bias1a": Bias(),
        "conv1": ScaledConv2d(in_channels, out_channels, stride, scale=blocks**-0.5),
        "bias1b": Bias(),
        "act1": nn.ReLU(inplace=True),
        "bias2a": Bias(),
        "conv2": ScaledConv2d(out_channels, out_channels, scale=0),
        "scale": Scale(),
        "bias2b": Bias(),
    }
    if stride == 1 and in_channels == out_channels:
        return Sum(Chain(parts), act=nn.ReLU(inplace=True))
    shared = parts.pop("bias1a")
    around = GrowShortcut(in_channels, out_channels, stride)
    return Chain(bias1a=shared, sum=Sum(Chain(parts), around, act=nn.ReLU(inplace=True)))


def cifar_fixup(*, classes: int, in_channels: int, size: int, depth: int) -> Net:
    """3x3, b, ReLU; three stages of n Fixup blocks of 16, 32, 64; average pool, b, linear; 6n + 2 layers."""
    n = blocks_of(depth, layers=2)
    stem = Chain(conv=ScaledConv2d(in_channels, 16), bias=Bias(), act=nn.ReLU(inplace=True))
    body, channels = [], 16
    for width in (16, 32, 64):
        blocks = []
        for _ in range(n):
            blocks.append(fixup_block(channels, width, 1 if width == channels or width == 16 else 2, 3 * n))
            channels = width
        body.append(Stage(blocks))
    head = Head(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), bias=Bias(), fc=nn.Linear(64, classes))
    return Net(stem, body, head, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """The classifier starts at zero; convolutions know their own scale (section 3, rules 1 and 2)."""
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
        return True
    return False


register(
    Variant(
        name="resnet110_fixup",
        family="fixup",
        build=cifar_fixup,
        year=2019,
        paper=f"{PAPER}, section 4.1",
        parameters=1_720_138,
        size=32,
        classes=10,
        arguments={"depth": 110},
        initialise=initialise,
    ),
)
