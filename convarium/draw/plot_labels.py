"""Labels beside points, so that none covers another or a point; what finds no room is left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

CLEAR = 2.0
"""Least distance of a label from everything else, in pixels."""

_GAPS = (2.5, 4, 6, 9, 13, 18, 24, 31, 39, 48, 58, 70, 84)
_DIRECTIONS = (
    0,
    180,
    30,
    150,
    -30,
    -150,
    60,
    120,
    -60,
    -120,
    90,
    -90,
    15,
    165,
    -15,
    -165,
    45,
    135,
    -45,
    -135,
)


@dataclass(frozen=True)
class Label:
    """Where a label stands, in pixels.

    Args:
        box: left, bottom, right, top.
        leader: (x, y) of its ends, from the point to the label; None where the label is close enough.
    """

    box: tuple[float, float, float, float]
    leader: tuple[tuple[float, float], tuple[float, float]] | None


def place(
    discs: Sequence[tuple[float, float, float]],
    sizes: Sequence[tuple[float, float]],
    order: Sequence[int],
    room: tuple[float, float, float, float],
    lines: Sequence[tuple[float, float, float, float]] = (),
) -> dict[int, Label]:
    """Places for the labels of points, greedily: the nearest free one for each in turn.

    Args:
        discs: (x, y, radius) of every point.
        sizes: (width, height) of every point's label.
        order: points in the order in which their labels choose.
        room: left, bottom, right, top that no label leaves.
        lines: (x0, y0, x1, y1) of segments that no label covers.

    Returns:
        The labels that found a place, by point.
    """
    points = np.asarray(discs, dtype=float).reshape(-1, 3)
    boxes = np.empty((0, 4))
    strokes = np.asarray(lines, dtype=float).reshape(-1, 4)
    leaders = np.empty((0, 4))
    placed: dict[int, Label] = {}
    for index in order:
        x, y, radius = points[index]
        # A leader may start within a larger point that covers this one, but must not cross any other.
        within = np.hypot(points[:, 0] - x, points[:, 1] - y) <= points[:, 2]
        within[index] = True
        crossed = points[~within]
        for gap in _GAPS:
            label = next(
                (
                    label
                    for angle in _DIRECTIONS
                    if (label := _beside(x, y, radius, gap, angle, sizes[index], room)) is not None
                    and _free(label, points, crossed, boxes, strokes, leaders)
                ),
                None,
            )
            if label is not None:
                placed[index] = label
                boxes = np.vstack([boxes, label.box])
                if label.leader:
                    leaders = np.vstack([leaders, np.ravel(label.leader)])
                break
    return placed


def _beside(
    x: float,
    y: float,
    radius: float,
    gap: float,
    angle: float,
    size: tuple[float, float],
    room: tuple[float, float, float, float],
) -> Label | None:
    """The label that touches a ray of this angle at this gap from the disc's edge; None outside of the room."""
    along, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    end = (x + along * (radius + gap), y + up * (radius + gap))
    left, bottom = end[0] + (along - 1) * size[0] / 2, end[1] + (up - 1) * size[1] / 2
    box = (left, bottom, left + size[0], bottom + size[1])
    if box[0] < room[0] or box[1] < room[1] or box[2] > room[2] or box[3] > room[3]:
        return None
    if gap <= _GAPS[2]:
        return Label(box, None)
    near = (min(max(end[0], box[0]), box[2]), min(max(end[1], box[1]), box[3]))
    return Label(box, ((x + along * radius, y + up * radius), near))


def _free(
    label: Label, points: Numbers, crossed: Numbers, boxes: Numbers, strokes: Numbers, leaders: Numbers
) -> bool:
    box = np.asarray(label.box)
    wide = box + (-CLEAR, -CLEAR, CLEAR, CLEAR)
    nearest = np.clip(points[:, :2], wide[:2], wide[2:])
    if (np.hypot(*(points[:, :2] - nearest).T) < points[:, 2]).any():
        return False
    if (
        (boxes[:, 0] < wide[2]) & (boxes[:, 2] > wide[0]) & (boxes[:, 1] < wide[3]) & (boxes[:, 3] > wide[1])
    ).any():
        return False
    if any(_hits(stroke, wide) for stroke in (*strokes, *leaders)):
        return False
    if label.leader is None:
        return True
    leader = np.ravel(label.leader)
    if any(_hits(leader, other) for other in boxes) or any(_cross(leader, other) for other in leaders):
        return False
    start, step = leader[:2], leader[2:] - leader[:2]
    share = np.clip(((crossed[:, :2] - start) @ step) / max(step @ step, 1e-9), 0, 1)[:, None]
    return not (np.hypot(*(crossed[:, :2] - start - share * step).T) < crossed[:, 2]).any()


def _hits(segment: Numbers, box: Numbers) -> bool:
    """Whether a segment meets a box (Liang and Barsky's clipping)."""
    enter, leave = 0.0, 1.0
    for axis in (0, 1):
        start, step = segment[axis], segment[axis + 2] - segment[axis]
        if step == 0:
            if not box[axis] <= start <= box[axis + 2]:
                return False
            continue
        first, last = sorted(((box[axis] - start) / step, (box[axis + 2] - start) / step))
        enter, leave = max(enter, first), min(leave, last)
    return enter <= leave


def _cross(one: Numbers, other: Numbers) -> bool:
    """Whether two segments cross."""

    def side(p: Numbers, q: Numbers, r: Numbers) -> float:
        return float((q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]))

    a, b, c, d = one[:2], one[2:], other[:2], other[2:]
    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0
