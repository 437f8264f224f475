"""A part opened down to its leaves, from top to bottom, its joins drawn as joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from convarium.draw.anatomy import Part, Shape
from convarium.draw.layout import Arrow, Box, Figure, Label
from convarium.draw.letters import width
from convarium.draw.sheet import SMALL, Basis, paths, told
from convarium.draw.units import MANY, Item, Run, Unit, addends, alike, flow
from convarium.draw.words import form

STEP = 22.0
"""Length of an arrow."""

LABELLED = 30.0
"""Length of an arrow with a shape beside it."""

FORK = 9.0
"""From where a way comes in to where it parts."""

RADIUS = 9.0
"""Of a sum's or a gate's sign."""

ASIDE = 24.0
"""Between two ways that run side by side."""

TEXT = 11.5


@dataclass
class Piece:
    """A part as drawn: it is entered at (axis, 0) and left at (axis, height).

    Args:
        fig: drawn from (0, 0) on.
        axis: where the way comes in and goes out.
        first: name of the box that is entered; "" where the way parts before any box.
        last: name of the box that is left; "" for a bare way.
    """

    fig: Figure = field(default_factory=Figure)
    axis: float = 0.0
    first: str = ""
    last: str = ""

    @property
    def right(self) -> float:
        """Room to the right of the axis."""
        return self.fig.width - self.axis

    @property
    def empty(self) -> bool:
        """Whether nothing is done."""
        return not self.fig.boxes


class Flowchart:
    """Pieces of one block.

    Args:
        basis: of the shares that the shades show.
        prefix: before the names of boxes.
    """

    def __init__(self, basis: Basis, prefix: str = "") -> None:
        self.basis = basis
        self.prefix = prefix

    def of(self, part: Part) -> Piece:
        """Any part."""
        if part.join == "chain" or part.words is not None:
            return self.chain(flow(part), part.given)
        return self.item(part)

    def item(self, item: Item) -> Piece:
        """One thing of a chain."""
        if isinstance(item, Unit):
            return self.unit(item)
        if isinstance(item, Run):
            return self.run(item)
        return {"sum": self.sum, "concat": self.concat, "gate": self.gate}.get(item.join, self.calls)(item)

    def unit(self, unit: Unit) -> Piece:
        """Leaves in one box."""
        texts = [
            (unit.before, SMALL - 1, "quiet"),
            (unit.text, TEXT, "ink"),
            (unit.behind, SMALL - 1, "quiet"),
        ]
        texts = [text for text in texts if text[0]]
        wide = max(max(width(text, size) for text, size, _ in texts) + 22, 60.0)
        high = 14 + sum(size + 4.5 for _, size, _ in texts)
        name = self.prefix + unit.leaves[0].path
        role = "unit" if unit.parameters or unit.macs else "plain"
        shade = self.basis.shade(unit.macs, unit.parameters)
        box = Box(0, 0, wide, high, role, name, told(unit), shade, parts=paths([unit]))
        fig = Figure(wide, high, boxes=[box])
        y = 7.0
        for text, size, colour in texts:
            y += (size + 4.5) / 2
            fig.labels.append(Label(wide / 2, y, text, size, role=colour, within=name))
            y += (size + 4.5) / 2
        return Piece(fig, wide / 2, name, name)

    def chain(self, items: Sequence[Item], given: Shape | None) -> Piece:
        """One after the other; a shape stands beside the way where it changes."""
        pieces = [self.item(item) for item in items]
        shapes = [item.parts[-1].shape if isinstance(item, Run) else item.shape for item in items]
        piece = Piece(axis=max((p.axis for p in pieces), default=0.0))
        right = max((p.right for p in pieces), default=0.0)
        y, before = 0.0, given
        for place, (inner, shape) in enumerate(zip(pieces, shapes, strict=True)):
            if place:
                said = form(before) if before != (shapes[place - 2] if place > 1 else given) else ""
                gap = LABELLED if said else STEP
                self._way(piece.fig, [(piece.axis, y), (piece.axis, y + gap)], piece.last, inner.first)
                if said:
                    label = Label(piece.axis + 9, y + gap / 2 - 2, said, SMALL - 1, "start", "soft")
                    piece.fig.labels.append(label)
                    right = max(right, label.extent[2] - piece.axis)
                y += gap
            piece.fig.place(inner.fig, piece.axis - inner.axis, y)
            piece.first = inner.first if place == 0 else piece.first
            piece.last = inner.last
            y += inner.fig.height
            before = shape
        piece.fig.width, piece.fig.height = piece.axis + right, y
        return piece

    def sum(self, part: Part) -> Piece:
        """act(body(x) + shortcut(x)): the body straight on, the shortcut beside it, a plus where they meet."""
        body, shortcut, act = part.parts
        ways = addends(part)
        if len(ways) > 2 and len(alike(ways)) == 1:
            piece = self._in_frame(self.of(ways[0]), f"sum of {len(ways)}", part.path + ":sum", through=True)
        else:
            piece = self._two_ways(self.of(body), self.of(shortcut), part, "plus", "identity")
        if act.idle:
            return piece
        inner = self.of(act)
        return self._after(piece, inner)

    def gate(self, part: Part) -> Piece:
        """x * gate(x): x straight on, the gate beside it, a times where they meet."""
        return self._two_ways(Piece(), self.of(part.parts[0]), part, "times", "")

    def _two_ways(self, straight: Piece, beside: Piece, part: Part, sign: str, bare: str) -> Piece:
        high = max(straight.fig.height, beside.fig.height)
        axis = max(straight.axis, RADIUS)
        left = axis + max(straight.right, RADIUS) + ASIDE
        if beside.empty:
            beside = Piece(Figure(width(bare, SMALL - 1) + 14, 0.0), 0.0)
        x = left + beside.axis
        top = FORK + STEP
        end = top + high + STEP + RADIUS
        name = self.prefix + part.path + ":" + sign
        fig = Figure(left + beside.fig.width, end + RADIUS)
        at = top + (high - straight.fig.height) / 2
        if straight.empty:
            self._way(fig, [(axis, 0), (axis, end - RADIUS)], "", name)
        else:
            self._way(fig, [(axis, 0), (axis, at)], "", straight.first)
            fig.place(straight.fig, axis - straight.axis, at)
            self._way(fig, [(axis, at + straight.fig.height), (axis, end - RADIUS)], straight.last, name)
        back = [(x, end), (axis + RADIUS, end)]
        if beside.empty:
            self._way(fig, [(axis, FORK), (x, FORK), *back], "", name, "accent")
            if bare:
                fig.labels.append(Label(x + 8, top + high / 2, bare, SMALL - 1, "start", "soft"))
        else:
            down = top + (high - beside.fig.height) / 2
            self._way(fig, [(axis, FORK), (x, FORK), (x, down)], "", beside.first, "accent")
            fig.place(beside.fig, x - beside.axis, down)
            self._way(fig, [(x, down + beside.fig.height), *back], beside.last, name, "accent")
        size = 2 * RADIUS
        at_sign = (axis - RADIUS, end - RADIUS, size, size)
        fig.boxes.append(Box(*at_sign, sign, name, told(part), corner=RADIUS, parts=(part.path,)))
        return Piece(fig, axis, "", name)

    def _after(self, piece: Piece, inner: Piece) -> Piece:
        axis = max(piece.axis, inner.axis)
        fig = Figure(axis + max(piece.right, inner.right), piece.fig.height + STEP + inner.fig.height)
        fig.place(piece.fig, axis - piece.axis, 0)
        y = piece.fig.height
        self._way(fig, [(axis, y), (axis, y + STEP)], piece.last, inner.first)
        fig.place(inner.fig, axis - inner.axis, y + STEP)
        return Piece(fig, axis, piece.first, inner.last)

    def concat(self, part: Part) -> Piece:
        """Branches side by side, and a bar where they are put together, divided as the channels are."""
        groups = alike(part.parts) if len(part.parts) > MANY else [[branch] for branch in part.parts]
        branches = [self.run(Run(tuple(group))) if len(group) > 1 else self.of(group[0]) for group in groups]
        channels = [_channels(group) for group in groups]
        x, places = 0.0, []
        for piece, count in zip(branches, channels, strict=True):
            if piece.empty:
                room = width("identity", SMALL - 1) + 8
                piece.axis, piece.fig.width = 12.0, 12.0 + room
            said = width(str(count), SMALL - 1) + 9 if count else 0.0
            places.append(x + piece.axis)
            x += piece.axis + max(piece.right, said) + ASIDE * 0.75
        wide = x - ASIDE * 0.75
        high = max(max(piece.fig.height for piece in branches), 20.0)
        axis, top = wide / 2 if len(places) > 1 else places[0], FORK + STEP
        bar = top + high + LABELLED
        name = self.prefix + part.path + ":concat"
        fig = Figure(wide, bar + 26 + 6)
        fig.arrows.append(Arrow(((axis, 0), (axis, FORK)), head=False))
        for piece, at, count in zip(branches, places, channels, strict=True):
            corner = [(axis, FORK), (at, FORK)] if abs(at - axis) > 0.5 else [(at, FORK)]
            if piece.empty:
                self._way(fig, [*corner, (at, bar)], "", name, "accent")
                fig.labels.append(Label(at + 8, top + high / 2, "identity", SMALL - 1, "start", "soft"))
            else:
                self._way(fig, [*corner, (at, top)], "", piece.first, "accent")
                fig.place(piece.fig, at - piece.axis, top)
                self._way(fig, [(at, top + piece.fig.height), (at, bar)], piece.last, name, "accent")
            if count:
                fig.labels.append(Label(at + 8, bar - 16, str(count), SMALL - 1, "start", "soft"))
        out = part.shape[0] if part.shape else None
        fig.boxes.append(Box(0, bar, wide, 26, "bar", name, told(part), corner=3, parts=(part.path,)))
        fig.labels.append(Label(axis, bar + 13, f"concat{f', {out}' if out else ''}", TEXT, within=name))
        if out and None not in channels:
            left = 0.0
            for place, count in enumerate(channels):
                part_wide = wide * (count or 0) / out
                box = Box(
                    left,
                    bar + 26,
                    part_wide,
                    6,
                    f"piece{place % 2}",
                    f"{name}{place}",
                    f"{count} channels",
                    corner=0,
                )
                fig.boxes.append(box)
                left += part_wide
        return Piece(fig, axis, "", name)

    def run(self, run: Run) -> Piece:
        """Parts alike: the first one in a frame, and how many there are."""
        inner = self.of(run.parts[0])
        return self._in_frame(inner, f"× {len(run.parts)}", run.parts[0].path + ":run", through=True)

    def calls(self, part: Part) -> Piece:
        """What a module of unknown joins calls, in turn, without arrows between."""
        inner = Piece()
        y = 0.0
        pieces = [self.of(below) for below in part.parts]
        pieces = [piece for piece in pieces if not piece.empty]
        inner.fig.width = max((piece.fig.width for piece in pieces), default=40.0)
        inner.axis = inner.fig.width / 2
        for piece in pieces:
            inner.fig.place(piece.fig, inner.axis - piece.fig.width / 2, y)
            y += piece.fig.height + 9
        inner.fig.height = max(y - 9, 0.0)
        return self._in_frame(inner, part.kind, part.path, through=False)

    def _in_frame(self, inner: Piece, title: str, name: str, through: bool) -> Piece:
        name = self.prefix + name
        wide = width(title, SMALL)
        axis, right = inner.axis + 12, inner.right + 12
        if through:
            right = max(right, wide + 22)
        elif axis + right < wide + 20:
            axis = right = wide / 2 + 10
        top = 26.0
        fig = Figure(axis + right, top + inner.fig.height + 12)
        fig.boxes.append(Box(0, 0, fig.width, fig.height, "frame", name))
        anchor, x = ("end", fig.width - 10) if through else ("start", 10.0)
        fig.labels.append(Label(x, 13, title, SMALL, anchor, "accent" if through else "soft", through))
        fig.place(inner.fig, axis - inner.axis, top)
        if not through:
            return Piece(fig, axis, name, name)
        self._way(fig, [(axis, 0), (axis, top)], name, inner.first)
        self._way(fig, [(axis, top + inner.fig.height), (axis, fig.height)], inner.last, name, head=False)
        return Piece(fig, axis, "", inner.last)

    def _way(
        self,
        fig: Figure,
        points: Sequence[tuple[float, float]],
        start: str,
        end: str,
        role: str = "line",
        head: bool | None = None,
    ) -> None:
        """A way through points; it has a head where it enters a box."""
        fig.arrows.append(Arrow(tuple(points), (start, end), role, bool(end) if head is None else head))


def _channels(group: Sequence[Part]) -> int | None:
    """Channels that branches put out together."""
    return sum(part.shape[0] for part in group if part.shape) if all(part.shape for part in group) else None
