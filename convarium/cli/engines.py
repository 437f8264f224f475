"""convarium engines: every way of running a classifier on this machine, measured and compared."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convarium.cli.columns import brief, columns, shown

if TYPE_CHECKING:
    import numpy as np

    from convarium.classifier import Classifier
    from convarium.deploy.measuring import Row, Table

ENOUGH = 64
"""Pictures on which answers are compared; of more, so many are taken evenly."""


def run(
    model: str = typer.Argument(
        help="The .safetensors file of a classifier, the folder of a run, or the name of a network."
    ),
    pictures: list[str] = typer.Argument(
        None, help="Files, folders or patterns in quotes, to compare answers on; made ones by default."
    ),
    batch: int = typer.Option(32, help="Pictures at once.", min=1),
    mode: str = typer.Option("auto", help="auto for all ways, exact for those that compute in float32."),
    seconds: float = typer.Option(20.0, help="Of timing, all ways together."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
    forget: bool = typer.Option(False, "--forget", help="First forget what was measured of this model."),
) -> None:
    """Measure every way to run a classifier here, and remember the fastest that says what plain float32 says.

    `convarium predict` and others then take it at once. Set-ups take a minute or two.
    """
    from convarium.costs.allocator import keep_freed_memory
    from convarium.deploy import remembered
    from convarium.deploy.measuring import measure

    keep_freed_memory()
    clf, file = _classifier(model)
    if forget and file:
        gone = remembered.forget(file)
        _say(f"forgot what was measured of {model}" if gone else f"nothing was kept of {model}")
    some, made = _pictures(clf, pictures or [])
    folder = remembered.folder_of(file) if file else None
    with _progress() as tell:
        table = measure(
            clf, some, batch, mode=mode, seconds=seconds, made=made, folder=folder, on_progress=tell
        )
        failed, notes = [*table.notes], list[str]()
        if file and not made:
            wrong, notes = _remember(clf, some, file, table, tell)
            failed += wrong
    kept = file is not None and not made and not failed
    if as_json:
        print(json.dumps({"model": model, **table.to_dict(), "remembered": kept}, allow_nan=False))
    else:
        _print(model, table, clf)
    for note in (*failed, *notes):
        _say(f"note: {note}")
    if kept:
        _say("remembered: predict takes it from now on")
    elif file is None:
        _say("not remembered: random weights answer nothing")
    elif made:
        _say("not remembered: on made pictures nobody knows whether answers agree; give some of yours")


def _classifier(model: str) -> tuple[Classifier, Path | None]:
    """The classifier and its file; a network's name gives one of random weights, without a file."""
    from convarium import storage
    from convarium.classifier import Classifier, load
    from convarium.cli.subject import refuse_missing, subject
    from convarium.data.preprocessing import Preprocessing

    if storage.is_model(model):
        return load(model), Path(model)
    refuse_missing(model)
    found = subject(model, empty=False)
    channels, side, _ = found.picture
    fields = {"mode": "RGB"} if channels == 3 else {"mode": "L"} if channels == 1 else {"mode": "F"}
    bands = {"bands": channels} if fields["mode"] == "F" else {}
    level = {"mean": (0.45,) * channels, "std": (0.225,) * channels}
    preprocessing = Preprocessing(size=side, **fields, **bands, **level)  # type: ignore[arg-type]
    return Classifier(found.net, list(map(str, range(found.net.classes))), preprocessing), None


