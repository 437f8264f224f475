"""The whole network as a row of maps: stem, stages and head, each as large as what it puts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from convarium.draw.anatomy import Part, Shape
from convarium.draw.layout import Box, Figure, Label
from convarium.draw.letters import width, wrapped
from convarium.draw.rows import Tile, in_rows
from convarium.draw.sheet import SMALL, Basis, paths, sums, told
from convarium.draw.units import FEW, GENERIC, VAGUE, Run, Unit, counted, flow, kind, outer
from convarium.draw.words import form

TALLEST, LOWEST = 170.0, 13.0
"""Height of the largest and the least of a map, in units."""

WIDEST, NARROWEST = 84.0, 5.0
"""Width of the map with the most channels, and the least of any."""

SLANT = 0.2
"""How far a map's back is moved, in parts of its height."""

ROOM = 142.0
"""Width of the text under a map."""

LONGEST = 1660.0
"""Width of a row; longer ones are broken."""

BETWEEN = 44.0
"""Between two rows."""

TITLE = 11.5


@dataclass(frozen=True)
class Column:
    """One map with its text.

    Args:
        name: its end point or its last name.
        made: what makes it, in lines.
        parts: the same as parts.
        shape: of the map.
        enters: the end point that goes into it, where it has a name of its own.
        leaves: the end point that comes out of it, the same.
    """

    name: str
    made: tuple[str, ...]
    parts: tuple[Part | Unit, ...]
    shape: Shape | None
    enters: str = ""
    leaves: str = ""


def columns(net: Part) -> list[Column]:
    """A network's maps in turn: stem, stages, and of the head every part that changes the shape."""
    found: list[Column] = []
    for name, part in outer(net):
        if name == "head" or part.kind == "Leaves":
            found += _opened(part, found[-1].shape if found else net.given)
        else:
            found.append(Column(name, _made(part), (part,), part.shape))
    if found and net.join == "chain":
        found[-1] = _last(found[-1], found[-2].shape if len(found) > 1 else net.given)
    return found


def _opened(part: Part, given: Shape | None) -> list[Column]:
    """A map for every box of a part that changes the shape or has weights."""
    found: list[Column] = []
    for item in flow(part):
        several = item.parts if isinstance(item, Run) else (item,)
        first, last = several[0], several[-1]
        if isinstance(first, Unit) and not first.named:
            continue
        if not first.parameters and last.shape and given and prod(last.shape) == prod(given):
            continue  # a flatten, a pool to the size that is there
        if isinstance(first, Unit):
            made = tuple(filter(None, (first.before, first.text)))
            found.append(Column(first.main.name, made, several, last.shape))
        else:
            found.append(Column(first.name, (kind(first),), several, last.shape))
        given = last.shape
    return found


def _last(column: Column, given: Shape | None) -> Column:
    """The classifier: what it is given and what it gives are end points."""
    (part,) = column.parts[:1]
    if not part.parameters:
        return replace(column, leaves="logits")
    enters = "pre_logits"
    if isinstance(part, Unit) and part.main is not part.leaves[0]:
        before = part.leaves[part.leaves.index(part.main) - 1].shape
        enters += f" {form(before)}" if before != given else ""
    return replace(column, enters=enters, leaves="logits")


def _made(part: Part) -> tuple[str, ...]:
    """What a stage is made of: its blocks by their kinds, counted."""
    if part.kind != "Stage":
        return _said(part)
    inner = [b for p in part.parts for b in (p.parts if p.name == "blocks" else (p,)) if not b.idle]
    names = [text for block in inner for text in _named(block)]
    return counted(names)


def _named(block: Part) -> tuple[str, ...]:
    name = kind(block)
    return _said(block) if block.words or name in VAGUE or " · " in name else (name,)


def _said(part: Part) -> tuple[str, ...]:
    """A part by what it does where that is little, by how many layers where they are many, else by its blocks."""
    items = flow(part, few=1)
    units = [item for item in items if isinstance(item, Unit)]
    if len(units) == len(items):
        return tuple(unit.text for unit in units) if len(units) <= FEW - 1 else (_sorts(units),)
    if part.join == "chain" and part.kind in GENERIC:
        return counted([kind(block) for block in part.parts if not block.idle])
    return (kind(part),)


