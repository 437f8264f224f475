"""Charts of networks for a paper or a slide, drawn by matplotlib from rows that the caller gathers.

The report's small charts, which a page styles itself, are in `charts`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from matplotlib.axes import Axes

from convarium.draw.history import HUMAN_PERCENT, HUMAN_SOURCE, Winner
from convarium.draw.plot_theme import Chart, Sheet, Theme, plain, theme_of


def table(rows: Sequence[Any]) -> str:
    """Rows of one dataclass as CSV, the names of its fields first; None is empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, [field.name for field in fields(rows[0])], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return file.getvalue()


@plain()
def history(winners: Sequence[Winner], theme: str = "light", title: str | None = None) -> Chart:
    """Error and depth of the challenge's winners by year.

    Args:
        winners: one a year, in order.
        theme: "light" or "dark".
        title: another one than the chart's own.

    Returns:
        The chart.
    """
    own = title or f"The winners of ImageNet's challenge, {winners[0].year} to {winners[-1].year}"
    pages = "Errors: the organisers' pages of results (image-net.org/challenges/LSVRC) and Russakovsky et al. 2015, "
    sheet = Sheet(
        10,
        7,
        theme_of(theme),
        own,
        "classification, top-5 error on the test set, trained on the challenge's own pictures only",
        pages
        + f"arXiv:1409.0575; 2015: He et al., arXiv:1512.03385; 2017: Hu et al., arXiv:1709.01507. Human: one trained "
        f"annotator, 1500 pictures; {HUMAN_SOURCE}. Layers: those with weights, of the deepest network of an "
        "ensemble; 2013 after Zeiler and Fergus; none where the winner was no network or told no depth.",
    )
    theme_ = sheet.theme
    places = list(range(len(winners)))
    split = sheet.foot + 4.35
    above = sheet.axes(0.95, split + 0.35, 9.65, sheet.top - 0.1)
    below = sheet.axes(0.95, sheet.foot + 0.95, 9.65, split)
    for axes in (above, below):
        axes.set_xlim(-0.6, len(winners) - 0.4)
        axes.set_xticks([])
        axes.grid(axis="y", color=theme_.line, linewidth=0.8)
    above.set_ylabel("layers")
    below.set_ylabel("top-5 error, %")
    above.set_ylim(0, 190)
    above.set_yticks([0, 50, 100, 150], ["0", "50", "100", "150"])
    below.set_ylim(0, 32)
    colours = [theme_.accent if winner.neural else theme_.other for winner in winners]
    below.bar(places, [winner.top5_error_percent for winner in winners], 0.62, color=colours)
    below.axhline(HUMAN_PERCENT, color=theme_.second, linewidth=1.2, linestyle=(0, (4, 3)))
    below.text(
        len(winners) - 0.42,
        HUMAN_PERCENT + 0.4,
        f"human {HUMAN_PERCENT} %",
        ha="right",
        size=9.5,
        color=theme_.second,
    )
    for at, winner in zip(places, winners, strict=True):
        _winner(above, below, at, winner, theme_)
    return Chart(sheet.figure, own, [])


def _winner(above: Axes, below: Axes, at: int, winner: Winner, theme: Theme) -> None:
    """One column: layers above, the error's figure on its bar, names under the axis."""
    error, more = winner.top5_error_percent, winner.more_data_percent
    figure = f"{error:.1f}" if error >= 10 else f"{error:.2f}"
    ground = {
        "facecolor": theme.paper,
        "edgecolor": "none",
        "pad": 0.8,
    }  # the line of the human stops at a figure
    below.text(
        at,
        error + 0.6,
        figure,
        ha="center",
        size=9.5,
        weight="bold",
        color=theme.ink,
        bbox=ground,
    )
    if more is not None:
        below.text(
            at,
            error - 0.5,
            f"{more:.1f} with\nmore data",
            ha="center",
            va="top",
            size=7.5,
            color=theme.paper,
        )
    lines = (
        (str(winner.year), theme.ink, "bold"),
        (winner.team, theme.ink, "normal"),
        (winner.network, theme.soft, "normal"),
    )
    for number, (text, colour, weight) in enumerate(lines):
        below.annotate(
            text,
            (at, 0),
            (0, -8 - 13 * number),
            textcoords="offset points",
            ha="center",
            va="top",
            size=9 - (number > 0),
            color=colour,
            weight=weight,
            annotation_clip=False,
        )
    if winner.layers is None:
        told = "depth not told" if winner.neural else "no network"
        above.text(at, 8, told, ha="center", size=8, color=theme.soft)
    else:
        above.vlines(at, 0, winner.layers, color=theme.accent, linewidth=2)
        above.plot([at], [winner.layers], "o", color=theme.accent, markersize=5)
        above.text(
            at,
            winner.layers + 12,
            str(winner.layers),
            ha="center",
            size=9.5,
            weight="bold",
            color=theme.ink,
        )
