"""A cost as a table: plain text, CSV, JSON, Markdown; by stage, block or leaf."""

from __future__ import annotations

import csv as csv_files
import io
import json as json_text
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from convarium.costs.cost import RULE, Cost
from convarium.costs.field import Fields
from convarium.costs.figures import chosen, field, flops, full, known, macs, short
from convarium.costs.fold import Part, innermost
from convarium.errors import ArgumentError, unknown_name

LEVELS = ("stage", "block", "leaf")


def selected(cost: Cost, by: str | None, depth: int | None = None) -> list[Part]:
    """The parts of one level, which together are the whole; what the parts above them do themselves comes last.

    Args:
        cost: of a network.
        by: "stage": stem, each stage, head, or the outermost parts of a network that is not built so; "block": what
            stages are made of; "leaf": parts that have none inside; None for every part at every level.
        depth: without `by`, levels below the whole; None for all.

    Returns:
        Rows in the order of their definition.

    Raises:
        UnknownName: no such level.
        ArgumentError: a depth together with a level.
    """
    if by is not None and depth is not None:
        raise ArgumentError(f"depth = {depth} opens a tree, and a table by {by} is none; give one of them")
    if by is None:
        most = None if depth is None else depth + innermost(cost.rows).depth
        return [row for row in cost.rows if most is None or row.depth <= most]
    if by not in LEVELS:
        raise unknown_name("level", by, LEVELS)
    below: dict[str, list[Part]] = {}
    for row in cost.rows[1:]:
        below.setdefault(row.path.rpartition(".")[0], []).append(row)
    whole = cost.rows[0]
    stages = _opened(whole, below)
    if by == "stage":
        return _with_rest(whole, stages)
    if by == "leaf":
        return _with_rest(whole, [row for row in cost.rows if row.leaf and row.kind != "Identity"])
    blocks = []
    for stage in stages:
        inside = [part for part in below.get(stage.path, []) if part.kind != "Identity"]
        runs = {part.name: part for part in inside}
        if "blocks" in runs:
            blocks += [p for p in (runs.get("downsample"), *below.get(runs["blocks"].path, [])) if p]
        elif inside and all(part.name.isdigit() for part in inside):  # a plain list, as torchvision's layers
            blocks += inside
        else:
            blocks.append(stage)
    return _with_rest(whole, blocks)


def _opened(row: Part, below: dict[str, list[Part]]) -> list[Part]:
    """The outermost parts, frames around a single part and the list of stages opened."""
    parts = [part for part in below.get(row.path, []) if part.kind != "Identity"]
    if len(parts) == 1 and below.get(parts[0].path):
        return _opened(parts[0], below)
    return [
        inner for part in parts for inner in (below.get(part.path, []) if part.name == "stages" else [part])
    ]


def _with_rest(whole: Part, rows: list[Part]) -> list[Part]:
    """The rows, and what the whole has beyond them."""
    if not rows:
        return [whole]
    params = whole.params - sum(row.params for row in rows)
    macs = None if whole.macs is None else whole.macs - sum(row.macs or 0 for row in rows)
    activations = (whole.activations or 0) - sum(row.activations or 0 for row in rows)
    moved = whole.moved - sum(row.moved for row in rows)
    if params or macs or activations > 0:
        rest = replace(whole, path="(beside them)" if params >= 0 else "(shared by some)", kind="", detail="")
        rest = replace(rest, shape=None, fields=None, params=params, macs=macs, folded=None)
        rest = replace(rest, activations=activations, moved=moved)
        return [*rows, rest]
    return rows


