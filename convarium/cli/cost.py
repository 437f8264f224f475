"""convarium cost: what a network costs, part by part."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import typer

from convarium.costs.figures import chosen, flops, full, macs, short, size

if TYPE_CHECKING:
    from convarium.cli.subject import Subject
    from convarium.costs.cost import Cost

_FORMATS = ("text", "csv", "json", "markdown")


def run(
    name: str = typer.Argument(help="Name of a network, or the file or run of a trained one."),
    size: str = typer.Option(None, help="Input in pixels: a side as 224, or HEIGHTxWIDTH as 224x320."),
    channels: int = typer.Option(None, help="Channels of the input.", min=1),
    classes: int = typer.Option(None, help="Number of classes.", min=1),
    batch: int = typer.Option(1, help="Pictures at once; figures are for all of them.", min=1),
    dtype: str = typer.Option("float32", help="Number type: float32, float16, bfloat16 or float64."),
    depth: int = typer.Option(None, help="Levels of the tree to open; all by default.", min=0),
    by: str = typer.Option(None, help="A table by stage, block or leaf, and no tree."),
    form: str = typer.Option("text", "--format", help="text, csv, json (one object) or markdown."),
    as_json: bool = typer.Option(
        False, "--json", help="One JSON object a line: the network, then each part."
    ),
    gates: bool = typer.Option(
        False, "--gates/--no-gates", help="Receptive field through squeeze-and-excitation gates too."
    ),
) -> None:
    """Count a network's parameters, multiply-accumulates, activations and receptive field, part by part."""
    from convarium.cli.subject import subject
    from convarium.costs.cost import cost
    from convarium.costs.tables import LEVELS, entry, selected, whole
    from convarium.errors import ArgumentError, unknown_name

    if form not in _FORMATS:
        raise unknown_name("format", form, _FORMATS)
    if by is not None and by not in LEVELS:
        raise unknown_name("level", by, LEVELS)
    if depth is not None and (by is not None or form == "markdown"):
        raise ArgumentError(
            "--depth opens the tree, CSV and JSON; a table by stage, block or leaf has no depth"
        )
    found = subject(name, classes=classes, channels=channels, size=size)
    counted = cost(found.net, found.picture, batch=batch, dtype=dtype)
    if as_json:
        print(json.dumps({"name": found.title, **whole(counted)}))
        for row in selected(counted, by, depth):
            print(json.dumps(entry(row)))
    elif form == "csv":
        print(counted.to_csv(by, depth), end="")
    elif form == "json":
        print(counted.to_json(by, depth))
    elif form == "markdown":
        print(counted.to_markdown(by or "stage"))
    else:
        _text(found, counted, depth, by, gates)


def _text(found: Subject, counted: Cost, depth: int | None, by: str | None, gates: bool) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    row = found.row
    print(f"{found.title}  ({row.family}{f', {row.year}' if row.year else ''})\n{row.paper}")
    picture = " x ".join(map(str, counted.picture))
    print(f"input {counted.batch} x {picture}, {counted.dtype}\n")
    look = {"width": width, "gates": gates}
    print(counted.table(by, **look) if by else counted.tree(depth, **look))
    print()
    for line in _totals(counted, gates):
        print(line)
    usual = (*counted.picture, found.net.classes) == (row.in_channels, row.size, row.size, row.classes)
    if usual and row.macs is not None and counted.macs is not None:
        print(f"stated       {_beside(row.macs, counted.macs / counted.batch)} ({row.source})")
    print(f"status       {_status(counted)}")
    for note in counted.notes:
        print(f"note         {note}")


def _totals(counted: Cost, gates: bool) -> list[str]:
    whole = counted.rows[0]
    lines = [
        f"parameters   {counted.params:,}, {size(counted.params * whole.itemsize)}",
        f"MACs         {macs(whole, full)}",
        f"FLOPs        {flops(whole, full)}",
    ]
    if counted.activations is not None and counted.activation_bytes is not None:
        lines.append(
            f"activations  {counted.activations:,} numbers written, {size(counted.activation_bytes)}"
        )
    if counted.intensity is not None:
        lines.append(f"intensity    {counted.intensity:.1f} FLOPs a byte, leaf after leaf")
    if counted.receptive_field:
        lines.append(f"field        {_seen(counted, gates)}")
    return lines


def _beside(published: float, counted: float) -> str:
    """A published figure and how far it is from ours; others' counters have other rules."""
    share = 100 * (published / counted - 1) if counted else 0.0
    words = "the same" if abs(share) < 0.05 else f"{abs(share):.1f} % {'more' if share > 0 else 'less'}"
    return f"{short(published)}MACs, {words}"


def _seen(counted: Cost, gates: bool) -> str:
    """The receptive field of the last plane in words."""
    found, other = (chosen(counted.receptive_field, way) for way in (gates, not gates))
    if found is None:
        return "not known for the last plane"
    if found.whole:
        words = "one output of the last plane sees the whole picture"
    else:
        size, stride, start = (
            " x ".join(str("all" if side is None else side) for side in dict.fromkeys(pair))
            for pair in (found.size, found.stride, found.start)
        )
        words = f"one output of the last plane sees {size} pixels, its neighbour {stride} on, the first from {start}"
    if other == found:
        return words
    return f"{words}, gates included" if gates else f"{words}; gates see more: --gates"


def _status(counted: Cost) -> str:
    if counted.status != "complete":
        return f"{counted.status}: see the notes"
    if counted.rows[0].folded is None:
        return "complete; formulas and operators agree where there is a formula"
    return "complete; formulas and operators agree in every part"
