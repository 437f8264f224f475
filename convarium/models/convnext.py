"""ConvNeXt: a residual net modernised step by step until it matches a transformer.

Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, "A ConvNet for the 2020s", 2022. New in it: from ResNet-50 to
Swin's accuracy by known steps alone, each measured (figure 2): stage ratio 3:3:9:3, a stem of 4x4 patches,
depthwise 7x7, an inverted bottleneck, GELU, fewer activations and norms, layer norm for batch norm,
downsampling apart.

Woo et al., "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", 2023: masked pre-
training made channels of the wide layer collapse to the same; global response normalisation makes them
compete, and replaces layer scale. Atto, Femto, Pico and Nano were designed by Ross Wightman in timm, and
taken over by V2.

Differs from the papers: V2 has no Small there; `convnextv2_small` is timm's. Nothing else is known. Traps: the norm
stands after the pool; all norms have eps 1e-6; drop path grows with i / (blocks - 1); timm writes the small nets'
linear layers as 1x1 convolutions, which is the same.
Weights that fit: torchvision's (BSD-3-Clause), timm's, and the authors' own (V1 MIT; V2 CC BY-NC 4.0).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.joins import Chain, Sum
from convarium.models.parts import DropPath, fraction, stage_plan, wants_side
from convarium.models.registry import Variant, register
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.models.token_parts import even_rates
from convarium.models.weights import Rules
from convarium.net import Head, Net, Stage

V1 = "Liu et al., A ConvNet for the 2020s, 2022"
V2 = "Woo et al., ConvNeXt V2, 2023"


class ChannelsLast(nn.Module):
    """(N, C, H, W) -> (N, H, W, C), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """(N, H, W, C) -> (N, C, H, W), a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class PlaneLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel, (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        # (N, C, H, W) -> (N, H, W, C) -> (N, C, H, W)
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """x * one trained factor a channel, (N, H, W, C).

    Args:
        channels: channels in and out.
        start: first value of the factors.

    Source: Touvron et al., Going Deeper with Image Transformers, 2021, section 2.
    """

    def __init__(self, channels: int, start: float = 1e-6) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All factors at their first value."""
        nn.init.constant_(self.weight, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, start={self.start:g}"


class GlobalResponseNorm(nn.Module):
    """x (1 + weight r) + bias, r = |x_c| / mean |x_c|, a channel's length over the mean length; (N, H, W, C).

    Args:
        channels: channels in and out.

    Source: Woo et al. 2023, section 3.2 and algorithm 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero: it starts as the identity."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # (N, 1, 1, C)
        response = length / (length.mean(-1, keepdim=True) + 1e-6)
        # One pass over the plane: x (1 + weight r) + bias.
        return torch.addcmul(self.bias, x, 1 + self.weight * response)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}"


class Block(Sum):
    """7x7 depthwise, LN, linear to 4 x width, GELU, [GRN], linear, [layer scale], [drop path]; + x."""

    def __init__(self, width: int, layer_scale: float | None, grn: bool, drop_path: float) -> None:
        super().__init__(
            Chain(
                conv=nn.Conv2d(width, width, 7, padding=3, groups=width),
                last=ChannelsLast(),
                norm=nn.LayerNorm(width, eps=1e-6),
                fc1=nn.Linear(width, 4 * width),
                act=nn.GELU(),
                grn=GlobalResponseNorm(4 * width) if grn else None,
                fc2=nn.Linear(4 * width, width),
                scale=LayerScale(width, layer_scale) if layer_scale is not None else None,
                first=ChannelsFirst(),
                drop=DropPath(drop_path) if drop_path else None,
            )
        )


def convnext(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    widths: Sequence[int],
    layer_scale: float | None = 1e-6,
    grn: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """4x4 /4, LN; stages of blocks, LN and 2x2 /2 before each but the first; average pool, LN, linear.

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture, in pixels; at least 32 with four stages, which halve it thrice after the stem.
        depths: blocks of each stage.
        widths: channels of each stage.
        layer_scale: first value of the layer scale; None for none, as in V2.
        grn: global response normalisation, as in V2.
        drop_path: probability of dropping the last block's body for a sample.

    Returns:
        The network.

    Raises:
        ArgumentError: depths and widths differ in number, the picture is too small, or the rate is none.
    """
    plan = stage_plan(depths, widths)
    wants_side("convnext", size, 4 * 2 ** (len(plan) - 1))
    rates = iter(even_rates(fraction("drop_path", drop_path), sum(depths)))
    stages = []
    for index, (depth, width) in enumerate(plan):
        down = None
        if index:
            before = widths[index - 1]
            down = Chain(norm=PlaneLayerNorm(before, eps=1e-6), conv=nn.Conv2d(before, width, 2, stride=2))
        stages.append(Stage([Block(width, layer_scale, grn, next(rates)) for _ in range(depth)], down))
    stem = Chain(
        conv=nn.Conv2d(in_channels, widths[0], 4, stride=4), norm=PlaneLayerNorm(widths[0], eps=1e-6)
    )
    head = Head(
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        norm=nn.LayerNorm(widths[-1], eps=1e-6),
        fc=nn.Linear(widths[-1], classes),
    )
    return Net(stem, stages, head, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions and linears: truncated normal with deviation 0.02, biases zero (the authors' code)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        return True
    return False


def _matrix(value: Tensor) -> Tensor:
    return value.flatten(1)  # (O, I, 1, 1) -> (O, I)


# torchvision numbers the parts of a block; features.0 is the stem, then stages and downsamplings in turn.
_TORCHVISION_PARTS = {"0": "conv", "2": "norm", "3": "fc1", "5": "fc2"}

TORCHVISION: Rules = [
    (r"features\.0\.0\.(\w+)", r"stem.conv.\1"),
    (r"features\.0\.1\.(\w+)", r"stem.norm.\1"),
    (
        r"features\.([1357])\.(\d+)\.block\.([0235])\.(\w+)",
        lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}.body.{_TORCHVISION_PARTS[m[3]]}.{m[4]}",
    ),
    (
        r"features\.([1357])\.(\d+)\.layer_scale",
        lambda m: f"stages.{int(m[1]) // 2}.blocks.{m[2]}.body.scale.weight",
        torch.flatten,  # (C, 1, 1) -> (C,)
    ),
    (r"features\.([246])\.0\.(\w+)", lambda m: f"stages.{int(m[1]) // 2}.downsample.norm.{m[2]}"),
    (r"features\.([246])\.1\.(\w+)", lambda m: f"stages.{int(m[1]) // 2}.downsample.conv.{m[2]}"),
    (r"classifier\.0\.(\w+)", r"head.norm.\1"),
    (r"classifier\.2\.(\w+)", r"head.fc.\1"),
]

_TIMM_BLOCK = r"stages\.(\d)\.blocks\.(\d+)\."

TIMM: Rules = [
    (r"stem\.0\.(\w+)", r"stem.conv.\1"),
    (r"stem\.1\.(\w+)", r"stem.norm.\1"),
    (r"stages\.(\d)\.downsample\.0\.(\w+)", r"stages.\1.downsample.norm.\2"),
    (r"stages\.(\d)\.downsample\.1\.(\w+)", r"stages.\1.downsample.conv.\2"),
    (_TIMM_BLOCK + r"conv_dw\.(\w+)", r"stages.\1.blocks.\2.body.conv.\3"),
    (_TIMM_BLOCK + r"norm\.(\w+)", r"stages.\1.blocks.\2.body.norm.\3"),
    (_TIMM_BLOCK + r"mlp\.(fc[12])\.weight", r"stages.\1.blocks.\2.body.\3.weight", _matrix),
    (_TIMM_BLOCK + r"mlp\.(fc[12]\.bias|grn\.\w+)", r"stages.\1.blocks.\2.body.\3"),
    (_TIMM_BLOCK + r"gamma", r"stages.\1.blocks.\2.body.scale.weight"),
    (r"head\.(norm|fc)\.(\w+)", r"head.\1.\2"),
]

_OWN_BLOCK = r"stages\.(\d)\.(\d+)\."

# The authors' names, of V1 and V2; downsample_layers.0 is the stem.
AUTHORS: Rules = [
    (r"downsample_layers\.0\.0\.(\w+)", r"stem.conv.\1"),
    (r"downsample_layers\.0\.1\.(\w+)", r"stem.norm.\1"),
    (r"downsample_layers\.(\d)\.0\.(\w+)", r"stages.\1.downsample.norm.\2"),
    (r"downsample_layers\.(\d)\.1\.(\w+)", r"stages.\1.downsample.conv.\2"),
    (_OWN_BLOCK + r"dwconv\.(\w+)", r"stages.\1.blocks.\2.body.conv.\3"),
    (_OWN_BLOCK + r"norm\.(\w+)", r"stages.\1.blocks.\2.body.norm.\3"),
    (_OWN_BLOCK + r"pwconv([12])\.(\w+)", r"stages.\1.blocks.\2.body.fc\3.\4"),
    (_OWN_BLOCK + r"gamma", r"stages.\1.blocks.\2.body.scale.weight"),
    (
        _OWN_BLOCK + r"grn\.gamma",
        r"stages.\1.blocks.\2.body.grn.weight",
        torch.flatten,
    ),  # (1, 1, 1, C) -> (C,)
    (_OWN_BLOCK + r"grn\.beta", r"stages.\1.blocks.\2.body.grn.bias", torch.flatten),
    (r"norm\.(\w+)", r"head.norm.\1"),
    (r"head\.(weight|bias)", r"head.fc.\1"),
]

# size: depths, width of the first stage (each next one is twice as wide)
SIZES = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
}

_TIMM_SOURCE = f"{TIMM_RESULTS}: "
_TORCHVISION_SOURCE = "torchvision's ConvNeXt weights IMAGENET1K_V1, metadata"
_V1_SOURCE = "facebookresearch/ConvNeXt, README: pre-trained on ImageNet-22K, 224 pixels"
_V2_SOURCE = "facebookresearch/ConvNeXt-V2, README: FCMAE, fine-tuned on ImageNet-1K, 224 pixels"

# size: parameters, GMACs, top-1, source, the reference's library
FIRST = {
    "atto": (3_695_520, 0.55, 75.672, f"{_TIMM_SOURCE}d2_in1k", "timm"),
    "femto": (5_217_784, 0.79, 77.498, f"{_TIMM_SOURCE}d1_in1k", "timm"),
    "pico": (9_045_672, 1.37, 79.516, f"{_TIMM_SOURCE}d1_in1k", "timm"),
    "nano": (15_593_560, 2.46, 80.762, f"{_TIMM_SOURCE}d1h_in1k", "timm"),
    "tiny": (28_589_128, 4.456, 82.520, _TORCHVISION_SOURCE, "torchvision"),
    "small": (50_223_688, 8.684, 83.616, _TORCHVISION_SOURCE, "torchvision"),
    "base": (88_591_464, 15.355, 84.062, _TORCHVISION_SOURCE, "torchvision"),
    "large": (197_767_336, 34.361, 84.414, _TORCHVISION_SOURCE, "torchvision"),
    "xlarge": (350_196_968, 60.9, 87.0, _V1_SOURCE, "timm"),
}

# size: parameters, GMACs, top-1 (timm has a Small, the authors have none)
SECOND = {
    "atto": (3_708_400, 0.55, 76.7),
    "femto": (5_233_240, 0.78, 78.5),
    "pico": (9_066_280, 1.37, 80.3),
    "nano": (15_623_800, 2.45, 81.9),
    "tiny": (28_635_496, 4.47, 83.0),
    "small": (50_318_440, None, None),
    "base": (88_717_800, 15.4, 84.9),
    "large": (197_956_840, 34.4, 85.8),
    "huge": (660_289_640, 115.0, 86.3),
}


def _row(
    name: str, size: str, year: int, paper: str, parameters: int, gmacs: float | None, top1: float | None,
    source: str, library: str, **arguments: object,
) -> Variant:  # fmt: skip
    depths, width = SIZES[size]
    return Variant(
        name=name,
        family="convnext",
        build=convnext,
        year=year,
        paper=paper,
        parameters=parameters,
        size=224,
        arguments={"depths": depths, "widths": tuple(width * 2**i for i in range(4)), **arguments},
        macs=None if gmacs is None else gmacs * 1e9,
        top1=top1,
        source=source,
        reference=f"{library}:{name}",
        initialise=initialise,
        rules={"torchvision": TORCHVISION, "timm": TIMM, "facebookresearch": AUTHORS},
    )


register(
    *(
        _row(
            f"convnext_{size}", size, 2022,
            "Wightman, timm, 2022" if source.startswith(_TIMM_SOURCE) else f"{V1}, section 3",
            parameters, gmacs, top1, source, library,
        )
        for size, (parameters, gmacs, top1, source, library) in FIRST.items()
    ),
    *(
        _row(
            f"convnextv2_{size}", size, 2023, f"{V2}, appendix" if top1 else f"{V2}, the size as in timm",
            parameters, gmacs, top1, _V2_SOURCE if top1 else "", "timm", layer_scale=None, grn=True,
        )
        for size, (parameters, gmacs, top1) in SECOND.items()
    ),
)  # fmt: skip
