"""convarium predict: what is on some pictures."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
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
    mirror: bool = typer.Option(
        False, "--mirror", help="Look at each picture mirrored, too, and average; twice the time."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a picture."),
    as_csv: bool = typer.Option(False, "--csv", help="A CSV table, one line a guess."),
) -> None:
    """Say what is on pictures, in the order asked; exit status 3 when any could not be read."""
    from convarium.classifier import load
    from convarium.costs.allocator import keep_freed_memory
    from convarium.errors import ArgumentError

    if as_json and as_csv:
        raise ArgumentError("--json and --csv were both given; choose one")
    keep_freed_memory()
    clf = load(model)
    sources = _sources(pictures, clf.preprocessing.deep)
    clf.mirror = mirror
    failed = False
    table = csv.writer(sys.stdout) if as_csv else None
    if table:
        table.writerow(("path", "rank", "class", "index", "probability", "unsure", "error"))
    for prediction in clf.stream(sources, top):
        failed |= prediction.error is not None
        if as_json:
            print(json.dumps(prediction.to_dict()), flush=True)
        elif table:
            if prediction.error is not None:
                table.writerow((prediction.path, "", "", "", "", "", prediction.error))
            doubt = prediction.unsure or prediction.strange
            for rank, guess in enumerate(prediction, start=1):
                table.writerow(
                    (
                        prediction.path,
                        rank,
                        guess.name,
                        guess.index,
                        f"{guess.probability:.6f}",
                        int(doubt),
                        "",
                    )
                )
        elif prediction.error is not None:
            print(f"{prediction.path or '-'}: cannot be read: {prediction.error}")
        else:
            said = ", ".join(f"{guess.name} {guess.probability:.1%}" for guess in prediction)
            doubt = prediction.unsure or prediction.strange
            print(f"{prediction.path or '-'}: {said}{'  (unsure: perhaps none of these)' if doubt else ''}")
    if failed:
        raise typer.Exit(UNREADABLE)


def _sources(asked: list[str], deep: bool) -> list[Source]:
    """Everything asked for, in its order, before any of it is answered; standard input in its place."""
    from convarium.data.folders import list_pictures
    from convarium.errors import ArgumentError

    found: list[Source] = []
    for item in asked:
        if item == "-" and deep:
            raise ArgumentError(
                "a picture on standard input is read in 8 bits, and this model takes more; give it as a file"
            )
        found.extend(_standard_input() if item == "-" else list_pictures([item], deep))
    return found


def _standard_input() -> list[Source]:
    """The picture, or the pictures that are named there, one a line or ended by NUL."""
    import os

    from convarium.data.decode import decode
    from convarium.errors import DataError, PictureError

    content = sys.stdin.buffer.read()
    if not content.strip():
        raise DataError(
            "nothing came on standard input; it must be one picture, or names of pictures, one a line"
        )
    try:
        return [decode(content)]
    except PictureError as error:
        separator = b"\0" if content.rstrip(b"\n").endswith(b"\0") else b"\n"
        names = [line.strip(b"\r\n") for line in content.split(separator)]
        if any(byte < 0x20 for name in names for byte in name):
            raise DataError(
                f"what came on standard input is neither a picture ({error}) nor names of pictures"
            ) from error
        return [Path(os.fsdecode(name)) for name in names if name]
