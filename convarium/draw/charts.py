"""Charts for a page: inline SVG and HTML whose text is text and whose colours are CSS variables.

Every function returns a well-formed fragment that needs no script. The style sheet `STYLE` goes into
the page once; it reads the variables --paper, --ink, --soft, --faint, --line, --accent, --second,
--accent-rgb and --second-rgb, so that a dark page needs only other values for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from pathlib import Path

from convarium.draw.axes import epoch_ticks, log_ticks, nice_ticks, spread

STYLE = Path(__file__).parent / "charts.css"
"""The style sheet that a page with these charts needs, once."""

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 44, 84, 30, 36
"""Room around the plot, in SVG units: for the axis, the direct labels, the best epoch and the epochs."""

LABEL_ROOM = 30
"""Height of a direct label of two lines, in SVG units."""

LOG_RATIO = 30
"""A loss whose largest value is this many times its smallest is drawn on a logarithmic axis."""

MATRIX = 20
"""The most classes whose confusion is drawn as a matrix; of more, the largest confusions are listed."""


@dataclass(frozen=True)
class Series:
    """One line of a chart: a name, its CSS class and (epoch, value) pairs; None breaks the line."""

    name: str
    css: str
    points: tuple[tuple[int, float | None], ...]

    @property
    def known(self) -> list[tuple[int, float]]:
        """The pairs that have a value."""
        return [(epoch, value) for epoch, value in self.points if value is not None]


def best_epoch(history: Sequence[Mapping[str, object]]) -> int | None:
    """The first epoch with the highest validation accuracy; without one, with the lowest validation loss.

    Args:
        history: one mapping an epoch, as in `learning_curves`.

    Returns:
        The epoch's number, or None where there is no validation.
    """
    for key, sign in (("val_top1", 1), ("val_loss", -1)):
        known = [(sign * value, -epoch) for epoch, value in _series(history, key, "", "").known]
        if known:
            return -max(known)[1]
    return None


def learning_curves(history: Sequence[Mapping[str, object]]) -> str:
    """Loss and accuracy by epoch, for training and validation, with the best epoch marked.

    Args:
        history: one mapping an epoch: "epoch" (from 1), "train_loss" and "val_loss" in nats,
            "train_top1" and "val_top1" as shares 0 to 1. A key may be absent, None or not finite; the
            line has a gap there.

    Returns:
        Two figures in one HTML element.
    """
    best = best_epoch(history)
    loss = [
        _series(history, "train_loss", "training", "train"),
        _series(history, "val_loss", "validation", "val"),
    ]
    accuracy = [
        _series(history, "train_top1", "training", "train"),
        _series(history, "val_top1", "validation", "val"),
    ]
    return (
        '<div class="cv-curves">'
        + _line_chart("Loss", "nats", loss, best, lambda v: f"{v:.3g}", may_log=True)
        + _line_chart("Accuracy", "top-1", accuracy, best, _percent)
        + "</div>"
    )


def _series(history: Sequence[Mapping[str, object]], key: str, name: str, css: str) -> Series:
    points = []
    for place, row in enumerate(history, 1):
        epoch, value = row.get("epoch"), row.get(key)
        number = float(value) if isinstance(value, Real) else math.nan
        points.append(
            (
                int(float(epoch)) if isinstance(epoch, Real) else place,
                number if math.isfinite(number) else None,
            )
        )
    return Series(name, css, tuple(points))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _line_chart(
    title: str,
    unit: str,
    lines: Sequence[Series],
    best: int | None,
    show: Callable[[float], str],
    may_log: bool = False,
) -> str:
    drawn = [line for line in lines if line.known]
    if not drawn:
        return f'<figure class="cv-chart"><p class="cv-empty">{title}: no figures were recorded.</p></figure>'
    values = [value for line in drawn for _, value in line.known]
    epochs = sorted({epoch for line in lines for epoch, _ in line.points})
    log = may_log and min(values) > 0 and max(values) >= LOG_RATIO * min(values)
    ticks = log_ticks(min(values), max(values)) if log else nice_ticks(min(values), max(values))
    if not log:  # neither a loss nor an accuracy is below 0, and no accuracy above 1
        most = 1.0 if unit == "top-1" else math.inf
        ticks = [t for t in ticks if 0 <= t <= most] or ticks
    bend = math.log if log else float
    low, high = bend(min(ticks[0], *values)), bend(max(ticks[-1], *values))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(epoch: int) -> float:
        if len(epochs) == 1:
            return (LEFT + right) / 2
        return LEFT + (right - LEFT) * (epoch - epochs[0]) / (epochs[-1] - epochs[0])

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (bend(value) - low) / (high - low)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(t):.1f}" y2="{y(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y(t) + 4:.1f}" text-anchor="end">'
        f"{_tick(t, ticks, unit)}</text>"
        for t in ticks
    ]
    parts += [
        f'<text class="tick" x="{x(e):.1f}" y="{bottom + 17}" text-anchor="middle">{e}</text>'
        for e in epoch_ticks(epochs)
    ]
    parts.append(
        f'<text class="axis" x="{(LEFT + right) / 2}" y="{HEIGHT - 3}" text-anchor="middle">epoch</text>'
    )
    if best is not None and len(epochs) > 1:
        side = "start" if x(best) < LEFT + 40 else "end" if x(best) > right - 40 else "middle"
        parts.append(
            f'<line class="best" x1="{x(best):.1f}" x2="{x(best):.1f}" y1="{TOP - 8}" y2="{bottom}"/>'
            f'<text class="best-label" x="{x(best):.1f}" y="{TOP - 14}" text-anchor="{side}">'
            f"best: epoch {best}</text>"
        )
    for line in drawn:
        parts.append(f'<path class="line {line.css}" d="{_path(line, x, y)}"/>')
        size = 3.2 if len(epochs) <= 15 else 1.8
        parts += [
            f'<circle class="point {line.css}" cx="{x(e):.1f}" cy="{y(v):.1f}" r="{size}">'
            f"<title>epoch {e}, {line.name}: {show(v)}</title></circle>"
            for e, v in line.known
        ]
    ends = [y(line.known[-1][1]) for line in drawn]
    for line, at in zip(drawn, spread(ends, LABEL_ROOM, TOP + 4, bottom - 16), strict=True):
        parts.append(
            f'<text class="end {line.css}" x="{right + 9}" y="{at:.1f}">{line.name}'
            f'<tspan class="value" x="{right + 9}" dy="14">{show(line.known[-1][1])}</tspan></text>'
        )
    told = "; ".join(f"{n.name} from {show(n.known[0][1])} to {show(n.known[-1][1])}" for n in drawn)
    told += f"; best epoch {best}" if best is not None else ""
    heading = f"{title} <span>({unit}{', logarithmic axis' if log else ''})</span>"
    return (
        f'<figure class="cv-chart"><figcaption>{heading}{_gaps(lines, drawn)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title} by epoch: {told}">'
        + "".join(parts)
        + "</svg></figure>"
    )


def _gaps(lines: Iterable[Series], drawn: Iterable[Series]) -> str:
    """Words for epochs without a figure in a line that has some."""
    told = []
    for line in drawn:
        missing = [str(epoch) for epoch, value in line.points if value is None]
        if missing:
            shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            told.append(f"no {line.name} figure at epoch {shown}")
    return f' <span class="cv-gap">{"; ".join(told)}</span>' if told else ""


def _path(line: Series, x: Callable[[int], float], y: Callable[[float], float]) -> str:
    steps, pen = [], "M"
    for epoch, value in line.points:
        if value is None:
            pen = "M"
        else:
            steps.append(f"{pen}{x(epoch):.1f} {y(value):.1f}")
            pen = "L"
    return "".join(steps)


def _tick(value: float, ticks: Sequence[float], unit: str) -> str:
    if unit == "top-1":
        step = 100 * (ticks[1] - ticks[0])
        return f"{100 * value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f} %"
    return f"{value:.4g}"


def interval(value: float, low: float, high: float, told: str, mark: tuple[float, str] | None = None) -> str:
    """A share on a track from 0 to 100 %, its interval as a paler band.

    Args:
        value: the share, 0 to 1.
        low: lower end of the interval.
        high: upper end of the interval.
        told: the same in words, for those who do not see it.
        mark: another share to compare with, and what it is; drawn as a notch.

    Returns:
        An HTML element as wide as its surroundings.
    """
    notch = ""
    if mark:
        side = "start" if mark[0] < 0.35 else "middle" if mark[0] < 0.65 else "end"
        notch = (
            f'<span class="notch {side}" style="left:{100 * mark[0]:.2f}%">'
            f"<span>{escape(mark[1])}</span></span>"
        )
    return (
        f'<span class="cv-interval" role="img" aria-label="{escape(told)}" title="{escape(told)}">'
        f'<span class="fill" style="width:{100 * value:.2f}%"></span>'
        f'<span class="band" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%"></span>'
        f'<span class="value" style="left:{100 * value:.2f}%"></span>{notch}</span>'
    )


def confusions(matrix: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Pairs that were confused, the most frequent first.

    Args:
        matrix: (K, K) counts, rows the truth, columns what was said.

    Returns:
        (truth, said, count), in falling count and then in the order of the classes.
    """
    pairs = [(t, s, n) for t, row in enumerate(matrix) for s, n in enumerate(row) if n and t != s]
    return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], largest: int = MATRIX) -> str:
    """A confusion matrix as a heat-map with counts, or the largest confusions where it would be too large.

    Args:
        matrix: (K, K) counts, rows the truth, columns what was said.
        classes: the K names, in any script.
        largest: the largest K drawn as a matrix, and the length of the list drawn instead.

    Returns:
        An HTML table, or an ordered list.
    """
    if len(classes) <= largest:
        return _heat_map(matrix, classes)
    pairs = confusions(matrix)
    if not pairs:
        return '<p class="cv-empty">No two classes were confused.</p>'
    items = "".join(
        f'<li><span class="pair">{_name(classes[t])} <span class="word">said to be</span> '
        f"{_name(classes[s])}</span>"
        f'<span class="bar"><span style="width:{100 * n / pairs[0][2]:.1f}%"></span></span>'
        f'<span class="count"><b>{n}</b> of {sum(matrix[t])}</span></li>'
        for t, s, n in pairs[:largest]
    )
    rest = len(pairs) - largest
    more = (
        f'<p class="cv-more">{rest:,} more pairs were confused, each less often or as often.</p>'
        if rest > 0
        else ""
    )
    return f'<ol class="cv-ranked">{items}</ol>{more}'


