"""Receptive fields through operators that only move elements: reshapes, slices, joins, pads, picks (see `flow`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from torch import Tensor

from convarium.costs import atoms, unions
from convarium.costs.field import Seen

Look = Callable[[Tensor], Seen | None]


def of_first(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule that is also given what the operator's first operand sees; None where that is a constant."""

    @wraps(rule)
    def given(look: Look, shape: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen = look(x)
        return None if seen is None else rule(look, seen, shape, x, *args, **kwargs)

    return given


def alike(names: str, rule: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """One rule under several names."""
    return dict.fromkeys(names.split(), rule)


def shape_of(seen: Seen) -> tuple[int, ...]:
    """The shape of the tensor."""
    return tuple(math.prod(dim) for dim in seen.dims)


@of_first
def _kept(look: Look, seen: Seen, shape: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    return seen


@of_first
def _reshape(look: Look, seen: Seen, shape: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    return seen if shape_of(seen) == shape else atoms.reshape(seen, shape)


@of_first
def _permute(look: Look, seen: Seen, shape: Any, x: Tensor, order: Sequence[int]) -> Any:
    return atoms.permute(seen, order)


@of_first
def _transpose(look: Look, seen: Seen, shape: Any, x: Tensor, a: int = 0, b: int = 1) -> Any:
    order = list(range(x.ndim))
    if order[1:]:
        order[a], order[b] = order[b], order[a]
    return atoms.permute(seen, order)


@of_first
def _unsqueeze(look: Look, seen: Seen, shape: Any, x: Tensor, dim: int) -> Any:
    return atoms.insert(seen, dim % len(shape))


@of_first
def _squeeze(look: Look, seen: Seen, shape: Any, x: Tensor, dims: Any = None) -> Any:
    chosen = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    return atoms.drop(seen, [d % x.ndim for d in chosen if x.shape[d] == 1])


@of_first
def _expand(look: Look, seen: Seen, shape: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    return atoms.expand(seen, shape)


@of_first
def _select(look: Look, seen: Seen, shape: Any, x: Tensor, dim: int, index: int) -> Any:
    dim %= x.ndim
    return atoms.drop(atoms.narrow(seen, dim, index % x.shape[dim], 1), [dim])


@of_first
def _unbind(look: Look, seen: Seen, shapes: Any, x: Tensor, dim: int = 0) -> Any:
    return [_select(look, None, x, dim, i) for i in range(x.shape[dim])]


@of_first
def _slice(
    look: Look,
    seen: Seen,
    shape: Any,
    x: Tensor,
    dim: int = 0,
    begin: int | None = None,
    end: Any = None,
    step: int = 1,
) -> Any:
    n = x.shape[dim]
    begin = begin or 0
    begin = min(max(begin + n if begin < 0 else begin, 0), n)
    return atoms.narrow(seen, dim % x.ndim, begin, shape[dim], step)


@of_first
def _split(look: Look, seen: Seen, shapes: Any, x: Tensor, sizes: Any, dim: int = 0) -> Any:
    dim %= x.ndim
    result, at = [], 0
    for shape in shapes if isinstance(shapes, list) else [shapes]:
        result.append(atoms.narrow(seen, dim, at, shape[dim]))
        at += shape[dim]
    return result


def _cat(look: Look, shape: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    dim %= len(shape)
    return unions.cat(shape, dim, [(t.shape[dim], look(t)) for t in tensors if t.shape != (0,)])


def _stack(look: Look, shape: Any, tensors: Sequence[Tensor], dim: int = 0) -> Any:
    dim %= len(shape)
    seens = [look(t) for t in tensors]
    return unions.cat(shape, dim, [(1, None if seen is None else atoms.insert(seen, dim)) for seen in seens])


@of_first
def _roll(look: Look, seen: Seen, shape: Any, x: Tensor, shifts: Any, dims: Any = ()) -> Any:
    if not dims and dims != 0:
        return None
    for d in [dims] if isinstance(dims, int) else dims:
        seen = atoms.scramble(seen, d % x.ndim)
    return seen


def _flip(look: Look, shape: Any, x: Tensor, dims: Sequence[int]) -> Any:
    return _roll(look, shape, x, 0, dims)


@of_first
def _pad(look: Look, seen: Seen, shape: Any, x: Tensor, pads: Sequence[int], *rest: Any) -> Any:
    for i in range(len(pads) // 2):
        if pads[2 * i] or pads[2 * i + 1]:
            seen = atoms.pad(seen, x.ndim - 1 - i, pads[2 * i], pads[2 * i + 1])
    return seen


@of_first
def _windows(look: Look, seen: Seen, shape: Any, x: Tensor, dim: int, size: int, step: int) -> Any:
    """Tensor.unfold: windows of `size`, `step` apart, as a new last dimension."""
    return atoms.unfold(seen, dim % x.ndim, shape[dim % x.ndim], size, step)


@of_first
def _index_select(look: Look, seen: Seen, shape: Any, x: Tensor, dim: int, index: Tensor) -> Any:
    return None if look(index) is not None else atoms.scattered(seen, dim % x.ndim, shape[dim])


@of_first
def _index(look: Look, seen: Seen, shape: Any, x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    chosen = [(d, index) for d, index in enumerate(indices) if index is not None]
    if len(chosen) != 1 or chosen[0][1].ndim != 1 or look(chosen[0][1]) is not None:
        return None
    return atoms.scattered(seen, chosen[0][0], shape[chosen[0][0]])


@of_first
def _pixel_unshuffle(look: Look, seen: Seen, shape: Any, x: Tensor, factor: int) -> Any:
    """(N, C, H r, W r) -> (N, C r^2, H, W)."""
    n, c, h, w = x.shape
    split = atoms.reshape(seen, (n, c, h // factor, factor, w // factor, factor))
    return atoms.reshape(atoms.permute(split, (0, 1, 3, 5, 2, 4)), shape)


@of_first
def _channel_shuffle(look: Look, seen: Seen, shape: Any, x: Tensor, groups: int) -> Any:
    """(N, g c, H, W) -> (N, c g, H, W)."""
    n, c, *sides = x.shape
    split = atoms.reshape(seen, (n, groups, c // groups, *sides))
    return atoms.reshape(atoms.permute(split, (0, 2, 1, *range(3, 3 + len(sides)))), shape)


FLOWS: dict[str, Callable[..., Any]] = {
    **alike("alias detach clone _to_copy to contiguous dropout feature_dropout lift_fresh", _kept),
    **alike("view _unsafe_view _reshape_alias reshape flatten unflatten", _reshape),
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "select": _select,
    "unbind": _unbind,
    "slice": _slice,
    "split": _split,
    "split_with_sizes": _split,
    "unfold": _windows,
    "cat": _cat,
    "stack": _stack,
    "roll": _roll,
    "flip": _flip,
    **alike("constant_pad_nd reflection_pad2d replication_pad2d", _pad),
    "index_select": _index_select,
    "index": _index,
    "pixel_unshuffle": _pixel_unshuffle,
    "channel_shuffle": _channel_shuffle,
}
"""Rules by operator."""
