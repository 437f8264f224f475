"""LeNet-5: convolutions and subsampling in turn, trained end to end.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998,
section II.B and figure 2. New in it: local receptive fields with shared weights, alternated with subsampling,
and one gradient through the whole from pixels to classes.

Two variants. `lenet5_1998` is the paper's: a sparse connection table for C3, trained subsampling, scaled tanh,
radial basis outputs; 60,000 trained parameters. `lenet5` is what the name means today: ReLU, max-pooling, dense
C3, a softmax classifier, 28-pixel input padded by two.

Differs from the paper (`lenet5_1998`): the bitmaps of the output vectors are drawn anew after its figure 3;
subsampling starts as a plain mean; classes other than ten get random vectors of -1 and 1 (which the paper
allows); outputs are minus the distances, so that cross-entropy over them is the paper's equation 9 without
its constant for rubbish pictures.
"""

from __future__ import annotations

import random

from torch import nn

from convarium.joins import Chain
from convarium.layers import RadialBasis, ScaledTanh, Subsample2d, TableConv2d
from convarium.models.parts import wants_side
from convarium.models.registry import Variant, register
from convarium.net import Head, Net, Stage

PAPER = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, section II.B"

# Table I of the paper: the maps of S2 that each map of C3 sees.
C3_TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# Digits of 7 x 12 pixels, after the paper's figure 3: one row of text is one row of pixels.
BITMAPS = """
.#####. ...#... .#####. .#####. #....## ####### ..####. ####### .#####. .#####.
##...## ..##... ##...## ##...## #....## ##..... .##.... ##...## ##...## ##...##
##...## .###... .....## .....## #....## ##..... ##..... .....## ##...## ##...##
##...## ...#... .....## .....## #....## ##..... ##..... ....##. ##...## ##...##
##...## ...#... ....##. .....## #....## ######. ##..... ....##. ##...## ##...##
##...## ...#... ...##.. .#####. ####### .....## ######. ...##.. .#####. .######
##...## ...#... ..##... .....## .....## .....## ##...## ...##.. ##...## .....##
##...## ...#... .##.... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... .....## .....## .....## ##...## ..##... ##...## .....##
##...## ...#... ##..... ##...## .....## ##...## ##...## ..##... ##...## ....##.
.#####. .#####. ####### .#####. .....## .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def lenet5(*, classes: int, in_channels: int, size: int) -> Net:
    """[5x5, ReLU, 2x2 max-pool] twice, then 120-84-classes."""
    plane = (size // 2 - 4) // 2
    wants_side("lenet5", size, least=12)
    stages = [
        Stage([Chain(conv=nn.Conv2d(in_channels, 6, 5, padding=2), act=nn.ReLU(), pool=nn.MaxPool2d(2))]),
        Stage([Chain(conv=nn.Conv2d(6, 16, 5), act=nn.ReLU(), pool=nn.MaxPool2d(2))]),
    ]
    head = Head(
        flatten=nn.Flatten(),
        fc1=nn.Linear(16 * plane**2, 120),
        act1=nn.ReLU(),
        fc2=nn.Linear(120, 84),
        act2=nn.ReLU(),
        fc=nn.Linear(84, classes),
    )
    return Net(None, stages, head, in_channels=in_channels, classes=classes, size=size)


def lenet5_1998(*, classes: int, in_channels: int, size: int) -> Net:
    """C1 5x5, S2, C3 5x5 by table, S4, C5 5x5, F6, radial basis; scaled tanh after each but the last."""
    plane = ((size - 4) // 2 - 4) // 2
    wants_side("lenet5_1998", size, least=16)
    stages = [
        Stage(
            [
                Chain(
                    conv=nn.Conv2d(in_channels, 6, 5),
                    act1=ScaledTanh(),
                    pool=Subsample2d(6),
                    act2=ScaledTanh(),
                )
            ]
        ),
        Stage(
            [
                Chain(
                    conv=TableConv2d(6, C3_TABLE, 5),
                    act1=ScaledTanh(),
                    pool=Subsample2d(16),
                    act2=ScaledTanh(),
                )
            ]
        ),
    ]
    head = Head(
        "rbf",
        conv=nn.Conv2d(16, 120, plane),
        act1=ScaledTanh(),
        flatten=nn.Flatten(),
        fc=nn.Linear(120, 84),
        act2=ScaledTanh(),
        rbf=RadialBasis(output_vectors(classes)),
    )
    return Net(None, stages, head, in_channels=in_channels, classes=classes, size=size)


def output_vectors(classes: int) -> list[list[float]]:
    """One vector of 84 values, -1 or 1, a class: bitmaps for ten digits, random ones for any other number.

    Args:
        classes: number of classes.

    Returns:
        (classes, 84).
    """
    if classes == 10:
        rows = [line.split() for line in BITMAPS.strip().splitlines()]
        return [
            [1.0 if pixel == "#" else -1.0 for row in rows for pixel in row[digit]] for digit in range(10)
        ]
    draw = random.Random(84)
    return [[draw.choice((-1.0, 1.0)) for _ in range(84)] for _ in range(classes)]


def initialise(path: str, module: nn.Module) -> bool:
    """Uniform within 2.4 / fan-in (the paper, appendix A)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = 2.4 / module.weight[0].numel()
        nn.init.uniform_(module.weight, -bound, bound)
        if module.bias is not None:
            nn.init.uniform_(module.bias, -bound, bound)
        return True
    return False


register(
    Variant(
        name="lenet5_1998",
        family="lenet",
        build=lenet5_1998,
        year=1998,
        paper=PAPER,
        parameters=60_000,
        size=32,
        in_channels=1,
        classes=10,
        macs=None,
        top1=99.05,
        source="the paper's section III.B: 0.95 % error on MNIST without distorted training pictures",
        initialise=initialise,
    ),
    Variant(
        name="lenet5",
        family="lenet",
        build=lenet5,
        year=1998,
        paper=PAPER + ", in today's form",
        parameters=61_706,
        size=28,
        in_channels=1,
        classes=10,
        macs=416_520,
        source="MACs: worked out from the sizes of its layers",
    ),
)
