"""Charts of what is inside networks: parameters and operations by layer, receptive fields by depth."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from convarium.draw.axes import log_ticks, spread
from convarium.draw.plot_theme import Chart, Sheet, Theme, measure, plain, theme_of
from convarium.errors import ArgumentError


@dataclass(frozen=True)
class Layer:
    """What one part of a network holds and computes by itself.

    Args:
        path: names joined by dots.
        stage: the part of the network that it belongs to, as "stem" or "stages.0".
        kind: what it is, in short.
        shape: of its output without the batch.
        parameters: its own.
        macs: multiply-accumulates of one picture; 0 for norms.
    """

    path: str
    stage: str
    kind: str
    shape: str
    parameters: int
    macs: int


MOST_BARS = 52
"""Networks with more layers are folded into blocks, or stages."""


def folded(layers: Sequence[Layer], most: int = MOST_BARS) -> list[Layer]:
    """Fewer rows: norms with the layer before them; if these are too many, blocks or stages instead.

    Args:
        layers: in order.
        most: rows.

    Returns:
        Rows whose parameters and operations sum to the same; `kind` counts the layers where several are one.
    """
    rows: list[tuple[str, list[Layer]]] = []
    for layer in layers:
        if rows and not layer.macs and rows[-1][1][0].macs and _neighbours(rows[-1][1][0], layer):
            rows[-1] = (rows[-1][0], [_together([*rows[-1][1], layer])])
        else:
            rows.append((layer.path, [layer]))
    for depth in range(max(path.count(".") for path, _ in rows), 0, -1):
        if len(rows) <= most:
            break
        begins = [row[0].split(".")[:depth] for row in rows]
        groups = [
            [row for _, row in pairs]
            for _, pairs in itertools.groupby(zip(begins, rows, strict=True), lambda pair: pair[0])
        ]
        rows = [
            group[0]
            if len(group) == 1
            else (".".join(group[0][0].split(".")[:depth]), [layer for _, parts in group for layer in parts])
            for group in groups
        ]
    return [
        replace(
            _together(parts), path=path, kind=parts[0].kind if len(parts) == 1 else f"{len(parts)} layers"
        )
        for path, parts in rows
    ]


def _neighbours(one: Layer, other: Layer) -> bool:
    """Whether both are in one stage, or both stand alone."""
    return one.stage == other.stage or (one.path == one.stage and other.path == other.stage)


def _together(parts: Sequence[Layer]) -> Layer:
    """The first, with the parameters and operations of all and the shape of the last."""
    return replace(
        parts[0],
        shape=parts[-1].shape,
        parameters=sum(layer.parameters for layer in parts),
        macs=sum(layer.macs for layer in parts),
    )


@plain()
def layers(
    name: str, rows: Sequence[Layer], footer: str, theme: str = "light", title: str | None = None
) -> Chart:
    """Where a network's parameters are, and where its operations: two bars a layer, by stage.

    Args:
        name: of the network.
        rows: at least one layer, in order.
        footer: how they were counted.
        theme: "light" or "dark".
        title: another one than the chart's own.

    Returns:
        The chart.
    """
    bars = folded(rows)
    totals = (sum(row.parameters for row in bars), sum(row.macs for row in bars))
    own = title or f"{name}: parameters and operations by layer"
    told = f"{totals[0]:,} parameters, {totals[1] / 1e9:,.3f} G multiply-accumulates"
    less = len(rows) > len(bars)
    footer += " Norms stand with the layer before them." if less else ""
    stages = [(stage, list(group)) for stage, group in itertools.groupby(bars, lambda row: row.stage)]
    step, gap = 0.2, 0.14
    tall = step * len(bars) + gap * len(stages)
    names = [_within(row) for row in bars]
    left = 0.7 + _widest(names, 8) + _widest([stage for stage, _ in stages], 9, "bold")
    width = left + 7.4
    sheet = Sheet(width, tall + 1.6, theme_of(theme), own, told, footer)
    right, middle = width - 0.25, left + 3.6
    panels = [
        (sheet.axes(left, sheet.foot + 0.5, middle - 0.15, sheet.top - 0.25), "parameters, M", 1e6),
        (
            sheet.axes(middle + 0.15, sheet.foot + 0.5, right, sheet.top - 0.25),
            "multiply-accumulates, G",
            1e9,
        ),
    ]
    for number, (axes, heading, unit) in enumerate(panels):
        values = [(row.parameters, row.macs)[number] for row in bars]
        colour = (sheet.theme.accent, sheet.theme.second)[number]
        axes.set_ylim(tall, 0)
        axes.set_xlim(0, 1.5 * max(*values, 1) / unit)
        axes.set_yticks([])
        axes.spines["left"].set_visible(True)
        axes.spines["left"].set_color(sheet.theme.soft)
        axes.grid(axis="x", color=sheet.theme.line, linewidth=0.8)
        axes.set_xlabel(heading)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        place_, index = gap / 2, 0
        for stage, group in stages:
            end = place_ + step * len(group)
            share = sum((row.parameters, row.macs)[number] for row in group) / max(totals[number], 1)
            axes.axhspan(
                place_ - gap / 4, end + gap / 4, color=sheet.theme.line, alpha=0.35, linewidth=0, zorder=0
            )
            axes.text(
                1.48 * max(*values, 1) / unit,
                (place_ + end) / 2,
                share_of(share),
                ha="right",
                va="center_baseline",
                size=9,
                weight="bold",
                color=sheet.theme.ink,
            )
            for row in group:
                value = values[index] / unit
                axes.barh(place_ + step / 2, value, 0.72 * step, color=colour)
                axes.annotate(
                    share_of(values[index] / max(totals[number], 1)),
                    (value, place_ + step / 2),
                    (4, 0),
                    textcoords="offset points",
                    va="center_baseline",
                    size=7.5,
                    color=sheet.theme.soft,
                )
                if not number:
                    _row_name(axes, row, names[index], place_ + step / 2, sheet.theme)
                place_, index = place_ + step, index + 1
            if not number:
                height = sheet.top - 0.25 - (end - step * len(group) + 0.5 * step)
                sheet.text(0.35, height, stage, size=9, weight="bold", va="center_baseline")
            place_ = end + gap
    sheet.text(
        right, sheet.top - 0.12, "share of the stage in bold", size=8, ha="right", color=sheet.theme.soft
    )
    return Chart(sheet.figure, own, [])


def _widest(texts: Sequence[str], size: float, weight: str = "normal") -> float:
    """Width in inches of the widest text."""
    return max(measure(text, size, weight)[0] for text in texts)


def _within(row: Layer) -> str:
    """A layer's name without its stage's, and what it is."""
    name = row.path.removeprefix(row.stage).lstrip(".")
    return f"{name}  {row.kind}".strip()


def _row_name(axes: Axes, row: Layer, name: str, at: float, theme: Theme) -> None:
    axes.annotate(
        name,
        (0, at),
        (-6, 0),
        textcoords="offset points",
        ha="right",
        va="center_baseline",
        size=8,
        color=theme.ink,
        annotation_clip=False,
    )


def share_of(share: float) -> str:
    """0.8937 as "89.4 %"; a little as "< 0.1 %", nothing as nothing."""
    if not share:
        return ""
    return f"{100 * share:.1f} %" if share >= 0.001 else "< 0.1 %"


@dataclass(frozen=True)
class Depth:
    """What of the picture one layer of a network sees.

    Args:
        network: its name.
        layer: number of the layer, from 1.
        path: names joined by dots.
        kind: what it is, in short.
        field_rows_px: size of the receptive field; None where it is the whole picture, whatever its size.
        field_columns_px: as `field_rows_px`.
        input_px: side of the picture.
    """

    network: str
    layer: int
    path: str
    kind: str
    field_rows_px: int | None
    field_columns_px: int | None
    input_px: int


MOST_NETWORKS = 7
"""Networks whose lines can still be told apart."""


@plain()
def field(rows: Sequence[Depth], footer: str, theme: str = "light", title: str | None = None) -> Chart:
    """How much of the picture the layers of networks see, by depth.

    Args:
        rows: at least one layer, network by network, in the order of the layers.
        footer: how the fields were found.
        theme: "light" or "dark".
        title: another one than the chart's own.

    Returns:
        The chart; a line shows the largest field up to each layer.

    Raises:
        ArgumentError: too many networks to tell their lines apart.
    """
    curves = {name: list(group) for name, group in itertools.groupby(rows, lambda row: row.network)}
    if len(curves) > MOST_NETWORKS:
        raise ArgumentError(
            f"{len(curves)} networks are too many for one chart; give at most {MOST_NETWORKS}"
        )
    own = title or "Receptive fields by depth"
    told = "side of the square of pixels that one output of a layer can see"
    ends = {name: f"{name}  {_seen(curve)}" for name, curve in curves.items()}
    room = _widest(list(ends.values()), 9, "bold")
    sheet = Sheet(8.8 + room, 5.8, theme_of(theme), own, told, footer)
    axes = sheet.axes(0.85, sheet.foot + 0.55, 8.2, sheet.top - 0.1)
    lines = {name: _growth(curve) for name, curve in curves.items()}
    sides = sorted({row.input_px for row in rows})
    values = [value for line in lines.values() for value in line] + sides
    ticks = log_ticks(min(values), max(values))
    axes.set_yscale("log")
    axes.set_ylim(min(ticks[0], min(values)) * 0.9, max(values) * 1.25)
    axes.set_xlim(0.5, max(len(line) for line in lines.values()) + 0.5)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, prune="lower"))
    axes.set_xlabel("layer (convolutions and other layers that multiply, in order)", labelpad=6)
    axes.set_ylabel("receptive field, pixels (logarithmic axis)")
    axes.grid(color=sheet.theme.line, linewidth=0.8)
    ended = []  # what stands beside the axes: a text, where its line ends, its colour
    for side in sides:
        axes.axhline(side, color=sheet.theme.soft, linewidth=1, linestyle=(0, (4, 3)))
        ended.append((f"input {side} px", axes.get_xlim()[1], side, sheet.theme.soft))
    for (name, line), hue in zip(lines.items(), sheet.theme.hues, strict=False):
        axes.plot(list(range(1, len(line) + 1)), line, color=hue, linewidth=1.8, drawstyle="steps-post")
        axes.plot(len(line), line[-1], "o", color=hue, markersize=5)
        ended.append((ends[name], len(line), line[-1], hue))
    at = [axes.transData.transform((x, y)) / sheet.figure.dpi for _, x, y, _ in ended]
    heights = spread([float(y) for _, y in at], 0.19, sheet.foot + 0.65, sheet.top)
    for (text, _, _, colour), (x, y), height in zip(ended, at, heights, strict=True):
        sheet.figure.add_artist(
            Line2D(
                [(x + 0.06) / sheet.width, 8.46 / sheet.width],
                [y / sheet.height, height / sheet.height],
                color=colour,
                linewidth=0.8,
                linestyle=":",
            )
        )
        soft = colour == sheet.theme.soft
        sheet.text(
            8.52,
            height,
            text,
            size=9,
            weight="normal" if soft else "bold",
            color=sheet.theme.soft if soft else sheet.theme.ink,
            va="center_baseline",
        )
    return Chart(sheet.figure, own, [])


def _growth(curve: Sequence[Depth]) -> list[int]:
    """The largest field up to each layer; the whole picture counts as its side, where nothing is larger."""
    sizes = [max(size or row.input_px for size in (row.field_rows_px, row.field_columns_px)) for row in curve]
    return list(itertools.accumulate(sizes, max))


def _seen(curve: Sequence[Depth]) -> str:
    """The last field in words."""
    whole = None in (curve[-1].field_rows_px, curve[-1].field_columns_px)
    return "all" if whole else f"{_growth(curve)[-1]} px"
