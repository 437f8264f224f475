"""Receptive fields: which input pixels the units of a tensor see, followed from tensor to tensor.

Along one side of the picture, the pixels that a unit sees are an interval whose start is an affine function of the
unit's position: start + sum(step * index). Convolutions, pools, reshapes, slices and sums map such intervals exactly;
where an operator does not, the interval is lost (None), never guessed.

A tensor's dimensions are kept as lists of *atoms*, so that tokens (H * W), windows and channels made of pixels can be
unfolded again: a dimension of 196 tokens is the atoms (14, 14), of which rows step along the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Field:
    """The receptive field of a unit, each pair for rows and columns.

    Args:
        size: from the first to the last pixel seen, padding included; None where every unit sees the whole side of
            the picture.
        stride: pixels from one unit's field to the next one's; 0 where all units share one field.
        start: index of the first pixel that unit 0 sees, negative inside the padding; 0 where it is the whole side.
    """

    size: tuple[int | None, int | None]
    stride: tuple[int, int]
    start: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether every unit sees the whole picture."""
        return self.size == (None, None)


@dataclass(frozen=True)
class Fields:
    """The receptive field of one output.

    Args:
        with_gates: along all paths.
        without_gates: factors that a plane is multiplied with, and that were pooled over it (squeeze-and-excitation,
            statistics of group norms), are left out: the field of the convolutions alone.
    """

    with_gates: Field | None
    without_gates: Field | None


class Spread(NamedTuple):
    """A step whose order is lost: offsets from `low` to `high`, alike in runs of `run` neighbours."""

    low: int
    high: int
    run: int


Step = int | Spread


class Term(NamedTuple):
    """An interval of pixels along one side: its start at index 0, its size (None: the whole side), a step an atom."""

    start: int
    size: int | None
    steps: tuple[Step, ...]


Side = tuple[Term, ...] | None  # an element sees the union of the terms; None: not known
Dims = tuple[tuple[int, ...], ...]  # sizes of the atoms of each dimension


class Seen(NamedTuple):
    """What the elements of a tensor see: rows and columns with gates, then rows and columns without."""

    dims: Dims
    sides: tuple[Side, ...]
    picture: tuple[int, int]


NOTHING: tuple[Side, ...] = ((), (), (), ())
LOST: tuple[Side, ...] = (None, None, None, None)


def pixels(shape: Shape) -> Seen:
    """What the picture itself sees.

    Args:
        shape: (N, C, H, W).
    """
    rows: Side = (Term(0, 1, (0, 0, 1, 0)),)
    columns: Side = (Term(0, 1, (0, 0, 0, 1)),)
    return Seen(tuple((n,) for n in shape), (rows, columns) * 2, (shape[2], shape[3]))


def is_level(side: Side) -> bool:
    return side is not None and all(step == 0 for term in side for step in term.steps)


# ------------------------------------------------------------------------------------------------ terms


def merged(terms: Iterable[Term], sizes: Sequence[int], side: int) -> Side:
    """Terms with the same steps as one; an interval that all elements share and that covers the side is whole."""
    groups: dict[tuple[Step, ...], Term] = {}
    for term in terms:
        size = term.size
        if size is not None and not any(term.steps) and term.start <= 0 and term.start + size >= side:
            term = Term(0, None, term.steps)
        key = tuple(step for step, n in zip(term.steps, sizes, strict=True) if n > 1)
        other = groups.get(key)
        groups[key] = term if other is None else _hull(other, term)
    for key, term in groups.items():
        if term.size is None and not any(key):
            return (Term(0, None, (0,) * len(sizes)),)
    return tuple(groups.values())


def _hull(a: Term, b: Term) -> Term:
    steps = tuple(x or y for x, y in zip(a.steps, b.steps, strict=True))
    if a.size is None or b.size is None:
        return Term(0, None, steps)
    start = min(a.start, b.start)
    return Term(start, max(a.start + a.size, b.start + b.size) - start, steps)


def each(seen: Seen, dims: Dims, change: Callable[[Term], Term | None]) -> Seen:
    """The same change of every term."""
    sizes = [n for dim in dims for n in dim]
    sides: list[Side] = []
    for i, side in enumerate(seen.sides):
        if i > 1 and side == seen.sides[i - 2]:
            sides.append(sides[i - 2])
            continue
        terms = None if side is None else [change(term) for term in side]
        if terms is None or None in terms:
            sides.append(None)
        else:
            sides.append(merged(terms, sizes, seen.picture[i % 2]))  # type: ignore[arg-type]
    return Seen(dims, tuple(sides), seen.picture)


