"""AlexNet and ZFNet: depth, rectifiers, dropout and a million pictures.

Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012.
New in it: ReLU in place of tanh (figure 1: six times fewer epochs to one training error), normalisation
across neighbouring maps, pooling windows that overlap, dropout, and a net cut into two columns, one a GPU,
that meet in the third convolution and in the fully connected layers only. The columns are what is now called
grouped convolution.

Three variants. `alexnet_2012` is that net: 96-256-384-384-256 maps, 60,965,224 parameters. `alexnet` is
torchvision's, from Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014: one
column, 64-192-384-256-256, no normalisation. `zfnet` is Zeiler and Fergus, "Visualizing and Understanding
Convolutional Networks", 2013, figure 3: having looked at what the layers respond to, they made the first
kernels smaller (7x7 instead of 11x11) and the step shorter (2 instead of 4), and let every map see all maps
below.

Differs from the papers: `alexnet_2012` takes 227 pixels, not the 224 of the text, for an 11x11 kernel with
step 4 makes no whole number of 224 ((224 - 11) / 4 + 1 = 54.25), while the 55 maps that follow are (227 - 11)
/ 4 + 1. ZFNet gives neither borders nor the constants of its normalisation: the first convolution is padded
by one and pooled sizes are rounded up, which gives every size of its figure 3, and the constants are
AlexNet's. Its weights "of 0.01" are taken as a standard deviation. Pictures of another size are pooled to 6 x
6 before the first linear layer, as torchvision does; at the nets' own sizes this step changes nothing.
Weights that fit: torchvision's for `alexnet` (BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convarium.joins import Chain
from convarium.models.parts import ResponseNorm, wants_side
from convarium.models.registry import Variant, register
from convarium.net import Head, Net, Stage

PAPER_2012 = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012"
PAPER_2013 = "Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, 2013, figure 3"
PAPER_2014 = "Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014"


def response_norm() -> ResponseNorm:
    """x / (2 + 1e-4 * sum of x² over 5 neighbouring maps)^0.75 (section 3.3 of the 2012 paper).

    torch takes the mean where the paper takes the sum: hence 5 x alpha.
    """
    return ResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def overlapping_pool(ceil_mode: bool = False) -> nn.MaxPool2d:
    """3x3 max-pool /2: neighbouring windows share a row (section 3.4 of the 2012 paper)."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=ceil_mode)


