"""The loss against the learning rate, as the finder tried it, with the suggestion marked."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from convarium.draw.plot_theme import Chart, Sheet, plain, theme_of


@plain()
def finder(
    rates: Sequence[float],
    losses: Sequence[float],
    smooth: Sequence[float],
    suggestion: float | None,
    reason: str,
    *,
    subtitle: str = "",
    theme: str = "light",
    title: str | None = None,
) -> Chart:
    """Loss against learning rate on a logarithmic axis.

    Args:
        rates: tried, growing; at least one.
        losses: of each rate.
        smooth: the same, averaged with their neighbours.
        suggestion: a vertical line stands there; None for none.
        reason: of the suggestion, or why there is none; below the chart.
        subtitle: as the network, the data and the recipe.
        theme: "light" or "dark".
        title: another one than the chart's own.

    Returns:
        The chart.

    Source:
        Smith 2015, arXiv:1506.01186, section 3.3, with the loss in place of the accuracy.
    """
    own = title or "Loss against learning rate"
    footer = (
        f"{reason[:1].upper()}{reason[1:]}. One step a rate; dots: the loss of its batch, line: averaged."
    )
    sheet = Sheet(8, 5, theme_of(theme), own, subtitle, footer)
    ink = sheet.theme
    axes = sheet.axes(0.85, sheet.foot + 0.55, 7.65, sheet.top)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.0e}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(axis="y", color=ink.line, linewidth=0.8)
    axes.plot(rates, losses, "o", color=ink.other, markersize=2.8)
    axes.plot(rates, smooth, color=ink.accent, linewidth=2)
    # The curve matters, not how high the last points flew.
    least, most = min(*losses, *smooth), max(smooth)
    room = max(most - least, 0.05 * abs(most), 1e-6)
    axes.set_ylim(least - 0.1 * room, most + 0.2 * room)
    if suggestion is not None:
        axes.axvline(suggestion, color=ink.second, linewidth=1.4, linestyle=(0, (4, 3)))
        right = suggestion < (rates[0] * rates[-1]) ** 0.5  # the label stands where there is more room
        axes.annotate(
            f"{suggestion:.1e}",
            (suggestion, 1),
            (6 if right else -6, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            size=10,
            weight="bold",
            color=ink.second,
        )
    return Chart(sheet.figure, own, [])
