"""Outputs of torch's common operators on the meta device, from the shapes of their arguments.

Torch works them out too, but for norms and activations in Python: 1 to 5 ms each, and two seconds for the first one,
which loads its compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convarium.costs.formulas import output_size
from convarium.costs.operators import pair
from convarium.errors import ArgumentError


def _new(x: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor without data, its channels last in memory where the input's are."""
    plane = x.ndim == 4 and len(shape) == 4
    if plane and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.empty(shape, dtype=x.dtype, device="meta", memory_format=torch.channels_last)
    return torch.empty(shape, dtype=x.dtype, device="meta")


def _like(x: Tensor) -> Tensor:
    """A tensor without data, laid out in memory as another; `empty_like` would ask Python for it."""
    if x.is_contiguous():
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    dense = sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True)) + 1 == x.numel()
    if not dense:
        return torch.empty(x.shape, dtype=x.dtype, device="meta")
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")


def _windows(x: Tensor, sides: Sequence[int], what: str) -> Sequence[int]:
    if min(sides) < 1:
        plane = " x ".join(map(str, x.shape[2:]))
        raise ArgumentError(f"the plane is only {plane} where {what}: the picture is too small")
    return sides


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    n = weight.ndim - 2
    if x.ndim != weight.ndim or isinstance(padding, str):
        return NotImplemented
    if x.shape[1] != weight.shape[1] * groups:
        raise ArgumentError(
            f"it is given {x.shape[1]} channels, but its weights are for {weight.shape[1] * groups}"
        )
    sides = [
        output_size(size, k, s, p, d)
        for size, k, s, p, d in zip(
            x.shape[2:], weight.shape[2:], pair(stride, n), pair(padding, n), pair(dilation, n), strict=True
        )
    ]
    kernel = " x ".join(map(str, weight.shape[2:]))
    return _new(x, (x.shape[0], weight.shape[0], *_windows(x, sides, f"a {kernel} convolution is due")))


