"""Pre-activated residual networks: nothing stands on the way around, so a signal passes unchanged.

He, Zhang, Ren, Sun, "Identity Mappings in Deep Residual Networks", 2016 ("ResNet v2"). New in it: batch norm
and ReLU come *before* each convolution, and none after the sum. A ResNet of 1001 layers then trains (4.9 %
error on CIFAR-10) where the form of 2015 gets worse beyond some hundred (figure 1 and table 4).

Zagoruyko, Komodakis, "Wide Residual Networks", 2016. New in it: the same blocks, k times as wide and few. 16
layers beat a thousand thin ones in accuracy, and train several times faster (table 5).

Where a block changes the channels, and in the first block after the stem, norm and ReLU come before the two
ways part, so both see activated features (the paper's appendix, and the authors' code).

Differs from the papers: ImageNet nets stride the 3x3 as timm's do, CIFAR bottlenecks the first 1x1 as the
authors' code does. The paper does not say which shortcut its ResNet-110 has; here it is option A, as in the
first paper. Every net takes `se=True` (a gate of C / se_reduction channels on each body, Hu et al. 2017) and
`drop_path` (Huang et al. 2016).
Weights that fit: timm's resnetv2 nets (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Sum
from convarium.layers import PadShortcut
from convarium.models.parts import DropPath, MakeGate, fraction, gate_of, stage_plan
from convarium.models.registry import Variant, register
from convarium.models.residual import blocks_of, conv, initialise, last_norm
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.models.token_parts import even_rates
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "He et al., Identity Mappings in Deep Residual Networks, 2016"
WIDE = "Zagoruyko and Komodakis, Wide Residual Networks, 2016"


def preact_block(
    in_channels: int,
    out_channels: int,
    stride: int,
    *,
    bottleneck: bool,
    shortcut: str = "B",
    first: bool = False,
    stride_3x3: bool = True,
    dropout: float = 0.0,
    gate: MakeGate | None = None,
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> nn.Module:
    """BN, ReLU, 3x3 /stride, BN, ReLU, 3x3 [, gate] [, drop path]; + x.

    A bottleneck has 1x1, 3x3, 1x1, each after BN and ReLU.

    Where the shape changes: h = ReLU(BN(x)), then the convolutions of h + the projection of h.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        stride: step in pixels.
        bottleneck: three convolutions, with a quarter of the channels inside.
        shortcut: "A" zeros for new channels, "B" projection, where the shape changes.
        first: the first activation is shared by both ways though the shape stays.
        stride_3x3: a bottleneck strides its 3x3, not its first 1x1.
        dropout: share of features that are dropped in training, before the last convolution.
        gate: makes what weighs the body's output.
        zero_init: the last norm starts with weight 0.
        drop_path: rate of dropping the body for a sample.

    Returns:
        A Sum; a Chain of norm, activation and Sum where the first activation is shared.
    """
    if bottleneck:
        inner = out_channels // 4
        at_1x1, at_3x3 = (1, stride) if stride_3x3 else (stride, 1)
        convolutions = [
            conv(in_channels, inner, 1, at_1x1),
            conv(inner, inner, 3, at_3x3),
            conv(inner, out_channels, 1),
        ]
    else:
        convolutions = [conv(in_channels, out_channels, 3, stride), conv(out_channels, out_channels, 3)]
    parts: dict[str, nn.Module] = {}
    for i, convolution in enumerate(convolutions, 1):
        last = i == len(convolutions)
        parts[f"norm{i}"] = last_norm(convolution.in_channels, zero_init and last)
        parts[f"act{i}"] = nn.ReLU(inplace=True)
        if last and dropout:
            parts["drop"] = nn.Dropout(dropout)
        parts[f"conv{i}"] = convolution
    if gate:
        parts["se"] = gate(out_channels)
    if drop_path:
        parts["drop_path"] = DropPath(drop_path)
    changes = stride > 1 or in_channels != out_channels
    if not changes and not first:
        return Sum(Chain(parts))
    around: nn.Module | None = None
    if changes and shortcut == "A":
        around = PadShortcut(in_channels, out_channels, stride)
    elif changes:
        around = Chain(conv=conv(in_channels, out_channels, 1, stride))
    norm, act = parts.pop("norm1"), parts.pop("act1")
    return Chain(norm1=norm, act1=act, sum=Sum(Chain(parts), around))


def preact_stages(
    in_channels: int,
    depths: Sequence[int],
    widths: Sequence[int],
    *,
    bottleneck: bool,
    shortcut: str = "B",
    stride_3x3: bool = True,
    dropout: float = 0.0,
    gate: MakeGate | None = None,
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> list[Stage]:
    """Stages of pre-activated blocks; each but the first halves the resolution in its first block."""
    if shortcut not in ("A", "B"):
        raise ArgumentError(f"shortcut = {shortcut!r}; it must be 'A' or 'B'")
    result = []
    plan = stage_plan(depths, widths)
    rates = iter(even_rates(fraction("drop_path", drop_path), sum(depths)))
    for index, (depth, width) in enumerate(plan):
        blocks = []
        for position in range(depth):
            blocks.append(
                preact_block(
                    in_channels,
                    width,
                    2 if index > 0 and position == 0 else 1,
                    bottleneck=bottleneck,
                    shortcut=shortcut,
                    first=index == 0 and position == 0,
                    stride_3x3=stride_3x3,
                    dropout=dropout,
                    gate=gate,
                    zero_init=zero_init,
                    drop_path=next(rates),
                )
            )
            in_channels = width
        result.append(Stage(blocks))
    return result


def head(features: int, classes: int) -> Head:
    """BN, ReLU (the last sum has neither), global average pool, linear."""
    return Head(
        norm=nn.BatchNorm2d(features),
        act=nn.ReLU(inplace=True),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(features, classes),
    )


def resnet_v2(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """7x7 /2, 3x3 max-pool /2; four stages of pre-activated bottlenecks; BN, ReLU, average pool, linear."""
    stem = Chain(conv=conv(in_channels, 64, 7, 2), pool=nn.MaxPool2d(3, stride=2, padding=1))
    body = preact_stages(
        64,
        depths,
        (256, 512, 1024, 2048),
        bottleneck=True,
        gate=gate_of(se, se_reduction, squeeze),
        zero_init=zero_init,
        drop_path=drop_path,
    )
    return Net(stem, body, head(2048, classes), in_channels=in_channels, classes=classes, size=size)


def cifar_resnet_v2(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depth: int,
    bottleneck: bool = False,
    shortcut: str = "A",
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """3x3; three stages of n blocks of 16, 32, 64 (x 4 for bottlenecks); BN, ReLU, average pool, linear.

    6n + 2 layers, or 9n + 2 in bottlenecks.
    """
    n = blocks_of(depth, layers=3 if bottleneck else 2)
    widths = tuple(width * (4 if bottleneck else 1) for width in (16, 32, 64))
    stem = Chain(conv=conv(in_channels, 16, 3))
    body = preact_stages(
        16,
        (n, n, n),
        widths,
        bottleneck=bottleneck,
        shortcut=shortcut,
        stride_3x3=False,
        gate=gate_of(se, se_reduction, squeeze),
        zero_init=zero_init,
        drop_path=drop_path,
    )
    return Net(stem, body, head(widths[-1], classes), in_channels=in_channels, classes=classes, size=size)


def wide_resnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depth: int,
    width: int,
    dropout: float = 0.0,
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """3x3 to 16; three stages of n basic blocks of 16k, 32k, 64k; BN, ReLU, average pool, linear (table 1).

    6n + 4 layers: the paper counts the three projections.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        depth: number of convolutions on the longest way, with the projections and without the classifier.
        width: the paper's k.
        dropout: between a block's convolutions; the paper takes 0.3 (section 2.4).
        se: each block's body is gated before the sum (Hu et al. 2017).
        se_reduction: channels are squeezed to one in so many.
        squeeze: the gates' global pool, "avg" or "max".
        zero_init: the last norm of each block starts with weight 0.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.

    Returns:
        The network.

    Raises:
        ArgumentError: no whole number of blocks gives this depth, or a width below 1.
    """
    n, rest = divmod(depth - 4, 6)
    if rest or n < 1:
        raise ArgumentError(f"depth = {depth}; it must be 6n + 4: 10, 16, 22, ...")
    if not 0 <= dropout < 1:
        raise ArgumentError(f"dropout = {dropout}; it must be at least 0 and less than 1")
    if width < 1:
        raise ArgumentError(f"width = {width}; it must be at least 1")
    widths = (16 * width, 32 * width, 64 * width)
    stem = Chain(conv=conv(in_channels, 16, 3))
    body = preact_stages(
        16,
        (n, n, n),
        widths,
        bottleneck=False,
        dropout=dropout,
        gate=gate_of(se, se_reduction, squeeze),
        zero_init=zero_init,
        drop_path=drop_path,
    )
    return Net(stem, body, head(widths[-1], classes), in_channels=in_channels, classes=classes, size=size)


# In timm's nets the first block of each stage, and no other, changes the shape.
TIMM: list[Rule] = [
    (r"(stages\.\d+\.blocks\.0)\.downsample\.conv\.(\w+)", r"\1.sum.shortcut.conv.\2"),
    (r"(stages\.\d+\.blocks\.0)\.norm1\.(\w+)", r"\1.norm1.\2"),
    (r"(stages\.\d+\.blocks\.0)\.(conv\d|norm\d)\.(\w+)", r"\1.sum.body.\2.\3"),
    (r"(stages\.\d+\.blocks\.[1-9]\d*)\.(conv\d|norm\d)\.(\w+)", r"\1.body.\2.\3"),
    (r"norm\.(\w+)", r"head.norm.\1"),
    (r"head\.fc\.weight", "head.fc.weight", lambda weight: weight.flatten(1)),  # a 1x1 convolution there
]

# name: depths, parameters, GMACs and top-1 of timm's a1h_in1k
IMAGENET = {
    "resnetv2_50": ((3, 4, 6, 3), 25_549_352, 4.11, 80.41),
    "resnetv2_101": ((3, 4, 23, 3), 44_541_480, 7.83, 82.042),
    "resnetv2_152": ((3, 8, 36, 3), 60_185_128, None, None),
}

# name: depth, bottleneck, shortcut, parameters, error on CIFAR-10 in per cent (the paper's table 2)
CIFAR = {
    "resnet110_v2": (110, False, "A", 1_727_962, 6.37),
    "resnet164_v2": (164, True, "B", 1_703_258, 5.46),
}

# name: depth, width, parameters, error on CIFAR-10 in per cent
WRN = {
    "wrn_16_8": (16, 8, 10_961_370, 4.27),
    "wrn_28_10": (28, 10, 36_479_194, 4.00),
}

register(
    *(
        Variant(
            name=name,
            family="preact",
            build=cifar_resnet_v2,
            year=2016,
            paper=f"{PAPER}, figure 4e and appendix",
            parameters=parameters,
            size=32,
            classes=10,
            arguments={"depth": depth, "bottleneck": bottleneck, "shortcut": shortcut},
            top1=round(100 - error, 2),
            source="the paper's table 2, on CIFAR-10",
            initialise=initialise,
        )
        for name, (depth, bottleneck, shortcut, parameters, error) in CIFAR.items()
    ),
    *(
        Variant(
            name=name,
            family="preact",
            build=resnet_v2,
            year=2016,
            paper=f"{PAPER}, section 5",
            parameters=parameters,
            size=224,
            arguments={"depths": depths},
            macs=gmacs and gmacs * 1e9,
            top1=top1,
            source=f"{TIMM_RESULTS}: a1h_in1k" if top1 else "",
            reference=f"timm:{name}",
            initialise=initialise,
            rules={"timm": TIMM},
        )
        for name, (depths, parameters, gmacs, top1) in IMAGENET.items()
    ),
    *(
        Variant(
            name=name,
            family="preact",
            build=wide_resnet,
            year=2016,
            paper=f"{WIDE}, table 1",
            parameters=parameters,
            size=32,
            classes=10,
            arguments={"depth": depth, "width": width},
            top1=round(100 - error, 2),
            source="the paper's table 5, on CIFAR-10 without dropout, median of 5 runs",
            initialise=initialise,
        )
        for name, (depth, width, parameters, error) in WRN.items()
    ),
)
