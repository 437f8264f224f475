"""Blocks, ways around them, stages and stems of the residual families. Not a family: it registers nothing.

Every block here comes after its convolutions with batch norm and ReLU ("post-activation", He et al. 2015).
The constructors take what later papers changed in it: groups and an inner width (ResNeXt, WideResNet), a gate
before the sum (SE), drop path, another way around (ResNet-D), the last norm at zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Sum
from convarium.layers import PadShortcut
from convarium.models.parts import DropPath, MakeGate, fraction, stage_plan
from convarium.models.token_parts import even_rates
from convarium.models.weights import Rule
from convarium.net import Head, Stage

SHORTCUTS = ("A", "B", "C", "D", "3x3", "none")
STEMS = ("7x7", "3x3")


class ZeroNorm(nn.BatchNorm2d):
    """Batch norm that starts with weight 0: a block that ends in it starts as its shortcut alone.

    Source: Goyal et al., Accurate, Large Minibatch SGD, 2017, section 5.1.
    """

    def reset_parameters(self) -> None:
        """Weight and bias at zero."""
        super().reset_parameters()
        nn.init.zeros_(self.weight)


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """A convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )


def last_norm(channels: int, zero: bool) -> nn.BatchNorm2d:
    """The norm before the sum, which may start at zero."""
    return ZeroNorm(channels) if zero else nn.BatchNorm2d(channels)


class BasicBlock(Sum):
    """3x3 /stride, BN, ReLU, 3x3, BN [, gate] [, drop path]; + shortcut; ReLU."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Module | None,
        *,
        gate: MakeGate | None = None,
        zero_init: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(
            body=Chain(
                conv1=conv(in_channels, width, 3, stride),
                norm1=nn.BatchNorm2d(width),
                act1=nn.ReLU(inplace=True),
                conv2=conv(width, width, 3),
                norm2=last_norm(width, zero_init),
                se=gate(width) if gate else None,
                drop=DropPath(drop_path) if drop_path else None,
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
    """1x1, BN, ReLU, 3x3 /stride in groups, BN, ReLU, 1x1 to 4 x width, BN [, gate] [, drop path]; + shortcut; ReLU.

    Args:
        in_channels: channels in.
        width: a quarter of the channels out.
        stride: step in pixels.
        shortcut: the way around; the identity where None.
        v1: the first 1x1 strides, as the paper has it, and not the 3x3 ("v1.5").
        groups: of the 3x3 convolution.
        base_width: channels of one group where `width` is 64; they grow with it.
        halve_first: the first 1x1 has half the inner channels (SENet-154).
        gate: makes what weighs the body's output.
        zero_init: the last norm starts with weight 0.
        drop_path: rate of dropping the body for a sample.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Module | None,
        *,
        v1: bool = False,
        groups: int = 1,
        base_width: int = 64,
        halve_first: bool = False,
        gate: MakeGate | None = None,
        zero_init: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        inner = inner_width(width, groups, base_width)
        first = inner // 2 if halve_first else inner
        super().__init__(
            body=Chain(
                conv1=conv(in_channels, first, 1, stride if v1 else 1),
                norm1=nn.BatchNorm2d(first),
                act1=nn.ReLU(inplace=True),
                conv2=conv(first, inner, 3, 1 if v1 else stride, groups),
                norm2=nn.BatchNorm2d(inner),
                act2=nn.ReLU(inplace=True),
                conv3=conv(inner, 4 * width, 1),
                norm3=last_norm(4 * width, zero_init),
                se=gate(4 * width) if gate else None,
                drop=DropPath(drop_path) if drop_path else None,
            ),
            shortcut=shortcut,
            act=nn.ReLU(inplace=True),
        )


def inner_width(width: int, groups: int, base_width: int) -> int:
    """Channels of a bottleneck's 3x3: `groups` groups of `base_width`, which is meant for a width of 64."""
    return width * base_width // 64 * groups


