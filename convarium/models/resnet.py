"""Residual networks: layers learn what to add to their input.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015. New in it: plain nets get *worse* when
made deeper, on the training set too (figures 1 and 6), so it is not overfitting; with a shortcut around each pair of
layers, depth helps up to 152 layers (table 3) and 110 on CIFAR (table 6).

Two kinds. The ImageNet nets of table 1 equal torchvision's: "v1.5", which strides the 3x3 of a bottleneck; the
paper's own v1 strides its first 1x1: the same keys and shapes, another function. The CIFAR nets of section 4.2 have
6n + 2 layers of 16, 32, 64 channels, with the parameter-free shortcut (option A) or projections (option B).

Differs from the paper: batch norm of shortcuts as in torchvision; weights drawn by He's rule with fan-out.
Weights that fit: torchvision's (BSD-3-Clause), CIFAR weights in akamaster's names (BSD-2-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Sum
from convarium.layers import PadShortcut
from convarium.models.registry import Variant, register
from convarium.models.weights import Rules
from convarium.net import Head, Net, Stage

PAPER = "He et al., Deep Residual Learning for Image Recognition, 2015"


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


class BasicBlock(Sum):
    """3x3 /stride, BN, ReLU, 3x3, BN; + shortcut; ReLU."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__(
            body=Chain(
                conv1=conv(in_channels, width, 3, stride),
                norm1=nn.BatchNorm2d(width),
                act1=nn.ReLU(inplace=True),
                conv2=conv(width, width, 3),
                norm2=nn.BatchNorm2d(width),
            ),
            shortcut=shortcut,
            act=nn.ReLU(inplace=True),
        )


class PlainBlock(Chain):
    """3x3 /stride, BN, ReLU, 3x3, BN, ReLU: a basic block without its shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None) -> None:
        super().__init__(
            conv1=conv(in_channels, width, 3, stride),
            norm1=nn.BatchNorm2d(width),
            act1=nn.ReLU(inplace=True),
            conv2=conv(width, width, 3),
            norm2=nn.BatchNorm2d(width),
            act2=nn.ReLU(inplace=True),
        )


class Bottleneck(Sum):
    """1x1, BN, ReLU, 3x3 /stride, BN, ReLU, 1x1 to 4 x width, BN; + shortcut; ReLU. (v1 strides the first 1x1.)"""

    expansion = 4

    def __init__(
        self, in_channels: int, width: int, stride: int, shortcut: nn.Module | None, v1: bool = False
    ) -> None:
        super().__init__(
            body=Chain(
                conv1=conv(in_channels, width, 1, stride if v1 else 1),
                norm1=nn.BatchNorm2d(width),
                act1=nn.ReLU(inplace=True),
                conv2=conv(width, width, 3, 1 if v1 else stride),
                norm2=nn.BatchNorm2d(width),
                act2=nn.ReLU(inplace=True),
                conv3=conv(width, 4 * width, 1),
                norm3=nn.BatchNorm2d(4 * width),
            ),
            shortcut=shortcut,
            act=nn.ReLU(inplace=True),
        )


def shortcut(option: str, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The way around a block (section 3.3 of the paper).

    Args:
        option: "A" identity with zeros for new channels, "B" projection where shapes differ, "C" projection always,
            "none" for a plain net.
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.

    Returns:
        A module; None for the identity.
    """
    same = stride == 1 and in_channels == out_channels
    if option == "none" or (same and option != "C"):
        return None
    if option == "A":
        return PadShortcut(in_channels, out_channels, stride)
    return Chain(conv=conv(in_channels, out_channels, 1, stride), norm=nn.BatchNorm2d(out_channels))


def stages(
    block: type[BasicBlock | PlainBlock | Bottleneck],
    in_channels: int,
    depths: Sequence[int],
    widths: Sequence[int],
    option: str,
    **block_arguments: bool,
) -> list[Stage]:
    """Stages of equal blocks; each but the first halves the resolution in its first block."""
    if option not in ("A", "B", "C", "none"):
        raise ArgumentError(f"shortcut = {option!r}; it must be 'A', 'B', 'C' or 'none'")
    result = []
    for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks: list[nn.Module] = []
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            around = shortcut(option, in_channels, width * block.expansion, stride)
            blocks.append(block(in_channels, width, stride, around, **block_arguments))
            in_channels = width * block.expansion
        result.append(Stage(blocks))
    return result


def resnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    bottleneck: bool = False,
    shortcut: str = "B",
    v1: bool = False,
) -> Net:
    """7x7 /2, BN, ReLU, 3x3 max-pool /2; four stages of 64 to 512; average pool, linear (table 1)."""
    stem = Chain(
        conv=nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False),
        norm=nn.BatchNorm2d(64),
        act=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    widths = (64, 128, 256, 512)
    if bottleneck:
        body = stages(Bottleneck, 64, depths, widths, shortcut, v1=v1)
    else:
        body = stages(PlainBlock if shortcut == "none" else BasicBlock, 64, depths, widths, shortcut)
    features = widths[-1] * (4 if bottleneck else 1)
    return Net(stem, body, head(features, classes), in_channels=in_channels, classes=classes, size=size)


