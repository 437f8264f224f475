"""A figure as SVG: one file without scripts or fonts, light, dark, or as the reader's screen is."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import replace
from html import escape

from convarium.draw.layout import Arrow, Box, Figure, Label
from convarium.draw.letters import FAMILY
from convarium.draw.palette import DARK, JOINTS, LIGHT, Theme, dashed, fill, outline, stroke


def svg(figure: Figure, theme: str = "auto") -> str:
    """The figure as a document; the same bytes for the same figure.

    Args:
        figure: what to draw.
        theme: "light", "dark", or "auto": light, and dark where the reader's screen is.

    Returns:
        XML.
    """
    pen = _Pen(DARK if theme == "dark" else LIGHT, follows=theme == "auto")
    key = f"f{zlib.crc32((figure.title + figure.told).encode()):08x}"
    w, h = _number(figure.width), _number(figure.height)
    body = [
        f'<rect width="{w}" height="{h}" {pen.filled("paper", pen.theme.paper)}/>',
        *(pen.box(box) for box in figure.boxes),
        *(pen.arrow(arrow) for arrow in figure.arrows),
        *(pen.label(label) for label in figure.labels),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" '
        f'aria-labelledby="{key}t {key}d" font-family="{escape(FAMILY)}">'
        f'<title id="{key}t">{_text(figure.title)}</title><desc id="{key}d">{_text(figure.told)}</desc>'
    )
    return "\n".join([head, *pen.style(), *body, "</svg>"]) + "\n"


class _Pen:
    """Elements in one theme; it remembers which colours have to follow the screen."""

    def __init__(self, theme: Theme, follows: bool) -> None:
        self.theme = theme
        self.follows = follows
        self.dark: dict[str, str] = {}

    def style(self) -> list[str]:
        """Colours for a dark screen. The elements carry those for a light one, for programs that know no CSS."""
        if not self.follows:
            return []
        rules = "".join(f".{name}{{{rule}}}" for name, rule in sorted(self.dark.items()))
        return [f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"]

    def filled(self, name: str, colour: str, dark: str | None = None) -> str:
        """The attribute that fills, and the class by which a dark screen refills."""
        return self._coloured("fill", f"f-{name}", colour, DARK.paper if dark is None else dark)

    def _coloured(self, attribute: str, name: str, colour: str, dark: str) -> str:
        if not self.follows or colour == dark:
            return f'{attribute}="{colour}"'
        self.dark[name] = f"{attribute}:{dark}"
        return f'{attribute}="{colour}" class="{name}"'

    def _paint(self, box: Box) -> str:
        """Fill and outline of a box, both in one class."""
        broad = outline(box)
        line = f' stroke-width="{broad}"' if broad != 1 else ""
        line += ' stroke-dasharray="5 3"' if dashed(box) else ""
        light = fill(self.theme, box.role, box.shade), stroke(self.theme, box.role, box.mark)
        dark = fill(DARK, box.role, box.shade), stroke(DARK, box.role, box.mark)
        name = f"b-{box.role}{box.shade or ''}{box.mark}"
        paint = f'fill="{light[0]}" stroke="{light[1]}"{line}'
        if not self.follows:
            return paint
        self.dark[name] = f"fill:{dark[0]};stroke:{dark[1]}"
        return f'{paint} class="{name}"'

    def box(self, box: Box) -> str:
        """A box with what it tells to the pointer."""
        told = f"<title>{_text(box.told)}</title>" if box.told else ""
        shapes = _shapes(box, self._paint(box), self._paint(replace(box, mark="")))
        return f"<g>{told}{''.join(shapes)}</g>"

    def arrow(self, arrow: Arrow) -> str:
        """A line, and a triangle at its end."""
        path = "".join(
            letter + " ".join(f"{_number(x)} {_number(y)}" for x, y in points)
            for letter, points in arrow.curve
        )
        light, dark = stroke(self.theme, arrow.role), stroke(DARK, arrow.role)
        line = self._coloured("stroke", f"s-{arrow.role}", light, dark)
        drawn = f'<path d="{path}" fill="none" stroke-width="1.4" {line}/>'
        if arrow.head:
            drawn += f'<polygon points="{_points(arrow.tip)}" {self.filled(arrow.role, light, dark)}/>'
        return drawn

    def label(self, label: Label) -> str:
        """A line of text; its place is the middle of its letters' height."""
        light, dark = stroke(self.theme, label.role), stroke(DARK, label.role)
        anchor = "" if label.anchor == "start" else f' text-anchor="{label.anchor}"'
        bold = ' font-weight="600"' if label.bold else ""
        y = _number(label.y + 0.35 * label.size)
        return (
            f'<text x="{_number(label.x)}" y="{y}" font-size="{_number(label.size)}"{anchor}{bold} '
            f"{self.filled(label.role, light, dark)}>{_text(label.text)}</text>"
        )


def _shapes(box: Box, paint: str, behind: str) -> Iterable[str]:
    """The elements that a box consists of, from back to front; those of a stack behind it are not marked."""
    (dx, dy), (x, y, w, h) = box.slant, (box.x, box.y, box.w, box.h)
    if box.stacked:
        for part in (1.0, 0.5):
            yield _rectangle(x + part * dx, y - part * dy, w, h, box.corner, behind)
    elif dx:
        top = ((x, y), (x + dx, y - dy), (x + w + dx, y - dy), (x + w, y))
        side = ((x + w, y), (x + w + dx, y - dy), (x + w + dx, y + h - dy), (x + w, y + h))
        for face, dim in ((top, 0.05), (side, 0.12)):
            yield f'<polygon points="{_points(face)}" stroke-linejoin="round" {paint}/>'
            yield f'<polygon points="{_points(face)}" fill="#000" fill-opacity="{dim}"/>'
    if box.role in JOINTS:
        r, cx, cy = w / 2, x + w / 2, y + h / 2
        a = 0.5 * r if box.role == "plus" else 0.36 * r
        lines = ((a, 0), (0, a)) if box.role == "plus" else ((a, a), (a, -a))
        cross = "".join(
            f"M{_number(cx - p)} {_number(cy - q)}L{_number(cx + p)} {_number(cy + q)}" for p, q in lines
        )
        yield f'<circle cx="{_number(cx)}" cy="{_number(cy)}" r="{_number(r)}" {paint}/><path d="{cross}" {paint}/>'
    else:
        yield _rectangle(x, y, w, h, box.corner, paint)


def _rectangle(x: float, y: float, w: float, h: float, corner: float, paint: str) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" width="{_number(w)}" height="{_number(h)}"'
    return f'<rect {place} rx="{_number(corner)}" {paint}/>'


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """At most one decimal, and never -0."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text(text: str) -> str:
    """Escaped, without the control characters that XML does not allow."""
    return escape("".join(c for c in text if c >= " " or c in "\n\t"), quote=False)
