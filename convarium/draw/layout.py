"""A figure as data: boxes, arrows and texts with their places, which renderers draw and tests look at.

One unit is a CSS pixel; x grows to the right, y downwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from convarium.draw.letters import width

Point = tuple[float, float]
"""x, y."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom."""

TIP = 7.0
"""Length of an arrow's head."""

ROUND = 7.0
"""Radius of an arrow's corners."""

CONTAINERS = ("panel", "frame")
"""Roles of boxes that hold others: arrows run inside them."""


@dataclass(frozen=True)
class Box:
    """A rectangle, or a block of three dimensions where it has a slant.

    Args:
        x: left edge of the front.
        y: upper edge of the front.
        w: width of the front.
        h: height of the front.
        role: what it stands for, which gives its colours; see `palette.ROLES`.
        name: by which arrows and texts refer to it; unique in a figure.
        told: shown when the pointer rests on it.
        shade: 0, or its class of cost from 1 on.
        corner: radius of the corners.
        slant: how far the back is moved to the right and up.
        stacked: what lies behind it are more of the same, not its own depth.
        parts: paths of the parts of the network that it stands for.
        mark: "" or in a comparison "only" or "changed".
    """

    x: float
    y: float
    w: float
    h: float
    role: str = "unit"
    name: str = ""
    told: str = ""
    shade: int = 0
    corner: float = 5.0
    slant: tuple[float, float] = (0.0, 0.0)
    stacked: bool = False
    parts: tuple[str, ...] = ()
    mark: str = ""

    @property
    def extent(self) -> Rectangle:
        """The rectangle around it, with its back."""
        return (self.x, self.y - self.slant[1], self.x + self.w + self.slant[0], self.y + self.h)


@dataclass(frozen=True)
class Label:
    """One line of text.

    Args:
        x: where it starts, has its middle or ends.
        y: its middle.
        text: in any script.
        size: of the font.
        anchor: "start", "middle" or "end".
        role: its colour; see `palette.ROLES`.
        bold: whether it is bold.
        within: name of the box that must hold it; "" for none.
    """

    x: float
    y: float
    text: str
    size: float = 11.0
    anchor: str = "middle"
    role: str = "ink"
    bold: bool = False
    within: str = ""

    @property
    def extent(self) -> Rectangle:
        """The rectangle that its letters stay in, whatever the font."""
        wide = width(self.text, self.size, self.bold)
        left = self.x - wide * {"start": 0.0, "middle": 0.5, "end": 1.0}[self.anchor]
        return (left, self.y - 0.6 * self.size, left + wide, self.y + 0.6 * self.size)


@dataclass(frozen=True)
class Arrow:
    """A line through points, horizontal and vertical by turns, with a head at its end.

    Args:
        points: (x, y) of its corners.
        ends: names of the boxes that it joins.
        role: its colour; see `palette.ROLES`.
        head: whether it ends in a point.
    """

    points: tuple[Point, ...]
    ends: tuple[str, str] = ("", "")
    role: str = "line"
    head: bool = True

    @property
    def segments(self) -> Iterator[Rectangle]:
        """The rectangle, without area, of each straight piece."""
        for (x0, y0), (x1, y1) in zip(self.points, self.points[1:], strict=False):
            yield (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))

    @property
    def tip(self) -> tuple[Point, Point, Point]:
        """The triangle of its head."""
        (x0, y0), (x1, y1) = self.points[-2:]
        long = max(abs(x1 - x0), abs(y1 - y0)) or 1.0
        dx, dy = (x1 - x0) / long, (y1 - y0) / long
        back = (x1 - TIP * dx, y1 - TIP * dy)
        wing = (-dy * TIP * 0.45, dx * TIP * 0.45)
        return ((x1, y1), (back[0] + wing[0], back[1] + wing[1]), (back[0] - wing[0], back[1] - wing[1]))

    @property
    def curve(self) -> Iterator[tuple[str, tuple[Point, ...]]]:
        """What a pen does: ("M", to), ("L", to) and round the corners ("Q", by, to)."""
        points = list(self.points)
        if self.head:
            points[-1] = tuple(sum(p) / 2 for p in zip(*self.tip[1:], strict=True))  # type: ignore[assignment]
        yield "M", (points[0],)
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            yield "L", (_towards(corner, before),)
            yield "Q", (corner, _towards(corner, after))
        yield "L", (points[-1],)


