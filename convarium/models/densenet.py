"""DenseNet: each layer sees the outputs of all layers before it.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", 2016. New in it: where
ResNet adds, DenseNet concatenates. A layer gives only k new maps (the growth rate, 12 to 48) and reads
everything given before, so features are reused, gradients reach every layer, and few parameters do much:
table 2 and figure 3. B stands for the 1x1 bottleneck of 4k maps, C for transitions that halve the maps
between stages.

The order of concatenation is part of the format: old maps first, new maps last. Reversed, every published
weight loads and the output is wrong.

`recompute=True` saves memory in training after Pleiss et al., "Memory-Efficient Implementation of DenseNets",
2017: what grows with the square of the depth, the concatenations and their normalised copies, is not kept for
the backward pass but computed again. Gradients and running statistics are those of the usual way; a step
takes longer.

Two kinds: the ImageNet nets of table 1, equal to torchvision's, and the CIFAR nets of section 3 (n layers in
each of three stages, 6n + 4 in all). Differs from the paper: dropout, where asked for, acts on the new maps
only.
Weights that fit: torchvision's (BSD-3-Clause), also with the names of its older files; timm's (Apache-2.0);
the CIFAR names of gpleiss/efficient_densenet_pytorch (MIT).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat, locate
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Head, Net, Stage

PAPER = "Huang et al., Densely Connected Convolutional Networks, 2016"


class DenseLayer(Concat):
    """x, and beside it: BN, ReLU, 1x1 to 4k, BN, ReLU, 3x3 to k, (dropout); concatenated."""

    def __init__(self, in_channels: int, growth: int, dropout: float) -> None:
        super().__init__(
            before=nn.Identity(),
            new=Chain(
                norm1=nn.BatchNorm2d(in_channels),
                act1=nn.ReLU(inplace=True),
                conv1=nn.Conv2d(in_channels, 4 * growth, 1, bias=False),
                norm2=nn.BatchNorm2d(4 * growth),
                act2=nn.ReLU(inplace=True),
                conv2=nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
                drop=nn.Dropout(dropout) if dropout else None,
            ),
        )


class Recomputed(Chain):
    """Dense layers in turn; in training their concatenations are computed again for the backward pass.

    Outside training it is the chain it looks like. In training the inputs of a layer are kept as the separate
    outputs of the layers before, memory that grows with the depth and not with its square.

    Args:
        parts: (name, dense layer) pairs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(x)
        given = [x]
        for name, layer in self.named_children():
            try:
                given.append(_new_maps(cast(Chain, layer.get_submodule("new")), given))
            except Exception as error:
                locate(error, f"{name}.new")
                raise
        return torch.cat(given, dim=1)