def text(cost: Cost, by: str, *, gates: bool = False, width: int | None = None) -> str:
    """The parts of one level, aligned, with the whole at the end.

    Args:
        cost: of a network.
        by: "stage", "block" or "leaf".
        gates: the receptive field goes through gates.
        width: characters of a line; where the figures do not fit they are rounded, then columns are left out.
    """
    for figure, left_out in _ATTEMPTS:
        rows = [
            [cell for cell, head in zip(row, _HEADS, strict=True) if head not in left_out]
            for row in _cells(cost, by, gates, figure)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        if width is None or sum(widths) + 2 * len(widths) - 2 <= width:
            break
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def markdown(cost: Cost, by: str, gates: bool = False) -> str:
    """The parts of one level as a Markdown table, the rule below it."""
    rows = _cells(cost, by, gates, full)
    ruler = ["---", *("---:" for _ in rows[0][1:])]
    lines = ["| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:])]
    return "\n".join([*lines, "", f"{RULE}.", *(f"{note[0].upper()}{note[1:]}." for note in cost.notes)])


_HEADS = (
    "part",
    "output",
    "params",
    "% params",
    "MACs",
    "FLOPs",
    "% MACs",
    "activations",
    "field",
    "FLOP/byte",
)
_ATTEMPTS: tuple[tuple[Callable[[int], str], set[str]], ...] = (
    (full, set()),
    (short, set()),
    (short, {"FLOP/byte"}),
    (short, {"FLOP/byte", "FLOPs"}),
    (short, {"FLOP/byte", "FLOPs", "activations"}),
    (short, {"FLOP/byte", "FLOPs", "activations", "% params", "% MACs"}),
    (short, {"FLOP/byte", "FLOPs", "activations", "% params", "% MACs", "field"}),
)
"""How figures are written and what is left out, from the fullest to the narrowest."""


def _cells(cost: Cost, by: str, gates: bool, figure: Callable[[int], str]) -> list[list[str]]:
    rows = [list(_HEADS)]
    for row in [*selected(cost, by), replace(cost.rows[0], path="total")]:
        rows.append(
            [
                row.path,
                " x ".join(map(str, row.shape or ())),
                figure(row.params),
                _share(row.params, cost.params),
                macs(row, figure),
                flops(row, figure),
                _share(row.macs, cost.macs),
                known(row.activations, figure),
                field(row.fields, gates),
                "" if row.intensity is None else f"{row.intensity:.1f}",
            ]
        )
    return rows


def _share(part: int | None, whole: int | None) -> str:
    return f"{100 * part / whole:.1f}" if whole and part is not None else ""


def entry(row: Part) -> dict[str, Any]:
    """A part's figures by name, for CSV and JSON."""
    return {
        "path": row.path,
        "kind": row.kind,
        "leaf": row.leaf,
        "output": row.shape,
        **_figures(row),
        "status": row.status,
        **_fields(row.fields),
    }


def whole(cost: Cost) -> dict[str, Any]:
    """The totals of a cost by name; the receptive field is that of the last plane."""
    about = {"input": cost.picture, "batch": cost.batch, "dtype": cost.dtype, "rule": RULE}
    totals = {"status": cost.status, "output": cost.rows[0].shape, **_figures(cost.rows[0])}
    return {**about, **totals, **_fields(cost.receptive_field), "notes": cost.notes}


def _figures(row: Part) -> dict[str, Any]:
    return {
        "params": row.params,
        "macs": row.macs,
        "macs_by_formulas": row.folded,
        "flops": row.flops,
        "activations": row.activations,
        "activation_bytes": row.activation_bytes,
        "flops_per_byte": row.intensity,
    }


def _fields(fields: Fields | None) -> dict[str, Any]:
    """Rows and columns of each; a side that is seen whole is "whole"."""
    result: dict[str, Any] = {}
    for name, gates in (("field", False), ("field_with_gates", True)):
        found = chosen(fields, gates)
        size = found and tuple("whole" if side is None else side for side in found.size)
        result |= {
            f"{name}_size": size,
            f"{name}_stride": found and found.stride,
            f"{name}_start": found and found.start,
        }
    return result


def json(cost: Cost, by: str | None = None, depth: int | None = None) -> str:
    """One object: the totals and, under "parts", the rows."""
    parts = [entry(row) for row in selected(cost, by, depth)]
    return json_text.dumps(whole(cost) | {"parts": parts}, indent=1)


def csv(cost: Cost, by: str | None = None, depth: int | None = None) -> str:
    """One line a part, with a heading; an output's sides are joined by x, a field has rows and columns apart."""
    file = io.StringIO()
    writer: Any = None
    for row in selected(cost, by, depth):
        line: dict[str, Any] = {}
        for name, value in entry(row).items():
            if "field" in name:
                line[f"{name}_rows"], line[f"{name}_columns"] = value or (None, None)
            else:
                line[name] = "x".join(map(str, value)) if isinstance(value, tuple) else value
        if writer is None:
            writer = csv_files.DictWriter(file, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow(line)
    return file.getvalue()
