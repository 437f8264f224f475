"""The formulas as worked examples: the formula in the letters of the lectures, the numbers put in, the result.

Each function here is one example. Its keyword arguments are the numbers, at first those of a network that the
lectures show; the results come from `formulas`, and the text beside them is checked against them by the tests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from convarium.costs import formulas
from convarium.costs.formulas import Sides, sides
from convarium.errors import ArgumentError


@dataclass(frozen=True)
class Line:
    """One result and how it came about.

    Args:
        name: what is computed.
        formula: in letters; `x` is times.
        numbers: the formula with the numbers put in.
        value: the result.
        unit: of the result; empty for a plain number.
    """

    name: str
    formula: str
    numbers: str
    value: int | float
    unit: str = ""


def _line(name: str, formula: str, value: int | float, letters: Mapping[str, int], unit: str = "") -> Line:
    put_in = re.sub(r"[A-Za-z_]\w*", lambda m: f"{letters[m[0]]:,}" if m[0] in letters else m[0], formula)
    return Line(name, formula, put_in, value, unit)


def _side(
    axis: int, plane: Sides, window: Sides, step: Sides, around: Sides, dilation: int, ceil: bool = False
) -> Line:
    """One side of the output, H or W."""
    letter = "HW"[axis]
    size, kernel, stride, padding = (sides(setting)[axis] for setting in (plane, window, step, around))
    after = formulas.output_size(size, kernel, stride, padding, dilation, ceil)
    if after < 1:
        raise ArgumentError(f"a kernel of {kernel} with dilation {dilation} does not fit into {size} pixels")
    formula = f"(({letter}_in + 2 x padding - dilation x (K - 1) - 1) / stride) + 1"
    formula = ("ceil" if ceil else "floor") + formula
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if ceil and after < -(-room // stride) + 1:  # the last window would begin behind the picture
        formula += " - 1"
    letters = {f"{letter}_in": size, "K": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return _line(f"{letter}_out", formula, after, letters, "pixels")


def conv(
    in_channels: int = 3,
    out_channels: int = 64,
    kernel: Sides = 7,
    size: Sides = 224,
    stride: Sides = 2,
    padding: Sides | None = None,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
    n_byte: int = 4,
) -> list[Line]:
    """A convolution: weights, output, memory, operations (default: ResNet's first, with a bias).

    Padding is half the kernel where it is not given. Source: the lecture on architectures, "computing resources".
    """
    if in_channels % groups or out_channels % groups:
        raise ArgumentError(
            f"groups = {groups}; it must divide the channels, {in_channels} and {out_channels}"
        )
    high, wide = sides(kernel)
    around = (dilation * (high - 1) // 2, dilation * (wide - 1) // 2) if padding is None else padding
    plane = [_side(axis, size, kernel, stride, around, dilation) for axis in (0, 1)]
    rows, columns = (int(line.value) for line in plane)
    letters = {
        **{"C_in": in_channels, "C_out": out_channels, "groups": groups, "K_h": high, "K_w": wide},
        **{"H_out": rows, "W_out": columns, "n_byte": n_byte},
    }
    weights = formulas.convolution_weights(in_channels, out_channels, kernel, groups, bias)
    maps = formulas.activation_elements(out_channels, (rows, columns))
    macs = formulas.convolution_macs(in_channels, out_channels, kernel, (rows, columns), groups)
    filters = "C_out x C_in / groups x K_h x K_w" + (" + C_out" if bias else "")
    return [
        _line("weights", filters, weights, letters),
        _line(
            "memory of weights",
            "weights x n_byte",
            weights * n_byte,
            {**letters, "weights": weights},
            "bytes",
        ),
        *plane,
        _line("activations", "H_out x W_out x C_out", maps, letters),
        _line("memory of activations", "H_out x W_out x C_out x n_byte", maps * n_byte, letters, "bytes"),
        _line("operations", "(H_out x W_out x C_out) x (K_h x K_w x C_in / groups)", macs, letters, "MACs"),
        _line("FLOPs", "2 x operations", 2 * macs, {"operations": macs}, "FLOPs"),
    ]


def linear(in_channels: int = 25_088, out_channels: int = 4_096, bias: bool = True) -> list[Line]:
    """A fully connected layer (default: VGG's first, which has three quarters of its weights).

    Source: the lecture on architectures, VGG.
    """
    letters = {"C_in": in_channels, "C_out": out_channels}
    weights = formulas.linear_weights(in_channels, out_channels, bias)
    macs = formulas.linear_macs(in_channels, out_channels)
    return [
        _line("weights", "C_in x C_out" + (" + C_out" if bias else ""), weights, letters),
        _line("operations", "C_in x C_out", macs, letters, "MACs"),
    ]


def attention(tokens: int = 197, width: int = 768) -> list[Line]:
    """Attention's two products and its four projections (default: one layer of ViT-B/16 at 224 pixels).

    Source: Vaswani et al., Attention Is All You Need, 2017.
    """
    products = formulas.attention_macs(tokens, tokens, width)
    projections = 4 * formulas.linear_macs(width, width, tokens)
    letters = {"T": tokens, "D": width}
    return [
        _line("products", "T x T x D + T x T x D", products, letters, "MACs"),
        _line("projections", "4 x T x D x D", projections, letters, "MACs"),
    ]


def output(
    size: int = 112,
    kernel: int = 3,
    stride: int = 2,
    padding: int = 0,
    dilation: int = 1,
    ceil: bool = True,
) -> list[Line]:
    """The side of a convolution's or a pool's output (default: GoogLeNet's first pool, which rounds up).

    With --ceil a last window that begins behind the picture is left out. Source: the lecture on pooling, `ceil_mode`.
    """
    return [_side(0, size, kernel, stride, padding, dilation, ceil)]


def field(
    kernel: Sequence[int] | None = None,
    stride: Sequence[int] | None = None,
    padding: Sequence[int] | None = None,
    dilation: Sequence[int] = (1,),
) -> list[Line]:
    """The receptive field of layers in turn, --kernel 3,3 --stride 1,1 (default: ResNet's stem and first block).

    One number serves all layers. Without --stride it is 1, without --padding half the kernel. Source: the lecture on
    architectures, "3x3 filters"; Araujo et al., Distill 2019.
    """
    if kernel is None:
        kernel, stride = (7, 3, 3, 3), stride or (2, 2, 1, 1)
    given = {"kernel": kernel, "stride": stride or (1,), "dilation": dilation}
    layers = _as_many(given | ({} if padding is None else {"padding": padding}))
    lines, reach = [], formulas.Reach()
    for index, (k, step, dilated, *rest) in enumerate(zip(*layers, strict=True), 1):
        around = rest[0] if rest else dilated * (k - 1) // 2
        after = formulas.grow(reach, k, step, around, dilated)
        letters = {"size": reach.size, "jump": reach.stride, "start": reach.start, "stride": step}
        letters |= {"K": k, "padding": around, "dilation": dilated}
        text = "size + dilation x (K - 1) x jump"
        lines += [
            _line(f"size after layer {index}", text, after.size, letters, "pixels"),
            _line(f"jump after layer {index}", "jump x stride", after.stride, letters, "pixels"),
            _line(f"start after layer {index}", "start - padding x jump", after.start, letters, "pixels"),
        ]
        reach = after
    return lines


def _as_many(settings: Mapping[str, Sequence[int]]) -> list[list[int]]:
    """Settings of layers, one number each; a single number is that of all layers."""
    most = max(map(len, settings.values()))
    if any(len(given) not in (1, most) for given in settings.values()):
        told = ", ".join(f"{len(given)} for {name}" for name, given in settings.items() if len(given) > 1)
        raise ArgumentError(f"{told}: give as many numbers for each, or one that serves all layers")
    return [list(given) * (most if len(given) == 1 else 1) for given in settings.values()]


def separable(in_channels: int = 256, out_channels: int = 256, kernel: int = 3) -> list[Line]:
    """A depthwise-separable convolution against a full one, without biases.

    Source: Howard et al., MobileNets, 2017, section 3.1.
    """
    letters = {"C_in": in_channels, "C_out": out_channels, "K": kernel}
    full = formulas.convolution_weights(in_channels, out_channels, kernel, bias=False)
    apart = formulas.separable_weights(in_channels, out_channels, kernel)
    return [
        _line("full", "K x K x C_in x C_out", full, letters),
        _line("separable", "K x K x C_in + C_in x C_out", apart, letters),
        _line("share", "1 / C_out + 1 / (K x K)", apart / full, letters),
    ]


def stack(in_channels: int = 64, kernel: int = 5) -> list[Line]:
    """One K x K against the 3x3 that see as much, without biases (default: two 3x3 for a 5x5, as in VGG).

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks, 2014, section 2.3.
    """
    if kernel % 2 == 0:
        raise ArgumentError(f"kernel = {kernel}; only an odd one has 3x3 convolutions that see as much")
    letters = {"C": in_channels, "K": kernel}
    return _against(
        _line(
            "one K x K",
            "K x K x C x C",
            formulas.convolution_weights(in_channels, in_channels, kernel, bias=False),
            letters,
        ),
        _line(
            "3x3 in turn",
            "(K - 1) / 2 x 3 x 3 x C x C",
            formulas.stacked_weights(in_channels, kernel),
            letters,
        ),
    )


def asymmetric(in_channels: int = 192, kernel: int = 7) -> list[Line]:
    """K x K against 1 x K and K x 1, without biases (default: Inception v3's 17 x 17 stage).

    Source: Szegedy et al., Rethinking the Inception Architecture, 2015, section 3.2.
    """
    letters = {"C": in_channels, "K": kernel}
    return _against(
        _line(
            "K x K",
            "K x K x C x C",
            formulas.convolution_weights(in_channels, in_channels, kernel, bias=False),
            letters,
        ),
        _line("1 x K, K x 1", "2 x K x C x C", formulas.asymmetric_weights(in_channels, kernel), letters),
    )


def bottleneck(in_channels: int = 256, width: int = 64) -> list[Line]:
    """1x1, 3x3, 1x1 against two 3x3, without biases (default: ResNet-50's first stage).

    Source: He et al., Deep Residual Learning, 2015, figure 5.
    """
    letters = {"C": in_channels, "D": width}
    return _against(
        _line("two 3x3", "2 x 3 x 3 x C x C", formulas.stacked_weights(in_channels, 5), letters),
        _line(
            "bottleneck",
            "C x D + 3 x 3 x D x D + D x C",
            formulas.bottleneck_weights(in_channels, width),
            letters,
        ),
    )


def dense(layers: int = 5) -> list[Line]:
    """Connections where every layer sees all before it (default: the figure of the paper).

    Source: Huang et al., Densely Connected Convolutional Networks, 2016, section 1.
    """
    return [_line("connections", "L x (L + 1) / 2", formulas.dense_connections(layers), {"L": layers})]


def squeeze(in_channels: int = 256, reduction: int = 16) -> list[Line]:
    """A squeeze-and-excitation gate, without biases.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2017, section 3.
    """
    if in_channels % reduction:
        raise ArgumentError(f"reduction = {reduction}; it must divide the channels, {in_channels}")
    weights = formulas.squeeze_excite_weights(in_channels, reduction)
    return [_line("weights", "2 x C x C / r", weights, {"C": in_channels, "r": reduction})]


def memory(
    parameters: int = 138_357_544,
    activations: int = 15_087_080,
    batch: int = 16,
    states: int = 1,
    n_byte: int = 4,
) -> list[Line]:
    """A training step, as the lecture estimates it (default: VGG-16 and momentum).

    Its feature maps here are those of convolutions, pools and linears.

    Source: the lecture on architectures, "memory of VGG16". `convarium fit` predicts what torch really keeps.
    """
    letters = {"parameters": parameters, "states": states, "n_byte": n_byte}
    letters |= {"activations": activations, "batch": batch}
    weights = formulas.training_memory(parameters, 0, 1, states, n_byte)
    whole = formulas.training_memory(parameters, activations, batch, states, n_byte)
    text = "parameters x (2 + states) x n_byte"
    return [
        _line("weights, gradients, states", text, weights, letters, "bytes"),
        _line("activations", "activations x batch x n_byte", whole - weights, letters, "bytes"),
        _line("together", "weights + maps", whole, {"weights": weights, "maps": whole - weights}, "bytes"),
    ]


def _against(before: Line, after: Line) -> list[Line]:
    share = Line("share", "after / before", f"{after.value:,} / {before.value:,}", after.value / before.value)
    return [before, after, share]


EXAMPLES: dict[str, Callable[..., list[Line]]] = {
    example.__name__: example
    for example in (
        *(conv, linear, attention, output, field, separable),
        *(stack, asymmetric, bottleneck, dense, squeeze, memory),
    )
}
"""By the name that `convarium formula` knows them under."""
