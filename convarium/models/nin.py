"""Network in Network: 1x1 convolutions, and no linear layer at the end.

Lin, Chen, Yan, "Network In Network", 2013, section 3. New in it: each convolution is followed by two of 1x1,
a small multilayer perceptron slid over the picture; and the last of them gives one map a class, whose mean is
the class score. Global average pooling has no weights to overfit and shows where in the picture a class was
seen. Both ideas are in every later network.

The paper draws the shape but no sizes. They are those of the authors' published definitions: `nin` is the
CIFAR net of 192-160-96, 192-192-192, 192-192-classes maps; `nin_imagenet` has four such blocks, the first
AlexNet's 11x11 /4. Pooled sizes are rounded up (32, 16, 8 pixels), and the class maps too pass a ReLU, as in
those definitions.

Differs from the paper: pictures of any size are averaged over whatever plane is left. The authors whitened
CIFAR pictures; that is preprocessing and not part of this net.
Weights that fit: none are published in a form that needs no Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convarium.joins import Chain
from convarium.models.parts import wants_side
from convarium.models.registry import Variant, register
from convarium.net import Head, Net, Stage

PAPER = "Lin et al., Network In Network, 2013, section 3"
SIZES = "sizes from the authors' published definition"


class MLPConv(Chain):
    """k x k /stride, ReLU, [1x1, ReLU] for each further width (equation 2)."""

    def __init__(
        self, in_channels: int, widths: Sequence[int], kernel_size: int, stride: int = 1, padding: int = 0
    ) -> None:
        parts: dict[str, nn.Module] = {}
        for number, width in enumerate(widths, start=1):
            first = number == 1
            parts[f"conv{number}"] = (
                nn.Conv2d(in_channels, width, kernel_size, stride, padding)
                if first
                else nn.Conv2d(in_channels, width, 1)
            )
            parts[f"act{number}"] = nn.ReLU(inplace=True)
            in_channels = width
        super().__init__(parts)


def max_pool() -> nn.MaxPool2d:
    """3x3 max-pool /2, sizes rounded up."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def nin(
    *,
    classes: int,
    in_channels: int,
    size: int,
    widths: Sequence[Sequence[int]] = ((192, 160, 96), (192, 192, 192), (192, 192)),
    dropout: float = 0.5,
) -> Net:
    """5x5 block; max-pool, dropout, 5x5 block; average pool, dropout, 3x3 block; class maps, averaged."""
    wants_side("nin", size, least=4)
    first, second, third = widths
    stages = [
        Stage([MLPConv(in_channels, first, 5, padding=2)]),
        Stage(
            [MLPConv(first[-1], second, 5, padding=2)],
            downsample=Chain(pool=max_pool(), drop=nn.Dropout(dropout)),
        ),
        Stage(
            [MLPConv(second[-1], third, 3, padding=1)],
            downsample=Chain(pool=nn.AvgPool2d(3, stride=2, ceil_mode=True), drop=nn.Dropout(dropout)),
        ),
    ]
    return Net(None, stages, head(third[-1], classes), in_channels=in_channels, classes=classes, size=size)


def nin_imagenet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    widths: Sequence[Sequence[int]] = ((96, 96, 96), (256, 256, 256), (384, 384, 384), (1024, 1024)),
    dropout: float = 0.5,
) -> Net:
    """11x11 /4 block; max-pool, 5x5 block; max-pool, 3x3 block; max-pool, dropout, 3x3 block; class maps."""
    wants_side("nin_imagenet", size, least=39)
    first, second, third, fourth = widths
    stages = [
        Stage([MLPConv(in_channels, first, 11, stride=4)]),
        Stage([MLPConv(first[-1], second, 5, padding=2)], downsample=max_pool()),
        Stage([MLPConv(second[-1], third, 3, padding=1)], downsample=max_pool()),
        Stage(
            [MLPConv(third[-1], fourth, 3, padding=1)],
            downsample=Chain(pool=max_pool(), drop=nn.Dropout(dropout)),
        ),
    ]
    return Net(None, stages, head(fourth[-1], classes), in_channels=in_channels, classes=classes, size=size)


def head(channels: int, classes: int) -> Head:
    """1x1 to one map a class, ReLU, global average pool: the mean of a map is its score (section 3.2)."""
    return Head(
        fc=nn.Conv2d(channels, classes, 1),
        act=nn.ReLU(inplace=True),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )


def initialise(path: str, module: nn.Module) -> bool:
    """Normal of deviation 0.05, biases 0 (the authors' definition of the CIFAR net)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.05)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return True
    return False


register(
    Variant(
        name="nin",
        family="nin",
        build=nin,
        year=2013,
        paper=f"{PAPER}, {SIZES}",
        parameters=966_986,
        size=32,
        classes=10,
        top1=91.19,
        source="the paper's table 1: 8.81 % error on CIFAR-10 with augmentation",
        initialise=initialise,
    ),
    Variant(
        name="nin_imagenet",
        family="nin",
        build=nin_imagenet,
        year=2013,
        paper=f"{PAPER}, {SIZES}",
        parameters=7_595_176,
        size=224,
        top1=59.36,
        source="the authors' readme, gist mavenlin/d802a5849de39225bcc6, on the ILSVRC-2012 validation set",
        initialise=initialise,
    ),
)
