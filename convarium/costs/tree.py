"""A network as a tree of text that a person can read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from convarium.costs.figures import field, flops, full, known, macs, short
from convarium.costs.fold import Part, innermost
from convarium.errors import ArgumentError, unknown_name

COST_COLUMNS = ("output", "params", "MACs", "FLOPs", "activations", "field")

_PLAIN = ("Chain", "Stage", "Head")
"""Kinds that say nothing beyond the names of their parts."""

_LEAST = 24
"""Characters that the names get at least, before columns are left out."""


def tree(
    rows: Sequence[Part],
    depth: int | None = None,
    columns: Sequence[str] = ("output", "params"),
    *,
    width: int | None = None,
    gates: bool = False,
) -> str:
    """Names, kinds and figures, indented; equal neighbours are folded into one line, which stands for all of them.

    Args:
        rows: of a `Cost`.
        depth: levels to open below the whole; None opens all.
        columns: of "output", "params", "MACs", "FLOPs", "activations", "field".
        width: characters of a line; where the figures do not fit they are rounded, then columns are left out. None
            for as many as it takes.
        gates: the receptive field goes through gates, as squeeze-and-excitation has them.

    Returns:
        Lines joined by newlines.

    Raises:
        UnknownName: no such column.
        ArgumentError: a depth that is no number of levels.
    """
    for column in columns:
        if column not in _CELLS:
            raise unknown_name("column", str(column), _CELLS)
    if depth is not None and (not isinstance(depth, int) or depth < 0):
        raise ArgumentError(
            f"depth = {depth!r}; it must be a whole number of at least 0, or None for all levels"
        )
    lines = _lines(rows, depth)
    for figure, kept in _attempts(columns, width):
        cells = [[_CELLS[column](row, figure, gates) for column in kept] for _, row in lines]
        heads = [_HEADS.get(column, (column, column))[figure is short] for column in kept]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        room = None if width is None else width - sum(widths) - 2 * len(widths)
        names = max(len(label) for label, _ in lines)
        if room is None or names <= room or (room >= _LEAST and figure is short):
            break
    names = names if room is None else min(names, max(room, _LEAST))
    table = [("", heads), *((label, line) for (label, _), line in zip(lines, cells, strict=True))]
    return "\n".join(
        "  ".join([_cut(label, names), *map(str.rjust, line, widths)]).rstrip() for label, line in table
    )


def _attempts(
    columns: Sequence[str], width: int | None
) -> Iterable[tuple[Callable[[int], str], Sequence[str]]]:
    """Ways to write the figures, from the fullest to the narrowest."""
    yield full, columns
    if width is not None:
        for count in range(len(columns), 1, -1):
            # What is left out first: FLOPs, which are twice the MACs, then activations, then the receptive field.
            order = [c for c in ("output", "params", "MACs", "field", "activations", "FLOPs") if c in columns]
            order = order[:count]
            yield short, [c for c in columns if c in order]


def _cut(label: str, width: int) -> str:
    return label.ljust(width) if len(label) <= width else label[: width - 1] + "…"


_HEADS = {"params": ("parameters", "params"), "activations": ("activations", "activ.")}
_CELLS: dict[str, Callable[[Part, Callable[[int], str], bool], str]] = {
    "output": lambda row, figure, gates: " x ".join(map(str, row.shape)) if row.shape else "",
    "params": lambda row, figure, gates: figure(row.params) if row.params else "",
    "MACs": lambda row, figure, gates: "" if row.macs == 0 else macs(row, figure),
    "FLOPs": lambda row, figure, gates: "" if row.macs == 0 else flops(row, figure),
    "activations": lambda row, figure, gates: "" if row.activations == 0 else known(row.activations, figure),
    "field": lambda row, figure, gates: field(row.fields, gates),
}


def _lines(rows: Sequence[Part], depth: int | None) -> list[tuple[str, Part]]:
    """Each line's label, indented, and what it stands for."""
    below: dict[str, list[Part]] = {}
    for row in rows[1:]:
        if row.kind != "Identity":  # parts that do nothing are not shown
            below.setdefault(row.path.rpartition(".")[0], []).append(row)
    lines: list[tuple[str, Part]] = []

    def add(group: list[Part], label: str, lead: str, under: str, left: int | None) -> None:
        row = group[-1]
        children = below.get(row.path, [])
        while left != 0 and len(children) == 1 and row.kind in _PLAIN and row.path and len(group) == 1:
            # A frame around a single part needs no line of its own.
            row, label = children[0], f"{label}.{children[0].name}"
            group, children = [row], below.get(row.path, [])
        kind = row.kind if row.kind not in _PLAIN else ""
        text = "  ".join(filter(None, (label, " ".join(filter(None, (kind, _short(row)))))))
        lines.append((lead + text, _together(group)))
        if left == 0:
            return
        groups = _folded(children, below)
        for index, alike in enumerate(groups):
            last = index == len(groups) - 1
            name = alike[0].name
            if len(alike) > 1:
                name = f"{name}-{alike[-1].name} ({len(alike)} alike)"
            add(
                alike,
                name,
                under + ("└─ " if last else "├─ "),
                under + ("   " if last else "│  "),
                None if left is None else left - 1,
            )

    whole = innermost(rows)
    add([replace(rows[0], path=whole.path, kind=whole.kind)], whole.path, "", "", depth)
    return lines