def _towards(corner: Point, other: Point) -> Point:
    """The point on the way to another one where a rounded corner begins or ends."""
    (x0, y0), (x1, y1) = corner, other
    long = max(abs(x1 - x0), abs(y1 - y0))
    part = min(ROUND, long / 2) / long if long else 0.0
    return (x0 + part * (x1 - x0), y0 + part * (y1 - y0))


@dataclass
class Figure:
    """Everything on one sheet.

    Args:
        width: of the sheet.
        height: of the sheet.
        title: its name, for those who do not see it.
        told: what it shows, in a sentence, for the same.
        boxes: from back to front.
        arrows: before the boxes.
        labels: before the arrows.
    """

    width: float = 0.0
    height: float = 0.0
    title: str = ""
    told: str = ""
    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)

    def place(self, other: Figure, x: float, y: float, prefix: str = "") -> None:
        """Draw another figure into this one.

        Args:
            other: left as it is.
            x: where its left edge goes.
            y: where its upper edge goes.
            prefix: put before the names of its boxes.
        """

        def renamed(name: str) -> str:
            return prefix + name if name else ""

        for box in other.boxes:
            self.boxes.append(replace(box, x=box.x + x, y=box.y + y, name=renamed(box.name)))
        for arrow in other.arrows:
            points = tuple((px + x, py + y) for px, py in arrow.points)
            first, last = arrow.ends
            self.arrows.append(replace(arrow, points=points, ends=(renamed(first), renamed(last))))
        for label in other.labels:
            moved = replace(label, x=label.x + x, y=label.y + y, within=renamed(label.within))
            self.labels.append(moved)


def faults(figure: Figure) -> list[str]:
    """What must not be in a figure: texts that overlap or leave their box, arrows across boxes or texts.

    Args:
        figure: any.

    Returns:
        One sentence a fault; none in a figure that can be read.
    """
    named = {box.name: box for box in figure.boxes if box.name}
    solid = [box for box in figure.boxes if box.role not in CONTAINERS]
    found = []
    for first, second in _pairs([label.extent for label in figure.labels]):
        found.append(f"texts {figure.labels[first].text!r} and {figure.labels[second].text!r} overlap")
    for first, second in _pairs([box.extent for box in solid]):
        found.append(f"boxes {solid[first].name!r} and {solid[second].name!r} overlap")
    for label in figure.labels:
        for box in solid:
            if box.name != label.within and _meet(label.extent, box.extent):
                found.append(f"text {label.text!r} lies on box {box.name!r}")
        if label.within and not _inside(label.extent, _front(named[label.within])):
            found.append(f"text {label.text!r} leaves its box {label.within!r}")
    for arrow in figure.arrows:
        for segment in arrow.segments:
            for box in solid:
                if box.name not in arrow.ends and _meet(segment, box.extent):
                    found.append(f"the arrow {arrow.ends} crosses box {box.name!r}")
            for label in figure.labels:
                if _meet(segment, label.extent):
                    found.append(f"the arrow {arrow.ends} crosses text {label.text!r}")
    sheet = (0.0, 0.0, figure.width, figure.height)
    items: list[Box | Label] = [*figure.boxes, *figure.labels]
    for item in items:
        if not _inside(item.extent, sheet):
            found.append(f"{item} leaves the sheet")
    return found


def _front(box: Box) -> Rectangle:
    return (box.x, box.y, box.x + box.w, box.y + box.h)


def _meet(a: Rectangle, b: Rectangle, slack: float = 0.01) -> bool:
    """Whether two rectangles share more than an edge."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    flat = a[0] == a[2] or a[1] == a[3]  # a line has no area: it meets what it enters
    return (across > slack and down > slack) or (
        flat and across >= 0 and down >= 0 and (across > slack or down > slack) and _enters(a, b)
    )


def _enters(line: Rectangle, box: Rectangle) -> bool:
    """Whether a line runs inside of a box and not along its edge."""
    if line[1] == line[3]:
        return box[1] < line[1] < box[3]
    return box[0] < line[0] < box[2]


def _inside(a: Rectangle, b: Rectangle, slack: float = 0.01) -> bool:
    return a[0] >= b[0] - slack and a[1] >= b[1] - slack and a[2] <= b[2] + slack and a[3] <= b[3] + slack


def _pairs(rectangles: list[Rectangle]) -> Iterator[tuple[int, int]]:
    """Indices of those that overlap, found from left to right."""
    order = sorted(range(len(rectangles)), key=lambda i: rectangles[i][0])
    for place, i in enumerate(order):
        for j in order[place + 1 :]:
            if rectangles[j][0] >= rectangles[i][2]:
                break
            if _meet(rectangles[i], rectangles[j]):
                yield i, j
