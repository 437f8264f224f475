"""SqueezeNet: AlexNet's accuracy with a fiftieth of its parameters.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters
and <0.5MB model size", 2016, table 1. New in it: the fire module. A few 1x1 convolutions squeeze the
channels, so that the 3x3 convolutions after them have few inputs; half of these are 1x1 as well. Pooling late
keeps planes large, and the classifier is Network in Network's: one map a class, averaged.

`squeezenet1_0` is the paper's. `squeezenet1_1` is the authors' later form: a 3x3 stem and earlier pools, 2.4
times fewer operations at the same accuracy.

Differs from the paper: without its bypass variants (section 6). Weights are drawn as in torchvision.
Weights that fit: torchvision's (BSD-3-Clause).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Iandola et al., SqueezeNet, 2016"

# Channels after the squeeze and of each half of the expansion, fire2 to fire9 (table 1).
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(Chain):
    """1x1 to few, ReLU; 1x1, ReLU beside 3x3, ReLU, concatenated."""

    def __init__(self, in_channels: int, squeeze: int, expand: int) -> None:
        super().__init__(
            squeeze=nn.Conv2d(in_channels, squeeze, 1),
            act=nn.ReLU(inplace=True),
            expand=Concat(
                one=Chain(conv=nn.Conv2d(squeeze, expand, 1), act=nn.ReLU(inplace=True)),
                three=Chain(conv=nn.Conv2d(squeeze, expand, 3, padding=1), act=nn.ReLU(inplace=True)),
            ),
        )


def max_pool() -> nn.MaxPool2d:
    """3x3 max-pool /2, sizes rounded up."""
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def squeezenet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    stem_width: int = 96,
    stem_kernel: int = 7,
    depths: Sequence[int] = (3, 4, 1),
    dropout: float = 0.5,
) -> Net:
    """k x k /2, ReLU, max-pool; eight fire modules in three stages, max-pool between; class maps averaged."""
    least = 21 if stem_kernel == 7 else 17
    if size < least:
        raise ArgumentError(
            f"this SqueezeNet cannot take pictures of {size} pixels; at least {least} are needed"
        )
    if sum(depths) != len(FIRES):
        raise ArgumentError(f"depths = {tuple(depths)}; they must add up to {len(FIRES)} fire modules")
    stem = Chain(
        conv=nn.Conv2d(in_channels, stem_width, stem_kernel, stride=2),
        act=nn.ReLU(inplace=True),
        pool=max_pool(),
    )
    fires = iter(FIRES)
    channels = stem_width
    stages = []
    for index, depth in enumerate(depths):
        blocks = []
        for _ in range(depth):
            squeeze, expand = next(fires)
            blocks.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
        stages.append(Stage(blocks, downsample=max_pool() if index > 0 else None))
    head = Head(
        drop=nn.Dropout(dropout),
        fc=nn.Conv2d(channels, classes, 1),
        act=nn.ReLU(inplace=True),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
    )
    return Net(stem, stages, head, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """Uniform by He's rule with fan-in; the class maps normal of deviation 0.01; biases 0 (torchvision)."""
    if not isinstance(module, nn.Conv2d):
        return False
    if path == "head.fc":
        nn.init.normal_(module.weight, std=0.01)
    else:
        nn.init.kaiming_uniform_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


def torchvision_rules(net: nn.Module) -> list[Rule]:
    """torchvision's names: one numbered list of stem, fires and pools; our network tells the numbers."""
    rules: list[Rule] = [(r"features\.0\.(\w+)", r"stem.conv.\1"), (r"classifier\.1\.(\w+)", r"head.fc.\1")]
    index = 3  # after the stem's convolution, ReLU and pool
    for stage, part in enumerate(net.get_submodule("stages").children()):
        for position, _ in enumerate(part.get_submodule("blocks").children()):
            theirs, ours = rf"features\.{index}", f"stages.{stage}.blocks.{position}"
            rules += [
                (rf"{theirs}\.squeeze\.(\w+)", rf"{ours}.squeeze.\1"),
                (rf"{theirs}\.expand1x1\.(\w+)", rf"{ours}.expand.one.conv.\1"),
                (rf"{theirs}\.expand3x3\.(\w+)", rf"{ours}.expand.three.conv.\1"),
            ]
            index += 1
        index += 1  # the pool between stages
    return rules


# name: where its sizes stand, stem channels, stem kernel, fires a stage, parameters, GMACs, top-1
VARIANTS = {
    "squeezenet1_0": ("table 1", 96, 7, (3, 4, 1), 1_248_424, 0.819, 58.092),
    "squeezenet1_1": ("the authors' version 1.1", 64, 3, (2, 2, 4), 1_235_496, 0.349, 58.178),
}

register(
    *(
        Variant(
            name=name,
            family="squeezenet",
            build=squeezenet,
            year=2016,
            paper=f"{PAPER}, {where}",
            parameters=parameters,
            size=224,
            arguments={"stem_width": width, "stem_kernel": kernel, "depths": depths},
            macs=gmacs * 1e9,
            top1=top1,
            source="torchvision's SqueezeNet weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:{name}",
            initialise=initialise,
            rules={"torchvision": torchvision_rules},
        )
        for name, (where, width, kernel, depths, parameters, gmacs, top1) in VARIANTS.items()
    )
)
