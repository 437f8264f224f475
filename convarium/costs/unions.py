"""Receptive fields of tensors joined: element by element, or one after another (see `field`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from convarium.costs.atoms import fresh, scramble, walk
from convarium.costs.field import Seen, Shape, Side, Spread, Term, atoms_of, is_whole, merged, replace


def aligned(shape: Shape, *seens: Seen) -> list[Seen] | None:
    """Tensors that are broadcast to a shape, with the same atoms; None where these cannot be matched."""
    full = [_front(seen, len(shape)) for seen in seens]
    if all(seen.dims == full[0].dims for seen in full) and _shape(full[0]) == shape:
        return full
    for d, n in enumerate(shape):
        if n == 1:
            atoms: tuple[int, ...] = (1,) if any(seen.dims[d] for seen in full) else ()
        else:
            atoms = ()
            for seen in full:
                if math.prod(seen.dims[d]) == n:
                    common = _common(atoms, seen.dims[d]) if atoms else seen.dims[d]
                    if common is None:
                        return None
                    atoms = common
            atoms = atoms or (n,)
        for i, seen in enumerate(full):
            refined = _refine(seen, d, atoms)
            if refined is None:
                return None
            full[i] = refined
    return full


def _front(seen: Seen, rank: int) -> Seen:
    return seen._replace(dims=((),) * (rank - len(seen.dims)) + seen.dims)


def _shape(seen: Seen) -> Shape:
    return tuple(math.prod(dim) for dim in seen.dims)


def _common(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...] | None:
    left, right, result = list(a), list(b), []
    while left and right:
        x, y = left.pop(), right.pop()
        if x % y and y % x:
            return None
        result.append(min(x, y))
        if x > y:
            left.append(x // y)
        elif y > x:
            right.append(y // x)
    return tuple(result[::-1])


def _refine(seen: Seen, dim: int, atoms: tuple[int, ...]) -> Seen | None:
    """One dimension with finer atoms; a dimension of one element is repeated."""
    mine = seen.dims[dim]
    if mine == atoms:
        return seen
    if math.prod(mine) == 1:
        if len(mine) == 1 and math.prod(atoms) == 1:
            return seen
        return replace(seen, dim, atoms, lambda t: t._replace(steps=(0,) * len(atoms)))
    where = atoms_of(seen.dims)[dim]

    def change(term: Term) -> Term | None:
        found = walk([(n, [term.steps[i]]) for n, i in zip(mine, where, strict=True)], atoms)
        steps = None if found is None else tuple(steps[0] for part in found for _, steps in part)
        if steps is None or None in steps or len(steps) != len(atoms):
            return None
        return term._replace(steps=steps)

    return replace(seen, dim, atoms, change)


def blurred(shape: Shape, *seens: Seen) -> Seen:
    """The result of an operator that is not followed: kept where all elements see the same, else lost."""
    flat = [fresh(shape, seen.sides, seen.picture) for seen in seens]
    return union(shape, *flat)


def union(shape: Shape, *seens: Seen, factor: bool = False) -> Seen:
    """Elements of one shape, or broadcast to it, joined one by one.

    Args:
        shape: of the result.
        seens: of those operands that depend on the inputs.
        factor: they are multiplied, so that one may be a gate.
    """
    if len(seens) == 1 and _shape(seens[0]) == shape:
        return seens[0]
    full = aligned(shape, *seens)
    if full is None:
        return Seen(tuple((n,) for n in shape), _absorbed(seens, len(shape)), seens[0].picture)
    first = full[0]
    if len(full) == 1 or (len(full) == 2 and first.sides == full[1].sides):
        return first
    sizes = [n for dim in first.dims for n in dim]
    sides: list[Side] = []
    for i in range(4):
        mine = [seen.sides[i] for seen in full]
        if factor and i > 1:
            stepping = [side for side in mine if side is None or any(any(t.steps) for t in side)]
            mine = stepping or mine
        sides.append(_joined(mine, sizes, first.picture[i % 2]))
    return Seen(first.dims, tuple(sides), first.picture)


def _joined(sides: Sequence[Side], sizes: Sequence[int], extent: int) -> Side:
    joined = merged([term for side in sides if side is not None for term in side], sizes, extent)
    return None if None in sides and not is_whole(joined) else joined


def _absorbed(seens: Sequence[Seen], rank: int) -> tuple[Side, ...]:
    """Of tensors that do not match: whole where one is whole, else lost."""
    return tuple(
        (Term(0, None, (0,) * rank),) if any(is_whole(seen.sides[i]) for seen in seens) else None
        for i in range(4)
    )


def cat(shape: Shape, dim: int, parts: Sequence[tuple[int, Seen | None]]) -> Seen:
    """Tensors one after another along a dimension.

    Args:
        shape: of the result.
        dim: along which they are joined.
        parts: length of each along the dimension, and what it sees; None for a constant.
    """
    run = math.gcd(*[n for n, _ in parts])
    seens = [seen for _, seen in parts if seen is not None]
    # Two elements stand for the whole dimension: terms that differ along it must not be taken for the same.
    short = [scramble(seen, dim, 2) for seen in seens]
    rest = (*shape[:dim], 2, *shape[dim + 1 :])
    full = aligned(rest, *short)
    if full is None:
        return blurred(shape, *seens)
    first = full[0]
    sizes = [n for d, atoms in enumerate(first.dims) for n in (atoms if d != dim else (shape[dim],))]
    at = atoms_of(first.dims)[dim].start
    alike = len(seens) == len(parts) and all(seen.sides == first.sides for seen in full)
    sides: list[Side] = []
    for i in range(4):
        mine = [seen.sides[i] for seen in full]
        if None in mine:
            sides.append(None)
            continue
        terms = []
        for term in (term for side in mine for term in side or ()):
            step = term.steps[at]
            if step == 0 and not alike:
                step = Spread(0, 0, run)
            terms.append(term._replace(steps=(*term.steps[:at], step, *term.steps[at + 1 :])))
        sides.append(merged(terms, sizes, first.picture[i % 2]))
    dims = (*first.dims[:dim], (shape[dim],), *first.dims[dim + 1 :])
    return Seen(dims, tuple(sides), first.picture)