def _general_conv(
    x: Tensor,
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Any:
    return NotImplemented if transposed else _conv(x, weight, bias, stride, padding, dilation, groups)


def _pool(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Any:
    n = x.ndim - 2
    if n < 2 or n < (len(kernel) if not isinstance(kernel, int) else 1):
        return NotImplemented  # without a batch
    kernel = pair(kernel, n)
    stride = pair(stride, n) if stride not in (None, [], ()) else kernel
    settings = (x.shape[2:], kernel, stride, pair(padding, n), pair(dilation, n))
    sides = [output_size(*values, ceil) for values in zip(*settings, strict=True)]
    by = " x ".join(map(str, kernel))
    return _new(x, (*x.shape[:2], *_windows(x, sides, f"a {by} pool is due")))


def _max_pool(
    x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Any:
    return _pool(x, kernel, stride, padding, dilation, ceil)


def _avg_pool(
    x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, ceil: bool = False, *rest: Any
) -> Any:
    return _pool(x, kernel, stride, padding, 1, ceil)


def _adaptive_pool(x: Tensor, size: Any) -> Any:
    return _new(x, (*x.shape[:-2], *pair(size)))


def _linear_shape(x: Tensor, weight: Tensor, bias: Any = None) -> Any:
    if weight.ndim != 2:
        return NotImplemented
    if x.shape[-1] != weight.shape[1]:
        raise ArgumentError(f"it is given {x.shape[-1]} features, but its weights are for {weight.shape[1]}")
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device="meta")


def _matmul(a: Tensor, b: Tensor) -> Any:
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        return NotImplemented
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return (
        batch
        if batch is NotImplemented
        else torch.empty((*batch, a.shape[-2], b.shape[-1]), dtype=a.dtype, device="meta")
    )


def _added_matmul(bias: Tensor, a: Tensor, b: Tensor, **named: Any) -> Any:
    return _matmul(a, b)


def _attended(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **named: Any) -> Any:
    if q.ndim < 3 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        return NotImplemented
    return torch.empty((*q.shape[:-1], v.shape[-1]), dtype=q.dtype, device="meta")


def _contiguous(x: Tensor, *rest: Any, **named: Any) -> Any:
    return torch.empty(x.shape, dtype=x.dtype, device="meta") if x.is_floating_point() else NotImplemented


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Tensor | None, variance: Any, training: bool, *rest: Any
) -> Any:
    given = [t for t in (weight, bias, mean, variance) if t is not None]
    return _like(x) if all(t.shape == x.shape[1:2] for t in given) else NotImplemented


def _layer_norm(x: Tensor, shape: Sequence[int], *rest: Any) -> Any:
    return _contiguous(x) if tuple(shape) == tuple(x.shape[-len(shape) :]) else NotImplemented


def _dropout(x: Tensor, p: float, train: bool) -> Any:
    return NotImplemented if train else x


def elementwise(*args: Any, **named: Any) -> Any:
    """Of an operator that works element by element on floating-point tensors, broadcast."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    first = tensors[0]
    if not first.is_floating_point():
        return NotImplemented
    shape: Any = tuple(first.shape)
    for other in tensors[1:]:
        if other.dtype != first.dtype:
            return NotImplemented
        if other.shape != shape:
            shape = broadcast(shape, other.shape)
            if shape is NotImplemented:
                return shape
    full = next((t for t in tensors if t.shape == shape), None)
    return torch.empty(shape, dtype=first.dtype, device="meta") if full is None else _like(full)


def broadcast(a: Sequence[int], b: Sequence[int]) -> Any:
    """The shape that two shapes are broadcast to; NotImplemented where they cannot be."""
    if len(a) < len(b):
        a, b = b, a
    b = (1,) * (len(a) - len(b)) + tuple(b)
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return NotImplemented
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    dim %= max(first.ndim, 1)
    shapes = [(*t.shape[:dim], *t.shape[dim + 1 :]) for t in tensors]
    if any(shape != shapes[0] for shape in shapes) or any(t.dtype != first.dtype for t in tensors):
        return NotImplemented
    return _new(first, (*first.shape[:dim], sum(t.shape[dim] for t in tensors), *first.shape[dim + 1 :]))


def _reduced(x: Tensor, dims: Any = None, keepdim: bool = False, **named: Any) -> Any:
    if not x.is_floating_point() or isinstance(dims, (bool, int)):
        return NotImplemented
    if not dims:
        dims = range(x.ndim)
    gone = {d % x.ndim for d in dims}
    shape = [1 if d in gone else n for d, n in enumerate(x.shape) if keepdim or d not in gone]
    return torch.empty(shape, dtype=x.dtype, device="meta")


def _normed(x: Tensor, order: Any = 2, dims: Any = None, keepdim: bool = False, **named: Any) -> Any:
    return _reduced(x, dims, keepdim)


def _softmax(x: Tensor, *rest: Any, **named: Any) -> Any:
    return _like(x) if x.is_floating_point() else NotImplemented


def _clone(x: Tensor, *, memory_format: torch.memory_format = torch.preserve_format) -> Any:
    if memory_format is torch.preserve_format:
        return _like(x)
    return torch.empty(x.shape, dtype=x.dtype, device="meta", memory_format=memory_format)


def _pad(x: Tensor, pads: Sequence[int], value: float = 0) -> Any:
    shape = list(x.shape)
    for i in range(len(pads) // 2):
        shape[-1 - i] += pads[2 * i] + pads[2 * i + 1]
    return _new(x, _windows(x, shape, "it is cropped"))


MAKES: dict[str, Callable[..., Any]] = {
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "convolution": _general_conv,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "avg_pool3d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "linear": _linear_shape,
    "matmul": _matmul,
    "mm": _matmul,
    "bmm": _matmul,
    "addmm": _added_matmul,
    "baddbmm": _added_matmul,
    "scaled_dot_product_attention": _attended,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _contiguous,
    "dropout": _dropout,
    "feature_dropout": _dropout,
    "alpha_dropout": _dropout,
    "cat": _cat,
    "mean": _reduced,
    "clone": _clone,
    "constant_pad_nd": _pad,
    **dict.fromkeys(("sum", "amax", "amin"), _reduced),
    "linalg_vector_norm": _normed,
    **dict.fromkeys(("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax"), _softmax),
}
"""Outputs of common operators, made without torch's own kernels; NotImplemented where these must be asked."""