def _short(row: Part) -> str:
    """What a leaf does, in few words: a convolution as "3x3 /2, pad 1, 32 groups"."""
    if not row.leaf or row.kind in ("Linear", "Flatten", "ReLU", "BatchNorm2d"):
        return ""  # the shape and the parameters beside it say it all
    settings = dict(re.findall(r"(\w+)=(\([^)]*\)|[^,]+)", row.detail))
    if "kernel_size" not in settings:
        return row.detail
    words = _by(settings["kernel_size"])
    if _by(settings.get("stride", "1")) != "1x1":
        words += f" /{_one(settings['stride'])}"
    padding = settings.get("padding", "0")
    if padding in ("same", "valid"):
        words += ", pad same" if padding == "same" else ""
    elif _by(padding) != "0x0":
        words += f", pad {_by(padding)}"
    if "groups" in settings:
        words += f", {settings['groups']} groups"
    if _by(settings.get("dilation", "1")) != "1x1":
        words += f", dilation {_by(settings['dilation'])}"
    return words


def _by(setting: str) -> str:
    """(3, 5) and 3 as 3x5 and 3x3."""
    numbers = re.findall(r"\w+", setting)
    return "x".join(numbers if len(numbers) > 1 else numbers * 2)


def _one(setting: str) -> str:
    """(2, 2) and 2 as 2, (1, 2) as 1x2."""
    numbers = _by(setting).split("x")
    return numbers[0] if len(set(numbers)) == 1 else "x".join(numbers)


def _folded(children: list[Part], below: dict[str, list[Part]]) -> list[list[Part]]:
    """Neighbours that are the same inside and outside, together."""
    groups: list[list[Part]] = []
    for child in children:
        if groups and child.name.isdigit() and _print(groups[-1][0], below) == _print(child, below):
            groups[-1].append(child)
        else:
            groups.append([child])
    return groups


def _print(row: Part, below: dict[str, list[Part]]) -> tuple[object, ...]:
    """What a part looks like, names of the part itself and its place in the picture aside."""
    inside = tuple((child.name, _print(child, below)) for child in below.get(row.path, []))
    return (row.kind, row.detail, row.shape, row.params, row.macs, row.status, inside)


def _together(group: list[Part]) -> Part:
    """One row for parts alike: the last one's place, the figures of all."""
    if len(group) == 1:
        return group[0]
    return replace(
        group[-1],
        params=sum(row.params for row in group),
        macs=None if group[0].macs is None else sum(row.macs or 0 for row in group),
        activations=None if group[0].activations is None else sum(row.activations or 0 for row in group),
    )
