"""Squeeze-and-excitation in residual nets: each block weighs its channels by what the whole picture holds.

Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks", 2017 (CVPR 2018); SENet-154 won the last
ImageNet challenge. New in it: a channel's mean over the picture (squeeze) decides through two small layers
(excitation) how much that channel counts here. It costs a tenth more parameters and hardly any operations,
and fits into any block: at the end of a residual block's body, before the sum, where a gate after the sum
would also weigh the shortcut (section 4 and the paper's ablation of the places).

SENet-154 is a 64x4d SE-ResNeXt-152 with the authors' changes (their appendix): half the channels in a block's
first 1x1, a 3x3 where a shortcut strides, three 3x3 for the 7x7, dropout before the classifier.

Differs from the paper: SE-ResNet and SE-ResNeXt are timm's, which stride the 3x3 of a bottleneck (the
authors' Caffe nets stride the first 1x1) and round the squeezed channels to multiples of 8, so 64 channels
become 8 and not the 4 that `resnet18` with se=True has. `senet154` is the authors' net, whose first pool does
not pad; `senet154_gluon` pads: the same shapes, another function.
Weights that fit: timm's (Apache-2.0); its "legacy" ones only `senet154`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from torch import nn

from convarium.errors import ArgumentError
from convarium.models.parts import squeeze_excite, wants_side
from convarium.models.registry import Variant, register
from convarium.models.residual import BasicBlock, Bottleneck, initialise, rules, stages, stem
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.models.weights import Rule
from convarium.net import Head, Net

PAPER = "Hu et al., Squeeze-and-Excitation Networks, 2017"

REDUCTION = 16  # section 6.1: a good balance between accuracy and cost


def squeezed(channels: int, multiple_of: int = 8) -> int:
    """A sixteenth of the channels, rounded to the nearest multiple and at least one of it."""
    return max(multiple_of, (channels // REDUCTION + multiple_of // 2) // multiple_of * multiple_of)


def gate(channels: int, squeeze: str = "avg") -> nn.Module:
    """The gate of a block of so many channels."""
    return squeeze_excite(channels, squeezed(channels), squeeze=squeeze)


def senet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    bottleneck: bool = True,
    groups: int = 1,
    base_width: int = 64,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """A ResNet or ResNeXt in which each block's body ends in a gate (figure 3).

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        depths: blocks of each stage.
        bottleneck: blocks of three layers, not of two.
        groups: paths of a bottleneck.
        base_width: channels of a path in the first stage.
        squeeze: "avg", or "max" as some lectures have it.
        zero_init: the last norm of each block starts with weight 0.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.

    Returns:
        The network.

    Raises:
        ArgumentError: options that do not go together.
    """
    block: Any = Bottleneck if bottleneck else BasicBlock
    options: dict[str, Any] = {"gate": functools.partial(gate, squeeze=squeeze), "zero_init": zero_init}
    options |= {"drop_path": drop_path}
    if bottleneck:
        options |= {"groups": groups, "base_width": base_width}
    elif (groups, base_width) != (1, 64):
        raise ArgumentError("groups and base_width are for bottlenecks; this net has basic blocks")
    body = stages(block, 64, depths, (64, 128, 256, 512), "B", **options)
    features = 512 * block.expansion
    return Net(
        stem(in_channels),
        body,
        head(features, classes),
        in_channels=in_channels,
        classes=classes,
        size=size,
    )


def senet154(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int] = (3, 8, 36, 3),
    ceil_pool: bool = True,
    dropout: float = 0.2,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """Three 3x3, pool; gated bottlenecks of 64 x 4d with half the channels in the first 1x1; dropout, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        depths: blocks of each stage.
        ceil_pool: the first pool does not pad, as in the authors' Caffe net.
        dropout: share of features that are dropped in training.
        squeeze: "avg", or "max" as some lectures have it.
        zero_init: the last norm of each block starts with weight 0.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.

    Returns:
        The network.

    Raises:
        ArgumentError: options that do not go together, or pictures too small for the pool that does not pad.
    """
    if ceil_pool:
        wants_side("senet154", size, 3)
    body = stages(
        Bottleneck,
        128,
        depths,
        (64, 128, 256, 512),
        "3x3",
        groups=64,
        base_width=4,
        halve_first=True,
        gate=functools.partial(gate, squeeze=squeeze),
        zero_init=zero_init,
        drop_path=drop_path,
    )
    return Net(
        stem(in_channels, 128, "3x3", ceil_pool),
        body,
        head(2048, classes, dropout),
        in_channels=in_channels,
        classes=classes,
        size=size,
    )


def head(features: int, classes: int, dropout: float = 0.0) -> Head:
    """Global average pool, dropout, linear."""
    return Head(
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        drop=nn.Dropout(dropout) if dropout else None,
        fc=nn.Linear(features, classes),
    )


# timm keeps the authors' nets under names of their own, by which the pool that does not pad is recognised.
LEGACY: list[Rule] = [
    (r"layer0\.(conv\d)\.(\w+)", r"stem.\1.\2"),
    (r"layer0\.bn(\d)\.(\w+)", r"stem.norm\1.\2"),
    (r"last_linear\.(\w+)", r"head.fc.\1"),
    # The other nets' stem and classifier have no place here.
    *(rule for rule in rules() if rule[0].startswith("layer")),
]

# name: depths, bottleneck, groups, base width, parameters
NETS = {
    "seresnet18": ((2, 2, 2, 2), False, 1, 64, 11_779_624),
    "seresnet34": ((3, 4, 6, 3), False, 1, 64, 21_960_416),
    "seresnet50": ((3, 4, 6, 3), True, 1, 64, 28_088_024),
    "seresnet101": ((3, 4, 23, 3), True, 1, 64, 49_326_872),
    "seresnet152": ((3, 8, 36, 3), True, 1, 64, 66_821_848),
    "seresnext50_32x4d": ((3, 4, 6, 3), True, 32, 4, 27_559_896),
    "seresnext101_32x4d": ((3, 4, 23, 3), True, 32, 4, 48_955_416),
    "seresnext101_32x8d": ((3, 4, 23, 3), True, 32, 8, 93_569_048),
}
# name: GMACs, top-1, and timm's set of weights that has it. The paper's nets stride in the 1x1, these in the 3x3.
MEASURED = {
    "seresnet50": (4.11, 80.012, "a1_in1k"),
    "seresnext50_32x4d": (4.26, 81.268, "racm_in1k"),
    "seresnext101_32x4d": (8.02, 80.886, "gluon_in1k"),
    "seresnext101_32x8d": (16.48, 83.618, "ah_in1k"),
}

register(
    *(
        Variant(
            name=name,
            family="senet",
            build=senet,
            year=2017,
            paper=f"{PAPER}, table 1 and section 4",
            parameters=parameters,
            size=224,
            arguments={
                "depths": depths,
                "bottleneck": bottleneck,
                "groups": groups,
                "base_width": base_width,
            },
            macs=MEASURED[name][0] * 1e9 if name in MEASURED else None,
            top1=MEASURED[name][1] if name in MEASURED else None,
            source=f"{TIMM_RESULTS}: {MEASURED[name][2]}" if name in MEASURED else "",
            reference=f"timm:{name}",
            initialise=initialise,
            rules={"timm": rules()},
        )
        for name, (depths, bottleneck, groups, base_width, parameters) in NETS.items()
    ),
    Variant(
        name="senet154",
        family="senet",
        build=senet154,
        year=2017,
        paper=f"{PAPER}, appendix",
        parameters=115_088_984,
        size=224,
        macs=20.77e9,
        top1=81.32,
        source=f"{TIMM_RESULTS}: in1k; hujie-frank/SENet, README, table 1, has the same 18.68 % error",
        reference="timm:legacy_senet154",
        initialise=initialise,
        rules={"timm": LEGACY},
    ),
    Variant(
        name="senet154_gluon",
        family="senet",
        build=senet154,
        year=2017,
        paper=f"{PAPER}, appendix, with a padded first pool as in GluonCV",
        parameters=115_088_984,
        size=224,
        arguments={"ceil_pool": False, "dropout": 0.0},
        macs=20.77e9,
        top1=81.258,
        source=f"{TIMM_RESULTS}: gluon_in1k",
        reference="timm:senet154",
        initialise=initialise,
        rules={"timm": rules("3x3")},
    ),
)