def atoms_of(dims: Dims) -> list[range]:
    """Indices of each dimension's atoms in the flat list of all."""
    result, at = [], 0
    for dim in dims:
        result.append(range(at, at + len(dim)))
        at += len(dim)
    return result


def taken(term: Term, atoms: Iterable[int], sizes: Sequence[int]) -> tuple[int, int | None]:
    """Start and size of what all indices along some atoms see together."""
    start, size = term.start, term.size
    for i in atoms:
        step = term.steps[i]
        if step == 0 or size is None:
            continue
        low, high = (step.low, step.high) if isinstance(step, Spread) else sorted((0, step * (sizes[i] - 1)))
        start, size = start + low, size + high - low
    return start, size


def replace(seen: Seen, dim: int, sizes: tuple[int, ...], steps: Callable[[Term], Term | None]) -> Seen:
    """One dimension's atoms and steps anew; `steps` gives a term whose steps are those of the new atoms alone."""
    where = atoms_of(seen.dims)[dim]
    dims = (*seen.dims[:dim], sizes, *seen.dims[dim + 1 :])

    def change(term: Term) -> Term | None:
        new = steps(term)
        if new is None:
            return None
        before, after = term.steps[: where.start], term.steps[where.stop :]
        return new._replace(steps=(*before, *new.steps, *after))

    return each(seen, dims, change)


def is_whole(side: Side) -> bool:
    return side is not None and len(side) == 1 and side[0].size is None and not any(side[0].steps)


def still(step: Step) -> bool:
    """Whether a step moves nothing: at most it tells elements apart."""
    return step.low == step.high if isinstance(step, Spread) else step == 0


# ------------------------------------------------------------------------------------------------ report


def report(seen: Seen) -> Fields | None:
    """The receptive field of one unit of a tensor, the union over its channels; None where it is not known."""
    with_gates = _field(seen, 0)
    without = with_gates if seen.sides[:2] == seen.sides[2:] else _field(seen, 2)
    return None if with_gates is without is None else Fields(with_gates, without)


def _field(seen: Seen, first: int) -> Field | None:
    rows, columns = _interval(seen, first), _interval(seen, first + 1)
    if rows is None or columns is None:
        return None
    return Field((rows.size, columns.size), (rows.stride, columns.stride), (rows.start, columns.start))


class _Interval(NamedTuple):
    start: int
    size: int | None
    stride: int


def _pace(step: Step) -> int:
    return abs(step) if isinstance(step, int) else 0


def _interval(seen: Seen, i: int) -> _Interval | None:
    """Start, size and stride along one side; None where units have none in common."""
    side = seen.sides[i]
    if not side:
        return None
    moving = [step for step in side[0].steps if step]
    if len(side) == 1 and len(moving) <= 1 and all(isinstance(step, int) for step in moving):
        return _Interval(side[0].start, side[0].size, moving[0] if moving else 0)  # type: ignore[arg-type]
    if not all(still(step) for term in side for step in term.steps if isinstance(step, Spread)):
        return None
    # Units lie along the dimension with the longest step; channels that hold pixels of their own are seen together.
    where, flat = atoms_of(seen.dims), [n for dim in seen.dims for n in dim]
    longest = {
        d: max((_pace(term.steps[k]) for term in side for k in own), default=0) for d, own in enumerate(where)
    }
    stepping = [d for d, step in longest.items() if step]
    place = max(stepping, key=lambda d: longest[d], default=-1)
    if not {*stepping} - {place} <= ({1} if len(where) == 4 else set()):
        return None
    others = [k for d, own in enumerate(where) if d != place for k in own]
    kept = where[place] if stepping else range(0)
    sizes = [flat[k] for k in kept]
    terms = [Term(*taken(t, others, flat), tuple(t.steps[k] for k in kept)) for t in side]
    joined = merged(terms, sizes, seen.picture[i % 2])
    if joined is None or len(joined) != 1:
        return None
    ladder = sorted(
        (step, n) for step, n in zip(joined[0].steps, sizes, strict=True) if isinstance(step, int) and step
    )
    if any(outer != step * n for (step, n), (outer, _) in zip(ladder, ladder[1:], strict=False)):
        return None  # neighbouring units are not all equally far apart
    return _Interval(joined[0].start, joined[0].size, ladder[0][0] if ladder else 0)