def shortcut(option: str, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """The way around a block.

    Args:
        option: "A" identity with zeros for new channels, "B" projection where shapes differ, "C" projection
            always (He et al. 2015, section 3.3); "D" as B, but the step is a mean over 2x2 pixels before the
            projection (He et al. 2018, figure 2c); "3x3" as B, but a projection that strides sees 3x3 pixels
            (SENet-154); "none" for a plain net.
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.

    Returns:
        A module; None for the identity.

    Raises:
        ArgumentError: no such option.
    """
    if option not in SHORTCUTS:
        raise ArgumentError(f"shortcut = {option!r}; it must be one of {', '.join(map(repr, SHORTCUTS))}")
    same = stride == 1 and in_channels == out_channels
    if option == "none" or (same and option != "C"):
        return None
    if option == "A":
        return PadShortcut(in_channels, out_channels, stride)
    pool = None
    if option == "D" and stride > 1:
        pool, stride = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False), 1
    kernel_size = 3 if option == "3x3" and stride > 1 else 1
    return Chain(
        pool=pool,
        conv=conv(in_channels, out_channels, kernel_size, stride),
        norm=nn.BatchNorm2d(out_channels),
    )


def body_options(option: str, gate: MakeGate | None, zero_init: bool, drop_path: float) -> dict[str, Any]:
    """What a net's blocks are told about the end of their bodies; a block without a shortcut takes nothing.

    Args:
        option: of `shortcut`.
        gate: makes what weighs a body's output; none where None.
        zero_init: the last norm starts with weight 0.
        drop_path: the last block's rate.

    Returns:
        Arguments for `stages`.

    Raises:
        ArgumentError: an option that needs shortcuts, and there are none.
    """
    if option != "none":
        return {"gate": gate, "zero_init": zero_init, "drop_path": drop_path}
    if gate or drop_path:
        raise ArgumentError("se and drop_path need shortcuts; with shortcut = 'none' there are none")
    if zero_init:
        raise ArgumentError("zero_init = True needs shortcuts; without them the net would give zeros")
    return {}


def stages(
    block: Any,
    in_channels: int,
    depths: Sequence[int],
    widths: Sequence[int],
    option: str,
    *,
    drop_path: float = 0.0,
    **block_arguments: Any,
) -> list[Stage]:
    """Stages of equal blocks; each but the first halves the resolution in its first block.

    Args:
        block: a class of blocks, called with channels, width, stride, shortcut; gives width x `expansion`.
        in_channels: channels that the first block is given.
        depths: blocks of each stage.
        widths: width of each stage.
        option: of `shortcut`.
        drop_path: rate of the last block; the first block's is 0, growth even (Huang et al. 2016, section 3).
        block_arguments: passed to every block.

    Returns:
        The stages.

    Raises:
        ArgumentError: not one depth for each width, or a rate outside 0 to 1.
    """
    result = []
    plan = stage_plan(depths, widths)
    rates = iter(even_rates(fraction("drop_path", drop_path), sum(depths)))
    for index, (depth, width) in enumerate(plan):
        blocks: list[nn.Module] = []
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            around = shortcut(option, in_channels, width * block.expansion, stride)
            rate = next(rates)
            dropped = {"drop_path": rate} if rate else {}
            blocks.append(block(in_channels, width, stride, around, **block_arguments, **dropped))
            in_channels = width * block.expansion
        result.append(Stage(blocks))
    return result


