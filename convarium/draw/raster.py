"""A figure as PNG or PDF: matplotlib draws the same layout."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from convarium import storage
from convarium.draw.layout import Box, Figure
from convarium.draw.palette import DARK, JOINTS, LIGHT, Theme, dashed, fill, outline, stroke

PER_INCH = 96.0
"""Units of a figure in an inch, as in CSS."""


def save(figure: Figure, path: Path, theme: str = "light", sharpness: float = 2.0) -> None:
    """Write the figure; the same bytes for the same figure.

    Args:
        figure: what to draw.
        path: ends in .png or .pdf; what is there is replaced.
        theme: "light" or "dark".
        sharpness: pixels per unit, for PNG.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    colours = DARK if theme == "dark" else LIGHT
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context({"pdf.fonttype": 42, "path.simplify": False, "lines.scale_dashes": False}),
    ):
        warnings.filterwarnings("ignore", message=r"Glyph .* missing")  # a box stands for it
        sheet = Sheet(figsize=(figure.width / PER_INCH, figure.height / PER_INCH), facecolor=colours.paper)
        FigureCanvasAgg(sheet)
        axes = sheet.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(0, figure.width)
        axes.set_ylim(figure.height, 0)
        for order, item in enumerate(_shapes(figure, colours)):
            item.set_zorder(order)
            axes.add_patch(item)
        for label in figure.labels:
            axes.text(
                label.x,
                label.y + 0.35 * label.size,
                _plain(label.text),
                fontsize=label.size * 72 / PER_INCH,
                fontweight="bold" if label.bold else "normal",
                fontfamily="DejaVu Sans",
                ha={"start": "left", "middle": "center", "end": "right"}[label.anchor],
                va="baseline",
                color=stroke(colours, label.role),
                zorder=10_000,
                parse_math=False,
            )
        form = path.suffix.lower().lstrip(".")
        metadata: dict[str, Any] = {"CreationDate": None} if form == "pdf" else {"Software": None}
        content = io.BytesIO()
        sheet.savefig(
            content,
            format=form,
            dpi=PER_INCH * sharpness,
            facecolor=colours.paper,
            metadata={"Title": figure.title, **metadata},
        )
    storage.write(path, lambda temporary: temporary.write_bytes(content.getvalue()))


def _plain(text: str) -> str:
    return "".join(c for c in text if c >= " ")


def _shapes(figure: Figure, theme: Theme) -> list[Any]:
    """Patches from back to front."""
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Curve

    items = [patch for box in figure.boxes for patch in _box(box, theme)]
    codes = {"M": [Curve.MOVETO], "L": [Curve.LINETO], "Q": [Curve.CURVE3, Curve.CURVE3]}
    for arrow in figure.arrows:
        colour = stroke(theme, arrow.role)
        steps = list(arrow.curve)
        line = Curve(
            [p for _, points in steps for p in points], [c for letter, _ in steps for c in codes[letter]]
        )
        items.append(PathPatch(line, fill=False, edgecolor=colour, linewidth=_points(1.4), capstyle="butt"))
        if arrow.head:
            items.append(Polygon(arrow.tip, closed=True, facecolor=colour, edgecolor="none"))
    return items


def _box(box: Box, theme: Theme) -> list[Any]:
    from matplotlib.patches import Circle, FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Curve

    paint, behind = _paint(box, theme), _paint(replace(box, mark=""), theme)
    x, y, w, h = box.x, box.y, box.w, box.h
    dx, dy = box.slant
    found: list[Any] = []

    def rectangle(left: float, top: float, paint: dict[str, Any]) -> FancyBboxPatch:
        corner = min(box.corner, w / 2, h / 2)
        style = f"round,pad=0,rounding_size={corner}" if corner else "square,pad=0"
        return FancyBboxPatch((left, top), w, h, boxstyle=style, mutation_aspect=1, **paint)

    if box.stacked:
        found += [rectangle(x + part * dx, y - part * dy, behind) for part in (1.0, 0.5)]
    elif dx:
        top = ((x, y), (x + dx, y - dy), (x + w + dx, y - dy), (x + w, y))
        side = ((x + w, y), (x + w + dx, y - dy), (x + w + dx, y + h - dy), (x + w, y + h))
        for face, dim in ((top, 0.05), (side, 0.12)):
            found.append(Polygon(face, closed=True, joinstyle="round", **paint))
            found.append(Polygon(face, closed=True, facecolor="#000000", edgecolor="none", alpha=dim))
    if box.role in JOINTS:
        r, cx, cy = w / 2, x + w / 2, y + h / 2
        a = 0.5 * r if box.role == "plus" else 0.36 * r
        lines = ((a, 0), (0, a)) if box.role == "plus" else ((a, a), (a, -a))
        cross = [point for p, q in lines for point in ((cx - p, cy - q), (cx + p, cy + q))]
        found.append(Circle((cx, cy), r, **paint))
        found.append(PathPatch(Curve(cross, [Curve.MOVETO, Curve.LINETO] * 2), **paint))
    else:
        found.append(rectangle(x, y, paint))
    return found


def _paint(box: Box, theme: Theme) -> dict[str, Any]:
    paint: dict[str, Any] = {
        "facecolor": fill(theme, box.role, box.shade),
        "edgecolor": stroke(theme, box.role, box.mark),
        "linewidth": _points(outline(box)),
    }
    return {**paint, "linestyle": (0, (_points(5), _points(3)))} if dashed(box) else paint


def _points(units: float) -> float:
    return units * 72 / PER_INCH
