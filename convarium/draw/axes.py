"""Where the numbers and the labels of a chart stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

NOTHING = 1e-30
"""Below this a difference is none: the smallest floats have no step of their own any more."""


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, in steps of 1, 2 or 5 times a power of ten."""
    span = high - low
    if span <= max(1e-9 * abs(high), NOTHING):  # one value, or as good as one
        span = abs(high) * 0.2 if abs(high) > NOTHING else 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        first, last = first - 1, last + 1
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between where few, around `low` to `high` (both above 0)."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first > 4:
        step = math.ceil((last - first) / 5)
        return [10.0**k for k in range(first, last + step, step)]
    ticks = [float(f"{m}e{k}") for k in range(first, last + 1) for m in (1, 2, 5)]
    below = [t for t in ticks if t <= low]
    above = [t for t in ticks if t >= high]
    return [t for t in ticks if (below[-1] if below else low) <= t <= (above[0] if above else high)]


def epoch_ticks(epochs: Sequence[int], most: int = 7) -> list[int]:
    """Epochs to write under the axis: all of a few, else round ones."""
    if len(epochs) <= most:
        return list(epochs)
    step = next(
        s for k in range(9) for s in (10**k, 2 * 10**k, 5 * 10**k) if (epochs[-1] - epochs[0]) / s < most
    )
    rounded = [e for e in range(epochs[0], epochs[-1] + 1) if e % step == 0]
    return ([epochs[0]] if rounded[0] - epochs[0] > step / 2 else []) + rounded


def spread(places: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """The places moved just enough that neighbours are `room` apart, none outside of `low` to `high`.

    Args:
        places: where each label would stand.
        room: the least distance of two.
        low: least place.
        high: greatest place.

    Returns:
        New places in the order given.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for i in order:
        moved[i] = low = max(moved[i], low)
        low += room
    for i in reversed(order):
        moved[i] = high = min(moved[i], high)
        high -= room
    return moved