def _new_maps(new: Chain, given: list[Tensor]) -> Tensor:
    # conv1 is recomputed too: it would otherwise keep its own input, as wide as the concatenation.
    def narrow(*inputs: Tensor) -> Tensor:
        x = torch.cat(inputs, dim=1)
        for name in ("norm1", "act1", "conv1"):
            x = new.run(name, x)
        return x

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(new)

    x: Tensor = checkpoint(narrow, *given, use_reentrant=False, context_fn=contexts)
    for name in list(new._modules)[3:]:
        x = new.run(name, x)
    return x


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch norms use their batch but leave their running statistics alone, which saw it already."""
    with ExitStack() as stack:
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d) and norm.training:
                stack.callback(setattr, norm, "momentum", norm.momentum)
                stack.callback(setattr, norm, "num_batches_tracked", norm.num_batches_tracked)
                # Not track_running_stats: a recomputation must save as many tensors as the first forward did.
                norm.momentum, norm.num_batches_tracked = 0.0, None
        yield


def stages(
    in_channels: int, depths: Sequence[int], growth: int, dropout: float, recompute: bool
) -> tuple[list[Stage], int]:
    """Stages of dense layers; each but the first opens with BN, ReLU, 1x1 to half the maps, 2x2 average pool.

    Returns:
        The stages, and the channels after the last.
    """
    result = []
    channels = in_channels
    for index, depth in enumerate(depths):
        transition = None
        if index > 0:
            transition = Chain(
                norm=nn.BatchNorm2d(channels),
                act=nn.ReLU(inplace=True),
                conv=nn.Conv2d(channels, channels // 2, 1, bias=False),
                pool=nn.AvgPool2d(2),
            )
            channels //= 2
        layers = [DenseLayer(channels + i * growth, growth, dropout) for i in range(depth)]
        stage = Stage(layers, transition)
        if recompute:
            stage.blocks = Recomputed(stage.blocks.named_children())
        result.append(stage)
        channels += depth * growth
    return result, channels


def densenet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    growth: int = 32,
    dropout: float = 0.0,
    recompute: bool = False,
) -> Net:
    """7x7 /2 to 2k, BN, ReLU, max-pool /2; four dense stages; BN, ReLU, average pool, linear (table 1)."""
    if size < 29:
        raise ArgumentError(f"these DenseNets cannot take pictures of {size} pixels; at least 29 are needed")
    stem = Chain(
        conv=nn.Conv2d(in_channels, 2 * growth, 7, stride=2, padding=3, bias=False),
        norm=nn.BatchNorm2d(2 * growth),
        act=nn.ReLU(inplace=True),
        pool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    body, channels = stages(2 * growth, depths, growth, dropout, recompute)
    return Net(stem, body, head(channels, classes), in_channels=in_channels, classes=classes, size=size)


def cifar_densenet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depth: int,
    growth: int,
    dropout: float = 0.0,
    recompute: bool = False,
) -> Net:
    """3x3 to 2k; three dense stages of n layers; BN, ReLU, average pool, linear: 6n + 4 (section 3)."""
    n, rest = divmod(depth - 4, 6)
    if rest or n < 1:
        raise ArgumentError(f"depth = {depth}; it must be 6n + 4: 10, 16, 22, ...")
    if size < 4:
        raise ArgumentError(f"these DenseNets cannot take pictures of {size} pixels; at least 4 are needed")
    stem = Chain(conv=nn.Conv2d(in_channels, 2 * growth, 3, padding=1, bias=False))
    body, channels = stages(2 * growth, (n, n, n), growth, dropout, recompute)
    return Net(stem, body, head(channels, classes), in_channels=in_channels, classes=classes, size=size)


def head(channels: int, classes: int) -> Head:
    """BN, ReLU, global average pool, linear."""
    return Head(
        norm=nn.BatchNorm2d(channels),
        act=nn.ReLU(inplace=True),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        fc=nn.Linear(channels, classes),
    )


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions: normal with variance 2 / fan-in (He et al., 2015); the linear's bias 0 (torchvision)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        return True
    if isinstance(module, nn.Linear):
        module.reset_parameters()
        nn.init.zeros_(module.bias)
        return True
    return False


def _layer(match: Any) -> str:
    return f"stages.{int(match[1]) - 1}.blocks.{int(match[2]) - 1}.new.{match[3]}{match[4]}.{match[5]}"


# Layers and stages are counted from one there. Older files write norm.1 for norm1, some norm_final for norm5.
PUBLISHED: list[Rule] = [
    (r"features\.(conv|norm)0\.(\w+)", r"stem.\1.\2"),
    (r"features\.denseblock(\d)\.denselayer(\d+)\.(norm|conv)\.?(\d)\.(\w+)", _layer),
    (r"features\.transition(\d)\.(norm|conv)\.(\w+)", r"stages.\1.downsample.\2.\3"),
    (r"features\.(?:norm5|norm_final)\.(\w+)", r"head.norm.\1"),
    (r"classifier\.(\w+)", r"head.fc.\1"),
]

# name: layers a stage, growth, parameters, GMACs, top-1 of torchvision's IMAGENET1K_V1
IMAGENET = {
    "densenet121": ((6, 12, 24, 16), 32, 7_978_856, 2.834, 74.434),
    "densenet169": ((6, 12, 32, 32), 32, 14_149_480, 3.360, 75.600),
    "densenet201": ((6, 12, 48, 32), 32, 20_013_928, 4.291, 76.896),
    "densenet161": ((6, 12, 36, 24), 48, 28_681_000, 7.728, 77.138),
}

# name: depth, growth, parameters, error on augmented CIFAR-10 in per cent (table 2, column C10+)
CIFAR = {
    "densenet_bc_100_12": (100, 12, 769_162, 4.51),
    "densenet_bc_250_24": (250, 24, 15_324_406, 3.62),
    "densenet_bc_190_40": (190, 40, 25_624_430, 3.46),
}

register(
    *(
        Variant(
            name=name,
            family="densenet",
            build=cifar_densenet,
            year=2016,
            paper=f"{PAPER}, section 3, implementation details, and table 2",
            parameters=parameters,
            size=32,
            classes=10,
            arguments={"depth": depth, "growth": growth},
            top1=round(100 - error, 2),
            source="the paper's table 2, on CIFAR-10 with augmentation",
            initialise=initialise,
            rules={"gpleiss/efficient_densenet_pytorch": PUBLISHED},
        )
        for name, (depth, growth, parameters, error) in CIFAR.items()
    ),
    *(
        Variant(
            name=name,
            family="densenet",
            build=densenet,
            year=2016,
            paper=f"{PAPER}, table 1",
            parameters=parameters,
            size=224,
            arguments={"depths": depths, "growth": growth},
            macs=gmacs * 1e9,
            top1=top1,
            source="torchvision's DenseNet weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:{name}",
            initialise=initialise,
            rules={"torchvision": PUBLISHED, "timm": PUBLISHED},
        )
        for name, (depths, growth, parameters, gmacs, top1) in IMAGENET.items()
    ),
)