class ConvAct(Chain):
    """k x k /stride, ReLU, (response norm)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__(
            conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups),
            act=nn.ReLU(inplace=True),
            norm=norm,
        )


def alexnet_2012(
    *,
    classes: int,
    in_channels: int,
    size: int,
    widths: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
    dropout: float = 0.5,
    columns: int = 2,
) -> Net:
    """11x11 /4, norm, pool; 5x5, norm; pool, 3x3 three times; pool, three linears; columns as groups."""
    wants_side("alexnet_2012", size, least=67)
    w1, w2, w3, w4, w5 = widths
    stem = Chain(conv=ConvAct(in_channels, w1, 11, stride=4, norm=response_norm()), pool=overlapping_pool())
    stages = [
        Stage([ConvAct(w1, w2, 5, padding=2, groups=columns, norm=response_norm())]),
        Stage(
            [
                ConvAct(w2, w3, 3, padding=1),  # the one convolution in which each column sees the other
                ConvAct(w3, w4, 3, padding=1, groups=columns),
                ConvAct(w4, w5, 3, padding=1, groups=columns),
            ],
            downsample=overlapping_pool(),
        ),
    ]
    body = head(w5, hidden, classes, dropout)
    return Net(stem, stages, body, in_channels=in_channels, classes=classes, size=size)


def alexnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    widths: Sequence[int] = (64, 192, 384, 256, 256),
    hidden: int = 4096,
    dropout: float = 0.5,
) -> Net:
    """11x11 /4, pool; 5x5; pool, 3x3 three times; pool, three linears; one column, no norm."""
    wants_side("alexnet", size, least=63)
    w1, w2, w3, w4, w5 = widths
    stem = Chain(conv=ConvAct(in_channels, w1, 11, stride=4, padding=2), pool=overlapping_pool())
    stages = [
        Stage([ConvAct(w1, w2, 5, padding=2)]),
        Stage(
            [ConvAct(w2, w3, 3, padding=1), ConvAct(w3, w4, 3, padding=1), ConvAct(w4, w5, 3, padding=1)],
            downsample=overlapping_pool(),
        ),
    ]
    body = head(w5, hidden, classes, dropout)
    return Net(stem, stages, body, in_channels=in_channels, classes=classes, size=size)


def zfnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    widths: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
    dropout: float = 0.5,
) -> Net:
    """7x7 /2, pool, norm; 5x5 /2; pool, norm, 3x3 three times; pool, three linears (figure 3)."""
    wants_side("zfnet", size, least=47)
    w1, w2, w3, w4, w5 = widths
    # Unlike AlexNet: pooled first, then normalised (caption of figure 3).
    stem = Chain(
        conv=ConvAct(in_channels, w1, 7, stride=2, padding=1),
        pool=overlapping_pool(ceil_mode=True),
        norm=response_norm(),
    )
    stages = [
        Stage([ConvAct(w1, w2, 5, stride=2)]),
        Stage(
            [ConvAct(w2, w3, 3, padding=1), ConvAct(w3, w4, 3, padding=1), ConvAct(w4, w5, 3, padding=1)],
            downsample=Chain(pool=overlapping_pool(ceil_mode=True), norm=response_norm()),
        ),
    ]
    body = head(w5, hidden, classes, dropout, ceil_mode=True)
    return Net(stem, stages, body, in_channels=in_channels, classes=classes, size=size)


def head(channels: int, hidden: int, classes: int, dropout: float, ceil_mode: bool = False) -> Head:
    """3x3 max-pool /2 to 6 x 6, [dropout, linear, ReLU] twice, linear."""
    return Head(
        pool=overlapping_pool(ceil_mode),
        average=nn.AdaptiveAvgPool2d(6),
        flatten=nn.Flatten(),
        drop1=nn.Dropout(dropout),
        fc1=nn.Linear(channels * 6 * 6, hidden),
        act1=nn.ReLU(inplace=True),
        drop2=nn.Dropout(dropout),
        fc2=nn.Linear(hidden, hidden),
        act2=nn.ReLU(inplace=True),
        fc=nn.Linear(hidden, classes),
    )


# Where the 2012 paper starts biases at one, so that rectifiers are fed positive values (section 5).
BIAS_ONE = {
    "stages.0.blocks.0.conv",
    "stages.1.blocks.1.conv",
    "stages.1.blocks.2.conv",
    "head.fc1",
    "head.fc2",
}


def initialise_2012(path: str, module: nn.Module) -> bool:
    """Normal of deviation 0.01; biases 1 in convolutions 2, 4, 5 and hidden linears, else 0 (section 5)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.constant_(module.bias, 1.0 if path in BIAS_ONE else 0.0)
        return True
    return False


def initialise_2013(path: str, module: nn.Module) -> bool:
    """Normal of deviation 0.01, biases 0 (section 3.1 of the ZFNet paper)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return True
    return False


TORCHVISION = [
    (r"features\.0\.(\w+)", r"stem.conv.conv.\1"),
    (r"features\.3\.(\w+)", r"stages.0.blocks.0.conv.\1"),
    (r"features\.6\.(\w+)", r"stages.1.blocks.0.conv.\1"),
    (r"features\.8\.(\w+)", r"stages.1.blocks.1.conv.\1"),
    (r"features\.10\.(\w+)", r"stages.1.blocks.2.conv.\1"),
    (r"classifier\.1\.(\w+)", r"head.fc1.\1"),
    (r"classifier\.4\.(\w+)", r"head.fc2.\1"),
    (r"classifier\.6\.(\w+)", r"head.fc.\1"),
]

register(
    Variant(
        name="alexnet_2012",
        family="alexnet",
        build=alexnet_2012,
        year=2012,
        paper=f"{PAPER_2012}, section 3.5",
        parameters=60_965_224,
        size=227,
        top1=59.3,
        source="the paper's table 2: one net, 40.7 % error on the ILSVRC-2012 validation set",
        initialise=initialise_2012,
    ),
    Variant(
        name="zfnet",
        family="alexnet",
        build=zfnet,
        year=2013,
        paper=PAPER_2013,
        parameters=62_357_608,
        size=224,
        top1=61.6,
        source="the paper's (v3) table 2: one net as in figure 3, 38.4 % error on the ILSVRC-2012 validation set",
        initialise=initialise_2013,
    ),
    Variant(
        name="alexnet",
        family="alexnet",
        build=alexnet,
        year=2014,
        paper=f"{PAPER_2014}, in torchvision's form",
        parameters=61_100_840,
        size=224,
        macs=0.714e9,
        top1=56.522,
        source="torchvision's AlexNet_Weights.IMAGENET1K_V1, metadata",
        reference="torchvision:alexnet",
        rules={"torchvision": TORCHVISION},
    ),
)
