"""convarium list: the networks that can be built."""

from __future__ import annotations

import json

import typer


def run(
    pattern: str = typer.Argument("*", help="Shell-style pattern, as 'resnet*'."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """List networks with family, year and parameters, in the order of history."""
    from convarium.errors import unknown_name
    from convarium.models import names, variant

    found = names(pattern)
    if not found:
        raise unknown_name("network", pattern, names(), "(`convarium list` shows all)")
    rows = [variant(name) for name in found]
    if as_json:
        for row in rows:
            print(
                json.dumps(
                    {
                        "name": row.name,
                        "family": row.family,
                        "year": row.year,
                        "parameters": row.parameters,
                        "size": row.size,
                        "channels": row.in_channels,
                        "classes": row.classes,
                        "top1": row.top1,
                        "paper": row.paper,
                    }
                )
            )
        return
    width = max(len(row.name) for row in rows)
    print(f"{'name':<{width}}  {'family':<12}  year  {'parameters':>13}  input  {'top-1 %':>7}")
    for row in rows:
        top1 = "" if row.top1 is None else f"{row.top1:.2f}"
        print(
            f"{row.name:<{width}}  {row.family:<12}  {row.year}  {row.parameters:>13,}  {row.size:>5}  {top1:>7}"
        )
    if any(row.top1 is not None for row in rows):
        print("top-1 as published; `convarium show NAME` gives the source")
