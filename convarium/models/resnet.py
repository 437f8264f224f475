"""Residual networks: layers learn what to add to their input.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", 2015. New in it: plain nets get *worse*
when made deeper, on the training set too (figures 1 and 6), so it is not overfitting; with a shortcut around
each pair of layers, depth helps up to 152 layers (table 3) and 110 on CIFAR (table 6). Then, with the same
frame:

- Zagoruyko, Komodakis, "Wide Residual Networks", 2016: fewer and wider layers do as well, in less time. On
  ImageNet the inner 3x3 of a bottleneck is twice as wide. (Their CIFAR nets are pre-activated: see
  preact.py.)
- Xie, Girshick, Dollar, Tu, He, "Aggregated Residual Transformations for Deep Neural Networks", 2016
  (ResNeXt): at equal cost, many narrow paths beat a single wide one. Figure 3 draws one block in three equal
  forms: (a) a sum of paths, (b) paths concatenated early, (c) a grouped convolution. All three are here; (c)
  is fast and the default.
- He, Zhang, Zhang, Zhang, Xie, Li, "Bag of Tricks for Image Classification", 2018 (ResNet-D): no convolution
  throws pixels away. Three 3x3 for the 7x7, the stride in the 3x3, a mean over 2x2 before the projection of a
  shortcut.

Two kinds. The ImageNet nets of table 1 equal torchvision's: "v1.5", which strides the 3x3 of a bottleneck;
the paper's own v1 strides its first 1x1: the same keys and shapes, another function. The CIFAR nets of
section 4.2 have 6n + 2 layers of 16, 32, 64 channels, with the parameter-free shortcut (option A) or
projections (option B).

Every net takes `se=True` (gates, as in senet.py, squeezed to C / se_reduction channels) and `drop_path` (Huang, Sun,
Liu, Sedra, Weinberger, "Deep Networks with Stochastic Depth", 2016).

Differs from the papers: batch norm of shortcuts as in torchvision; weights drawn by He's rule with fan-out.
Weights that fit: torchvision's (BSD-3-Clause), timm's (Apache-2.0), CIFAR weights in akamaster's names
(BSD-2-Clause).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat, Sum
from convarium.models.parts import DropPath, MakeGate, gate_of
from convarium.models.registry import Variant, register
from convarium.models.residual import (
    BasicBlock,
    Bottleneck,
    PlainBlock,
    blocks_of,
    body_options,
    conv,
    head,
    initialise,
    inner_width,
    last_norm,
    rules,
    stages,
    stem,
)
from convarium.models.timm_results import SOURCE as TIMM_RESULTS
from convarium.net import Net

PAPER = "He et al., Deep Residual Learning for Image Recognition, 2015"
WIDE = "Zagoruyko and Komodakis, Wide Residual Networks, 2016"
NEXT = "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, 2016"
TRICKS = "He et al., Bag of Tricks for Image Classification with Convolutional Neural Networks, 2018"

WIDTHS = (64, 128, 256, 512)
FORMS = ("a", "b", "c")


def path(in_channels: int, width: int, stride: int, **last: nn.Module) -> Chain:
    """1x1, BN, ReLU, 3x3 /stride, BN, ReLU: one of a ResNeXt block's narrow paths."""
    return Chain(
        conv1=conv(in_channels, width, 1),
        norm1=nn.BatchNorm2d(width),
        act1=nn.ReLU(inplace=True),
        conv2=conv(width, width, 3, stride),
        norm2=nn.BatchNorm2d(width),
        act2=nn.ReLU(inplace=True),
        **last,
    )


