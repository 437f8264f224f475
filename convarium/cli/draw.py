"""convarium draw: a figure of a network, as papers have them."""

from __future__ import annotations

import re
from pathlib import Path

import typer


def run(
    name: str = typer.Argument(help="Name of a network, or the file or run of a trained one."),
    level: str = typer.Option(None, help="net, stage or block; net by default, block with --part."),
    part: str = typer.Option(None, help="Path of the only part to draw, as stages.2.blocks.0."),
    out: Path = typer.Option(
        None, "--out", "-o", help="File to write, .svg, .png or .pdf; NAME-LEVEL.svg by default."
    ),
    size: int = typer.Option(None, help="Side of the input in pixels.", min=1),
    classes: int = typer.Option(None, help="Number of classes.", min=1),
    channels: int = typer.Option(None, help="Channels of the input.", min=1),
    theme: str = typer.Option("auto", help="light, dark, or auto: as the reader's screen (SVG)."),
    diff: str = typer.Option(None, help="Another network, drawn beside it with what differs marked."),
) -> None:
    """Draw a network: the whole, its stages, or its blocks down to the leaves."""
    from convarium.cli.subject import subject
    from convarium.draw.difference import difference
    from convarium.draw.figure import check, figure, save

    level = level or ("block" if part else "net")
    file = out or Path(re.sub(r"[^\w.-]+", "-", f"{name}{f'-{diff}' if diff else ''}-{level}") + ".svg")
    check(level, part, theme, file)
    one = subject(name, size=size, classes=classes, channels=channels)
    if diff is None:
        drawn = figure(one.net, one.picture, one.title, level, part, one.row.paper)
    else:
        two = subject(diff, size=size, classes=classes, channels=channels)
        drawn = difference((one.net, one.picture, one.title), (two.net, two.picture, two.title), level, part)
    save(drawn, file, theme)
    print(f"wrote {file}")
