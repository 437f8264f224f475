"""GoogLeNet: convolutions of several sizes side by side, made cheap by 1x1 convolutions before them.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich, "Going Deeper with Convolutions",
2014. New in it: the Inception module, which sees 1x1, 3x3 and 5x5 neighbourhoods and a max-pool at once
(figure 2a), and reduces channels by 1x1 convolutions first (figure 2b), because without them each module adds
all its input's channels to its output; an average pool in place of wide linear layers; auxiliary classifiers
on two inner modules, so that gradients reach the lower half. 22 layers and, says the paper's section 1, 12 times
fewer parameters than AlexNet; of AlexNet's 60,965,224 that would be 5.1 million. Table 1's channels give
6,991,792 without the auxiliary classifiers: 8.7 times fewer.

Two variants. `googlenet_2014` is the paper's: local response normalisation, real 5x5 branches, no batch norm.
`googlenet` is torchvision's: batch norm with eps 1e-3, and a 3x3 in the branch that is called 5x5. Both round
pooled sizes up.

What table 1 does not say, and what does not add up in it:
- Its K is 1024 parameters and its M a million multiply-adds, without biases. Read so, the operations of all
  rows but 5a agree to rounding.
- Its first row, "convolution 7x7/2", has 2.7K parameters and 34M operations; a dense one has 9.2K and 118M. A
  separable one with eight filters a channel has exactly the table's, and Chollet (Xception, 2017, section 2)
  says that Inception v1 began with one. So does `googlenet_2014`; `separable=False` is the dense one of most
  rebuilt nets.
- Row 5a, 1072K and 54M, is that of 48 channels in "#5x5 reduce"; the 32 that it prints give 1018K and 51M.
- Parameters of 4a, 4b, 4d, 4e and 5b are printed 0.2 to 2 % below what their channels give, those of 4c 7 %
  below (463K for 497K).

Differs from the paper (`googlenet_2014`): it gives neither the constants of the normalisation nor the initial
weights; here those of Caffe's bvlc_googlenet (n 5, alpha 1e-4, beta 0.75, k 1; Glorot's rule, biases 0.2).
Weights that fit: torchvision's (BSD-3-Clause), whose auxiliary classifiers are untrained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat
from convarium.models.parts import (
    AuxiliaryNet,
    MakeGate,
    ResponseNorm,
    conv_unit,
    fraction,
    gate_of,
    gated,
    pooled_head,
    renormalise,
    separable_stem,
    wants_side,
)
from convarium.models.registry import Variant, register
from convarium.models.weights import Rule
from convarium.net import Stage

PAPER = "Szegedy et al., Going Deeper with Convolutions, 2014"

Row = tuple[int, int, int, int, int, int]

# Table 1: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj
TABLE: Mapping[str, Row] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
STAGES = (("3a", "3b"), ("4a", "4b", "4c", "4d", "4e"), ("5a", "5b"))
TAPPED = {"4a": "stages.1.blocks.0", "4d": "stages.1.blocks.3"}

Conv = Callable[..., Chain]
batch_normed: Conv = partial(conv_unit, norm=partial(nn.BatchNorm2d, eps=1e-3))
biased: Conv = partial(conv_unit, norm=None, bias=True)


class Inception(Concat):
    """1x1 | 1x1, 3x3 | 1x1, 5x5 | 3x3 max-pool, 1x1; concatenated (figure 2b)."""

    def __init__(self, in_channels: int, row: Row, conv: Conv, large: int = 5) -> None:
        n1, reduce3, n3, reduce5, n5, pooled = row
        super().__init__(
            branch1x1=conv(in_channels, n1, 1),
            branch3x3=Chain(reduce=conv(in_channels, reduce3, 1), conv=conv(reduce3, n3, 3)),
            branch5x5=Chain(reduce=conv(in_channels, reduce5, 1), conv=conv(reduce5, n5, large)),
            branch_pool=Chain(pool=nn.MaxPool2d(3, 1, padding=1), project=conv(in_channels, pooled, 1)),
        )
        self.out_channels = n1 + n3 + n5 + pooled


class NaiveInception(Concat):
    """1x1 | 3x3 | 5x5 | 3x3 max-pool, each of the whole input; concatenated (figure 2a)."""

    def __init__(self, in_channels: int, row: Row, conv: Conv, large: int = 5) -> None:
        n1, _, n3, _, n5, _ = row
        super().__init__(
            branch1x1=conv(in_channels, n1, 1),
            branch3x3=conv(in_channels, n3, 3),
            branch5x5=conv(in_channels, n5, large),
            branch_pool=nn.MaxPool2d(3, 1, padding=1),
        )
        self.out_channels = n1 + n3 + n5 + in_channels


def pool(kernel_size: int = 3) -> nn.MaxPool2d:
    """Max-pool /2, sizes rounded up."""
    return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)


def stages(
    conv: Conv, naive: bool, large: int, last_pool: int, gate: MakeGate | None
) -> tuple[list[Stage], dict[str, int]]:
    """Modules 3a-3b; pool, 4a-4e; pool, 5a-5b; each may be gated. Returns also the channels each module gives."""
    module = NaiveInception if naive else Inception
    result, channels, given = [], 192, {}
    for names, downsample in zip(STAGES, (None, pool(), pool(last_pool)), strict=True):
        blocks = []
        for name in names:
            block = module(channels, TABLE[name], conv, large)
            channels = given[name] = block.out_channels
            blocks.append(gated(block, channels, gate))
        result.append(Stage(blocks, downsample))
    return result, given


def auxiliary(channels: int, classes: int, conv: Conv, pool: nn.Module, plane: int, dropout: float) -> Chain:
    """Average pool, 1x1 to 128, ReLU, linear to 1024, ReLU, dropout, linear (section 5 of the paper)."""
    return Chain(
        pool=pool,
        conv=conv(channels, 128, 1),
        flatten=nn.Flatten(),
        fc1=nn.Linear(128 * plane**2, 1024),
        act=nn.ReLU(inplace=True),
        dropout=nn.Dropout(fraction("aux_dropout", dropout)),
        fc=nn.Linear(1024, classes),
    )


def googlenet(
    *,
    classes: int,
    in_channels: int,
    size: int,
    aux: bool = True,
    naive: bool = False,
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    transform_input: bool = False,
    dropout: float = 0.2,
    aux_dropout: float = 0.7,
) -> AuxiliaryNet:
    """7x7 /2, pool, 1x1, 3x3, pool; nine Inception modules with batch norm; average pool, linear."""
    wants_side("googlenet", size, 15)
    conv = batch_normed
    stem = Chain(
        renormalise=renormalise(transform_input, in_channels),
        conv1=conv(in_channels, 64, 7, 2),
        pool1=pool(),
        conv2=conv(64, 64, 1),
        conv3=conv(64, 192, 3),
        pool2=pool(),
    )
    body, given = stages(conv, naive, 3, 2, gate_of(se, se_reduction, squeeze))
    taps = {
        path: auxiliary(given[name], classes, conv, nn.AdaptiveAvgPool2d(4), 4, aux_dropout)
        for name, path in (TAPPED.items() if aux else ())
    }
    last = pooled_head(given["5b"], classes, dropout)
    return AuxiliaryNet(stem, body, last, taps, in_channels=in_channels, classes=classes, size=size)


def googlenet_2014(
    *,
    classes: int,
    in_channels: int,
    size: int,
    aux: bool = True,
    naive: bool = False,
    se: bool = False,
    se_reduction: int = 16,
    squeeze: str = "avg",
    separable: bool = True,
    dropout: float = 0.4,
    aux_dropout: float = 0.7,
) -> AuxiliaryNet:
    """7x7 /2, pool, LRN, 1x1, 3x3, LRN, pool; nine modules; average pool, linear (table 1, figure 3)."""
    wants_side("googlenet_2014", size, 31)
    first = Chain(conv=separable_stem(in_channels, 64), act=nn.ReLU(inplace=True))
    stem = Chain(
        conv1=first if separable else biased(in_channels, 64, 7, 2),
        pool1=pool(),
        norm1=ResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
        conv2=biased(64, 64, 1),
        conv3=biased(64, 192, 3),
        norm2=ResponseNorm(5, alpha=1e-4, beta=0.75, k=1.0),
        pool2=pool(),
    )
    body, given = stages(biased, naive, 5, 3, gate_of(se, se_reduction, squeeze))
    taps = {
        path: auxiliary(given[name], classes, biased, nn.AvgPool2d(5, 3), aux_plane(size), aux_dropout)
        for name, path in (TAPPED.items() if aux else ())
    }
    last = pooled_head(given["5b"], classes, dropout)
    return AuxiliaryNet(stem, body, last, taps, in_channels=in_channels, classes=classes, size=size)


def aux_plane(size: int) -> int:
    """Side of the 5x5 /3 average pool's output on modules 4a to 4e: 4 for pictures of 224 pixels.

    Raises:
        ArgumentError: the picture is too small for that pool.
    """
    plane = (size - 1) // 2 + 1
    for _ in range(3):
        plane = plane // 2  # a 3x3 pool /2 without a border, rounded up
    if plane < 5:
        raise ArgumentError(
            f"size = {size}; the auxiliary classifiers need pictures of at least 79 pixels: "
            "build it with aux=False for smaller ones"
        )
    return (plane - 5) // 3 + 1


def initialise(path: str, module: nn.Module) -> bool:
    """Convolutions and linears: normal, deviation 0.01 (torchvision)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        module.reset_parameters()  # for the bias of linears
        nn.init.trunc_normal_(module.weight, std=0.01, a=-2, b=2)
        return True
    return False


