"""Inception v3: large convolutions taken apart into small and flat ones.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", 2015.
New in it: 7x7 as 1x7 and 7x1 in turn (figure 6), 3x3 as 1x3 beside 3x1 (figure 7), label smoothing, pictures
of 299 pixels, one auxiliary classifier.

`se_inception_v3` gates each module's output: Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks",
2017, figure 2.

Differs from the paper: it is torchvision's (norm eps 1e-3, a 5x5 where the paper's figure 5 has two 3x3); its
trained weights want pictures between -1 and 1, which `transform_input` makes of those normalised as usual.
Weights that fit: torchvision's (BSD-3-Clause) and timm's (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat
from convarium.models.parts import (
    AuxiliaryNet,
    conv_unit,
    gate_of,
    gated_stages,
    pooled_head,
    renormalise,
    stage_paths,
)
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule

PAPER = "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015"
SE = "Hu et al., Squeeze-and-Excitation Networks, 2017"

Conv = Callable[..., Chain]


def in_turn(
    conv: Conv, in_channels: int, *steps: tuple[int, int | tuple[int, int]], stride: int = 1
) -> Chain:
    """Convolutions in turn, each (channels, kernel); the last one strided, without a border then."""
    parts = {}
    for i, (channels, kernel_size) in enumerate(steps, start=1):
        last = {"stride": 2, "padding": 0} if stride == 2 and i == len(steps) else {}
        parts[f"conv{i}"] = conv(in_channels, channels, kernel_size, **last)
        in_channels = channels
    return Chain(**parts)


def projected(conv: Conv, in_channels: int, out_channels: int) -> Chain:
    """3x3 average pool, 1x1."""
    return Chain(pool=nn.AvgPool2d(3, 1, padding=1), project=conv(in_channels, out_channels, 1))


def split(conv: Conv, channels: int) -> Concat:
    """1x3 | 3x1."""
    return Concat(wide=conv(channels, channels, (1, 3)), tall=conv(channels, channels, (3, 1)))


class InceptionA(Concat):
    """1x1 | 1x1, 5x5 | 1x1, 3x3, 3x3 | pool, 1x1."""

    def __init__(self, in_channels: int, pooled: int, conv: Conv) -> None:
        super().__init__(
            branch1x1=conv(in_channels, 64, 1),
            branch5x5=in_turn(conv, in_channels, (48, 1), (64, 5)),
            branch3x3dbl=in_turn(conv, in_channels, (64, 1), (96, 3), (96, 3)),
            branch_pool=projected(conv, in_channels, pooled),
        )
        self.out_channels = 64 + 64 + 96 + pooled


class ReductionA(Concat):
    """3x3 /2 | 1x1, 3x3, 3x3 /2 | max-pool /2."""

    def __init__(self, in_channels: int, conv: Conv) -> None:
        super().__init__(
            branch3x3=conv(in_channels, 384, 3, 2, padding=0),
            branch3x3dbl=in_turn(conv, in_channels, (64, 1), (96, 3), (96, 3), stride=2),
            branch_pool=nn.MaxPool2d(3, 2),
        )
        self.out_channels = 384 + 96 + in_channels


class InceptionB(Concat):
    """1x1 | 1x1, 1x7, 7x1 | 1x1, 7x1, 1x7, 7x1, 1x7 | pool, 1x1."""

    def __init__(self, in_channels: int, width: int, conv: Conv) -> None:
        wide, tall = (1, 7), (7, 1)
        super().__init__(
            branch1x1=conv(in_channels, 192, 1),
            branch7x7=in_turn(conv, in_channels, (width, 1), (width, wide), (192, tall)),
            branch7x7dbl=in_turn(
                conv, in_channels, (width, 1), (width, tall), (width, wide), (width, tall), (192, wide)
            ),
            branch_pool=projected(conv, in_channels, 192),
        )
        self.out_channels = 4 * 192


class ReductionB(Concat):
    """1x1, 3x3 /2 | 1x1, 1x7, 7x1, 3x3 /2 | max-pool /2."""

    def __init__(self, in_channels: int, conv: Conv) -> None:
        super().__init__(
            branch3x3=in_turn(conv, in_channels, (192, 1), (320, 3), stride=2),
            branch7x7x3=in_turn(
                conv, in_channels, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3), stride=2
            ),
            branch_pool=nn.MaxPool2d(3, 2),
        )
        self.out_channels = 320 + 192 + in_channels


class InceptionC(Concat):
    """1x1 | 1x1, (1x3 | 3x1) | 1x1, 3x3, (1x3 | 3x1) | pool, 1x1."""

    def __init__(self, in_channels: int, conv: Conv) -> None:
        super().__init__(
            branch1x1=conv(in_channels, 320, 1),
            branch3x3=Chain(conv1=conv(in_channels, 384, 1), split=split(conv, 384)),
            branch3x3dbl=Chain(
                conv1=conv(in_channels, 448, 1), conv2=conv(448, 384, 3), split=split(conv, 384)
            ),
            branch_pool=projected(conv, in_channels, 192),
        )
        self.out_channels = 320 + 2 * 384 + 2 * 384 + 192


# v3, table 1, by torchvision's names: the kind of module and what it is given.
MODULES: Mapping[str, Callable[[int, Conv], Concat]] = {
    "5b": lambda channels, conv: InceptionA(channels, 32, conv),
    "5c": lambda channels, conv: InceptionA(channels, 64, conv),
    "5d": lambda channels, conv: InceptionA(channels, 64, conv),
    "6a": ReductionA,
    "6b": lambda channels, conv: InceptionB(channels, 128, conv),
    "6c": lambda channels, conv: InceptionB(channels, 160, conv),
    "6d": lambda channels, conv: InceptionB(channels, 160, conv),
    "6e": lambda channels, conv: InceptionB(channels, 192, conv),
    "7a": ReductionB,
    "7b": InceptionC,
    "7c": InceptionC,
}
STAGES = ((None, "5b", "5c", "5d"), ("6a", "6b", "6c", "6d", "6e"), ("7a", "7b", "7c"))


def inception_v3(
    *,
    classes: int,
    in_channels: int,
    size: int,
    aux: bool = True,
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    transform_input: bool = False,
    dropout: float = 0.5,
) -> AuxiliaryNet:
    """Three 3x3, pool, 1x1, 3x3, pool; eleven modules, two of stride 2; average pool, linear (table 1)."""
    if size < 75:
        raise ArgumentError(f"size = {size}; inception_v3 needs pictures of at least 75 pixels")
    if aux and size < 299:
        raise ArgumentError(
            f"size = {size}; the auxiliary classifier needs pictures of at least 299 pixels: "
            "build it with aux=False for smaller ones"
        )
    conv: Conv = partial(conv_unit, norm=partial(nn.BatchNorm2d, eps=1e-3))
    stem = Chain(
        renormalise=renormalise(transform_input, in_channels),
        conv1=conv(in_channels, 32, 3, 2, padding=0),
        conv2=conv(32, 32, 3, padding=0),
        conv3=conv(32, 64, 3),
        pool1=nn.MaxPool2d(3, 2),
        conv4=conv(64, 80, 1),
        conv5=conv(80, 192, 3, padding=0),
        pool2=nn.MaxPool2d(3, 2),
    )
    body, features = gated_stages(
        STAGES, 192, lambda name, channels: MODULES[name](channels, conv), gate_of(se, se_reduction, squeeze)
    )
    taps = {"stages.1.blocks.3": auxiliary(768, classes, conv)} if aux else {}
    last = pooled_head(features, classes, dropout)
    return AuxiliaryNet(stem, body, last, taps, in_channels=in_channels, classes=classes, size=size)


def auxiliary(channels: int, classes: int, conv: Conv) -> Chain:
    """5x5 average pool /3, 1x1 to 128, 5x5 to 768, linear."""
    return Chain(
        pool=nn.AvgPool2d(5, 3),
        conv1=conv(channels, 128, 1),
        conv2=conv(128, 768, 5, padding=0),
        mean=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(768, classes),
    )


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions and linears: normal, deviation 0.1, smaller in the auxiliary classifier (torchvision)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        deviation = {"aux.0.conv2.conv": 0.01, "aux.0.fc": 0.001}.get(path, 0.1)
        module.reset_parameters()  # for the bias
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2, b=2)
        return True
    return False


_PLACES = stage_paths(STAGES)
_KINDS = {"conv": "conv", "bn": "norm"}
_STEM = {"1a_3x3": "conv1", "2a_3x3": "conv2", "2b_3x3": "conv3", "3b_1x1": "conv4", "4a_3x3": "conv5"}


def torchvision(net: nn.Module) -> list[Rule]:
    """torchvision's (and timm's) names to ours; the auxiliary classifier is dropped where ours has none."""
    drop: list[Rule] = [] if len(getattr(net, "aux", ())) else [(r"AuxLogits\..*", None)]
    end = r"\.(conv|bn)\.(\w+)"
    return [
        *drop,
        (rf"Conv2d_(\w+){end}", lambda m: f"stem.{_STEM[m[1]]}.{_KINDS[m[2]]}.{m[3]}"),
        (
            rf"Mixed_(\w\w)\.branch_pool{end}",
            lambda m: f"{_PLACES[m[1]]}.branch_pool.project.{_KINDS[m[2]]}.{m[3]}",
        ),
        (
            rf"Mixed_(\w\w)\.(\w+)_(\d){end}",
            lambda m: f"{_PLACES[m[1]]}.{m[2]}.conv{m[3]}.{_KINDS[m[4]]}.{m[5]}",
        ),
        (
            rf"Mixed_(\w\w)\.(\w+)_\da{end}",
            lambda m: f"{_PLACES[m[1]]}.{m[2]}.split.wide.{_KINDS[m[3]]}.{m[4]}",
        ),
        (
            rf"Mixed_(\w\w)\.(\w+)_\db{end}",
            lambda m: f"{_PLACES[m[1]]}.{m[2]}.split.tall.{_KINDS[m[3]]}.{m[4]}",
        ),
        (rf"Mixed_(\w\w)\.(\w+){end}", lambda m: f"{_PLACES[m[1]]}.{m[2]}.{_KINDS[m[3]]}.{m[4]}"),
        (rf"AuxLogits\.conv(\d){end}", lambda m: f"aux.0.conv{int(m[1]) + 1}.{_KINDS[m[2]]}.{m[3]}"),
        (r"AuxLogits\.fc\.(\w+)", r"aux.0.fc.\1"),
        (r"fc\.(\w+)", r"head.fc.\1"),
    ]


register(
    Variant(
        name="inception_v3",
        family="inception_v3",
        build=inception_v3,
        year=2015,
        paper=f"{PAPER}, table 1",
        parameters=27_161_264,
        size=299,
        least=75,
        macs=5.713e9,
        top1=77.294,
        source="torchvision's Inception_V3_Weights.IMAGENET1K_V1, metadata",
        reference="torchvision:inception_v3",
        initialise=initialise,
        rules={"torchvision": torchvision, "timm": torchvision},
    ),
    Variant(
        name="se_inception_v3",
        family="inception_v3",
        build=inception_v3,
        year=2017,
        paper=f"{SE}, figure 2 on {PAPER}",
        parameters=28_822_884,  # 25,496,188 without the auxiliary classifier
        size=299,
        least=75,
        arguments={"se": True},
        initialise=initialise,
    ),
)