def stem(in_channels: int, out_channels: int = 64, kind: str = "7x7", ceil_pool: bool = False) -> Chain:
    """7x7 /2 or three 3x3 (the first /2), each with BN and ReLU; 3x3 max-pool /2.

    Args:
        in_channels: channels of the picture.
        out_channels: channels out.
        kind: "7x7" (He et al. 2015) or "3x3" (Inception's, as in ResNet-D and SENet-154).
        ceil_pool: the pool does not pad and rounds its size up, as Caffe does: its windows lie elsewhere.

    Returns:
        A quarter of the side of the picture.

    Raises:
        ArgumentError: no such kind.
    """
    if kind not in STEMS:
        raise ArgumentError(f"stem = {kind!r}; it must be one of {', '.join(map(repr, STEMS))}")
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=True) if ceil_pool else nn.MaxPool2d(3, stride=2, padding=1)
    if kind == "7x7":
        return Chain(
            conv=conv(in_channels, out_channels, 7, 2),
            norm=nn.BatchNorm2d(out_channels),
            act=nn.ReLU(inplace=True),
            pool=pool,
        )
    half = out_channels // 2
    return Chain(
        conv1=conv(in_channels, half, 3, 2),
        norm1=nn.BatchNorm2d(half),
        act1=nn.ReLU(inplace=True),
        conv2=conv(half, half, 3),
        norm2=nn.BatchNorm2d(half),
        act2=nn.ReLU(inplace=True),
        conv3=conv(half, out_channels, 3),
        norm3=nn.BatchNorm2d(out_channels),
        act3=nn.ReLU(inplace=True),
        pool=pool,
    )


def head(features: int, classes: int) -> Head:
    """Global average pool, linear."""
    return Head(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(features, classes))


def blocks_of(depth: int, layers: int) -> int:
    """Blocks a stage of a CIFAR net that has three stages of n blocks and two further layers.

    Args:
        depth: layers of the net.
        layers: layers of a block.

    Returns:
        n.

    Raises:
        ArgumentError: no whole number of blocks gives this depth.
    """
    n, rest = divmod(depth - 2, 3 * layers)
    if rest or n < 1:
        first = ", ".join(str(3 * layers * k + 2) for k in (1, 2, 3))
        raise ArgumentError(f"depth = {depth}; it must be {3 * layers}n + 2: {first}, ...")
    return n


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions: normal with variance 2 / fan-out (He et al., Delving Deep into Rectifiers, 2015)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return True
    return False


def _place(match: re.Match[str]) -> str:
    return f"stages.{int(match[1]) - 1}.blocks.{match[2]}"


def rules(stem: str = "7x7", projection: int = 0) -> list[Rule]:
    """Names of torchvision, timm and most training scripts to ours.

    Args:
        stem: its kind; the stem of three 3x3 has numbers, its activations counted.
        projection: index of the convolution in their shortcut; 1 where a pool comes before it (ResNet-D).

    Returns:
        Ordered rules.
    """
    around = r"layer(\d)\.(\d+)\.(?:downsample|shortcut)"
    return [
        (r"layer(\d)\.(\d+)\.(conv\d)\.(\w+)", lambda m: f"{_place(m)}.body.{m[3]}.{m[4]}"),
        (r"layer(\d)\.(\d+)\.bn(\d)\.(\w+)", lambda m: f"{_place(m)}.body.norm{m[3]}.{m[4]}"),
        (
            r"layer(\d)\.(\d+)\.se(?:_module)?\.(fc\d)\.(\w+)",
            lambda m: f"{_place(m)}.body.se.gate.{m[3]}.{m[4]}",
        ),
        (rf"{around}\.{projection}\.(\w+)", lambda m: f"{_place(m)}.shortcut.conv.{m[3]}"),
        (rf"{around}\.{projection + 1}\.(\w+)", lambda m: f"{_place(m)}.shortcut.norm.{m[3]}"),
        (r"conv1\.([036])\.(\w+)", lambda m: f"stem.conv{int(m[1]) // 3 + 1}.{m[2]}"),
        (r"conv1\.([14])\.(\w+)", lambda m: f"stem.norm{int(m[1]) // 3 + 1}.{m[2]}"),
        (r"conv1\.(\w+)", r"stem.conv.\1"),
        (r"bn1\.(\w+)", r"stem.norm3.\1" if stem == "3x3" else r"stem.norm.\1"),
        (r"(?:fc|linear)\.(\w+)", r"head.fc.\1"),
    ]
