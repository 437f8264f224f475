"""The algebra of receptive fields: dimensions cut, moved, joined and slid over (see `field`)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from convarium.costs.field import (
    Seen,
    Shape,
    Side,
    Spread,
    Step,
    Term,
    atoms_of,
    each,
    is_level,
    replace,
    still,
    taken,
)
from convarium.costs.formulas import Reach, grow


def fresh(shape: Shape, sides: Sequence[Side], picture: tuple[int, int]) -> Seen:
    """A tensor in which all elements see the same, or what they see is lost."""
    steps = (0,) * len(shape)
    flat = tuple(
        None if side is None else tuple(t._replace(steps=steps) for t in side) if is_level(side) else None
        for side in sides
    )
    return Seen(tuple((n,) for n in shape), flat, picture)


# ------------------------------------------------------------------------------------------------ dimensions


def permute(seen: Seen, order: Sequence[int]) -> Seen:
    """Dimensions in another order."""
    atoms = atoms_of(seen.dims)
    order = [d % len(atoms) for d in order]
    flat = [i for d in order for i in atoms[d]]
    dims = tuple(seen.dims[d] for d in order)
    return each(seen, dims, lambda t: t._replace(steps=tuple(t.steps[i] for i in flat)))


def reduce(seen: Seen, reduced: Iterable[int], size: int = 1) -> Seen:
    """All indices along some dimensions together; the dimensions stay, with `size` elements that see the same."""
    for d in {d % len(seen.dims) for d in reduced}:
        where = atoms_of(seen.dims)[d]
        flat = [n for dim in seen.dims for n in dim]

        def change(t: Term, where: range = where, flat: list[int] = flat) -> Term:
            return Term(*taken(t, where, flat), (0,))

        seen = replace(seen, d, (size,), change)
    return seen


def drop(seen: Seen, dims: Iterable[int]) -> Seen:
    """Leave out dimensions of one element."""
    for d in sorted({d % len(seen.dims) for d in dims}, reverse=True):
        seen = replace(seen, d, (), lambda t: t._replace(steps=()))
        seen = seen._replace(dims=seen.dims[:d] + seen.dims[d + 1 :])
    return seen


def insert(seen: Seen, dim: int) -> Seen:
    """A new dimension of one element."""
    return seen._replace(dims=(*seen.dims[:dim], (), *seen.dims[dim:]))


def expand(seen: Seen, shape: Shape) -> Seen:
    """Dimensions of one element repeated to a shape; new ones in front."""
    while len(seen.dims) < len(shape):
        seen = insert(seen, 0)
    for d, n in enumerate(shape):
        if math.prod(seen.dims[d]) == 1 and n != 1:
            seen = replace(seen, d, (n,), lambda t: t._replace(steps=(0,)))
    return seen


def scramble(seen: Seen, dim: int, size: int | None = None) -> Seen:
    """The order along a dimension is lost (rolled, or tokens joined); all of it together still sees the same."""
    where = atoms_of(seen.dims)[dim]
    flat = [n for d in seen.dims for n in d]

    def change(term: Term) -> Term:
        if all(term.steps[i] == 0 for i in where):
            return term._replace(steps=(0,))
        start, extent = taken(term._replace(size=0), where, flat)
        assert extent is not None
        return term._replace(steps=(Spread(start - term.start, start - term.start + extent, 1),))

    return replace(seen, dim, (math.prod(seen.dims[dim]) if size is None else size,), change)


def scattered(seen: Seen, dim: int, size: int) -> Seen:
    """Elements of a dimension chosen or mixed by a rule that is not followed; kept where all of it sees the same."""
    seen = scramble(seen, dim, size)
    where = atoms_of(seen.dims)[dim].start
    return each(seen, seen.dims, lambda term: None if term.steps[where] else term)


def narrow(seen: Seen, dim: int, begin: int, length: int, step: int = 1) -> Seen:
    """Every step-th of the elements from `begin` on, `length` of them."""
    atoms = seen.dims[dim]
    where = atoms_of(seen.dims)[dim]
    inner = math.prod(atoms[1:])
    rest: tuple[int, ...] | None
    if (begin, length, step) == (0, math.prod(atoms), 1):
        return seen
    if len(atoms) > 1 and step == 1 and begin % inner == 0 and length % inner == 0:
        rest, begin, length = atoms[1:], begin // inner, length // inner
    elif len(atoms) == 1:
        rest = ()
    else:
        rest = None

    def change(term: Term) -> Term | None:
        mine = [term.steps[i] for i in where]
        if not any(mine):
            return term._replace(steps=(0,) * (1 + len(rest or ())))
        if rest is None or isinstance(mine[0], Spread):
            return None
        return term._replace(start=term.start + begin * mine[0], steps=(mine[0] * step, *mine[1:]))

    return replace(seen, dim, (length, *(rest or ())), change)


def reshape(seen: Seen, shape: Shape) -> Seen:
    """The elements in the same order under another shape."""
    terms = [term for side in seen.sides if side is not None for term in side]
    sizes = [n for dim in seen.dims for n in dim]
    columns = [(n, [t.steps[i] for t in terms]) for i, n in enumerate(sizes) if n > 1]
    found = walk(_coarse(columns), shape)
    if found is None:
        return fresh(shape, seen.sides, seen.picture)
    dims = tuple(tuple(n for n, _ in dim) for dim in found)
    lines = [steps for dim in found for _, steps in dim]
    turn = iter(range(len(terms)))

    def change(side: Side) -> Side:
        if side is None:
            return None
        result = [
            t._replace(steps=tuple(steps[i] for steps in lines)) for t, i in zip(side, turn, strict=False)
        ]
        return None if any(step is None for t in result for step in t.steps) else tuple(result)

    return Seen(dims, tuple(map(change, seen.sides)), seen.picture)


_Column = tuple[int, list]  # an atom's size and its step in every term; None where it cannot be said


def _coarse(columns: list[_Column]) -> list[_Column]:
    """Neighbouring atoms that are one affine step, as one."""
    result: list[_Column] = []
    for n, steps in columns:
        if result:
            m, outer = result[-1]
            if all(
                isinstance(a, int) and isinstance(b, int) and a == b * n
                for a, b in zip(outer, steps, strict=True)
            ):
                result[-1] = (m * n, steps)
                continue
        result.append((n, steps))
    return result


def walk(columns: list[_Column], shape: Sequence[int]) -> list[list[_Column]] | None:
    """Atoms shared out to dimensions of the sizes given, split where needed; None where they do not divide."""
    left, result = columns[::-1], []
    for need in shape:
        dim: list[_Column] = []
        while need > 1:
            if not left:
                return None
            n, steps = left.pop()
            if need % n == 0:
                dim.append((n, steps))
                need //= n
            elif n % need == 0:
                inner = n // need
                parts = [_split(step, inner) for step in steps]
                dim.append((need, [a for a, _ in parts]))
                left.append((inner, [b for _, b in parts]))
                need = 1
            else:
                return None
        result.append(dim)
    return result


def _split(step: Step | None, inner: int) -> tuple[Step | None, Step | None]:
    """A step of one atom as steps of an outer and an inner one."""
    if isinstance(step, int):
        return step * inner, step
    if step is None:
        return None, None
    if step.run % inner == 0:
        return step._replace(run=step.run // inner), 0
    if step.low == step.high:
        return step._replace(run=1), step._replace(run=1)
    return None, None


# ------------------------------------------------------------------------------------------------ windows


def window(
    seen: Seen, dim: int, out: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1
) -> Seen:
    """A window slid along a dimension (convolution, pooling)."""
    if (kernel, stride, padding) == (1, 1, 0):
        return seen
    where = atoms_of(seen.dims)[dim]

    def change(term: Term) -> Term | None:
        mine = term.steps[where.start : where.stop]
        if all(still(step) for step in mine):
            unlike: Step = Spread(0, 0, 1) if any(mine) else 0
            return term._replace(steps=(unlike,))
        step = mine[0]
        elsewhere = any(not still(s) for i, s in enumerate(term.steps) if i not in where)
        if len(mine) > 1 or isinstance(step, Spread) or step < 0 or (elsewhere and kernel > 1):
            return None
        if term.size is None:
            return term._replace(steps=(0,))
        reach = grow(Reach(term.size, step, term.start), kernel, stride, padding, dilation)
        return Term(reach.start, reach.size, (reach.stride,))

    return replace(seen, dim, (out,), change)


def unfold(seen: Seen, dim: int, out: int, size: int, step: int) -> Seen:
    """Windows along a dimension, their inside as a new last one."""
    where = atoms_of(seen.dims)[dim]

    def change(term: Term) -> Term | None:
        mine = term.steps[where.start : where.stop]
        inner = mine[0] if any(mine) else 0
        if isinstance(inner, Spread) or (inner and len(mine) > 1):
            return None
        steps = (*term.steps[: where.start], inner * step, *term.steps[where.stop :], inner)
        return term._replace(steps=steps)

    dims = (*seen.dims[:dim], (out,), *seen.dims[dim + 1 :], (size,))
    return each(seen, dims, change)


def pad(seen: Seen, dim: int, before: int, after: int) -> Seen:
    """Elements added in front and behind, or taken away where negative; what is added counts as border."""
    n = math.prod(seen.dims[dim]) + before + after
    where = atoms_of(seen.dims)[dim]

    def change(term: Term) -> Term | None:
        mine = term.steps[where.start : where.stop]
        if all(still(step) for step in mine):
            unlike: Step = Spread(0, 0, 1) if any(mine) else 0
            return term._replace(steps=(unlike,))
        if len(mine) > 1 or isinstance(mine[0], Spread):
            return None
        return term._replace(start=term.start - before * mine[0], steps=(mine[0],))

    return replace(seen, dim, (n,), change)
