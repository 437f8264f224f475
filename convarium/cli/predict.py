"""convarium predict: what is on some pictures."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from convarium.classifier import Source

UNREADABLE = 3  # exit status when a picture could not be read


def run(
    model: str = typer.Argument(help="The .safetensors file of a classifier, or the folder of a run."),
    pictures: list[str] = typer.Argument(
        help="Files, folders, patterns in quotes; - reads one picture, or names one a line, from standard input."
    ),
    top: int = typer.Option(5, help="Guesses a picture.", min=1),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a picture."),
    as_csv: bool = typer.Option(False, "--csv", help="A CSV table, one line a guess."),
) -> None:
    """Say what is on pictures, in the order asked; exit status 3 when any could not be read."""
    from convarium.classifier import load
    from convarium.errors import ArgumentError

    if as_json and as_csv:
        raise ArgumentError("--json and --csv were both given; choose one")
    clf = load(model)
    failed = False
    table = csv.writer(sys.stdout) if as_csv else None
    if table:
        table.writerow(("path", "rank", "class", "index", "probability", "error"))
    for prediction in clf.stream(_sources(pictures), top):
        failed |= prediction.error is not None
        if as_json:
            print(json.dumps(prediction.to_dict(), ensure_ascii=False), flush=True)
        elif table:
            if prediction.error is not None:
                table.writerow((prediction.path, "", "", "", "", prediction.error))
            for rank, guess in enumerate(prediction, start=1):
                table.writerow(
                    (prediction.path, rank, guess.name, guess.index, f"{guess.probability:.6f}", "")
                )
        elif prediction.error is not None:
            print(f"{prediction.path or '-'}: cannot be read: {prediction.error}")
        else:
            said = ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in prediction)
            print(f"{prediction.path or '-'}: {said}")
    if failed:
        raise typer.Exit(UNREADABLE)


def _sources(asked: list[str]) -> Iterator[Source]:
    """Paths in the order asked; standard input in its place."""
    from convarium.data.folders import list_pictures

    for item in asked:
        if item == "-":
            yield from _standard_input()
        else:
            yield from list_pictures([item])


def _standard_input() -> Iterator[Source]:
    import os

    from convarium.data.decode import decode
    from convarium.data.folders import list_pictures
    from convarium.errors import PictureError

    content = sys.stdin.buffer.read()
    try:
        yield decode(content)
        return
    except PictureError:
        pass  # not a picture: names
    separator = b"\0" if b"\0" in content else b"\n"
    for line in content.split(separator):
        name = os.fsdecode(line.strip(b"\r\n"))
        if name:
            yield from list_pictures([name])