def _sorts(units: Sequence[Unit]) -> str:
    """Of many layers how many there are of each sort."""
    pools = sum(bool(unit.main.words and unit.main.words.role == "pool") for unit in units)
    others = len(units) - pools
    return f"{others} layers" + (f", {pools} pool{'s' * (pools > 1)}" if pools else "")


def overview(net: Part, basis: Basis, prefix: str = "") -> Figure:
    """The row of maps.

    Args:
        net: the whole, or a tower of it.
        basis: of the shares.
        prefix: before the names of boxes.

    Returns:
        A figure from (0, 0) on.
    """
    row = [Column("input", (form(net.given),), (), net.given), *columns(net)]
    scale = _Scale([column.shape for column in row])
    boxes = [scale.box(column.shape) for column in row]
    axis = max(h / 2 + (SLANT * h if plane else 0.0) for _, h, plane in boxes)
    under = axis + max(h for _, h, _ in boxes) / 2
    tiles = []
    for place, column in enumerate(row):
        tile = _tile(column, scale, basis, f"{prefix}{place}:{column.name}", axis, under)
        tile.said = form(column.shape) if place else ""
        tile.under = column.leaves if place == len(row) - 1 else row[place + 1].enters
        tiles.append(tile)
    return in_rows(tiles, LONGEST, BETWEEN, leaves=True)


def _tile(column: Column, scale: _Scale, basis: Basis, name: str, axis: float, under: float) -> Tile:
    """A map around the axis with its text below; the texts of all stand at one height."""
    w, h, plane = scale.box(column.shape)
    slant = (SLANT * h, SLANT * h) if plane else (0.0, 0.0)
    macs, parameters = sums(column.parts)
    lines = [piece for text in column.made for piece in wrapped(text, SMALL, ROOM, most=2)]
    lines += basis.words(macs, parameters)
    wide = max([width(column.name, TITLE, True), *(width(text, SMALL) for text in lines)])
    middle = max(wide, w) / 2
    hover = "\n".join(told(part) for part in column.parts) or f"input {form(column.shape)}"
    role = "map" if column.parts else "input"
    shade = basis.shade(macs, parameters)
    of = paths(column.parts)
    box = Box(middle - w / 2, axis - h / 2, w, h, role, name, hover, shade, 1.0, slant, parts=of)
    right = middle + w / 2 + slant[0]
    y = under + 22
    fig = Figure(max(2 * middle, right), y + 15 * len(lines) + 8, boxes=[box])
    fig.labels.append(Label(middle, y, column.name, TITLE, bold=True))
    for number, text in enumerate(lines, start=1):
        fig.labels.append(Label(middle, y + 15.5 * number, text, SMALL, role="soft"))
    return Tile(fig, name, middle - w / 2, right, axis)


class _Scale:
    """Sides and channels to heights and widths: both grow with the square root."""

    def __init__(self, shapes: Sequence[Shape | None]) -> None:
        known = [_sizes(shape) for shape in shapes if shape]
        self.side = max((side for side, _, _ in known), default=1.0)
        self.channels = max((channels for _, channels, _ in known), default=1)

    def box(self, shape: Shape | None) -> tuple[float, float, bool]:
        """Width, height, and whether it is a plane."""
        if not shape:
            return 34.0, 34.0, False
        side, channels, plane = _sizes(shape)
        return (
            max(NARROWEST, WIDEST * math.sqrt(channels / self.channels)),
            max(LOWEST, TALLEST * math.sqrt(side / self.side)),
            plane,
        )


def _sizes(shape: Shape) -> tuple[float, int, bool]:
    """Side, channels, and whether there is a plane; T tokens count as a square of T."""
    if len(shape) == 3:
        return math.sqrt(shape[1] * shape[2]), shape[0], shape[1] > 1
    if len(shape) == 2:
        return math.sqrt(shape[0]), shape[1], False
    return 1.0, shape[-1], False