def _pictures(clf: Classifier, asked: list[str]) -> tuple[np.ndarray, bool]:
    """Prepared pictures (N, channels, size, size), and whether they were made."""
    import tempfile
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    from convarium.data.folders import list_pictures
    from convarium.deploy import parity
    from convarium.errors import DataError, PictureError

    preprocessing = clf.preprocessing
    if not asked and preprocessing.deep:
        shape = (6, preprocessing.channels, preprocessing.size, preprocessing.size)
        return np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32), True
    with tempfile.TemporaryDirectory() as place:
        if asked:
            paths = list_pictures(asked, preprocessing.deep)
            if len(paths) > ENOUGH:
                paths = [paths[i * len(paths) // ENOUGH] for i in range(ENOUGH)]
        else:
            paths = parity.make(Path(place), preprocessing.mode, preprocessing.size)

        def prepared(path: Path) -> np.ndarray | PictureError:
            try:
                return preprocessing.prepare(preprocessing.open(path)).numpy()
            except PictureError as error:
                return error

        with ThreadPoolExecutor() as pool:
            found = list(pool.map(prepared, paths))
    good = [one for one in found if not isinstance(one, PictureError)]
    for path, one in zip(paths, found, strict=True):
        if isinstance(one, PictureError):
            _say(f"left out: {shown(str(path))}: {one}")
    if not good:
        raise DataError("none of these pictures can be read; give others")
    return np.stack(good), not asked


def _remember(
    clf: Classifier, some: np.ndarray, file: Path, table: Table, tell: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Keep the table; and, for one picture at a time, the best way that starts without torch.

    Returns:
        What went wrong, and what is not remembered on purpose.
    """
    from convarium.deploy import remembered
    from convarium.deploy.job import CHECKED, decided_for, remembered_rows
    from convarium.deploy.measuring import best_of, measure

    tables = [table]
    single = best_of(table.rows, torch=False)
    if single and table.rows[0].batch > 1:
        folder = remembered.folder_of(file)
        tables.append(
            measure(clf, some, 1, mode=table.mode, seconds=2, folder=folder, only=[single], on_progress=tell)
        )
    rows = [row for found in tables for row in remembered_rows(found.rows, len(some))]
    short = {row.name for found in tables for row in found.rows if row.agrees} - {row.name for row in rows}
    notes = [
        f"{name} is not remembered: on {len(some)} pictures 16 bits may agree by chance; give {CHECKED}"
        for name in sorted(short)
    ]
    count = decided_for(1e12, table.rows[0].batch)
    why = remembered.remember(file, table.mode, [row.to_dict() for row in rows], count, clf.device.type)
    failed = [note for found in tables[1:] for note in found.notes]
    return [*failed, *filter(None, [why])], notes


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is being done, on a terminal; both there and elsewhere on standard error."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        _say("measuring; set-ups take a minute or two")
        yield lambda text: None
        return
    with console.status("beginning") as status:
        yield lambda text: status.update(text)


def _print(model: str, table: Table, clf: Classifier) -> None:
    """Where and on what it was measured, then the table."""
    from convarium.costs.machine import this_machine

    first = table.rows[0]
    kind = "made pictures" if table.made else "pictures"
    where = (
        f"{first.threads} thread{'s' * (first.threads != 1)}" if clf.device.type == "cpu" else str(clf.device)
    )
    print(f"{model} on {this_machine()}")
    print(f"batch {first.batch}, {where}; answers compared on {table.pictures} {kind}")
    print()
    heads = ["", "engine", "img/s", "ratio", "set-up s", "flips", "largest diff", "scores", ""]
    print(columns([heads, *(_cells(row, first, table.best) for row in table.rows)], words=2))
    print()
    print("ratio: to plain, which is torch as it comes, in float32; largest diff: of any class's probability")
    print(
        "scores: relative difference; where the likeliest class leads by more than is allowed, no engine may flip"
    )


def _cells(row: Row, first: Row, best: str) -> list[str]:
    speed, plain, found = row.images_per_second, first.images_per_second, row.agreement
    ratio = speed / plain if speed and plain else None
    return [
        "*" if row.name == best else "",
        row.name,
        brief(speed),
        f"{ratio:.2f}" if ratio else "",
        f"{row.setup:.1f}" if found and row.setup else "",
        str(found.flips) if found else "",
        *(f"{value:.2g}" if found else "" for value in _differences(found)),
        row.verdict,
    ]


def _differences(found: object) -> list[float]:
    return [getattr(found, name, 0.0) for name in ("probability", "scores")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
