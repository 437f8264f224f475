"""How each operator passes receptive fields on: from what its operands see to what its results see.

A rule is given a look at tensors, the result's shape (a list for several) and the operator's arguments. It gives what
the result sees (a list for several), or None where it cannot say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from convarium.costs import atoms, moves, unions
from convarium.costs.field import Seen
from convarium.costs.moves import Look, alike, of_first
from convarium.costs.operators import pair


def follow(
    rule: Callable[..., Any] | None,
    look: Look,
    seens: Sequence[Seen],
    results: Sequence[Tensor],
    args: Any,
    kwargs: Any,
    gate: bool,
) -> list[Seen]:
    """What the results of an operator see.

    Args:
        rule: of the operator; None where there is none.
        look: what a tensor sees.
        seens: what those operands see that depend on the inputs.
        results: tensors that the operator gave.
        args: of the operator.
        kwargs: of the operator.
        gate: the operator multiplies its first operand by a gate.

    Returns:
        One for each result.
    """
    shapes = [tuple(t.shape) for t in results]
    found: Any = None
    if rule is not None:
        found = rule(look, shapes[0] if len(shapes) == 1 else shapes, *args, **kwargs)
    if found is None:
        found = [unions.blurred(shape, *seens) for shape in shapes]
    elif isinstance(found, Seen):
        found = [found] * len(shapes)
    if gate and (plane := look(args[0])) is not None:
        return [_sides_of(found[0], atoms.expand(plane, shapes[0]))]
    return found


def _sides_of(with_gates: Seen, without: Seen) -> Seen:
    """Two ways to see one tensor as one."""
    same = unions.aligned(moves.shape_of(with_gates), with_gates, without)
    if same is None:
        return with_gates._replace(sides=(*with_gates.sides[:2], None, None))
    return same[0]._replace(sides=(*same[0].sides[:2], *same[1].sides[2:]))


# ------------------------------------------------------------------------------------------------ elements


def elementwise(look: Look, shape: Any, *args: Any, factor: bool = False, **kwargs: Any) -> Any:
    """Element by element, broadcast; with `factor` one operand may be a gate."""
    seens = [seen for seen in (look(a) for a in args if isinstance(a, Tensor)) if seen is not None]
    if isinstance(shape, list) or not seens:
        return None
    return unions.union(shape, *[atoms.expand(seen, shape) for seen in seens[:1]], *seens[1:], factor=factor)


def _product(look: Look, shape: Any, *args: Any, **kwargs: Any) -> Any:
    return elementwise(look, shape, *args, factor=True)


def _added_product(look: Look, shape: Any, added: Tensor, *factors: Any, **kwargs: Any) -> Any:
    product = _product(look, shape, *factors)
    seens = [seen for seen in (product, look(added)) if seen is not None]
    return unions.union(shape, *[atoms.expand(seen, shape) for seen in seens])


def _copy(look: Look, shape: Any, target: Tensor, source: Tensor, *rest: Any) -> Any:
    seen = look(source)
    return None if seen is None else atoms.expand(seen, shape)


def _max_or_min(look: Look, shape: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    if rest and isinstance(rest[0], Tensor):
        return elementwise(look, shape, x, *rest)
    return _reduction(look, shape, x, *rest, **named)


# ------------------------------------------------------------------------------------------------ windows


@of_first
def _conv(
    look: Look,
    seen: Seen,
    shape: Any,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    n = weight.ndim - 2
    if look(weight) is not None or x.ndim != weight.ndim:
        return None
    if groups == 1:
        seen = atoms.reduce(seen, [1], shape[1])
    elif not groups == x.shape[1] == weight.shape[0]:
        seen = atoms.scramble(seen, 1, shape[1])
    settings = (weight.shape[2:], pair(stride, n), pair(padding, n), pair(dilation, n))
    for d, (kernel, step, pad, apart) in enumerate(zip(*settings, strict=True), start=2):
        seen = atoms.window(seen, d, shape[d], kernel, step, pad, apart)
    return seen


def _general_conv(
    look: Look,
    shape: Any,
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
    if not transposed:
        return _conv(look, shape, x, weight, bias, stride, padding, dilation, groups)
    n = weight.ndim - 2
    if any(step != 1 for step in pair(stride, n)) or groups != 1:
        return None  # between the pixels: not an affine function of the position
    # With a step of 1 it is a convolution with the kernel turned round, padded up to its other end.
    apart = pair(dilation, n)
    ends = [a * (k - 1) - p for a, k, p in zip(apart, weight.shape[2:], pair(padding, n), strict=True)]
    return _conv(look, shape, x, weight, None, 1, ends, apart, 1)


@of_first
def _max_pool(
    look: Look,
    seen: Seen,
    shape: Any,
    x: Tensor,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *rest: Any,
) -> Any:
    shape = shape[0] if isinstance(shape, list) else shape
    n = x.ndim - 2
    kernel = pair(kernel, n)
    stride = pair(stride, n) if stride not in (None, [], ()) else kernel
    settings = (kernel, stride, pair(padding, n), pair(dilation, n))
    for d, (k, s, p, a) in enumerate(zip(*settings, strict=True), start=2):
        if k >= x.shape[d] > 1 and p == 0 and a == 1:
            seen = atoms.reduce(seen, [d], shape[d])  # over all there is: one field, not the first of many
        else:
            seen = atoms.window(seen, d, shape[d], k, s, p, a)
    return seen


def _avg_pool(
    look: Look, shape: Any, x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, *rest: Any
) -> Any:
    return _max_pool(look, shape, x, kernel, stride, padding)


@of_first
def _adaptive_pool(look: Look, seen: Seen, shape: Any, x: Tensor, size: Any) -> Any:
    shape = shape[0] if isinstance(shape, list) else shape
    sides = 2 if isinstance(size, int) else len(size)
    for d in range(x.ndim - sides, x.ndim):
        before, after = x.shape[d], shape[d]
        if after == 1:
            seen = atoms.reduce(seen, [d])
        elif before % after == 0:
            seen = atoms.window(seen, d, after, before // after, before // after)
        else:  # windows of unlike sizes
            seen = atoms.scattered(seen, d, after)
    return seen


# ------------------------------------------------------------------------------------------------ products


@of_first
def _linear(look: Look, seen: Seen, shape: Any, x: Tensor, weight: Tensor, bias: Any = None) -> Any:
    return None if look(weight) is not None else atoms.reduce(seen, [x.ndim - 1], shape[-1])


def _matmul(look: Look, shape: Any, a: Tensor, b: Tensor) -> Any:
    if a.ndim < 2 or b.ndim < 2:
        return None
    seens = []
    if (left := look(a)) is not None:
        seens.append(atoms.reduce(left, [a.ndim - 1]))
    if (right := look(b)) is not None:
        seens.append(atoms.reduce(right, [b.ndim - 2]))
    return unions.union(shape, *[atoms.expand(seen, shape) for seen in seens]) if seens else None


def _added_matmul(look: Look, shape: Any, bias: Tensor, a: Tensor, b: Tensor, **named: Any) -> Any:
    seens = [seen for seen in (_matmul(look, shape, a, b), look(bias)) if seen is not None]
    return unions.union(shape, *seens)


def _attention(
    look: Look,
    shape: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    **named: Any,
) -> Any:
    """Each query sees itself, and every key and value; a mask of true and false may hide them."""
    if causal or isinstance(shape, list) or (mask is not None and not mask.is_floating_point()):
        return None
    seens = []
    if (query := look(q)) is not None:
        seens.append(atoms.reduce(query, [q.ndim - 1]))
    if (key := look(k)) is not None:
        seens.append(atoms.reduce(key, [k.ndim - 2, k.ndim - 1]))
    if (value := look(v)) is not None:
        seens.append(atoms.reduce(value, [v.ndim - 2]))
    if mask is not None and (bias := look(mask)) is not None:
        seens.append(atoms.reduce(bias, [mask.ndim - 1]))
    return unions.union(shape, *[atoms.expand(seen, shape) for seen in seens])


@of_first
def _softmax(look: Look, seen: Seen, shape: Any, x: Tensor, dim: int, *rest: Any, **named: Any) -> Any:
    return atoms.reduce(seen, [dim], shape[dim])


# ------------------------------------------------------------------------------------------------ statistics


def _normed(seen: Seen | None, shape: Any, over: Sequence[int]) -> Any:
    """Statistics over some dimensions are factors: with gates all of these are seen, without them nothing new."""
    if seen is None or isinstance(shape, list):
        return None
    every = seen
    for d in over:
        every = atoms.reduce(every, [d], shape[d])
    return _sides_of(unions.union(shape, seen, every), seen)


def _batch_norm(
    look: Look,
    shape: Any,
    x: Tensor,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    *rest: Any,
) -> Any:
    return _normed(look(x), shape, range(2, x.ndim)) if training else look(x)


def _layer_norm(look: Look, shape: Any, x: Tensor, over: Sequence[int], *rest: Any, **named: Any) -> Any:
    return _normed(look(x), shape, range(x.ndim - len(over), x.ndim))


def _group_norm(look: Look, shape: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    return _normed(look(x), shape, range(1, x.ndim))


@of_first
def _reduction(
    look: Look,
    seen: Seen,
    shape: Any,
    x: Tensor,
    dims: Any = None,
    keepdim: bool = False,
    *rest: Any,
    **named: Any,
) -> Any:
    shape = shape[0] if isinstance(shape, list) else shape
    if isinstance(dims, int) and not isinstance(dims, bool):
        dims = [dims]
    if not isinstance(dims, (list, tuple)) or not dims:
        dims = range(x.ndim)
    dims = [d % x.ndim for d in dims]
    seen = atoms.reduce(seen, dims)
    return seen if len(shape) == x.ndim else atoms.drop(seen, dims)


def _norm(
    look: Look, shape: Any, x: Tensor, order: Any = 2, dims: Any = None, *rest: Any, **named: Any
) -> Any:
    return _reduction(look, shape, x, dims)


FLOWS: dict[str, Callable[..., Any]] = {
    **moves.FLOWS,
    "mul": _product,
    "div": _product,
    "addcmul": _added_product,
    "addcdiv": _added_product,
    "copy": _copy,
    **alike("conv1d conv2d conv3d", _conv),
    "convolution": _general_conv,
    **alike("max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices", _max_pool),
    **alike("avg_pool2d avg_pool3d", _avg_pool),
    **alike("adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d", _adaptive_pool),
    "linear": _linear,
    **alike("matmul mm bmm", _matmul),
    **alike("addmm baddbmm", _added_matmul),
    "scaled_dot_product_attention": _attention,
    **alike("softmax _softmax _safe_softmax log_softmax _log_softmax", _softmax),
    **alike("batch_norm native_batch_norm", _batch_norm),
    **alike("layer_norm native_layer_norm rms_norm _fused_rms_norm", _layer_norm),
    **alike("group_norm native_group_norm", _group_norm),
    **alike("mean sum amax amin var std var_mean std_mean logsumexp any all prod", _reduction),
    **alike("max min", _max_or_min),
    **alike("linalg_vector_norm norm", _norm),
}
"""Rules by operator; what torch marks as pointwise and is not here goes by `elementwise`."""
