"""Inception v2, or BN-Inception: the outputs of every convolution are normalised over the batch.

Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
2015, appendix. New in it: batch norm, so that learning rates can be 30 times larger; each 5x5 of GoogLeNet
becomes two 3x3 in turn; modules of stride 2 replace the pools between modules.

SE-Inception: Hu, Shen, Albanie, Sun, Wu, "Squeeze-and-Excitation Networks", 2017, figure 2: each module's
output is gated, squeezed to a sixteenth of its channels.

What does not add up in figure 5: 3c and 4e have the sizes before their stride; 4c and 4d are given 576
channels and 4e 1024, where their filters give 608, 608 and 1056. `inception_v2` has the filters, as the
published weights have; `projection=96` narrows the pooled branch of 4c and 4d so that the output column is
right. Section 4.2 names 13.6 million parameters; figure 5 gives 11.3 million.

Differs from the paper: it gives no initial weights; here He's rule.
Weights that fit: with separable=False, bias=True Cadene's port from Caffe (BSD-3-Clause), which wants BGR
pictures of 0 to 255.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat
from convarium.models.parts import conv_unit, gate_of, gated_stages, pooled_head, separable_stem, stage_paths
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Net

PAPER = "Ioffe and Szegedy, Batch Normalization, 2015, figure 5"
SE = "Hu et al., Squeeze-and-Excitation Networks, 2017"

Conv = Callable[..., Chain]
# v2's figure 5: #1x1, #3x3 reduce, #3x3, double #3x3 reduce, double #3x3, pool, projection;
# 0 passes the pooled input through, at stride 2.
Row = tuple[int, int, int, int, int, str, int]
TABLE: Mapping[str, Row] = {
    "3a": (64, 64, 64, 64, 96, "avg", 32),
    "3b": (64, 64, 96, 64, 96, "avg", 64),
    "3c": (0, 128, 160, 64, 96, "max", 0),
    "4a": (224, 64, 96, 96, 128, "avg", 128),
    "4b": (192, 96, 128, 96, 128, "avg", 128),
    "4c": (160, 128, 160, 128, 160, "avg", 128),
    "4d": (96, 128, 192, 160, 192, "avg", 128),
    "4e": (0, 128, 192, 192, 256, "max", 0),
    "5a": (352, 192, 320, 160, 224, "avg", 128),
    "5b": (352, 192, 320, 192, 224, "max", 128),
}
# A stage's first module reaches its resolution; None where the stem did.
STAGES = ((None, "3a", "3b"), ("3c", "4a", "4b", "4c", "4d"), ("4e", "5a", "5b"))


class InceptionV2(Concat):
    """1x1 | 1x1, 3x3 | 1x1, 3x3, 3x3 | 3x3 pool, 1x1. At stride 2: 1x1, 3x3 | 1x1, 3x3, 3x3 | max-pool."""

    def __init__(self, in_channels: int, row: Row, conv: Conv) -> None:
        n1, reduce, n3, reduce_double, n_double, pool, projection = row
        stride = 1 if projection else 2
        kind = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
        pooled = kind(3, 1, padding=1) if projection else nn.MaxPool2d(3, 2, ceil_mode=True)
        branches = {
            "branch1x1": conv(in_channels, n1, 1) if n1 else None,
            "branch3x3": Chain(reduce=conv(in_channels, reduce, 1), conv=conv(reduce, n3, 3, stride)),
            "branch_double": Chain(
                reduce=conv(in_channels, reduce_double, 1),
                conv1=conv(reduce_double, n_double, 3),
                conv2=conv(n_double, n_double, 3, stride),
            ),
            "branch_pool": Chain(
                pool=pooled, project=conv(in_channels, projection, 1) if projection else None
            ),
        }
        super().__init__(**{name: branch for name, branch in branches.items() if branch is not None})
        self.out_channels = n1 + n3 + n_double + (projection or in_channels)


def inception_v2(
    *,
    classes: int,
    in_channels: int,
    size: int,
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    separable: bool = True,
    projection: int = 128,
    bias: bool = False,
    dropout: float = 0.0,
) -> Net:
    """7x7 /2, pool, 1x1, 3x3, pool; ten modules, two of stride 2; average pool, linear (figure 5)."""
    plane = ((size - 1) // 2 + 1) // 4
    if plane < 4 or plane % 4:
        raise ArgumentError(
            f"size = {size}; the strided modules of inception_v2 need sizes that halve evenly: "
            "take a multiple of 32, as 224"
        )
    conv: Conv = partial(conv_unit, bias=bias)
    first = Chain(conv=separable_stem(in_channels, 64), norm=nn.BatchNorm2d(64), act=nn.ReLU(inplace=True))
    stem = Chain(
        conv1=first if separable else conv(in_channels, 64, 7, 2),
        pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
        conv2=conv(64, 64, 1),
        conv3=conv(64, 192, 3),
        pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
    )

    def build(name: str, channels: int) -> Concat:
        row = TABLE[name]
        return InceptionV2(channels, (*row[:6], projection) if name in ("4c", "4d") else row, conv)

    body, features = gated_stages(STAGES, 192, build, gate_of(se, se_reduction, squeeze))
    last = pooled_head(features, classes, dropout)
    return Net(stem, body, last, in_channels=in_channels, classes=classes, size=size)


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions: normal with variance 2 / fan-out (He et al. 2015), biases zero."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return True
    return False


_PLACES = stage_paths(STAGES)
_KINDS = {"": "conv", "_bn": "norm"}
_BRANCHES = {
    "1x1": "branch1x1",
    "3x3_reduce": "branch3x3.reduce",
    "3x3": "branch3x3.conv",
    "double_3x3_reduce": "branch_double.reduce",
    "double_3x3_1": "branch_double.conv1",
    "double_3x3_2": "branch_double.conv2",
    "pool_proj": "branch_pool.project",
}
_STEM = {"conv1_7x7_s2": "conv1", "conv2_3x3_reduce": "conv2", "conv2_3x3": "conv3"}

CADENE: list[Rule] = [
    (rf"({'|'.join(_STEM)})(|_bn)\.(\w+)", lambda m: f"stem.{_STEM[m[1]]}.{_KINDS[m[2]]}.{m[3]}"),
    (
        rf"inception_(\w\w)_({'|'.join(_BRANCHES)})(|_bn)\.(\w+)",
        lambda m: f"{_PLACES[m[1]]}.{_BRANCHES[m[2]]}.{_KINDS[m[3]]}.{m[4]}",
    ),
    (r"(?:last_linear|fc)\.(\w+)", r"head.fc.\1"),
]


register(
    Variant(
        name="inception_v2",
        family="inception_v2",
        build=inception_v2,
        year=2015,
        paper=PAPER,
        parameters=11_278_528,  # 11,285,224 with a dense first convolution
        size=224,
        macs=None,
        top1=74.8,
        source="the paper's figure 4: 25.2 % error, one crop",
        initialise=initialise,
        rules={"Cadene/pretrained-models.pytorch": CADENE},
    ),
    Variant(
        name="se_inception_v2",
        family="inception_v2",
        build=inception_v2,
        year=2017,
        paper=f"{SE}, figure 2 on {PAPER}",
        parameters=11_931_622,
        size=224,
        arguments={"se": True, "separable": False},
        macs=2.04e9,
        top1=75.77,
        source="the paper's table 2: 24.23 % error, one crop",
        initialise=initialise,
    ),
)
