"""MobileNet v1: convolutions split into one per channel and one per pixel, for phones.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017. New
in it: a kxk convolution becomes a kxk depthwise and a 1x1 one, 8 to 9 times less work for 3x3; a width
multiplier and the resolution trade accuracy for work.

Differs from the paper: channels are rounded to multiples of 8 (it does not say how). padding="torch" is
torchvision's and timm's symmetric padding; weights trained in TensorFlow need padding="same", which no file
of weights tells: with the other they load and lose accuracy. Batch norm has eps 1e-5 and momentum 0.1.
Weights that fit: timm's (Apache-2.0), Google's in timm's names.
"""

from __future__ import annotations

from torch import nn

from convarium.joins import Chain
from convarium.models.mobile_parts import (
    conv,
    initialise,
    scaled,
    unit,
)
from convarium.models.parts import fraction
from convarium.models.registry import Variant, register
from convarium.net import Head, Net, Stage

PAPER = "Howard et al., MobileNets, 2017"
# Table 1: channels, blocks, stride of the first block.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))


class DepthwiseSeparable(Chain):
    """3x3 depthwise /stride, BN, ReLU6, 1x1, BN, ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, padding: str) -> None:
        super().__init__(
            depthwise=conv(in_channels, in_channels, 3, stride, in_channels, padding),
            norm1=nn.BatchNorm2d(in_channels),
            act1=nn.ReLU6(inplace=True),
            pointwise=conv(in_channels, out_channels, 1),
            norm2=nn.BatchNorm2d(out_channels),
            act2=nn.ReLU6(inplace=True),
        )


def mobilenet_v1(
    *,
    classes: int,
    in_channels: int,
    size: int,
    width: float = 1.0,
    padding: str = "torch",
    dropout: float = 0.0,
) -> Net:
    """3x3 /2; 13 depthwise separable blocks; global average pool, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels; the paper's resolution multiplier is size / 224.
        width: the width multiplier, on all channels.
        padding: "torch", or "same" for weights from TensorFlow.
        dropout: rate before the classifier.
    """
    channels = scaled(32, width)
    stem = Chain(unit(in_channels, channels, 3, 2, act=nn.ReLU6, padding=padding))
    stages = []
    for out, depth, first_stride in STAGES:
        blocks = []
        for i in range(depth):
            blocks.append(DepthwiseSeparable(channels, scaled(out, width), 1 if i else first_stride, padding))
            channels = scaled(out, width)
        stages.append(Stage(blocks))
    head = Head(
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(fraction("dropout", dropout)),
        fc=nn.Linear(channels, classes),
    )
    return Net(stem, stages, head, in_channels=in_channels, classes=classes, size=size)


TIMM = [
    (r"conv_stem\.(\w+)", r"stem.conv.\1"),
    (r"bn1\.(\w+)", r"stem.norm.\1"),
    (r"blocks\.(\d+)\.(\d+)\.conv_dw\.(\w+)", r"stages.\1.blocks.\2.depthwise.\3"),
    (r"blocks\.(\d+)\.(\d+)\.conv_pw\.(\w+)", r"stages.\1.blocks.\2.pointwise.\3"),
    (r"blocks\.(\d+)\.(\d+)\.bn(\d)\.(\w+)", r"stages.\1.blocks.\2.norm\3.\4"),
    (r"classifier\.(\w+)", r"head.fc.\1"),
]


# name: width, parameters, million multiply-accumulates, top-1
ROWS = {
    "mobilenet_v1": (1.0, 4_231_976, 569, 70.6),
    "mobilenet_v1_075": (0.75, 2_585_560, 325, 68.4),
    "mobilenet_v1_050": (0.5, 1_331_592, 149, 63.7),
    "mobilenet_v1_025": (0.25, 470_072, 41, 50.6),
}


register(
    *(
        Variant(
            name=name,
            family="mobilenet_v1",
            build=mobilenet_v1,
            year=2017,
            paper=f"{PAPER}, table 1" + (f", width multiplier {width:g}" if width != 1 else ""),
            parameters=parameters,
            size=224,
            arguments={"width": width},
            macs=mmacs * 1e6,
            top1=top1,
            source="the paper's table 6",
            reference="timm:mobilenetv1_100" if width == 1 else None,
            initialise=initialise,
            rules={"timm": TIMM},
        )
        for name, (width, parameters, mmacs, top1) in ROWS.items()
    ),
)
