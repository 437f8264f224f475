"""VGG: nothing but 3x3 convolutions, and more of them.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2014, table 1. New
in it: two 3x3 convolutions see 5x5 pixels and three see 7x7, with fewer weights and a rectifier more between
them; so depth alone, from 11 layers with weights (configuration A) to 16 (D), lowers the error from 29.6 to
27.0 % at one training scale (table 3). The deep ones did not train from chance weights; the authors started
them from a trained A: see `grow`.

Differs from the paper: the `_bn` nets have batch norm after every convolution, which came a year later and
makes `grow` unnecessary; weights are drawn as in torchvision (convolutions by He's rule, linears of deviation
0.01); pictures of another size are pooled to 7 x 7 before the first linear layer, which at 224 pixels changes
nothing.
Configurations A-LRN and C are not here.
Weights that fit: torchvision's (BSD-3-Clause) and timm's names for the same files. Above 224 pixels timm
slides its linear layers over the plane and averages the scores, another function; up to 224 the two agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain
from convarium.models.parts import stage_plan, wants_side
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = (
    "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014, table 1"
)


class VGGBlock(Chain):
    """3x3, (BN), ReLU."""

    def __init__(self, in_channels: int, out_channels: int, norm: bool) -> None:
        super().__init__(
            conv=nn.Conv2d(in_channels, out_channels, 3, padding=1),
            norm=nn.BatchNorm2d(out_channels) if norm else None,
            act=nn.ReLU(inplace=True),
        )


def vgg(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    norm: bool = False,
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    hidden: int = 4096,
    dropout: float = 0.5,
) -> Net:
    """Five stages of 3x3 convolutions with 2x2 max-pool /2 between; pool, three linears (table 1)."""
    plan = stage_plan(depths, widths)
    wants_side("VGG", size, 2 ** len(plan))
    stages = []
    channels = in_channels
    for index, (depth, width) in enumerate(plan):
        blocks = [VGGBlock(channels if i == 0 else width, width, norm) for i in range(depth)]
        stages.append(Stage(blocks, downsample=nn.MaxPool2d(2) if index > 0 else None))
        channels = width
    head = Head(
        pool=nn.MaxPool2d(2),
        average=nn.AdaptiveAvgPool2d(7),
        flatten=nn.Flatten(),
        fc1=nn.Linear(channels * 7 * 7, hidden),
        act1=nn.ReLU(inplace=True),
        drop1=nn.Dropout(dropout),
        fc2=nn.Linear(hidden, hidden),
        act2=nn.ReLU(inplace=True),
        drop2=nn.Dropout(dropout),
        fc=nn.Linear(hidden, classes),
    )
    return Net(None, stages, head, in_channels=in_channels, classes=classes, size=size)


def grow(deep: Net, shallow: Net) -> list[str]:
    """Start a deep net from a trained shallow one: its first four convolutions, its three linear layers.

    The layers between keep the weights they have. A convolution goes to the same place of the same stage, the
    only reading of the paper in which the shapes of configuration A and of B to E agree. Batch norm goes with
    its convolution where both nets have it.

    Args:
        deep: a VGG net; changed in place.
        shallow: a VGG net with no more layers in any stage, of the same widths, classes and channels.

    Returns:
        Paths of the layers copied, in the order of the network.

    Raises:
        ArgumentError: not VGG nets, or a layer has no counterpart of its shape; nothing is copied then.

    Source: the paper, section 3.1.
    """
    blocks = [path for path, part in shallow.named_modules() if isinstance(part, VGGBlock)][:4]
    if not blocks or not any(isinstance(part, VGGBlock) for part in deep.modules()):
        raise ArgumentError(
            "only VGG nets grow from one another: give two of vgg11 to vgg19 or their _bn forms"
        )
    theirs, ours = dict(shallow.named_modules()), dict(deep.named_modules())
    paths = [f"{block}.{name}" for block in blocks for name in ("conv", "norm")]
    paths = [path for path in paths if path.endswith("conv") or (path in theirs and path in ours)]
    paths += ["head.fc1", "head.fc2", "head.fc"]
    for path in paths:
        source, target = _shapes(theirs.get(path)), _shapes(ours.get(path))
        if source != target:
            raise ArgumentError(
                f"cannot grow: {path} is {_said(source)} in the shallow net and {_said(target)} in the deep "
                "one; give a VGG of the same widths, classes and channels, no deeper in a stage"
            )
    with torch.no_grad():
        for path in paths:
            state = ours[path].state_dict()
            for name, value in theirs[path].state_dict().items():
                state[name].copy_(value)
    return paths


def _shapes(layer: nn.Module | None) -> dict[str, tuple[int, ...]]:
    return {} if layer is None else {name: tuple(value.shape) for name, value in layer.state_dict().items()}


def _said(shapes: dict[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {' x '.join(map(str, shape))}" for name, shape in shapes.items()) or "missing"


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions: normal with variance 2 / fan-out; linears: of deviation 0.01; biases 0 (torchvision)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
    else:
        return False
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


def _feature_rules(net: nn.Module) -> list[Rule]:
    """Both publishers number the layers of one flat list; the numbers follow from our network."""
    rules: list[Rule] = []
    index = 0
    for stage, (_, part) in enumerate(net.get_submodule("stages").named_children()):
        for position, block in enumerate(part.get_submodule("blocks").children()):
            for name, _ in block.named_children():
                if name != "act":
                    rules.append(
                        (rf"features\.{index}\.(\w+)", rf"stages.{stage}.blocks.{position}.{name}.\1")
                    )
                index += 1
        index += 1  # the pool that closes a stage
    return rules


def torchvision_rules(net: nn.Module) -> list[Rule]:
    """torchvision's names: `features.N`, `classifier.0`, `.3`, `.6`."""
    return [
        *_feature_rules(net),
        (r"classifier\.0\.(\w+)", r"head.fc1.\1"),
        (r"classifier\.3\.(\w+)", r"head.fc2.\1"),
        (r"classifier\.6\.(\w+)", r"head.fc.\1"),
    ]


