"""Two networks on one sheet, with what differs marked and told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from convarium.draw.anatomy import Part, Shape
from convarium.draw.figure import content, facts, notes, read
from convarium.draw.layout import Box, Figure, Label
from convarium.draw.letters import width
from convarium.draw.sheet import SMALL, basis_of, framed, ramp
from convarium.draw.units import kind

WIDEST = 1700.0
"""Two figures stand beside each other where both find room in this width, else below one another."""

APART = 60.0
"""Between the two."""

MOST = 8
"""Differences that are told in words."""

JOINTS = ("plus", "times", "bar")
"""Boxes that stand for a join alone, not for what is joined."""

Subject = tuple[nn.Module, Shape, str]
"""A network, its picture (channels, height, width) and what it is called."""


def difference(one: Subject, two: Subject, level: str = "net", part: str | None = None) -> Figure:
    """Two networks as one figure; parts are compared by their paths.

    Args:
        one: the first network.
        two: the second.
        level: of both figures, as in `figure.figure`.
        part: path of the only part to draw, in both.

    Returns:
        Boxes, arrows and texts, for `figure.save`.

    Raises:
        UnknownName: no such level or part.
        ArgumentError: a part at the level "net".
    """
    wholes = [read(net, picture) for net, picture, _ in (one, two)]
    names = [title for _, _, title in (one, two)]
    drawn = []
    for place, (whole, other) in enumerate(((wholes[0], wholes[1]), (wholes[1], wholes[0]))):
        body = content(whole, names[place], level, part, f"{place}/")[1]
        drawn.append(_headed(_marked(body, whole, other), names[place], facts(whole)))
    basis = basis_of(wholes[0], "the block" if level == "block" else "each network")
    body = _beside(drawn)
    said = [*differences(wholes[0], wholes[1], names[0], names[1]), *notes(wholes[0], level, basis, body)]
    return framed(body, " | ".join(names), [], _legend(ramp(basis)), said)


def _headed(body: Figure, title: str, below: str) -> Figure:
    fig = Figure(width=max(body.width, width(title, 15, True), width(below, SMALL)), height=body.height + 54)
    fig.labels.append(Label(0, 10, title, 15, "start", bold=True))
    fig.labels.append(Label(0, 30, below, SMALL, "start", "soft"))
    fig.place(body, 0, 54)
    return fig


def _beside(drawn: list[Figure]) -> Figure:
    one, two = drawn
    whole = Figure()
    whole.place(one, 0, 0)
    if one.width + APART + two.width <= WIDEST:
        whole.place(two, one.width + APART, 0)
        whole.width, whole.height = one.width + APART + two.width, max(one.height, two.height)
    else:
        whole.place(two, 0, one.height + APART)
        whole.width, whole.height = max(one.width, two.width), one.height + APART + two.height
    return whole


def _marked(body: Figure, whole: Part, other: Part) -> Figure:
    """The figure with a mark on every box that the other network lacks or has otherwise."""
    mine, theirs = ({part.path: part for part in net.all} for net in (whole, other))

    def same(path: str, box: Box) -> bool:
        here, there = mine[path], theirs[path]
        if box.role in JOINTS:
            return (here.join, here.shape) == (there.join, there.shape)
        return here.exact == there.exact

    boxes = []
    for box in body.boxes:
        mark = ""
        if box.parts:
            shared = [path for path in box.parts if path in theirs and not _placeholder(theirs[path])]
            if box.parts[0] not in shared:
                mark = "only"
            elif len(shared) < len(box.parts) or not all(same(path, box) for path in shared):
                mark = "changed"
        boxes.append(replace(box, mark=mark))
    return replace(body, boxes=boxes)


def _placeholder(part: Part) -> bool:
    """Whether it only keeps the place of a part that another network has."""
    return part.idle


def _legend(shades: Figure) -> Figure:
    legend = Figure(shades.width, shades.height + 24)
    legend.place(shades, 0, 0)
    x = 0.0
    for mark, text in (("changed", "in both, but not alike"), ("only", "in this network only")):
        legend.boxes.append(Box(x + 2, 25, 22, 12, "swatch", corner=2, mark=mark))
        legend.labels.append(Label(x + 32, 31, text, SMALL, "start", "soft"))
        x += 32 + width(text, SMALL) + 20
    legend.width = max(legend.width, x)
    return legend


def differences(one: Part, two: Part, first: str, second: str) -> list[str]:
    """What differs, in sentences: parts with the same place in their blocks together, the most frequent first.

    Args:
        one: the first network.
        two: the second.
        first: what it is called.
        second: the same of the second.
    """
    found: dict[str, list[str]] = {}
    for place, text in _differing(one, two, first, second):
        found.setdefault(place, []).append(text)
    said = []
    for place, texts in sorted(found.items(), key=lambda item: -len(item[1])):
        times = f" (one of {len(texts)} such)" if len(texts) > 1 else ""
        said.append(f"{place}: {texts[0]}{times}.")
    if not said:
        return ["No part differs."]
    rest = len(said) - MOST
    return said[:MOST] + ([f"{rest} more differences are marked."] if rest > 0 else [])


def _differing(one: Part, two: Part, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Place and difference of every part that differs by itself, not by what is inside it."""
    if (
        one.idle != two.idle
        or one.join != two.join
        or (one.words and two.words and one.words.text != two.words.text)
    ):
        names = _name(one), _name(two)
        if names[0] == names[1]:
            names = f"{names[0]}, a {one.join}", f"{names[1]}, a {two.join}"
        yield _place(one.path), f"{names[0]} in {first}; {names[1]} in {second}"
        return
    mine, theirs = ({part.name: part for part in net.parts} for net in (one, two))
    for name in [*mine, *(name for name in theirs if name not in mine)]:
        if name in mine and name in theirs:
            yield from _differing(mine[name], theirs[name], first, second)
        else:
            part, owner = (mine[name], first) if name in mine else (theirs[name], second)
            if not part.idle:
                yield _place(part.path), f"{_name(part)} only in {owner}"


def _name(part: Part) -> str:
    return "nothing" if part.idle else kind(part)


def _place(path: str) -> str:
    """A path without the numbers of stages and blocks, as "blocks.body.conv2"."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", "", path.removeprefix("stages.")).strip(".") or path
