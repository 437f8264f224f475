"""Things in a row with arrows between them; a row that gets too long is broken, and the arrow goes round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convarium.draw.layout import Arrow, Figure, Label
from convarium.draw.letters import width

SAID = 10.0
"""Size of the words on arrows."""

SHORTEST = 30.0
"""Length of an arrow without words."""

APART = 14.0
"""Least distance of two neighbours."""

AROUND = 20.0
"""Room beside broken rows for the arrow that goes round."""

CLEAR = 4.0
"""Between a box and the end of an arrow."""


@dataclass
class Tile:
    """One thing in a row.

    Args:
        fig: drawn from (0, 0) on.
        name: of the box that arrows come to and go from.
        left: where in it an arrow ends.
        right: where in it the next arrow begins.
        axis: how far below its upper edge they do.
        said: above the arrow that goes on.
        under: below the same.
    """

    fig: Figure
    name: str
    left: float
    right: float
    axis: float
    said: str = ""
    under: str = ""


def in_rows(
    tiles: Sequence[Tile],
    longest: float,
    between: float,
    *,
    enters: str = "",
    leaves: bool = False,
    even: bool = False,
) -> Figure:
    """Tiles from left to right with arrows between.

    Args:
        tiles: in their order.
        longest: width of a row.
        between: between two rows.
        enters: words on an arrow that leads to the first; no arrow where empty.
        leaves: an arrow goes on behind the last.
        even: the tiles of a row are made as high as its highest, the first box of each with it.

    Returns:
        A figure from (0, 0) on.
    """
    fig = Figure()
    rows = _balanced(tiles, longest)
    for row in rows if even else ():
        _stretch([tile for tile, _ in row])
    start = AROUND if len(rows) > 1 else 0.0
    if enters:
        start = width(enters, SAID) + 22
    y = 0.0
    last: tuple[Tile, float, float] | None = None
    for row in rows:
        axis = y + max(tile.axis for tile, _ in row)
        for tile, x in row:
            at = start + x
            fig.place(tile.fig, at, axis - tile.axis)
            fig.width = max(fig.width, at + tile.fig.width)
            if last:
                _join(fig, last, (tile, at, axis), y - between / 2)
            last = (tile, at, axis)
        y = max(axis - tile.axis + tile.fig.height for tile, _ in row) + between
    fig.height = y - between
    if enters and rows:
        tile = rows[0][0][0]
        end = start + tile.left - CLEAR
        fig.arrows.append(Arrow(((0.0, tile.axis), (end, tile.axis)), ("", tile.name)))
        fig.labels.append(Label((end - 5) / 2, tile.axis - 10, enters, SAID, role="soft"))
    if leaves and last:
        tile, at, axis = last
        begin = at + tile.right + CLEAR
        end = begin + _room(tile) - 2 * CLEAR
        fig.arrows.append(Arrow(((begin, axis), (end, axis)), (tile.name, "")))
        _say(fig, tile, begin, end, axis)
        fig.width = max(fig.width, end)
    if len(rows) > 1:
        fig.width += AROUND
    return fig


def _stretch(row: Sequence[Tile]) -> None:
    high = max(tile.fig.height for tile in row)
    for tile in row:
        box = tile.fig.boxes[0]
        tile.fig.boxes[0] = replace(box, h=box.h + high - tile.fig.height)
        tile.fig.height = high
        tile.axis = high / 2


def _balanced(tiles: Sequence[Tile], longest: float) -> list[list[tuple[Tile, float]]]:
    """As few rows as `longest` allows, and none of them longer than need be."""
    rows = _broken(tiles, longest)
    limit = longest
    while len(rows) > 1 and limit > longest / 3:
        limit -= 20
        narrower = _broken(tiles, limit)
        if len(narrower) > len(rows):
            break
        rows = narrower
    return rows


def _broken(tiles: Sequence[Tile], longest: float) -> list[list[tuple[Tile, float]]]:
    rows: list[list[tuple[Tile, float]]] = []
    x = 0.0
    for tile in tiles:
        if rows:
            before, at = rows[-1][-1]
            x = max(at + before.right + _room(before) - tile.left, at + before.fig.width + APART)
        if not rows or x + tile.fig.width > longest:
            rows.append([])
            x = 0.0
        rows[-1].append((tile, x))
    return rows


def _room(tile: Tile) -> float:
    """Length of the arrow behind it."""
    return max(width(tile.said, SAID) + 22, width(tile.under, SAID) + 22, SHORTEST)


def _join(fig: Figure, one: tuple[Tile, float, float], two: tuple[Tile, float, float], low: float) -> None:
    (before, x0, old), (after, x1, axis) = one, two
    start, end = x0 + before.right + CLEAR, x1 + after.left - CLEAR
    ends = (before.name, after.name)
    if old == axis:
        fig.arrows.append(Arrow(((start, axis), (end, axis)), ends))
        _say(fig, before, start, end, axis)
        return
    turn = x0 + max(before.right, before.fig.width) + AROUND - 6
    back = end - AROUND + 2 * CLEAR
    points = ((start, old), (turn, old), (turn, low), (back, low), (back, axis), (end, axis))
    fig.arrows.append(Arrow(points, ends))
    fig.width = max(fig.width, turn + 6 - AROUND)
    if before.said:
        fig.labels.append(Label(x1 + after.left, low - 10, before.said, SAID, "start", "soft"))


def _say(fig: Figure, tile: Tile, start: float, end: float, axis: float) -> None:
    middle = (start + end - 5) / 2
    if tile.said:
        fig.labels.append(Label(middle, axis - 10, tile.said, SAID, role="soft"))
    if tile.under:
        fig.labels.append(Label(middle, axis + 11, tile.under, SAID, role="soft"))
