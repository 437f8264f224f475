"""Charts of confidence: whether it is earned, and what it is worth to answer only when sure.

As in `charts`: inline SVG that needs no script, coloured by the page's variables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from convarium.draw.axes import nice_ticks

WIDTH, HEIGHT = 420, 330
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 10, 42
"""Room around the plot, in SVG units."""

STRIP = 46
"""Height of the strip of counts below a reliability diagram."""

POINTS = 240
"""The most points that a line is drawn with."""


class Range(NamedTuple):
    """Pictures whose confidence lies in a range, all shares 0 to 1; the last four are None without pictures."""

    low: float
    high: float
    pictures: int
    confidence: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None


def reliability_diagram(ranges: Sequence[Range]) -> str:
    """Accuracy by confidence with 95 % intervals, the line on which both are the same, and counts below.

    Args:
        ranges: of confidence, rising, from 0 to 1.

    Returns:
        A figure in one HTML element.
    """
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM - STRIP - 12
    floor = HEIGHT - BOTTOM

    def x(share: float) -> float:
        return LEFT + (right - LEFT) * share

    def y(share: float) -> float:
        return bottom - (bottom - TOP) * share

    parts = [_level(y(t), right, f"{100 * t:.0f} %") for t in (0, 0.25, 0.5, 0.75, 1)]
    parts += [_below(x(t), floor + 17, f"{100 * t:.0f} %") for t in (0, 0.25, 0.5, 0.75, 1)]
    parts.append(f'<line class="equal" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{TOP}"/>')
    parts.append(
        f'<text class="tick" x="{x(0.02):.1f}" y="{y(0.94):.1f}">right more often than sure</text>'
        f'<text class="tick" x="{x(0.98):.1f}" y="{y(0.03):.1f}" text-anchor="end">surer than right</text>'
    )
    most = max((r.pictures for r in ranges), default=0) or 1
    told = []
    for r in ranges:
        if r.confidence is None or r.accuracy is None or r.accuracy_low is None or r.accuracy_high is None:
            continue
        between = f"95 %: {_share(r.accuracy_low)} to {_share(r.accuracy_high)}"
        words = (
            f"confidence {100 * r.low:.0f} to {100 * r.high:.0f} %: {r.pictures:,} pictures, mean "
            f"{_share(r.confidence)}, {_share(r.accuracy)} right ({between})"
        )
        told.append(f"{_share(r.confidence)} sure, {_share(r.accuracy)} right")
        tall = max(1.0, (STRIP - 12) * r.pictures / most)
        # A bar of its own range, and a point above it where the mean confidence of its pictures is.
        parts.append(
            f'<g class="val"><title>{words}</title>'
            f'<line class="gap" x1="{x(r.confidence):.1f}" x2="{x(r.confidence):.1f}" y1="{y(r.accuracy):.1f}" '
            f'y2="{y(r.confidence):.1f}"/>'
            f'<line class="whisker" x1="{x(r.confidence):.1f}" x2="{x(r.confidence):.1f}" '
            f'y1="{y(r.accuracy_low):.1f}" y2="{y(r.accuracy_high):.1f}"/>'
            f'<circle class="point" cx="{x(r.confidence):.1f}" cy="{y(r.accuracy):.1f}" r="4"/>'
            f'<rect class="count" x="{x(r.low) + 0.8:.1f}" width="{x(r.high) - x(r.low) - 1.6:.1f}" '
            f'y="{floor - tall:.1f}" height="{tall:.1f}"/></g>'
        )
        if r.pictures == most:
            middle = (x(r.low) + x(r.high)) / 2
            side = "end" if r.high > 0.9 else "middle"
            at = x(r.high) if r.high > 0.9 else middle
            parts.append(
                f'<text class="tick" x="{at:.1f}" y="{floor - tall - 4:.1f}" text-anchor="{side}">'
                f"{r.pictures:,} pictures</text>"
            )
    parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{floor}" y2="{floor}"/>')
    parts.append(_axis((LEFT + right) / 2, "confidence: the probability given to the answer"))
    return _figure(
        "Accuracy by confidence", "95 % intervals; pictures below", "; ".join(told) or "no picture", parts
    )


def coverage_risk_chart(
    coverages: Sequence[float], risks: Sequence[float], chosen: tuple[float, float] | None = None
) -> str:
    """The share of wrong answers where only the surest pictures are answered.

    Args:
        coverages: shares of the pictures answered, rising, 0 to 1.
        risks: shares of these answers that are wrong, 0 to 1.
        chosen: coverage and risk of a threshold, to be marked.

    Returns:
        A figure in one HTML element.
    """
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    shown = sorted({round(i * (len(coverages) - 1) / (POINTS - 1)) for i in range(POINTS)})
    points = [(coverages[i], risks[i]) for i in shown] if coverages else []
    ticks = [t for t in nice_ticks(0, max([r for _, r in points], default=0) or 0.01) if 0 <= t <= 1]
    top = ticks[-1]

    def x(share: float) -> float:
        return LEFT + (right - LEFT) * share

    def y(share: float) -> float:
        return bottom - (bottom - TOP) * share / top

    parts = [_level(y(t), right, f"{100 * t:g} %") for t in ticks]
    parts += [_below(x(t), bottom + 17, f"{100 * t:.0f} %") for t in (0, 0.25, 0.5, 0.75, 1)]
    line = "L".join(f"{x(c):.1f} {y(r):.1f}" for c, r in points)
    parts.append(f'<path class="line val" d="M{line}"/>' if points else "")
    told = f"all answered: {_share(points[-1][1])} wrong" if points else "no picture"
    if chosen is not None:
        words = f"{_share(chosen[0])} answered, {_share(chosen[1])} wrong"
        side = "end" if chosen[0] > 0.5 else "start"
        at = x(chosen[0]) + (-9 if side == "end" else 9)
        height = max(TOP + 12, y(chosen[1]) - 12)
        parts.append(
            f'<line class="best" x1="{x(chosen[0]):.1f}" x2="{x(chosen[0]):.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<circle class="point val" cx="{x(chosen[0]):.1f}" cy="{y(chosen[1]):.1f}" r="4.5"/>'
            f'<text class="best-label" x="{at:.1f}" y="{height:.1f}" text-anchor="{side}">{words}</text>'
        )
        told += f"; at the threshold {words}"
    parts.append(_axis((LEFT + right) / 2, "coverage: pictures answered, the surest first"))
    return _figure("Wrong answers by coverage", "share of the answers given", told, parts)


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"


def _level(y: float, right: float, text: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    )


def _below(x: float, y: float, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>'


def _axis(x: float, text: str) -> str:
    return f'<text class="axis" x="{x}" y="{HEIGHT - 3}" text-anchor="middle">{text}</text>'


def _figure(title: str, unit: str, told: str, parts: Sequence[str]) -> str:
    return (
        f'<figure class="cv-chart"><figcaption>{title} <span>({unit})</span></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}: {told}">'
        + "".join(parts)
        + "</svg></figure>"
    )
