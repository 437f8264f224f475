"""MobileNet v2: wide inside, narrow where the shortcuts join.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018. New in it: shortcuts join the
narrow ends of blocks that are wide inside, and no activation stands at a narrow end, where it would destroy
information.

Differs from the paper: as in MobileNet v1, channels are rounded to multiples of 8, and weights trained in
TensorFlow need padding="same", which no file of weights tells. Batch norm has eps 1e-5 and momentum 0.1, as
in torchvision. A stage is a row of the paper's table.
Weights that fit: torchvision's (BSD-3-Clause), timm's (Apache-2.0), Google's in timm's names.
"""

from __future__ import annotations

from torch import nn

from convarium.joins import Chain
from convarium.models.mobile_parts import (
    bodies,
    initialise,
    inverted_residual,
    rename_by,
    scaled,
    timm_rules,
    unit,
)
from convarium.models.parts import fraction
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Sandler et al., MobileNetV2, 2018"
TORCHVISION = "torchvision's weights IMAGENET1K_V1, metadata"
TENSORFLOW = "the tables published with TensorFlow's checkpoints, slim/nets"

# Table 2: expansion, channels, blocks, stride of the first block.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    *,
    classes: int,
    in_channels: int,
    size: int,
    width: float = 1.0,
    padding: str = "torch",
    dropout: float = 0.2,
    drop_path: float = 0.0,
) -> Net:
    """3x3 /2; 17 inverted residuals; 1x1 to 1280, global average pool, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        width: the width multiplier, on all channels; the last 1280 are only ever multiplied by more than 1.
        padding: "torch", or "same" for weights from TensorFlow.
        dropout: rate before the classifier.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.
    """
    fraction("drop_path", drop_path)
    total = sum(depth for _, _, depth, _ in STAGES)
    channels = scaled(32, width)
    stem = Chain(unit(in_channels, channels, 3, 2, act=nn.ReLU6, padding=padding))
    index, stages = 0, []
    for expansion, unscaled, depth, first_stride in STAGES:
        out, blocks = scaled(unscaled, width), []
        for i in range(depth):
            blocks.append(
                inverted_residual(
                    channels,
                    out,
                    channels * expansion,
                    3,
                    1 if i else first_stride,
                    act=nn.ReLU6,
                    padding=padding,
                    drop_path=drop_path * index / total,
                )
            )
            channels, index = out, index + 1
        stages.append(Stage(blocks))
    last = scaled(1280, max(1.0, width))
    head = Head(
        "fc",
        **unit(channels, last, 1, act=nn.ReLU6),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(fraction("dropout", dropout)),
        fc=nn.Linear(last, classes),
    )
    return Net(stem, stages, head, in_channels=in_channels, classes=classes, size=size)


def torchvision_rules(net: nn.Module) -> list[Rule]:
    """torchvision's numbered layers of MobileNetV2 to ours; the first block lacks the first 1x1."""
    table = {"features.0.0": "stem.conv", "features.0.1": "stem.norm", "classifier.1": "head.fc"}
    number = 0
    for number, (path, body) in enumerate(bodies(net), start=1):
        theirs = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
        if "expand" not in body._modules:
            theirs = ["0.0", "0.1", "1", "2"]
        ours = ["expand", "norm1", "depthwise", "norm2", "project", "norm3"][-len(theirs) :]
        table |= {f"features.{number}.conv.{t}": f"{path}.{o}" for t, o in zip(theirs, ours, strict=True)}
    return rename_by(
        table | {f"features.{number + 1}.0": "head.conv", f"features.{number + 1}.1": "head.norm"}
    )


# name: width, parameters, million multiply-accumulates, top-1
ROWS = {
    "mobilenet_v2": (1.0, 3_504_872, 301, 71.878),
    "mobilenetv2_035": (0.35, 1_677_128, 59, 60.3),
    "mobilenetv2_050": (0.5, 1_968_680, 97, 65.4),
    "mobilenetv2_075": (0.75, 2_636_424, 209, 69.8),
    "mobilenetv2_100": (1.0, 3_504_872, 300, 71.8),
    "mobilenetv2_140": (1.4, 6_108_776, 582, 75.0),
}


register(
    *(
        Variant(
            name=name,
            family="mobilenet_v2",
            build=mobilenet_v2,
            year=2018,
            paper=f"{PAPER}, table 2" + (f", width multiplier {width:g}" if width != 1 else ""),
            parameters=parameters,
            size=224,
            arguments={"width": width},
            macs=mmacs * 1e6,
            top1=top1,
            source=TORCHVISION if name == "mobilenet_v2" else TENSORFLOW,
            reference=f"torchvision:{name}" if name == "mobilenet_v2" else f"timm:{name}",
            initialise=initialise,
            rules={"timm": timm_rules, "torchvision": torchvision_rules},
        )
        for name, (width, parameters, mmacs, top1) in ROWS.items()
    ),
)
