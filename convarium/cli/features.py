"""convarium features: what a network makes of pictures, for a search or another program that learns."""

from __future__ import annotations

import functools
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convarium.cli import asked
from convarium.cli.columns import shown

if TYPE_CHECKING:
    from convarium.answering import Features


def run(
    model: str = typer.Argument(help="The .safetensors file of a classifier, or the folder of a run."),
    pictures: list[str] = typer.Argument(
        help="Files, folders, patterns in quotes; - reads one picture, or names one a line, from standard input."
    ),
    out: Path = typer.Option(..., "-o", "--out", help="An .npz file for paths and features."),
    engine: str = typer.Option(
        "exact",
        help="How to compute: exact, the fastest way of float32; auto, also of 16 bits; plain; or a way's name.",
    ),
) -> None:
    """Write what the last layer is given for each picture; exit status 3 when any could not be read."""
    from convarium import storage
    from convarium.answering import NO_FEATURES
    from convarium.costs.allocator import keep_freed_memory
    from convarium.errors import ArgumentError

    if out.suffix.lower() != ".npz":
        raise ArgumentError(f"{out} does not end in .npz, the format that NumPy reads")
    _must_be_free(out)
    keep_freed_memory()
    told = asked.told_by(model)
    if "convarium_export" in told:
        raise ArgumentError(NO_FEATURES)
    sources = asked.sources(pictures, told["preprocessing"].get("mode") == "F")
    found = asked.answering(model, engine, sources).features(sources)
    for path, reason in found.damaged:
        print(f"{shown(path) or '-'}: cannot be read: {reason}", file=sys.stderr)
    storage.write(out, functools.partial(_write, found))
    count, width = found.values.shape
    bad = f"; {len(found.damaged):,} more could not be read" if found.damaged else ""
    print(f"{out}: {count:,} pictures, {width:,} features each{bad}", file=sys.stderr)
    if found.damaged:
        raise typer.Exit(asked.UNREADABLE)


def _must_be_free(out: Path) -> None:
    """Refuse, before anything is computed, a place that cannot be written, and a file of something else."""
    import numpy as np

    from convarium import storage
    from convarium.errors import ArgumentError

    storage.must_be_writable(out)
    if not out.exists():
        return
    try:
        with np.load(out, allow_pickle=False) as file:
            ours = set(file.files) == {"paths", "features"}
    except (OSError, ValueError, zipfile.BadZipFile):
        ours = False
    if not ours:
        raise ArgumentError(f"{out} is there, and holds no features; choose another file, or remove it")


def _write(found: Features, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:  # given a name, NumPy would add an ending to it
        np.savez(file, paths=np.array(found.paths, str), features=found.values)