def initialise_2014(path: str, module: nn.Module) -> bool:
    """Convolutions and linears: Glorot's uniform rule, biases 0.2 (Caffe's bvlc_googlenet)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.2)
        return True
    return False


# Where torchvision's branches stand in ours.
_BRANCHES = {
    "1": "branch1x1",
    "2.0": "branch3x3.reduce",
    "2.1": "branch3x3.conv",
    "3.0": "branch5x5.reduce",
    "3.1": "branch5x5.conv",
    "4.1": "branch_pool.project",
}
_PLACES = {
    name: f"stages.{i}.blocks.{j}" for i, modules in enumerate(STAGES) for j, name in enumerate(modules)
}
_KINDS = {"conv": "conv", "bn": "norm"}


def torchvision(net: nn.Module) -> list[Rule]:
    """torchvision's names to ours; its auxiliary classifiers are dropped where our network has none."""
    drop: list[Rule] = [] if len(getattr(net, "aux", ())) else [(r"aux[12]\..*", None)]
    return [
        *drop,
        (r"(conv[123])\.(conv|bn)\.(\w+)", lambda m: f"stem.{m[1]}.{_KINDS[m[2]]}.{m[3]}"),
        (
            r"inception(\w\w)\.branch(1|2\.[01]|3\.[01]|4\.1)\.(conv|bn)\.(\w+)",
            lambda m: f"{_PLACES[m[1]]}.{_BRANCHES[m[2]]}.{_KINDS[m[3]]}.{m[4]}",
        ),
        (r"aux([12])\.conv\.(conv|bn)\.(\w+)", lambda m: f"aux.{int(m[1]) - 1}.conv.{_KINDS[m[2]]}.{m[3]}"),
        (r"aux([12])\.fc1\.(\w+)", lambda m: f"aux.{int(m[1]) - 1}.fc1.{m[2]}"),
        (r"aux([12])\.fc2\.(\w+)", lambda m: f"aux.{int(m[1]) - 1}.fc.{m[2]}"),
        (r"fc\.(\w+)", r"head.fc.\1"),
    ]


register(
    Variant(
        name="googlenet_2014",
        family="googlenet",
        build=googlenet_2014,
        year=2014,
        paper=f"{PAPER}, table 1",
        parameters=13_371_520,  # 6,991,792 without the auxiliary classifiers
        size=224,
        macs=1.5e9,
        source="the paper's section 1; it gives no top-1 accuracy (top-5 of one net and one crop: 89.93)",
        initialise=initialise_2014,
    ),
    Variant(
        name="googlenet",
        family="googlenet",
        build=googlenet,
        year=2014,
        paper=f"{PAPER}, as torchvision builds it",
        parameters=13_004_888,  # 6,624,904 without the auxiliary classifiers, which torchvision leaves out
        size=224,
        macs=1.498e9,
        top1=69.778,
        source="torchvision's GoogLeNet_Weights.IMAGENET1K_V1, metadata",
        reference="torchvision:googlenet",
        initialise=initialise,
        rules={"torchvision": torchvision},
    ),
)
