"""MobileNet v3: blocks found by search.

Howard et al., "Searching for MobileNetV3", 2019. New in it: kernels and widths found by search for a phone's
latency, squeeze-excitation with a hard sigmoid, the hard swish, a shorter head.

Differs from the paper: as in MobileNet v1, channels are rounded to multiples of 8, and weights trained in
TensorFlow need padding="same", which no file of weights tells. Batch norm has eps 1e-3 and momentum 0.01, as
in torchvision. The paper's tables list single blocks; a stage is a run of blocks of equal width.
Weights that fit: torchvision's (BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from convarium.joins import Chain
from convarium.models.mobile_parts import (
    bodies,
    initialise,
    inverted_residual,
    rename_by,
    scaled,
    torchvision_parts,
    unit,
)
from convarium.models.parts import divisible, fraction, squeeze_excite
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Howard et al., Searching for MobileNetV3, 2019"
TORCHVISION = "torchvision's weights IMAGENET1K_V1, metadata"

# Tables 1 and 2, by stages of equal channels:
# kernel, expanded, channels, squeeze-excitation, hard swish, stride.
LARGE = (
    ((3, 16, 16, False, False, 1),),
    ((3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1)),
    ((5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1)),
    (
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
        (3, 184, 80, False, True, 1),
    ),
    ((3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1)),
    ((5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)),
)
SMALL = (
    ((3, 16, 16, True, False, 2),),
    ((3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
    ((5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1)),
    ((5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1)),
    ((5, 288, 96, True, True, 2), (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
)


Block = tuple[int, int, int, bool, bool, int]


def mobilenet_v3(
    *,
    classes: int,
    in_channels: int,
    size: int,
    stages: Sequence[Sequence[Block]],
    hidden: int,
    width: float = 1.0,
    padding: str = "torch",
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Net:
    """3x3 /2; inverted residuals; 1x1, global average pool, linear, hard swish, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        stages: rows of the paper's table: kernel, expanded, channels, squeeze-excitation, hard swish, stride.
        hidden: channels between the two last linear layers.
        width: the width multiplier, on all channels.
        padding: "torch", or "same" for weights from TensorFlow.
        dropout: rate before the classifier.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.
    """
    fraction("drop_path", drop_path)
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    total = sum(len(stage) for stage in stages)
    channels = scaled(16, width)
    stem = Chain(unit(in_channels, channels, 3, 2, act=nn.Hardswish, norm=norm, padding=padding))
    index, built = 0, []
    for stage in stages:
        blocks = []
        for kernel, widest, narrow, excited, hard_swish, stride in stage:
            expanded, out = scaled(widest, width), scaled(narrow, width)
            # The squeezed width comes from the expanded channels; in EfficientNet from the block's input.
            gate = (
                squeeze_excite(expanded, divisible(expanded // 4), gate=nn.Hardsigmoid) if excited else None
            )
            blocks.append(
                inverted_residual(
                    channels,
                    out,
                    expanded,
                    kernel,
                    stride,
                    act=nn.Hardswish if hard_swish else nn.ReLU,
                    norm=norm,
                    gate=gate,
                    padding=padding,
                    drop_path=drop_path * index / total,
                )
            )
            channels, index = out, index + 1
        built.append(Stage(blocks))
    last, hidden = 6 * channels, scaled(hidden, width)
    head = Head(
        "fc",
        **unit(channels, last, 1, act=nn.Hardswish, norm=norm),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc1=nn.Linear(last, hidden),
        act1=nn.Hardswish(inplace=True),
        dropout=nn.Dropout(fraction("dropout", dropout)),
        fc=nn.Linear(hidden, classes),
    )
    return Net(stem, built, head, in_channels=in_channels, classes=classes, size=size)


def torchvision_rules(net: nn.Module) -> list[Rule]:
    """torchvision's numbered layers of MobileNetV3 to ours."""
    table = {"features.0.0": "stem.conv", "features.0.1": "stem.norm"}
    table |= {"classifier.0": "head.fc1", "classifier.3": "head.fc"}
    number = 0
    for number, (path, body) in enumerate(bodies(net), start=1):
        table |= torchvision_parts(body, f"features.{number}.block", path)
    return rename_by(
        table | {f"features.{number + 1}.0": "head.conv", f"features.{number + 1}.1": "head.norm"}
    )


# name: stages, hidden, parameters, million multiply-accumulates and top-1 of torchvision's IMAGENET1K_V1
ROWS = {
    "mobilenet_v3_large": (LARGE, 1280, 5_483_032, 217, 74.042),
    "mobilenet_v3_small": (SMALL, 1024, 2_542_856, 57, 67.668),
}


register(
    *(
        Variant(
            name=name,
            family="mobilenet_v3",
            build=mobilenet_v3,
            year=2019,
            paper=f"{PAPER}, table {1 if name.endswith('large') else 2}",
            parameters=parameters,
            size=224,
            arguments={"stages": stages, "hidden": hidden},
            macs=mmacs * 1e6,
            top1=top1,
            source=TORCHVISION,
            reference=f"torchvision:{name}",
            initialise=initialise,
            rules={"torchvision": torchvision_rules},
        )
        for name, (stages, hidden, parameters, mmacs, top1) in ROWS.items()
    ),
)
