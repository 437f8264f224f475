"""Multiply-accumulates of a part by itself, from its settings and the shapes that it is given: the fold's counter.

No operator is looked at here, so that the count of the operators that ran (`trace`) can be held against it. A
formula belongs to a `forward`: a class that inherits from nn.Conv2d and writes its own forward computes something
else, and has no formula until it has one of its own. Such a part owns a method

    macs(*inputs: tuple[int, ...]) -> int       shapes with the batch; the parts inside it not counted

A method of that name that does not take the shapes, or gives no whole number, is something else and not asked.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from numbers import Integral
from typing import Any

from torch import nn

from convarium.costs import formulas

Shape = tuple[int, ...]

_NOTHING = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.channelshuffle",
    "torch.nn.modules.container",
    "torch.nn.modules.dropout",
    "torch.nn.modules.flatten",
    "torch.nn.modules.instancenorm",
    "torch.nn.modules.normalization",
    "torch.nn.modules.padding",
    "torch.nn.modules.pixelshuffle",
    "torch.nn.modules.pooling",
    "torch.nn.modules.sparse",
    "torch.nn.modules.upsampling",
    "convarium.joins",
    "convarium.net",
)
"""Files whose modules do nothing that the rule counts: norms, activations, pools, dropout, look-ups, joins."""


def own_macs(module: nn.Module, inputs: tuple[Shape, ...]) -> int | None:
    """Multiply-accumulates of one run of a module, the modules inside it not counted.

    Args:
        module: any module; only its settings are read.
        inputs: shapes of the tensors that it is given, with the batch.

    Returns:
        MACs of the whole batch; None where there is no formula for it.
    """
    told = _told(module, inputs)
    if told is not None:
        return told
    author = _author(module)
    if author in _FORMULAS:
        return _FORMULAS[author](module, *inputs)
    return 0 if author and author.__module__ in _NOTHING or author is nn.Identity else None


def own_weights(module: nn.Module) -> tuple[int, int] | None:
    """Weights and biases of a convolution or a linear layer.

    Args:
        module: any module.

    Returns:
        How many there are by the formula, and in its tensors; None where there is no formula, or where the weights
        are made of other tensors, as under a weight norm.
    """
    weight, bias = (module._parameters.get(name) for name in ("weight", "bias"))
    if weight is None or _author(module) not in _FORMULAS:
        return None
    held = weight.numel() + (0 if bias is None else bias.numel())
    settings: Any = module
    if isinstance(module, nn.Linear):
        return formulas.linear_weights(settings.in_features, settings.out_features, bias is not None), held
    if isinstance(module, nn.modules.conv._ConvNd):
        into, out = settings.in_channels, settings.out_channels
        by_formula = formulas.convolution_weights(
            into, out, settings.kernel_size, settings.groups, bias is not None
        )
        return by_formula, held
    return None


def _author(module: nn.Module) -> type | None:
    """The class that wrote the forward; None where somebody put another one into this very object."""
    if "forward" in vars(module):
        return None
    return next(kind for kind in type(module).__mro__ if "forward" in vars(kind))


def _told(module: nn.Module, inputs: tuple[Shape, ...]) -> int | None:
    """What a module says by its own method; None where it has none that answers."""
    method = getattr(module, "macs", None)
    if not callable(method):
        return None
    try:
        found = method(*inputs)
    except Exception:  # another library's, about something else
        return None
    return int(found) if isinstance(found, Integral) and not isinstance(found, bool) else None


def _convolution(conv: Any, x: Shape, *rest: Shape) -> int:
    axes = len(conv.kernel_size)
    if conv.padding == "same":
        plane = x[-axes:]
    else:
        around = (0,) * axes if conv.padding == "valid" else conv.padding
        settings = zip(x[-axes:], conv.kernel_size, conv.stride, around, conv.dilation, strict=True)
        plane = tuple(formulas.output_size(*axis) for axis in settings)
    one = formulas.convolution_macs(conv.in_channels, conv.out_channels, conv.kernel_size, plane, conv.groups)
    return prod(x[: -axes - 1]) * one


def _transposed(conv: Any, x: Shape, *rest: Shape) -> int:
    # Each pixel of the input is spread over one kernel: the convolution the other way round.
    axes = len(conv.kernel_size)
    one = formulas.convolution_macs(
        conv.out_channels, conv.in_channels, conv.kernel_size, x[-axes:], conv.groups
    )
    return prod(x[: -axes - 1]) * one


def _linear(linear: Any, x: Shape, *rest: Shape) -> int:
    return formulas.linear_macs(linear.in_features, linear.out_features, prod(x[:-1]))


def _attention(attention: Any, *inputs: Shape) -> int | None:
    """nn.MultiheadAttention: three projections, both products, the projection back; masks do not matter."""
    if len(inputs) < 3:
        return None
    query, key, value = inputs[:3]
    width = attention.embed_dim
    sequence = -2 if attention.batch_first or len(query) == 2 else 0
    batch = prod(query[:-1]) // query[sequence]
    queries, keys = query[sequence], key[sequence]
    into = sum(formulas.linear_macs(x[-1], width, prod(x[:-1])) for x in (query, key, value))
    seen = keys + (attention.bias_k is not None) + attention.add_zero_attn
    back = formulas.linear_macs(width, width, prod(query[:-1]))
    return into + batch * formulas.attention_macs(queries, seen, width) + back


_FORMULAS: dict[type | None, Callable[..., int | None]] = {
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
    nn.ConvTranspose1d: _transposed,
    nn.ConvTranspose2d: _transposed,
    nn.ConvTranspose3d: _transposed,
    nn.Linear: _linear,
    nn.MultiheadAttention: _attention,
}
"""By the class that wrote the forward."""
