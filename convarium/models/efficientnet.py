"""EfficientNets: depth, width and resolution grow together.

Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", 2019. New in it: a net
made only deeper, wider or finer saturates (figure 3), made all three at a fixed ratio it does not; so one
small net, B0, found by search, is scaled to seven larger ones. B0's blocks are MobileNetV2's with
squeeze-excitation and SiLU.

`efficientnet_b*` equals torchvision's nets; batch norm of B0 to B4 has eps 1e-5 and momentum 0.1, of B5 to
B7 1e-3 and 0.01. `tf_efficientnet_b*` equals timm's nets for Google's weights: "same" padding and eps 1e-3
throughout. Same names and shapes, other functions. `efficientnet_lite*` (tensorflow/tpu, 2020) has ReLU6,
no squeeze-excitation, and a stem, head, first and last stage that do not grow with the rest.

Differs from the paper: B1 to B7 have the published code's multipliers, which are not powers of
`compound`'s; stochastic depth (drop_path=0.2) stands in all of them, as in torchvision.
Weights that fit: torchvision's into `efficientnet_b*` (BSD-3-Clause), timm's into the others (Apache-2.0).
timm's own `efficientnet_b*` are refused here: their file cannot be told from Google's, which compute
something else.
"""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain
from convarium.models.mobile_parts import (
    bodies,
    inverted_residual,
    rename_by,
    timm_rules,
    torchvision_parts,
    unit,
)
from convarium.models.parts import divisible, fraction, squeeze_excite
from convarium.models.registry import Variant, register
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Tan and Le, EfficientNet, 2019"

# Table 1, stages 2 to 8 of B0: expansion, kernel, stride of the first block, channels, blocks.
B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def compound(
    phi: float, alpha: float = 1.2, beta: float = 1.1, gamma: float = 1.15
) -> tuple[float, float, float]:
    """How much depth, width and resolution grow: alpha^phi, beta^phi, gamma^phi.

    Work grows by about (alpha x beta^2 x gamma^2)^phi, with the paper's constants 1.92^phi.

    Args:
        phi: the compound coefficient; 0 is B0.
        alpha: growth of depth.
        beta: growth of width.
        gamma: growth of resolution.

    Returns:
        Multipliers of depth, width and resolution.

    Source: equation 3 and section 4 of the paper.
    """
    return alpha**phi, beta**phi, gamma**phi


def scaled_width(channels: int, width: float) -> int:
    """Channels times the width multiplier, as a multiple of 8, never more than a tenth below."""
    return divisible(channels * width)


def scaled_depth(blocks: int, depth: float) -> int:
    """Blocks times the depth multiplier, rounded up."""
    return math.ceil(blocks * depth)


def efficientnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    width: float = 1.0,
    depth: float = 1.0,
    lite: bool = False,
    padding: str = "torch",
    eps: float = 1e-5,
    momentum: float = 0.1,
    dropout: float = 0.2,
    drop_path: float = 0.2,
) -> Net:
    """3x3 /2; seven stages of inverted residuals; 1x1, global average pool, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        width: multiplier of channels.
        depth: multiplier of each stage's blocks.
        lite: ReLU6, no squeeze-excitation; stem, head, first and last stage do not grow.
        padding: "torch", or "same" for weights from TensorFlow.
        eps: added to batch norm's variance.
        momentum: weight of a new batch in batch norm's running statistics.
        dropout: rate before the classifier.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.

    Raises:
        ArgumentError: a multiplier is not above 0, or a rate is outside its range.
    """
    for name, multiplier in (("width", width), ("depth", depth)):
        if not multiplier > 0:
            raise ArgumentError(f"{name} = {multiplier!r}; it must be above 0, and 1 is B0's")
    fraction("drop_path", drop_path)
    act = nn.ReLU6 if lite else nn.SiLU
    norm = partial(nn.BatchNorm2d, eps=eps, momentum=momentum)
    fixed = (0, len(B0) - 1) if lite else ()
    depths = [row[-1] if i in fixed else scaled_depth(row[-1], depth) for i, row in enumerate(B0)]
    channels = 32 if lite else scaled_width(32, width)
    stem = Chain(unit(in_channels, channels, 3, 2, act=act, norm=norm, padding=padding))
    index, stages = 0, []
    for (expansion, kernel, first_stride, unscaled, _), blocks_here in zip(B0, depths, strict=True):
        out, blocks = scaled_width(unscaled, width), []
        for i in range(blocks_here):
            expanded = channels * expansion
            # The squeezed width comes from the block's input here, from the expanded channels in MobileNetV3.
            gate = None if lite else squeeze_excite(expanded, max(1, channels // 4), act=nn.SiLU)
            blocks.append(
                inverted_residual(
                    channels,
                    out,
                    expanded,
                    kernel,
                    1 if i else first_stride,
                    act=act,
                    norm=norm,
                    gate=gate,
                    padding=padding,
                    drop_path=drop_path * index / sum(depths),
                )
            )
            channels, index = out, index + 1
        stages.append(Stage(blocks))
    last = 1280 if lite else scaled_width(1280, width)
    head = Head(
        "fc",
        **unit(channels, last, 1, act=act, norm=norm),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(fraction("dropout", dropout)),
        fc=nn.Linear(last, classes),
    )
    return Net(stem, stages, head, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions normal, variance 2 / fan-out of a group; linears uniform to 1/sqrt(fan-out); biases 0.

    The published code's rule; torchvision counts a fan-out over all groups and draws smaller weights.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1] // module.groups
        nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
    else:
        return False
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return True


def torchvision_rules(net: nn.Module) -> list[Rule]:
    """torchvision's numbered layers to ours: their stage i + 1 is our stage i."""
    table = {"features.0.0": "stem.conv", "features.0.1": "stem.norm"}
    table |= {"features.8.0": "head.conv", "features.8.1": "head.norm", "classifier.1": "head.fc"}
    for path, body in bodies(net):
        _, stage, _, block, _ = path.split(".")
        table |= torchvision_parts(body, f"features.{int(stage) + 1}.{block}.block", path)
    return rename_by(table)


# name: width, depth, dropout, side in pixels (the published code's table), parameters
SCALES = {
    "b0": (1.0, 1.0, 0.2, 224, 5_288_548),
    "b1": (1.0, 1.1, 0.2, 240, 7_794_184),
    "b2": (1.1, 1.2, 0.3, 260, 9_109_994),
    "b3": (1.2, 1.4, 0.3, 300, 12_233_232),
    "b4": (1.4, 1.8, 0.4, 380, 19_341_616),
    "b5": (1.6, 2.2, 0.4, 456, 30_389_784),
    "b6": (1.8, 2.6, 0.5, 528, 43_040_704),
    "b7": (2.0, 3.1, 0.5, 600, 66_347_960),
}
# name: side in pixels, GMACs at it, top-1 of torchvision's IMAGENET1K_V1
TORCHVISION = {
    "b0": (224, 0.386, 77.692),
    "b1": (240, 0.687, 78.642),
    "b2": (288, 1.088, 80.608),
    "b3": (300, 1.827, 82.008),
    "b4": (380, 4.394, 83.384),
    "b5": (456, 10.266, 83.444),
    "b6": (528, 19.068, 84.008),
    "b7": (600, 37.746, 84.122),
}
# name: top-1 of timm's aa_in1k, the paper's weights: AutoAugment at the sides of `SCALES`
TENSORFLOW = {
    "b0": 76.882,
    "b1": 78.84,
    "b2": 80.074,
    "b3": 81.648,
    "b4": 83.04,
    "b5": 83.696,
    "b6": 84.124,
    "b7": 84.424,
}
# name: width, depth, dropout, side in pixels, parameters, top-1. The published 407 to 2,640 million
# multiply-accumulates are 3 to 6 % above convolutions and linears alone, so they are not given here.
LITE = {
    "lite0": (1.0, 1.0, 0.2, 224, 4_652_008, 75.1),
    "lite1": (1.0, 1.1, 0.2, 240, 5_416_680, 76.7),
    "lite2": (1.1, 1.2, 0.3, 260, 6_092_072, 77.6),
    "lite3": (1.2, 1.4, 0.3, 280, 8_197_096, 79.8),
    "lite4": (1.4, 1.8, 0.3, 300, 13_006_568, 81.5),
}
TENSORFLOW_NORM = {"eps": 1e-3, "momentum": 0.01}

register(
    *(
        Variant(
            name=f"efficientnet_{name}",
            family="efficientnet",
            build=efficientnet,
            year=2019,
            paper=f"{PAPER}, tables 1 and 2",
            parameters=parameters,
            size=TORCHVISION[name][0],
            arguments={"width": width, "depth": depth, "dropout": dropout}
            | (TENSORFLOW_NORM if name in ("b5", "b6", "b7") else {}),
            macs=TORCHVISION[name][1] * 1e9,
            top1=TORCHVISION[name][2],
            source="torchvision's EfficientNet weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:efficientnet_{name}",
            initialise=initialise,
            rules={"torchvision": torchvision_rules},
        )
        for name, (width, depth, dropout, _, parameters) in SCALES.items()
    ),
    *(
        Variant(
            name=f"tf_efficientnet_{name}",
            family="efficientnet",
            build=efficientnet,
            year=2019,
            paper=f"{PAPER}, tables 1 and 2",
            parameters=parameters,
            size=size,
            # timm keeps torch's momentum here; it acts in training alone.
            arguments={"width": width, "depth": depth, "dropout": dropout, "padding": "same", "eps": 1e-3},
            macs=TORCHVISION[name][1] * 1e9 if TORCHVISION[name][0] == size else None,
            top1=TENSORFLOW[name],
            source=f"{TIMM_RESULTS}: aa_in1k"
            + ("; MACs: torchvision's metadata of the like net" if TORCHVISION[name][0] == size else ""),
            reference=f"timm:tf_efficientnet_{name}",
            initialise=initialise,
            rules={"timm": timm_rules},
        )
        for name, (width, depth, dropout, size, parameters) in SCALES.items()
    ),
    *(
        Variant(
            name=f"efficientnet_{name}",
            family="efficientnet",
            build=efficientnet,
            year=2020,
            paper="tensorflow/tpu, models/official/efficientnet/lite; multipliers of Tan and Le, 2019",
            parameters=parameters,
            size=size,
            arguments={"width": width, "depth": depth, "dropout": dropout, "lite": True},
            top1=top1,
            source="tensorflow/tpu, models/official/efficientnet/lite/README.md",
            reference=f"timm:efficientnet_{name}",
            initialise=initialise,
            rules={"timm": timm_rules},
        )
        for name, (width, depth, dropout, size, parameters, top1) in LITE.items()
    ),
)
