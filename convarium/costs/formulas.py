"""The formulas of counting by hand, from the lecture hall: weights, operations, sizes, receptive fields.

The counter (`leaves`) and `convarium formula` call these. One multiplication with its addition is one operation
here (a MAC); FLOPs are twice as many. Channels, pixels and parameters are counted in units, memory in bytes.

A kernel or a plane is given by its sides, as (3, 5); one whole number stands for a square.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

Sides = int | Sequence[int]


def sides(given: Sides) -> tuple[int, ...]:
    """3 as (3, 3), and several sides as they are."""
    return (given, given) if isinstance(given, int) else tuple(given)


def convolution_weights(
    in_channels: int, out_channels: int, kernel: Sides, groups: int = 1, bias: bool = True
) -> int:
    """Parameters of a convolution: out x (in / groups) x kernel rows x kernel columns, + out for the biases.

    Example: 7x7 from 3 to 64 channels: 64 x 3 x 7 x 7 + 64 = 9,472.

    Args:
        in_channels: channels in, which `groups` divides.
        out_channels: channels out, the number of filters.
        kernel: sides of the kernel, in pixels.
        groups: parts of the channels that are convolved apart.
        bias: whether each filter has one.

    Returns:
        Parameters, in units.
    """
    return out_channels * (in_channels // groups) * prod(sides(kernel)) + out_channels * bias


def convolution_macs(
    in_channels: int, out_channels: int, kernel: Sides, plane: Sides, groups: int = 1
) -> int:
    """Operations of a convolution: elements of the output x weights of one filter.

    (out x rows x columns) x (in / groups x kernel rows x kernel columns). Stride, padding and dilation act through
    the plane alone (`output_size`). A transposed convolution does as many with its *input* plane here.

    Example: 7x7 from 3 to 64 channels, 112 x 112 out: (64 x 112 x 112) x (3 x 7 x 7) = 118,013,952.

    Args:
        in_channels: channels in, which `groups` divides.
        out_channels: channels out.
        kernel: sides of the kernel, in pixels.
        plane: sides of the output, in pixels.
        groups: parts of the channels that are convolved apart.

    Returns:
        MACs for one picture.
    """
    one_filter = convolution_weights(in_channels, 1, kernel, groups, bias=False)
    return activation_elements(out_channels, plane) * one_filter


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil_mode: bool = False
) -> int:
    """Side of the output: floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1.

    With ceil_mode the quotient is rounded up, but a last window that would begin in the padding behind the
    picture is left out: that is torch's rule, and Caffe's.

    Example: 224 pixels, kernel 7, stride 2, padding 3: floor((224 + 6 - 6 - 1) / 2) + 1 = 112.

    Args:
        size: side of the input, in pixels.
        kernel: side of the kernel along this axis, in pixels.
        stride: step, in pixels.
        padding: pixels added on each of the two sides.
        dilation: distance of the kernel's points.
        ceil_mode: whether windows that are not whole are counted too.

    Returns:
        Pixels along this axis; below 1 where the kernel does not fit in.
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    windows = -(-room // stride) + 1
    return windows - 1 if (windows - 1) * stride >= size + padding else windows


def activation_elements(channels: int, plane: Sides) -> int:
    """Numbers in a feature map: channels x rows x columns; times the bytes of one (4 in float32) its memory.

    Example: 64 maps of 112 x 112: 802,816 numbers, 3.2 MB in float32.

    Args:
        channels: channels out.
        plane: sides of the output, in pixels.

    Returns:
        Elements for one picture.
    """
    return channels * prod(sides(plane))


def linear_weights(in_features: int, out_features: int, bias: bool = True) -> int:
    """Parameters of a fully connected layer: in x out, + out for the biases.

    Example: VGG's first, from 512 x 7 x 7 = 25,088 to 4,096 features: 25,088 x 4,096 + 4,096 = 102,764,544.

    Args:
        in_features: numbers in.
        out_features: numbers out.
        bias: whether each output has one.

    Returns:
        Parameters, in units.
    """
    return in_features * out_features + out_features * bias


def linear_macs(in_features: int, out_features: int, vectors: int = 1) -> int:
    """Operations of a fully connected layer: in x out for each vector that it is given.

    Example: 25,088 to 4,096 features: 102,760,448.

    Args:
        in_features: numbers in.
        out_features: numbers out.
        vectors: how many vectors, as the tokens of a picture.

    Returns:
        MACs.
    """
    return vectors * linear_weights(in_features, out_features, bias=False)


def attention_macs(queries: int, keys: int, width: int, value_width: int | None = None) -> int:
    """Operations of attention's two products: queries x keys x width for q k', as many with v's width for the mixing.

    All heads together, so their number does not matter; the projections to q, k, v and back are linear layers of
    their own. A mask saves nothing.

    Example: ViT-B/16, 197 tokens of 768: 2 x 197 x 197 x 768 = 59,610,624 a layer.

    Args:
        queries: tokens that ask.
        keys: tokens that are asked.
        width: channels of q and of k, of all heads.
        value_width: channels of v, of all heads; as `width` where None.

    Returns:
        MACs for one sample.

    Source: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
    """
    return queries * keys * (width + (width if value_width is None else value_width))


class Reach(NamedTuple):
    """The receptive field along one axis: what of the picture one output sees, in pixels.

    Args:
        size: pixels from the first to the last that it sees.
        stride: pixels between the fields of two neighbours.
        start: the first pixel that output 0 sees; below 0 where that lies in the padding.
    """

    size: int = 1
    stride: int = 1
    start: int = 0


def grow(reach: Reach, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> Reach:
    """The receptive field after one more convolution or pool.

    size + dilation (kernel - 1) x stride so far; start - padding x stride so far; stride so far x stride.

    Example: two 3x3 see 5 pixels: 1 + 2 x 1 = 3, 3 + 2 x 1 = 5.

    Args:
        reach: the field so far; `Reach()` for the picture itself.
        kernel: side of the kernel along this axis, in pixels.
        stride: its step.
        padding: pixels added before the first.
        dilation: distance of the kernel's points.

    Returns:
        The field of its output.

    Source: Araujo et al., Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
    """
    return Reach(
        reach.size + dilation * (kernel - 1) * reach.stride,
        reach.stride * stride,
        reach.start - padding * reach.stride,
    )


def receptive_field(layers: Sequence[Sequence[int]]) -> Reach:
    """The receptive field of a stack of layers along one axis, by `grow` from the first layer on.

    Example: ResNet's stem, 7 /2 and then 3 /2: 7 + 2 x 2 = 11 pixels, one field every 4 pixels.

    Args:
        layers: (kernel, stride, padding, dilation) of each, from the picture on; those after kernel may be left out.

    Returns:
        The field of the last layer's output.
    """
    reach = Reach()
    for layer in layers:
        reach = grow(reach, *layer)
    return reach


def separable_weights(in_channels: int, out_channels: int, kernel: Sides) -> int:
    """Parameters of a depthwise-separable convolution without biases: kernel x in, + in x out.

    Against kernel x in x out of the full one, in weights as in operations: a share of 1 / out + 1 / kernel.

    Example: 3x3 from 256 to 256: 9 x 256 + 256 x 256 = 67,840 of 589,824, 11.5 %.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: sides of the depthwise kernel, in pixels.

    Returns:
        Parameters, in units.

    Source: Howard et al., MobileNets, 2017, section 3.1.
    """
    depthwise = convolution_weights(in_channels, in_channels, kernel, groups=in_channels, bias=False)
    return depthwise + convolution_weights(in_channels, out_channels, 1, bias=False)


def stacked_weights(channels: int, kernel: int) -> int:
    """Parameters of the 3x3 convolutions that see as much as one k x k: (k - 1) / 2 of 9 x channels x channels.

    Example: two 3x3 for a 5x5 of 64 channels: 2 x 9 x 64 x 64 = 73,728 against 25 x 64 x 64 = 102,400.

    Args:
        channels: channels in and out of each.
        kernel: side of the one that is replaced, odd, in pixels.

    Returns:
        Parameters without biases, in units.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks, 2014, section 2.3.
    """
    return (kernel - 1) // 2 * convolution_weights(channels, channels, 3, bias=False)


def asymmetric_weights(channels: int, kernel: int) -> int:
    """Parameters of 1 x k and then k x 1: 2 k x channels x channels, against k^2 of k x k.

    Example: 1x7 and 7x1 of 192 channels: 14 x 192 x 192 = 516,096 against 49 x 192 x 192 = 1,806,336.

    Args:
        channels: channels in and out of each.
        kernel: the long side, in pixels.

    Returns:
        Parameters without biases, in units.

    Source: Szegedy et al., Rethinking the Inception Architecture, 2015, section 3.2.
    """
    first = convolution_weights(channels, channels, (1, kernel), bias=False)
    return first + convolution_weights(channels, channels, (kernel, 1), bias=False)


def bottleneck_weights(channels: int, width: int) -> int:
    """Parameters of 1x1 to `width`, 3x3, 1x1 back: 2 x channels x width + 9 x width x width.

    Example: 256 channels through 64: 69,632; two 3x3 of 256 channels have 18 x 256 x 256 = 1,179,648.

    Args:
        channels: channels in and out.
        width: channels between.

    Returns:
        Parameters without biases, in units.

    Source: He et al., Deep Residual Learning, 2015, figure 5.
    """
    around = convolution_weights(channels, width, 1, bias=False) + convolution_weights(
        width, channels, 1, bias=False
    )
    return around + convolution_weights(width, width, 3, bias=False)


def dense_connections(layers: int) -> int:
    """Connections where each layer sees all before it: L (L + 1) / 2.

    Example: 5 layers: 5 x 6 / 2 = 15, against 5 in a chain.

    Args:
        layers: number of layers, L.

    Returns:
        Connections.

    Source: Huang et al., Densely Connected Convolutional Networks, 2016, section 1.
    """
    return layers * (layers + 1) // 2


def squeeze_excite_weights(channels: int, reduction: int = 16, bias: bool = False) -> int:
    """Parameters of a squeeze-and-excitation gate: 2 x channels x channels / reduction.

    Example: 256 channels, reduction 16: 2 x 256 x 16 = 8,192.

    Args:
        channels: channels in and out.
        reduction: how many times fewer there are between the two layers.
        bias: whether both layers have biases.

    Returns:
        Parameters, in units.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2017, section 3.
    """
    squeezed = channels // reduction
    return linear_weights(channels, squeezed, bias) + linear_weights(squeezed, channels, bias)


def training_memory(
    parameters: int, activations: int, batch: int = 1, states: int = 0, n_byte: int = 4
) -> int:
    """Memory of a training step, by hand: (parameters x (2 + states) + activations x batch) x bytes of a number.

    Every parameter has its gradient, and the optimizer's `states` beside it (none for SGD, 1 with momentum, 2 for
    AdamW); every feature map waits for the backward pass. What autograd really keeps is less for some layers and
    more for others: this is the estimate of the lecture, and the measured prediction is elsewhere.

    Example: 138,357,544 parameters of VGG-16 with momentum: 3 x 138,357,544 x 4 = 1.66 GB before any picture.

    Args:
        parameters: of the network.
        activations: elements of its feature maps for one picture.
        batch: pictures at once.
        states: numbers that the optimizer keeps a parameter.
        n_byte: bytes of a number, 4 in float32.

    Returns:
        Bytes.
    """
    return (parameters * (2 + states) + activations * batch) * n_byte
