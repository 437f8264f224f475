"""The linear classifier: one convolution as large as the picture.

The baseline of LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section III.C.1:
each class score is a weighted sum of all pixels. Written as a convolution it is the smallest convolutional net.
"""

from __future__ import annotations

from torch import nn

from convarium.models.registry import Variant, register
from convarium.net import Head, Net


def linear(*, classes: int, in_channels: int, size: int) -> Net:
    """size x size convolution to one pixel a class."""
    head = Head(fc=nn.Conv2d(in_channels, classes, size), flatten=nn.Flatten())
    return Net(None, [], head, in_channels=in_channels, classes=classes, size=size)


register(
    Variant(
        name="linear",
        family="linear",
        build=linear,
        year=1998,
        paper="LeCun et al., Gradient-Based Learning Applied to Document Recognition, section III.C.1",
        parameters=7_850,
        size=28,
        in_channels=1,
        classes=10,
        macs=7_840,
        top1=88.0,
        source="the paper's figure 9: 12.0 % error on MNIST",
    )
)
