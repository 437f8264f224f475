"""A network as a tree of text that a person can read."""

from __future__ import annotations

import re

from convarium.costs.shapes import Row

_PLAIN = ("Chain", "Stage", "Head")
"""Kinds that say nothing beyond the names of their parts."""


def tree(rows: list[Row], depth: int | None = None) -> str:
    """Names, kinds, output shapes and parameters, indented; equal neighbours are folded into one line.

    Args:
        rows: from `cost.shapes.shapes`.
        depth: levels to open below the whole; None opens all.

    Returns:
        Lines joined by newlines.
    """
    below: dict[str, list[Row]] = {}
    for row in rows[1:]:
        below.setdefault(row.path.rpartition(".")[0], []).append(row)
    lines: list[tuple[str, str, str]] = []

    def add(row: Row, label: str, lead: str, under: str, left: int | None) -> None:
        children = [child for child in below.get(row.path, []) if not _idle(child)]
        while left != 0 and len(children) == 1 and row.kind in _PLAIN and row.path:
            # A frame around a single part needs no line of its own.
            row, label = children[0], f"{label}.{children[0].name}"
            children = [child for child in below.get(row.path, []) if not _idle(child)]
        opened = bool(children) and left != 0
        kind = row.kind if row.kind not in _PLAIN else ""
        text = "  ".join(filter(None, (label, " ".join(filter(None, (kind, _short(row)))))))
        lines.append((lead + text, _shape(row), f"{row.parameters:,}" if row.parameters else ""))
        if not opened:
            return
        groups = _folded(children, below)
        for index, group in enumerate(groups):
            last = index == len(groups) - 1
            first, final = group[0], group[-1]
            name = first.name if len(group) == 1 else f"{first.name}-{final.name} ({len(group)} alike)"
            shown = first if len(group) == 1 else _together(group)
            add(
                shown,
                name,
                under + ("└─ " if last else "├─ "),
                under + ("   " if last else "│  "),
                None if left is None else left - 1,
            )

    add(rows[0], "", "", "", depth)
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    heading = ("", "output", "parameters")
    widths = [max(w, len(h)) for w, h in zip(widths, heading, strict=True)]
    table = [heading, *lines]
    return "\n".join(
        f"{left.ljust(widths[0])}  {middle.rjust(widths[1])}  {right.rjust(widths[2])}".rstrip()
        for left, middle, right in table
    )


def _idle(row: Row) -> bool:
    """Parts that do nothing are not shown."""
    return row.kind == "Identity"


def _shape(row: Row) -> str:
    return " x ".join(map(str, row.shape)) if row.shape else ""


def _short(row: Row) -> str:
    """What a leaf does, in few words: a convolution as "3x3 /2, pad 1, 32 groups"."""
    if not row.leaf or row.kind in ("Linear", "Flatten", "ReLU", "BatchNorm2d"):
        return ""  # the shape and the parameters beside it say it all
    settings = dict(re.findall(r"(\w+)=(\([^)]*\)|[^,]+)", row.detail))
    if "kernel_size" not in settings:
        return row.detail
    words = _by(settings["kernel_size"])
    if _by(settings.get("stride", "1")) != "1x1":
        words += f" /{_by(settings['stride']).partition('x')[0]}"
    if _by(settings.get("padding", "0")) != "0x0":
        words += f", pad {_by(settings['padding'])}"
    if "groups" in settings:
        words += f", {settings['groups']} groups"
    if _by(settings.get("dilation", "1")) != "1x1":
        words += f", dilation {_by(settings['dilation'])}"
    return words


def _by(setting: str) -> str:
    """(3, 5) and 3 as 3x5 and 3x3."""
    numbers = re.findall(r"\w+", setting)
    return "x".join(numbers if len(numbers) > 1 else numbers * 2)


def _folded(children: list[Row], below: dict[str, list[Row]]) -> list[list[Row]]:
    """Neighbours that are the same inside and outside, together."""
    groups: list[list[Row]] = []
    for child in children:
        if groups and _print(groups[-1][0], below) == _print(child, below) and child.name.isdigit():
            groups[-1].append(child)
        else:
            groups.append([child])
    return groups


def _print(row: Row, below: dict[str, list[Row]]) -> tuple[object, ...]:
    """What a part looks like, names of the part itself aside."""
    inside = tuple((child.name, _print(child, below)) for child in below.get(row.path, []))
    return (row.kind, row.detail, row.shape, row.parameters, inside)


def _together(group: list[Row]) -> Row:
    """One row for parts alike: the first one's inside, the parameters of all."""
    first = group[0]
    return Row(
        first.path, first.kind, group[-1].shape, sum(r.parameters for r in group), first.detail, first.leaf
    )