def _heat_map(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    cell = max(1.9, min(5.0, 26 / len(classes)))
    upright = max(map(len, classes)) * 0.62 > cell
    head = "".join(f'<th scope="col">{_name(name)}</th>' for name in classes)
    body = []
    for t, row in enumerate(matrix):
        total = sum(row)
        cells = []
        for s, n in enumerate(row):
            # The root lifts rare mistakes, which a plain share would leave invisible.
            heat = math.sqrt(n / total) if total else 0.0
            kind = "none" if not n else "right" if s == t else "wrong"
            deep = " deep" if heat > 0.62 else ""
            told = f"{classes[t]} said to be {classes[s]}: {n} of {total}"
            cells.append(
                f'<td class="{kind}{deep}" style="--heat:{heat:.2f}" title="{escape(told)}">{n or "·"}</td>'
            )
        body.append(f'<tr><th scope="row">{_name(classes[t])}</th>{"".join(cells)}</tr>')
    return (
        '<div class="cv-scroll" tabindex="0" role="region" aria-label="Confusion matrix">'
        f'<table class="cv-confusion{" upright" if upright else ""}" style="--cell:{cell:.2f}rem">'
        f'<thead><tr><td class="corner">truth ↓ &#160; said →</td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _name(name: str) -> str:
    return f'<bdi class="name" title="{escape(name)}">{escape(name)}</bdi>'