def timm_rules(net: nn.Module) -> list[Rule]:
    """timm's names: the first two linears are convolutions of 7x7 and 1x1, the same numbers in one order."""
    return [
        *_feature_rules(net),
        (r"pre_logits\.(fc[12])\.weight", r"head.\1.weight", lambda weight: weight.flatten(1)),
        (r"pre_logits\.(fc[12])\.bias", r"head.\1.bias"),
        (r"head\.fc\.(\w+)", r"head.fc.\1"),
    ]


# name: letter, convolutions a stage, parameters, GMACs, top-1 without and with batch norm, parameters with it
CONFIGURATIONS = {
    "vgg11": ("A", (1, 1, 2, 2, 2), 132_863_336, 7.609, 69.020, 70.370, 132_868_840),
    "vgg13": ("B", (2, 2, 2, 2, 2), 133_047_848, 11.308, 69.928, 71.586, 133_053_736),
    "vgg16": ("D", (2, 2, 3, 3, 3), 138_357_544, 15.470, 71.592, 73.360, 138_365_992),
    "vgg19": ("E", (2, 2, 4, 4, 4), 143_667_240, 19.632, 72.376, 74.218, 143_678_248),
}

register(
    *(
        Variant(
            name=name + ("_bn" if norm else ""),
            family="vgg",
            build=vgg,
            year=2014,
            paper=f"{PAPER}, configuration {letter}" + (", with batch norm" if norm else ""),
            parameters=parameters_bn if norm else parameters,
            size=224,
            arguments={"depths": depths, "norm": norm},
            macs=gmacs * 1e9,
            top1=top1_bn if norm else top1,
            source="torchvision's VGG weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:{name}" + ("_bn" if norm else ""),
            initialise=initialise,
            rules={"torchvision": torchvision_rules, "timm": timm_rules},
        )
        for norm in (False, True)
        for name, (letter, depths, parameters, gmacs, top1, top1_bn, parameters_bn) in CONFIGURATIONS.items()
    )
)
