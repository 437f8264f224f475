"""The figure of Bianco et al.: accuracy against operations, with the number of parameters as the size of a bubble."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from convarium.draw.axes import nice_ticks
from convarium.draw.plot_labels import place
from convarium.draw.plot_theme import Chart, Sheet, Theme, measure, plain, theme_of

LABEL = 7.5
"""Size of a label in points."""

LARGEST = 24.0
"""Radius of the bubble with the most parameters, in points."""


@dataclass(frozen=True)
class Point:
    """A network with one set of weights.

    Args:
        name: of the network; another library's as "torchvision:resnet50".
        family: what shares a colour.
        macs: multiply-accumulates of one picture.
        parameters: of the network.
        top1_percent: on ImageNet-1k.
        weights: the publisher's set of weights that this accuracy belongs to; empty where it is a paper's figure.
        source: of the accuracy.
        macs_source: of the operations.
    """

    name: str
    family: str
    macs: int
    parameters: int
    top1_percent: float
    weights: str
    source: str
    macs_source: str


def front(points: Sequence[Point]) -> list[int]:
    """Indices of the points that no other beats: none is at most as expensive and more accurate, or the reverse.

    Args:
        points: any.

    Returns:
        Indices, the cheapest first.
    """
    found: list[int] = []
    best = -math.inf
    for index in sorted(range(len(points)), key=lambda i: (points[i].macs, -points[i].top1_percent)):
        if points[index].top1_percent > best:
            found.append(index)
            best = points[index].top1_percent
    return found


def labels(points: Sequence[Point]) -> list[str]:
    """What stands beside each point: the network's name, and the weights where it has several points.

    Args:
        points: any.

    Returns:
        One text a point.
    """
    short = [point.name.rpartition(":")[2] for point in points]
    times = Counter(short)
    return [
        f"{name} {point.weights.rpartition('IMAGENET1K_')[2]}".strip() if times[name] > 1 else name
        for name, point in zip(short, points, strict=True)
    ]


@plain()
def accuracy(points: Sequence[Point], theme: str = "light", title: str | None = None) -> Chart:
    """Top-1 accuracy against operations with parameters as the area of a bubble.

    Args:
        points: at least one.
        theme: "light" or "dark".
        title: another one than the chart's own.

    Returns:
        The chart; notes name the points whose label found no room.

    Source:
        Bianco et al. 2018, arXiv:1810.00736, figure 1, with other figures.
    """
    own = title or "Accuracy and operations"
    sheet, left_out = _bubbles(points, theme_of(theme), own, "")
    if not left_out:
        return Chart(sheet.figure, own, [])
    note = f"No room for {len(left_out)} of {len(points)} names: {', '.join(left_out)}."
    sheet, _ = _bubbles(points, theme_of(theme), own, "\n" + note)
    return Chart(sheet.figure, own, [note])


def _bubbles(points: Sequence[Point], theme: Theme, title: str, note: str) -> tuple[Sheet, list[str]]:
    """The page, and the names that found no room on it."""
    told = "top-1 accuracy on ImageNet-1k, multiply-accumulates of one picture, area of a bubble: parameters"
    sheet = Sheet(12, 8, theme, title, told, _origins(points) + note)
    colours = _colours(points, sheet.theme)
    axes = sheet.axes(0.85, sheet.foot + 0.55, 10.1, sheet.top)
    unit = LARGEST / math.sqrt(max(point.parameters for point in points))
    radii = [unit * math.sqrt(point.parameters) for point in points]
    _scales(axes, points, radii, sheet.theme)
    best = front(points)
    axes.plot(
        [points[i].macs for i in best],
        [points[i].top1_percent for i in best],
        color=sheet.theme.soft,
        linewidth=1,
        linestyle=(0, (4, 3)),
        zorder=1,
    )
    for index in sorted(range(len(points)), key=lambda i: -radii[i]):  # the small ones on top
        point = points[index]
        _bubble(axes, point, radii[index], colours[point.family])
    _legend(sheet, points, colours, unit)
    return sheet, _name(sheet, axes, points, radii, best)


def _origins(points: Sequence[Point]) -> str:
    """Which weights the accuracies belong to, in words."""
    sets = Counter(point.weights for point in points if point.weights)
    told = [f"{name} ({times})" for name, times in sets.most_common()]
    papers = sum(not point.weights for point in points)
    if papers:
        told.append(f"papers and publishers' pages ({papers}, open circles)")
    counted = sum(point.macs_source.startswith("counted") for point in points)
    return (
        f"Each accuracy belongs to one set of weights: {'; '.join(told)}. Recipes, pictures for pre-training and "
        "sizes of the input differ between them, so compare within one; the source of each figure stands in the "
        "table (--csv). One multiply-add counts as one operation; convolutions, linears and attention products, no "
        "bias, no norm" + (f"; counted here for {counted}, where none are published." if counted else ".")
    )


def _colours(points: Sequence[Point], theme: Theme) -> dict[str, str]:
    """A hue for the largest families, in the order in which they come; one for all others."""
    sizes = Counter(point.family for point in points)
    named = {family for family, _ in sizes.most_common(len(theme.hues))}
    hues = iter(theme.hues)
    return {family: next(hues) if family in named else theme.other for family in sizes}


def _scales(axes: Axes, points: Sequence[Point], radii: Sequence[float], theme: Theme) -> None:
    """A logarithmic axis of operations and a plain one of accuracy, with room for the bubbles at the edges."""
    macs = [math.log10(point.macs) for point in points]
    top1 = [point.top1_percent for point in points]
    axes.set_xscale("log")
    axes.set_xlim(10 ** (min(macs) - 0.1), 10 ** (max(macs) + 0.1))
    axes.set_ylim(min(top1) - 0.5, max(top1) + 0.5)
    for _ in range(4):  # each widening moves the points a little
        _widen(axes, points, radii)
    low, high = axes.get_xlim()
    steps = (1, 2, 5) if high < 1e3 * low else (1,)
    ticks = [float(f"{step}e{power}") for power in range(3, 14) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low <= t <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e9:g}"))
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(FixedLocator([t for t in nice_ticks(low, high, 10) if low <= t <= high]))
    axes.set_xlabel("multiply-accumulates, G (logarithmic axis)", labelpad=6)
    axes.set_ylabel("top-1 accuracy, %")
    axes.grid(color=theme.line, linewidth=0.8)


def _widen(axes: Axes, points: Sequence[Point], radii: Sequence[float]) -> None:
    """Move the limits out to where every bubble is inside."""
    scale = axes.figure.dpi / 72
    at = axes.transData.transform([(point.macs, point.top1_percent) for point in points])
    edges = [(x, y, (radius + 6) * scale) for (x, y), radius in zip(at, radii, strict=True)]
    box = axes.bbox
    left, right = min(x - r for x, _, r in edges), max(x + r for x, _, r in edges)
    bottom, top = min(y - r for _, y, r in edges), max(y + r for _, y, r in edges)
    corners = axes.transData.inverted().transform(
        [(min(left, box.x0), min(bottom, box.y0)), (max(right, box.x1), max(top, box.y1))]
    )
    axes.set_xlim(corners[0][0], corners[1][0])
    axes.set_ylim(corners[0][1], corners[1][1])


def _bubble(axes: Axes, point: Point, radius: float, colour: str) -> None:
    place_of = ([point.macs], [point.top1_percent])
    filled = bool(point.weights)
    axes.plot(
        *place_of,
        marker="o",
        markersize=2 * radius,
        color=colour,
        alpha=0.55 if filled else 0.12,
        markeredgewidth=0,
    )
    axes.plot(
        *place_of,
        marker="o",
        markersize=2 * radius,
        color="none",
        markeredgecolor=colour,
        markeredgewidth=0.9,
    )


def _name(
    sheet: Sheet, axes: Axes, points: Sequence[Point], radii: Sequence[float], best: Sequence[int]
) -> list[str]:
    """Write the names beside the bubbles, those of the front first; returns those without room."""
    dpi = sheet.figure.dpi
    at = axes.transData.transform([(point.macs, point.top1_percent) for point in points])
    discs = [(x, y, (radius + 0.5) * dpi / 72) for (x, y), radius in zip(at, radii, strict=True)]
    weights = ["bold" if index in best else "normal" for index in range(len(points))]
    names = labels(points)
    sizes = [
        (width * dpi, height * dpi)
        for name, weight in zip(names, weights, strict=True)
        for width, height in [measure(name, LABEL, weight)]
    ]
    line = [(*at[one], *at[other]) for one, other in zip(best, best[1:], strict=False)]
    rest = sorted(set(range(len(points))) - set(best), key=lambda i: (_crowd(at, i), i))
    box = axes.bbox
    placed = place(discs, sizes, [*best, *rest], (box.x0 + 2, box.y0 + 2, box.x1 - 2, box.y1 - 2), line)
    for index, label in placed.items():
        x, y = label.box[:2]
        sheet.text(x / dpi, y / dpi, names[index], size=LABEL, weight=weights[index], va="bottom")
        if label.leader:
            (x0, y0), (x1, y1) = label.leader
            across, up = sheet.width * dpi, sheet.height * dpi
            sheet.figure.add_artist(
                Line2D([x0 / across, x1 / across], [y0 / up, y1 / up], color=sheet.theme.soft, linewidth=0.5)
            )
    return [name for index, name in enumerate(names) if index not in placed]


def _crowd(at: Any, index: int, near: float = 60) -> int:
    """How many points are near one: those who have room leave it to the others by choosing first."""
    return sum(math.dist(at[index], other) < near for other in at)


def _legend(sheet: Sheet, points: Sequence[Point], colours: dict[str, str], unit: float) -> None:
    """Families, sizes and the front, in the margin, where no point is."""
    theme, x, y = sheet.theme, 10.4, sheet.top - 0.12
    axes = sheet.figure.add_axes((0, 0, 1, 1), facecolor="none")
    axes.set_axis_off()
    axes.set_xlim(0, sheet.width)
    axes.set_ylim(0, sheet.height)

    def dot(at: float, size: float, colour: str, filled: bool = True) -> None:
        axes.plot([x], [at], "o", markersize=size, color=colour if filled else "none", markeredgecolor=colour)

    named = [family for family, colour in colours.items() if colour != theme.other]
    for family in named:
        dot(y, 7, colours[family])
        sheet.text(x + 0.18, y, family, size=9, va="center_baseline")
        y -= 0.23
    if len(named) < len(colours):
        dot(y, 7, theme.other)
        sheet.text(x + 0.18, y, "others", size=9, va="center_baseline", color=theme.soft)
        y -= 0.23
    if any(not point.weights for point in points):
        y -= 0.12
        dot(y, 7, theme.soft, filled=False)
        sheet.text(x + 0.18, y, "a paper's figure", size=9, va="center_baseline", color=theme.soft)
        y -= 0.23
    y -= 0.12
    axes.plot([x - 0.12, x + 0.12], [y, y], color=theme.soft, linewidth=1, linestyle=(0, (4, 3)))
    sheet.text(x + 0.18, y, "Pareto front", size=9, va="center_baseline", color=theme.soft)
    y -= 0.4
    sheet.text(x - 0.06, y, "parameters", size=9, va="center_baseline", color=theme.soft)
    y -= 0.12
    for count in _sizes([point.parameters for point in points]):
        radius = unit * math.sqrt(count)
        y -= max(radius, 5) / 72 + 0.06
        dot(y, 2 * radius, theme.soft, filled=False)
        sheet.text(x + 0.42, y, f"{count / 1e6:g} M", size=9, va="center_baseline", color=theme.soft)
        y -= max(radius, 5) / 72


def _sizes(counts: Sequence[int]) -> list[float]:
    """Up to four round counts of parameters within those of the points, the smallest first."""
    low, high = min(counts), max(counts)
    round_ones = [
        float(f"{m}e{k}")
        for k in range(2, 12)
        for m in (1, 2, 5)
        if low * 0.99 <= float(f"{m}e{k}") <= high * 1.01
    ]
    if not round_ones:
        return [float(f"{high:.1g}")]
    step = max(1, math.ceil((len(round_ones) - 1) / 3))
    return round_ones[::-step][::-1]
