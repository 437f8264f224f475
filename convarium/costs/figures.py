"""Counts as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convarium.costs.field import Field, Fields
    from convarium.costs.fold import Part

_STEPS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def full(count: int) -> str:
    """25557032 as 25,557,032."""
    return f"{count:,}"


def short(count: int | float) -> str:
    """25557032 as 25.6 M: three figures, and the letter of thousands, millions, ..."""
    for step, letter in _STEPS:
        if count >= step * 0.9995:
            return f"{_three(count / step)} {letter}"
    return f"{count:.4g}"


def size(count: int | float) -> str:
    """102228128 bytes as 102 MB."""
    return f"{short(count)}B" if count >= 999.5 else f"{count:g} B"


def _three(number: float) -> str:
    return f"{number:.{0 if number >= 99.95 else 1 if number >= 9.995 else 2}f}"


def macs(row: Part, figure: Callable[[int], str]) -> str:
    """A part's multiply-accumulates; "> 5" where operators are left out, "! 5" where the counters disagree."""
    return _marked(row, row.macs, figure)


def flops(row: Part, figure: Callable[[int], str]) -> str:
    """A part's FLOPs, marked as its `macs`."""
    return _marked(row, row.flops, figure)


def _marked(row: Part, count: int | None, figure: Callable[[int], str]) -> str:
    mark = {"partial": "> ", "disagrees": "! "}.get(row.status, "")
    return known(count, figure) if count is None else mark + figure(count)


def known(count: int | None, figure: Callable[[int], str]) -> str:
    """A count; "?" where it is not known."""
    return "?" if count is None else figure(count)


def field(fields: Fields | None, gates: bool) -> str:
    """A receptive field as "427 /32": pixels, and from one to the next; "7x3 /2x1" where rows differ from columns."""
    found = chosen(fields, gates)
    if found is None:
        return ""
    if found.whole:
        return "whole"
    sides = ["whole" if side is None else str(side) for side in found.size]
    return f"{_alike(sides)} /{_alike(map(str, found.stride))}"


def chosen(fields: Fields | None, gates: bool) -> Field | None:
    """The field with gates or without."""
    if fields is None:
        return None
    return fields.with_gates if gates else fields.without_gates


def _alike(sides: Iterable[str]) -> str:
    rows, columns = sides
    return rows if rows == columns else f"{rows}x{columns}"