def cifar_resnet(*, classes: int, in_channels: int, size: int, depth: int, shortcut: str = "A") -> Net:
    """3x3, BN, ReLU; three stages of n blocks of 16, 32, 64; average pool, linear; 6n + 2 layers (section 4.2)."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        raise ArgumentError(f"depth = {depth}; it must be 6n + 2: 8, 14, 20, ...")
    stem = Chain(conv=conv(in_channels, 16, 3), norm=nn.BatchNorm2d(16), act=nn.ReLU(inplace=True))
    block = PlainBlock if shortcut == "none" else BasicBlock
    body = stages(block, 16, (n, n, n), (16, 32, 64), shortcut)
    return Net(stem, body, head(64, classes), in_channels=in_channels, classes=classes, size=size)


def head(features: int, classes: int) -> Head:
    """Global average pool, linear."""
    return Head(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(features, classes))


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions: normal with variance 2 / fan-out (He et al., Delving Deep into Rectifiers, 2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        return True
    return False


def _block_rules(layer: str, first_stage: int) -> Rules:
    def place(match) -> str:  # type: ignore[no-untyped-def]
        return f"stages.{int(match[1]) - first_stage}.blocks.{match[2]}"

    return [
        (rf"{layer}(\d)\.(\d+)\.(conv\d)\.(\w+)", lambda m: f"{place(m)}.body.{m[3]}.{m[4]}"),
        (rf"{layer}(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"{place(m)}.body.norm{m[3]}.{m[4]}"),
        (rf"{layer}(\d)\.(\d+)\.(?:downsample|shortcut)\.0\.(\w+)", lambda m: f"{place(m)}.shortcut.conv.{m[3]}"),
        (rf"{layer}(\d)\.(\d+)\.(?:downsample|shortcut)\.1\.(\w+)", lambda m: f"{place(m)}.shortcut.norm.{m[3]}"),
        (r"conv1\.(\w+)", r"stem.conv.\1"),
        (r"bn1\.(\w+)", r"stem.norm.\1"),
        (r"(?:fc|linear)\.(\w+)", r"head.fc.\1"),
    ]


TORCHVISION = _block_rules("layer", 1)

# name: depths, bottleneck, parameters, GMACs and top-1 of torchvision's IMAGENET1K_V1
IMAGENET = {
    "resnet18": ((2, 2, 2, 2), False, 11_689_512, 1.814, 69.758),
    "resnet34": ((3, 4, 6, 3), False, 21_797_672, 3.664, 73.314),
    "resnet50": ((3, 4, 6, 3), True, 25_557_032, 4.089, 76.130),
    "resnet101": ((3, 4, 23, 3), True, 44_549_160, 7.801, 77.374),
    "resnet152": ((3, 8, 36, 3), True, 60_192_808, 11.514, 78.312),
}

# name: depth, shortcut, parameters, error on CIFAR-10 in per cent (the paper's table 6; none given for plain nets)
CIFAR = {
    "plain20": (20, "none", 269_722, None),
    "plain56": (56, "none", 853_018, None),
    "resnet20": (20, "A", 269_722, 8.75),
    "resnet32": (32, "A", 464_154, 7.51),
    "resnet44": (44, "A", 658_586, 7.17),
    "resnet56": (56, "A", 853_018, 6.97),
    "resnet110": (110, "A", 1_727_962, 6.43),
}

register(
    *(
        Variant(
            name=name,
            family="resnet",
            build=cifar_resnet,
            year=2015,
            paper=f"{PAPER}, section 4.2",
            parameters=parameters,
            size=32,
            classes=10,
            arguments={"depth": depth, "shortcut": option},
            top1=None if error is None else round(100 - error, 2),
            source="" if error is None else "the paper's table 6, on CIFAR-10",
            initialise=initialise,
            rules={"akamaster/pytorch_resnet_cifar10": TORCHVISION},
        )
        for name, (depth, option, parameters, error) in CIFAR.items()
    ),
    *(
        Variant(
            name=name,
            family="resnet",
            build=resnet,
            year=2015,
            paper=f"{PAPER}, table 1" + (", in its v1.5 form" if bottleneck else ""),
            parameters=parameters,
            size=224,
            arguments={"depths": depths, "bottleneck": bottleneck},
            macs=gmacs * 1e9,
            top1=top1,
            source="torchvision's ResNet weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:{name}",
            initialise=initialise,
            rules={"torchvision": TORCHVISION},
        )
        for name, (depths, bottleneck, parameters, gmacs, top1) in IMAGENET.items()
    ),
    *(
        Variant(
            name=f"{name}_v1",
            family="resnet",
            build=resnet,
            year=2015,
            paper=f"{PAPER}, table 1, strides as published",
            parameters=IMAGENET[name][2],
            size=224,
            arguments={"depths": IMAGENET[name][0], "bottleneck": True, "v1": True},
            initialise=initialise,
            rules={"torchvision": TORCHVISION},
        )
        for name in ("resnet50", "resnet101", "resnet152")
    ),
)
