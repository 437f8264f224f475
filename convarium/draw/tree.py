"""A network as a tree of text that a person can read."""

from __future__ import annotations

from convarium.cost.shapes import Row


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
        opened = bool(children) and left != 0
        kind = row.kind if row.kind not in ("Chain", "Stage", "Head") else ""
        settings = f"({_short(row.detail)})" if row.leaf and row.detail else ""
        text = " ".join(filter(None, (label, kind + settings)))
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


def _short(detail: str) -> str:
    """The settings without those that say nothing new."""
    idle = (
        "inplace=True",
        "eps=1e-05",
        "momentum=0.1",
        "affine=True",
        "track_running_stats=True",
        "bias=True",
    )
    return ", ".join(part for part in detail.split(", ") if part not in idle)


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
