"""Parts that several families share. Not a family: it registers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.joins import Chain, Concat, Gate
from convarium.net import Head, Net, Stage

SQUEEZES = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}


def squeeze_excite(
    channels: int,
    squeezed: int,
    act: Callable[[], nn.Module] = nn.ReLU,
    gate: Callable[[], nn.Module] = nn.Sigmoid,
    squeeze: str = "avg",
) -> Gate:
    """x * gate(1x1(act(1x1(global pool(x))))): each channel is weighted by what the whole picture holds.

    Args:
        channels: channels in and out.
        squeezed: channels between the two 1x1 convolutions; families round it differently.
        act: makes the activation between them.
        gate: makes the last activation, which gives the factors.
        squeeze: the global pool: "avg" as published, or "max" as some lectures have it.

    Returns:
        A gate whose parts are pool, fc1, act, fc2, gate.

    Raises:
        ArgumentError: squeeze is neither "avg" nor "max".

    Source: Hu et al., Squeeze-and-Excitation Networks, 2017, section 3.
    """
    if squeeze not in SQUEEZES:
        raise ArgumentError(f"squeeze = {squeeze!r}; it must be 'avg' or 'max'")
    return Gate(
        Chain(
            pool=SQUEEZES[squeeze](1),
            fc1=nn.Conv2d(channels, squeezed, 1),
            act=act(),
            fc2=nn.Conv2d(squeezed, channels, 1),
            gate=gate(),
        )
    )


# Makes a gate from its channels.
MakeGate = Callable[[int], nn.Module]


def gate_of(se: bool, reduction: int = 16, squeeze: str = "avg") -> MakeGate | None:
    """What makes the gates of a network that may have them: C channels squeezed to C / reduction, at least one.

    Args:
        se: whether there are gates.
        reduction: the paper's r.
        squeeze: of `squeeze_excite`.

    Returns:
        Makes a gate from its channels; None where there are none.

    Raises:
        ArgumentError: a reduction that is no whole number of at least 1, or an option of gates without gates.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2017, sections 3 and 6.1; r = 16 is their choice.
    """
    if isinstance(reduction, bool) or not isinstance(reduction, int) or reduction < 1:
        raise ArgumentError(f"se_reduction = {reduction!r}; it must be a whole number of at least 1, as 16")
    if not se:
        if (reduction, squeeze) != (16, "avg"):
            raise ArgumentError("se_reduction and squeeze are of gates, and this net has none: add se=True")
        return None
    return lambda channels: squeeze_excite(channels, max(1, channels // reduction), squeeze=squeeze)


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of the divisor, one more where that would lose over a tenth of the channels.

    Args:
        channels: a number of channels after scaling, as 24 x 0.35 = 8.4.
        divisor: what hardware likes channels to be a multiple of.

    Returns:
        A whole number of channels, at least the divisor.

    Source: the code published with Sandler et al., MobileNetV2, 2018; the papers do not say how they round.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def wants_side(name: str, size: int, least: int) -> None:
    """Refuse pictures that are too small for a network whose head depends on their size.

    Args:
        name: of the network.
        size: side of the picture in pixels.
        least: smallest side that leaves a plane to the head.

    Raises:
        ArgumentError: the picture is smaller.
    """
    if size < least:
        raise ArgumentError(f"{name} cannot take pictures of {size} pixels; at least {least} are needed")


def stage_plan(depths: Sequence[int], widths: Sequence[int]) -> list[tuple[int, int]]:
    """The depth and the width of each stage.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.

    Returns:
        One pair a stage.

    Raises:
        ArgumentError: their numbers differ, or one of them is no whole number of at least 1.
    """
    for name, values in (("depths", depths), ("widths", widths)):
        row = isinstance(values, Sequence) and not isinstance(values, str)
        if not row or not all(isinstance(v, int) and not isinstance(v, bool) and v >= 1 for v in values):
            raise ArgumentError(
                f"{name} = {values!r}; it must be a list of whole numbers of at least 1, one for each stage"
            )
    if len(depths) != len(widths):
        raise ArgumentError(
            f"{len(depths)} depths and {len(widths)} widths, {tuple(depths)} and {tuple(widths)}; "
            "each stage needs one of both"
        )
    return list(zip(depths, widths, strict=True))


def fraction(name: str, value: float) -> float:
    """The value of an option that must be at least 0 and below 1, as a dropout rate.

    Raises:
        ArgumentError: it is not.
    """
    if not 0 <= value < 1:
        raise ArgumentError(f"{name} = {value!r}; it must be at least 0 and below 1")
    return value


class DropPath(nn.Module):
    """In training, the input or zero, drawn for each sample; what is kept is divided by its probability.

    Stands last in the body of a Sum, so that a dropped sample takes the shortcut alone.

    Args:
        rate: probability of zero, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is outside this range.

    Source: Huang et al., Deep Networks with Stochastic Depth, 2016; there one draw serves the whole batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = fraction("drop_path", rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(x.shape[0], *(1 for _ in x.shape[1:])).bernoulli_(1 - self.rate)
        return x * (kept / (1 - self.rate))

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def conv_unit(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    padding: int | None = None,
    *,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    bias: bool = False,
) -> Chain:
    """kxk /stride, norm, ReLU.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel_size: side of the kernel in pixels, or (height, width).
        stride: step in pixels.
        padding: pixels on each side; half the kernel where None, which keeps the size at stride 1.
        norm: makes the normalisation from its number of channels; none where None.
        bias: whether the convolution has a bias.

    Returns:
        A chain whose parts are conv, norm, act.
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    around = (height // 2, width // 2) if padding is None else padding
    return Chain(
        conv=nn.Conv2d(in_channels, out_channels, kernel_size, stride, around, bias=bias),
        norm=None if norm is None else norm(out_channels),
        act=nn.ReLU(inplace=True),
    )


def separable_stem(in_channels: int, out_channels: int) -> Chain:
    """7x7 /2 on each input channel alone, eight outputs a channel; 1x1: what Inception v1 and v2 begin with.

    Args:
        in_channels: channels in.
        out_channels: channels out.

    Returns:
        A chain whose parts are depthwise and pointwise, without biases.

    Source: Ioffe and Szegedy, Batch Normalization, 2015, appendix; Chollet, Xception, 2017, section 2.
    """
    return Chain(
        depthwise=nn.Conv2d(in_channels, 8 * in_channels, 7, 2, padding=3, groups=in_channels, bias=False),
        pointwise=nn.Conv2d(8 * in_channels, out_channels, 1, bias=False),
    )


class ResponseNorm(nn.LocalResponseNorm):
    """x / (k + alpha * mean of x² over neighbouring maps)^beta; in 32 bits where x has fewer.

    Squares leave the range of 16 bits, and torch has no such pool for them on a CPU.

    Source: Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, 2012, section 3.3,
    which takes the sum of the squares: its alpha is this one divided by the number of maps.
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.dtype.itemsize >= 4 else x.float()).to(x.dtype)


