"""convarium weights: the published weights of a network."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer


def run(
    name: str = typer.Argument(help="Name of a network, as 'resnet50' or 'timm:resnet10t'."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """List the trained weights that publishers offer for a network, with accuracy, size, input and licence."""
    from rich.console import Console
    from rich.table import Table

    from convarium.models.download import cached
    from convarium.models.published import available

    found = available(name)
    if as_json:
        for weights in found:
            print(json.dumps({**asdict(weights), "cached": (path := cached(weights)) and str(path)}))
        return
    if not found:
        print(f"no published weights are known for {name}")
        return
    table = Table(box=None, pad_edge=False, header_style="")
    table.add_column("weights", no_wrap=True)
    for heading in ("top-1 %", "MB", "input", "classes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("licence", "here"):
        table.add_column(heading, no_wrap=True)
    for weights in found:
        table.add_row(
            weights.reference,
            "" if weights.top1 is None else f"{weights.top1:.2f}",
            "" if weights.bytes is None else f"{weights.bytes / 1e6:.1f}",
            str(weights.size),
            str(weights.classes or "none"),
            weights.licence or "not stated",
            "yes" if cached(weights) else "",
        )
    # A pipe gets whole lines: what is cut off cannot be searched.
    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(highlight=False, width=200)
    wide.print(table)
    print(
        "top-1 on ImageNet-1k as the publisher's package tells it (timm's tells none); "
        f"used by create({name!r}, weights=...)"
    )
