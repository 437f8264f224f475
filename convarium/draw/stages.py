"""Stem, stages and head one under the other, each opened into its blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from convarium.draw.anatomy import Part, Shape
from convarium.draw.layout import Box, Figure, Label
from convarium.draw.letters import fitted, width
from convarium.draw.rows import Tile, in_rows
from convarium.draw.sheet import SMALL, Basis, paths, sums, told
from convarium.draw.units import FEW, Run, Unit, alike, flow, lines, titled
from convarium.draw.words import form

LONGEST = 1480.0
"""Width of a row of panels; longer ones are broken."""

WIDEST_PANEL = 1100.0
"""Width of a row of cards in a panel; longer ones are broken."""

WIDEST = 330.0
"""Width of a card; longer lines are broken."""

PAD = 18.0
"""Inside of a panel."""

ROWS = 46.0
"""Between two rows of panels."""

BETWEEN = 36.0
"""Between two rows of cards."""

TITLE = 11.5
BEHIND = 5.0
"""How far the cards behind a card are moved."""


@dataclass(frozen=True)
class Card:
    """Blocks alike, drawn once.

    Args:
        title: what they are called.
        lines: what they are made of.
        parts: all of them.
    """

    title: str
    lines: tuple[str, ...]
    parts: tuple[Part | Unit, ...]

    @property
    def shape(self) -> Shape | None:
        """Of the last one's output."""
        return self.parts[-1].shape


def cards(part: Part) -> list[Card]:
    """What a stage, a stem or a head is made of."""
    if part.kind == "Stage":
        inner = [b for p in part.parts for b in (p.parts if p.name == "blocks" else (p,)) if not b.idle]
        return [_of_blocks(group) for group in alike(inner)]
    if part.join not in ("chain", "leaf"):
        return [_of_blocks([part])]
    found = []
    for item in flow(part, few=1 if part.kind == "Sequential" else FEW):
        if isinstance(item, Unit):
            made = (f"after {item.before}" if item.before else "", item.behind)
            found.append(Card(item.text, tuple(filter(None, made)), (item,)))
        else:
            found.append(_of_blocks(list(item.parts) if isinstance(item, Run) else [item]))
    return found


def _of_blocks(group: Sequence[Part]) -> Card:
    first, last = group[0], group[-1]
    title, made = titled(first), lines(first)
    if made == [title]:
        made = []
    if len(group) > 1 and first.shape != last.shape and first.given and last.shape:
        made.append(f"{first.given[0]} → {last.shape[0]} channels")
    return Card(title, tuple(made), tuple(group))


def stages(found: Sequence[tuple[str, Part]], basis: Basis, prefix: str = "", joined: bool = True) -> Figure:
    """Panels from left to right, in rows.

    Args:
        found: what to draw, from `units.outer`.
        basis: of the shares.
        prefix: before the names of boxes.
        joined: whether each is given what the one before puts out.

    Returns:
        A figure from (0, 0) on.
    """
    tiles = []
    for name, part in found:
        panel = _panel(name, part, basis, prefix)
        tiles.append(Tile(panel, panel.boxes[0].name, 0.0, panel.width, panel.height / 2, form(part.shape)))
    if not joined:
        return _alone(tiles)
    if found[-1][0] == "head":
        tiles[-1].under = "logits"
    return in_rows(tiles, LONGEST, ROWS, enters=form(found[0][1].given), leaves=True, even=True)


def _alone(tiles: Sequence[Tile]) -> Figure:
    """Panels below one another, without arrows."""
    fig = Figure(width=max(tile.fig.width for tile in tiles))
    for tile in tiles:
        fig.place(tile.fig, 0, fig.height)
        fig.height += tile.fig.height + 18
    fig.height -= 18
    return fig


def _panel(name: str, part: Part, basis: Basis, prefix: str) -> Figure:
    macs, parameters = sums([part])
    said = " · ".join([form(part.shape), *basis.words(macs, parameters)])
    inner = in_rows(_tiles(part, basis, prefix), WIDEST_PANEL, BETWEEN, even=True)
    fig = Figure(max(inner.width, width(said, SMALL), width(name, 13, True)) + 2 * PAD, inner.height + 78)
    frame = f"{prefix}{part.path}:panel"
    fig.boxes.append(Box(0, 0, fig.width, fig.height, "panel", frame, told(part), corner=8))
    fig.labels.append(Label(PAD, 22, name, 13, "start", bold=True))
    fig.labels.append(Label(PAD, 41, said, SMALL, "start", "soft"))
    fig.place(inner, PAD, 60)
    return fig


def _tiles(part: Part, basis: Basis, prefix: str) -> list[Tile]:
    """The cards of a panel; a shape stands above the arrow where it changes."""
    tiles, shape = [], part.given
    for card in cards(part):
        fig = _card(card, basis, prefix)
        said = form(card.shape) if card.shape != shape else ""
        tiles.append(Tile(fig, fig.boxes[0].name, 0.0, fig.width, fig.height / 2, said))
        shape = card.shape
    return tiles


def _card(card: Card, basis: Basis, prefix: str) -> Figure:
    macs, parameters = sums(card.parts)
    several = len(card.parts) > 1
    count = f"× {len(card.parts)}" if several else ""
    body = [(piece, "quiet") for line in card.lines for piece in _folded(line)]
    foot = [(line, "quiet") for line in basis.words(macs, parameters)]
    title = fitted(card.title, TITLE, WIDEST - 80, True)
    head = width(title, TITLE, True) + (width(count, TITLE, True) + 16 if several else 0)
    wide = max([head, *(width(line, SMALL) for line, _ in [*body, *foot]), 70.0]) + 24
    high = 36 + 15 * len(body) + (15 * len(foot) + 7 if foot else 0)
    part = card.parts[0]
    name = f"{prefix}{part.leaves[0].path if isinstance(part, Unit) else part.path}"
    behind = BEHIND if several else 0.0
    hover = told(part, f"{len(card.parts)} alike, the first one:" if several else "")
    role = "unit" if parameters or macs else "plain"
    shade, of = basis.shade(macs, parameters), paths(card.parts)
    box = Box(0, behind, wide, high, role, name, hover, shade, 6, (behind, behind), several, of)
    fig = Figure(wide + behind, high + behind, boxes=[box])
    y = behind + 19
    fig.labels.append(Label(12, y, title, TITLE, "start", bold=True, within=name))
    if several:
        fig.labels.append(Label(wide - 12, y, count, TITLE, "end", "ink", True, name))
    y += 18
    for line, colour in body:
        fig.labels.append(Label(12, y, line, SMALL, "start", colour, within=name))
        y += 15
    y += 7
    for line, colour in foot:
        fig.labels.append(Label(12, y, line, SMALL, "start", colour, within=name))
        y += 15
    return fig


def _folded(line: str) -> list[str]:
    """A line that is too long, broken before its arrows."""
    found: list[str] = []
    for place, step in enumerate(line.split(" → ")):
        piece = f"→ {step}" if place else step
        longer = f"{found[-1]} {piece}" if found else piece
        if found and width(longer, SMALL) <= WIDEST - 24:
            found[-1] = longer
        else:
            found.append(piece)
    return [fitted(piece, SMALL, WIDEST - 24) for piece in found]