class Renormalise(nn.Module):
    """Pictures normalised by ImageNet's mean and deviation, to the -1 to 1 that Google's weights expect."""

    mean = (0.485, 0.456, 0.406)
    deviation = (0.229, 0.224, 0.225)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.tensor([d / 0.5 for d in self.deviation], dtype=x.dtype, device=x.device)
        shift = torch.tensor([(m - 0.5) / 0.5 for m in self.mean], dtype=x.dtype, device=x.device)
        return x * scale.view(3, 1, 1) + shift.view(3, 1, 1)


def renormalise(wanted: bool, in_channels: int) -> Renormalise | None:
    """The part that torchvision calls `transform_input`, where it is wanted.

    Raises:
        ArgumentError: the pictures do not have three channels.
    """
    if wanted and in_channels != 3:
        raise ArgumentError(f"transform_input is for pictures of 3 channels, not {in_channels}; leave it out")
    return Renormalise() if wanted else None


def pooled_head(features: int, classes: int, dropout: float) -> Head:
    """Global average pool, dropout, linear."""
    return Head(
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        dropout=nn.Dropout(fraction("dropout", dropout)),
        fc=nn.Linear(features, classes),
    )


def gated(module: nn.Module, channels: int, gate: MakeGate | None) -> nn.Module:
    """module [, gate]: an Inception module and what weighs its output, of so many channels.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2017, figure 2.
    """
    return module if gate is None else Chain(module=module, se=gate(channels))


def gated_stages(
    plan: Sequence[Sequence[str | None]],
    channels: int,
    build: Callable[[str, int], Concat],
    gate: MakeGate | None,
) -> tuple[list[Stage], int]:
    """The stages of an Inception net from the names of its modules.

    Args:
        plan: for each stage the module that reaches its resolution, None where the stem did, and the others.
        channels: that the first module is given.
        build: makes a module, with `out_channels`, from its name and the channels that it is given.
        gate: makes the gate of each module's output; none where None.

    Returns:
        The stages, and the channels of the last one.
    """
    result = []
    for names in plan:
        modules: list[nn.Module | None] = []
        for name in names:
            module: nn.Module | None = None
            if name is not None:
                module = build(name, channels)
                channels = module.out_channels  # type: ignore[assignment]
                module = gated(module, channels, gate)
            modules.append(module)
        result.append(Stage(filter(None, modules[1:]), modules[0]))
    return result, channels


def stage_paths(plan: Sequence[Sequence[str | None]]) -> dict[str, str]:
    """Where the modules of `gated_stages` stand, by name."""
    return {
        name: f"stages.{i}.blocks.{j - 1}" if j else f"stages.{i}.downsample"
        for i, names in enumerate(plan)
        for j, name in enumerate(names)
        if name
    }


class AuxiliaryNet(Net):
    """A classifier with more classifiers on inner blocks, which only training uses.

    `forward` runs the trunk and the head alone, in either mode; the parameters under `aux` get their
    gradients from `auxiliary`.

    Args:
        stem: as in `Net`.
        stages: as in `Net`, each a `Stage`.
        head: as in `Net`.
        aux: classifiers by the path of the block whose output they see, as "stages.1.blocks.0", in order of
            depth; possibly none.
        sizes: in_channels, classes and size, as in `Net`.

    Source: Szegedy et al., Going Deeper with Convolutions, 2014, section 5.
    """

    def __init__(
        self,
        stem: nn.Module | None,
        stages: Iterable[nn.Module],
        head: nn.Module,
        aux: Mapping[str, nn.Module],
        **sizes: int,
    ) -> None:
        super().__init__(stem, stages, head, **sizes)
        self.taps: tuple[str, ...] = tuple(aux)
        self.aux = nn.ModuleList(aux.values())

    def auxiliary(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The scores of the head and of every auxiliary classifier, from one pass.

        Args:
            x: pictures, (N, in_channels, H, W), normalised.

        Returns:
            The head's scores, (N, classes), and a list with each auxiliary classifier's, in order of depth.
        """
        scores: list[Tensor] = []
        x = self.run("stem", x)
        for i, stage in enumerate(self.stages):
            x = stage.run("downsample", x)  # type: ignore[operator]
            for j, block in enumerate(stage.blocks):  # type: ignore[arg-type]
                x = block(x)
                if f"stages.{i}.blocks.{j}" in self.taps:
                    scores.append(self.aux[len(scores)](x))
        return self.run("head", x), scores
