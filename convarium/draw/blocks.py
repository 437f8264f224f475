"""One block of each kind in a network, opened down to its leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convarium.draw.anatomy import Part
from convarium.draw.flowchart import Flowchart
from convarium.draw.layout import Arrow, Box, Figure, Label
from convarium.draw.letters import fitted, width, wrapped
from convarium.draw.sheet import SMALL, basis_of, sums
from convarium.draw.units import outer, titled
from convarium.draw.words import amount, form

LONGEST = 1400.0
"""Width of a row of panels; longer ones are broken."""

BETWEEN = 22.0
"""Between two panels."""


@dataclass(frozen=True)
class Kind:
    """Blocks that are built alike.

    Args:
        parts: all of them; the first is drawn.
        of: how many blocks the network has.
    """

    parts: tuple[Part, ...]
    of: int


def kinds(net: Part) -> list[Kind]:
    """The kinds of a network's blocks, in the order in which they first come; without blocks, its outer parts."""
    if net.join in ("sum", "concat", "gate"):
        return [Kind((net,), 1)]
    towers = net.parts if net.join == "towers" else (net,)
    blocks = [block for tower in towers for block in _blocks(tower) if block.parameters]
    blocks = blocks or [part for part in net.parts if part.parameters]
    groups: dict[object, list[Part]] = {}
    for block in blocks:
        groups.setdefault(block.form, []).append(block)
    return [Kind(tuple(group), len(blocks)) for group in groups.values()]


def _blocks(net: Part) -> list[Part]:
    found = []
    for name, part in outer(net):
        if part.kind == "Stage":
            found += [b for p in part.parts for b in (p.parts if p.name == "blocks" else (p,)) if not b.idle]
        elif name not in ("stem", "head"):
            found += _composed(part)
    return found


def _composed(part: Part) -> list[Part]:
    """The outermost parts that are no sequence and hold others."""
    if part.join == "chain":
        return [block for below in part.parts for block in _composed(below)]
    return [part] if part.parts else []


def blocks(found: Sequence[Kind], whole: Part, prefix: str = "") -> Figure:
    """Panels in rows.

    Args:
        found: what to draw, from `kinds`.
        whole: the network, whose name stands in the paths.
        prefix: before the names of boxes.

    Returns:
        A figure from (0, 0) on.
    """
    fig = Figure()
    rows: list[list[Figure]] = [[]]
    for place, one in enumerate(found):
        panel = _panel(one, f"{prefix}{place}/")
        if rows[-1] and sum(p.width + BETWEEN for p in rows[-1]) + panel.width > LONGEST:
            rows.append([])
        rows[-1].append(panel)
    y = 0.0
    for row in rows:
        x, high = 0.0, max(panel.height for panel in row)
        for panel in row:
            panel.boxes[0] = replace(panel.boxes[0], h=high)
            fig.place(panel, x, y)
            x += panel.width + BETWEEN
        fig.width = max(fig.width, x - BETWEEN)
        y += high + BETWEEN
    fig.height = y - BETWEEN
    return fig


def _panel(found: Kind, prefix: str) -> Figure:
    part = found.parts[0]
    piece = Flowchart(basis_of(part, part.path), prefix).of(part)
    title = titled(part)
    others = len(found.parts)
    where = (part.path or "the whole") + (
        f", one of {others} such among {found.of} blocks" if others > 1 else ""
    )
    macs, parameters = sums([part])
    cost = f"{amount(parameters)} params" + (f", {amount(macs)} MACs" if macs else "")
    pad = 22.0
    inside = max(piece.fig.width, min(width(title, 13, True), 300.0), 200.0)
    into, out = form(part.given), form(part.shape)
    axis = pad + (inside - piece.fig.width) / 2 + piece.axis
    beside = max(width(into, SMALL), width(out, SMALL)) + 12
    wide = max(inside + 2 * pad, axis + beside + pad)
    fig = Figure(width=wide)
    lines = [line for text in (where, cost) for line in wrapped(text, SMALL, wide - 2 * pad)]
    top = 34 + 15 * len(lines) + 8
    fig.boxes.append(Box(0, 0, wide, 0, "panel", prefix + "panel", corner=8))
    fig.labels.append(Label(pad, 22, fitted(title, 13, wide - 2 * pad, True), 13, "start", bold=True))
    for number, line in enumerate(lines):
        fig.labels.append(Label(pad, 41 + 15 * number, line, SMALL, "start", "soft"))
    start = top + 34
    fig.arrows.append(Arrow(((axis, top), (axis, start)), ("", piece.first), head=bool(piece.first)))
    if into:
        fig.labels.append(Label(axis + 9, top + 12, into, SMALL, "start", "soft"))
    fig.place(piece.fig, axis - piece.axis, start)
    end = start + piece.fig.height
    fig.arrows.append(Arrow(((axis, end), (axis, end + 36)), (piece.last, "")))
    if out:
        fig.labels.append(Label(axis + 9, end + 17, out, SMALL, "start", "soft"))
    fig.height = end + 36 + 14
    fig.boxes[0] = replace(fig.boxes[0], h=fig.height)
    return fig