class PathBottleneck(Sum):
    """b: concat of paths, 1x1 to 4 x width; a: sum of [path, 1x1 to 4 x width]; then as below; + shortcut; ReLU.

    Below: BN [, gate] [, drop path]. Both are equal to `Bottleneck` in groups (ResNeXt's figure 3; the norm stands
    after the sum of the paths).

    Args:
        in_channels: channels in.
        width: a quarter of the channels out.
        stride: step in pixels.
        shortcut: the way around; the identity where None.
        form: "a" or "b".
        groups: number of paths.
        base_width: channels of a path where `width` is 64; they grow with it.
        gate: makes what weighs the body's output.
        zero_init: the last norm starts with weight 0.
        drop_path: rate of dropping the body for a sample.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Module | None,
        *,
        form: str,
        groups: int,
        base_width: int,
        gate: MakeGate | None = None,
        zero_init: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        narrow, out_channels = inner_width(width, 1, base_width), 4 * width
        paths: nn.Module
        if form == "b":
            paths = Concat(**{f"path{i}": path(in_channels, narrow, stride) for i in range(groups)})
        else:
            # A sum of many is a sum of sums: the last path is the outermost body.
            paths = path(in_channels, narrow, stride, conv3=conv(narrow, out_channels, 1))
            for _ in range(1, groups):
                paths = Sum(path(in_channels, narrow, stride, conv3=conv(narrow, out_channels, 1)), paths)
        super().__init__(
            body=Chain(
                paths=paths,
                conv3=conv(narrow * groups, out_channels, 1) if form == "b" else None,
                norm3=last_norm(out_channels, zero_init),
                se=gate(out_channels) if gate else None,
                drop=DropPath(drop_path) if drop_path else None,
            ),
            shortcut=shortcut,
            act=nn.ReLU(inplace=True),
        )


def in_form(state: Mapping[str, Tensor], form: str, groups: int) -> dict[str, Tensor]:
    """The weights of a net or block in form c, cut up for one of its other forms (ResNeXt's figure 3).

    Args:
        state: tensors by our names, of form c.
        form: "a", "b" or "c".
        groups: number of paths.

    Returns:
        Tensors by our names, of the form.

    Raises:
        ArgumentError: no such form.
    """
    _check_form(form)
    cut: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(|.*\.)body\.(conv1|norm1|conv2|norm2|conv3)\.(\w+)", name)
        if form == "c" or not found or (form == "b" and found[2] == "conv3"):
            cut[name] = tensor
            continue
        # The last 1x1 has the paths in its input channels, all others have them in their first dimension.
        pieces = tensor.chunk(groups, dim=int(found[2] == "conv3")) if tensor.ndim else [tensor] * groups
        for i, piece in enumerate(pieces):
            cut[f"{found[1]}body.paths.{_path_name(i, form, groups)}.{found[2]}.{found[3]}"] = piece
    return cut


def _path_name(index: int, form: str, groups: int) -> str:
    if form == "b":
        return f"path{index}"
    return ".".join(["shortcut"] * (groups - 1 - index) + ["body"] * (index > 0))


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ArgumentError(f"form = {form!r}; it must be 'a', 'b' or 'c'")


def resnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depths: Sequence[int],
    bottleneck: bool = False,
    shortcut: str = "B",
    v1: bool = False,
    stem: str = "7x7",
    groups: int = 1,
    base_width: int = 64,
    form: str = "c",
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """Stem of 64 at a quarter of the size; four stages of 64 to 512 (x 4); average pool, linear (table 1).

    Args:
        classes: number of class scores.
        in_channels: channels of the picture.
        size: side of the picture in pixels.
        depths: blocks of each stage.
        bottleneck: blocks of three layers, not of two.
        shortcut: "A", "B", "C", "D", "3x3" or "none", as in `residual.shortcut`.
        v1: a bottleneck strides its first 1x1 and not its 3x3.
        stem: "7x7" or "3x3" (three of them).
        groups: paths of a bottleneck (ResNeXt).
        base_width: channels of a path in the first stage; 128 in one path for the wide nets.
        form: how the paths are written: "a", "b" or "c".
        se: each block's body is gated before the sum (Hu et al. 2017); resnet50 is seresnet50 then.
        se_reduction: channels are squeezed to one in so many.
        squeeze: the gates' global pool, "avg" or "max".
        zero_init: the last norm of each block starts with weight 0.
        drop_path: rate of dropping the last block's body for a sample; the first block's is 0, growth even.

    Returns:
        The network.

    Raises:
        ArgumentError: options that do not go together.
    """
    _check_form(form)
    if shortcut == "none" and bottleneck:
        raise ArgumentError("shortcut = 'none' is for nets of basic blocks; this one has bottlenecks")
    options = body_options(shortcut, gate_of(se, se_reduction, squeeze), zero_init, drop_path)
    block: Any = PlainBlock if shortcut == "none" else BasicBlock
    if bottleneck:
        block = Bottleneck if form == "c" else PathBottleneck
        options |= {"groups": groups, "base_width": base_width}
        options |= {"v1": v1} if form == "c" else {"form": form}
        if v1 and form != "c":
            raise ArgumentError(f"v1 = True with form = {form!r}; only form 'c' can stride its first 1x1")
    elif (groups, base_width, form, v1) != (1, 64, "c", False):
        raise ArgumentError("groups, base_width, form and v1 are for bottlenecks; this net has basic blocks")
    return Net(
        _stem(in_channels, kind=stem),
        stages(block, 64, depths, WIDTHS, shortcut, **options),
        head(512 * block.expansion, classes),
        in_channels=in_channels,
        classes=classes,
        size=size,
    )


_stem = stem  # `resnet` has an argument of that name


def cifar_resnet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    depth: int,
    shortcut: str = "A",
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    zero_init: bool = False,
    drop_path: float = 0.0,
) -> Net:
    """3x3, BN, ReLU; three stages of n blocks of 16, 32, 64; average pool, linear (section 4.2)."""
    n = blocks_of(depth, layers=2)
    first = Chain(conv=conv(in_channels, 16, 3), norm=nn.BatchNorm2d(16), act=nn.ReLU(inplace=True))
    options = body_options(shortcut, gate_of(se, se_reduction, squeeze), zero_init, drop_path)
    block = PlainBlock if shortcut == "none" else BasicBlock
    body = stages(block, 16, (n, n, n), (16, 32, 64), shortcut, **options)
    return Net(first, body, head(64, classes), in_channels=in_channels, classes=classes, size=size)


# Both publishers' names are the same, and so is what these nets compute.
RULES = {"torchvision": rules(), "timm": rules()}


def _paths(groups: int, base_width: int) -> dict[str, Any]:
    return {"bottleneck": True, "groups": groups, "base_width": base_width}


D18, D34, D50, D101, D152 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)

# name: paper, depths, arguments, parameters, GMACs and top-1 of torchvision's IMAGENET1K_V1
IMAGENET: dict[str, tuple[str, tuple[int, ...], dict[str, Any], int, float, float]] = {
    "resnet18": (PAPER, D18, {}, 11_689_512, 1.814, 69.758),
    "resnet34": (PAPER, D34, {}, 21_797_672, 3.664, 73.314),
    "resnet50": (PAPER, D50, {"bottleneck": True}, 25_557_032, 4.089, 76.130),
    "resnet101": (PAPER, D101, {"bottleneck": True}, 44_549_160, 7.801, 77.374),
    "resnet152": (PAPER, D152, {"bottleneck": True}, 60_192_808, 11.514, 78.312),
    "wide_resnet50_2": (WIDE, D50, _paths(1, 128), 68_883_240, 11.398, 78.468),
    "wide_resnet101_2": (WIDE, D101, _paths(1, 128), 126_886_696, 22.753, 78.848),
    "resnext50_32x4d": (NEXT, D50, _paths(32, 4), 25_028_904, 4.230, 77.618),
    "resnext101_32x8d": (NEXT, D101, _paths(32, 8), 88_791_336, 16.414, 79.312),
    "resnext101_64x4d": (NEXT, D101, _paths(64, 4), 83_455_272, 15.460, 83.246),
}

# name: depth, shortcut, parameters, error on CIFAR-10 in per cent (table 6; none given for plain nets)
CIFAR = {
    "plain20": (20, "none", 269_722, None),
    "plain56": (56, "none", 853_018, None),
    "resnet20": (20, "A", 269_722, 8.75),
    "resnet32": (32, "A", 464_154, 7.51),
    "resnet44": (44, "A", 658_586, 7.17),
    "resnet56": (56, "A", 853_018, 6.97),
    "resnet110": (110, "A", 1_727_962, 6.43),
}

# name: of the form that the paper has, GMACs (its table 1), top-1 of one crop (the authors' own measurement)
AS_PUBLISHED = {
    "resnet50": (3.8, 75.3),
    "resnet101": (7.6, 76.4),
    "resnet152": (11.3, 77.0),
}

# name: the net that it changes, parameters, GMACs as timm counts them, top-1, where that is from
MADE_D = {
    "resnet18d": ("resnet18", 11_708_744, 2.06, 72.296, f"{TIMM_RESULTS}: ra2_in1k"),
    "resnet34d": ("resnet34", 21_816_904, 3.91, 77.108, f"{TIMM_RESULTS}: ra2_in1k"),
    "resnet50d": ("resnet50", 25_576_264, 4.35, 77.16, "the paper's table 5; MACs: timm"),
    "resnet101d": ("resnet101", 44_568_392, 8.08, 80.466, f"{TIMM_RESULTS}: gluon_in1k"),
    "resnet152d": ("resnet152", 60_212_040, 11.8, 80.476, f"{TIMM_RESULTS}: gluon_in1k"),
}

register(
    *(
        Variant(
            name=name,
            family="resnet",
            build=cifar_resnet,
            year=2015,
            paper=f"{PAPER}, section 4.2",
            parameters=parameters,
            size=32,
            classes=10,
            arguments={"depth": depth, "shortcut": option},
            top1=None if error is None else round(100 - error, 2),
            source="" if error is None else "the paper's table 6, on CIFAR-10",
            initialise=initialise,
            rules={"akamaster/pytorch_resnet_cifar10": rules()},
        )
        for name, (depth, option, parameters, error) in CIFAR.items()
    ),
    *(
        Variant(
            name=name,
            family="resnet",
            build=resnet,
            year=int(paper[-4:]),
            paper=paper + ", table 1" * (paper == PAPER) + ", in its v1.5 form" * bool(arguments),
            parameters=parameters,
            size=224,
            arguments={"depths": depths, **arguments},
            macs=gmacs * 1e9,
            top1=top1,
            source="torchvision's weights IMAGENET1K_V1, metadata",
            reference=f"torchvision:{name}",
            initialise=initialise,
            rules=RULES,
        )
        for name, (paper, depths, arguments, parameters, gmacs, top1) in IMAGENET.items()
    ),
    *(
        Variant(
            name=f"{name}_v1",
            family="resnet",
            build=resnet,
            year=2015,
            paper=f"{PAPER}, table 1, strides as published",
            parameters=IMAGENET[name][3],
            size=224,
            arguments={"depths": IMAGENET[name][1], "bottleneck": True, "v1": True},
            macs=gmacs * 1e9,
            top1=top1,
            source="MACs: the paper's table 1; top-1: KaimingHe/deep-residual-networks, README, one crop",
            initialise=initialise,
            rules={"torchvision": rules()},
        )
        for name, (gmacs, top1) in AS_PUBLISHED.items()
    ),
    *(
        Variant(
            name=name,
            family="resnet",
            build=resnet,
            year=2018,
            paper=f"{TRICKS}, section 4.2",
            parameters=parameters,
            size=224,
            arguments={"depths": IMAGENET[base][1], **IMAGENET[base][2], "shortcut": "D", "stem": "3x3"},
            macs=gmacs * 1e9,
            top1=top1,
            source=source,
            reference=f"timm:{name}",
            initialise=initialise,
            rules={"timm": rules("3x3", projection=1)},
        )
        for name, (base, parameters, gmacs, top1, source) in MADE_D.items()
    ),
)
