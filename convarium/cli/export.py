"""convarium export: a trained model as a file for other programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convarium.cli.asked import trained
from convarium.cli.columns import shown

if TYPE_CHECKING:
    import numpy as np

    from convarium.classifier import Classifier

MOST = 500
"""Pictures that the exported model is compared on; more are thinned out evenly."""


def run(
    model: str = typer.Argument(help="The .safetensors file of a classifier, or the folder of a run."),
    to: str = typer.Option(help="onnx, openvino, torch-export or safetensors."),
    out: Path = typer.Option(
        None, "--out", "-o", help="Folder to make; export-FORMAT beside the model by default."
    ),
    pictures: list[str] = typer.Option(
        [], help="Folder or files to compare on; by default those that the run held out."
    ),
    whole: bool = typer.Option(
        None,
        "--whole/--square",
        help="Resize inside the graph, or in predict.py with Pillow; by default as fits.",
    ),
    dynamic: bool = typer.Option(False, "--dynamic", help="Take batches of any number of pictures."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Write a model for ONNX Runtime, OpenVINO or torch, with its preprocessing, and a program that uses it.

    The program is run on pictures and compared with the model; where they disagree, nothing is written.
    """
    from convarium.deploy import export as exporting
    from convarium.errors import unknown_name

    if to not in exporting.FILES:
        raise unknown_name("format", to, exporting.FILES)
    clf, source, known = trained(model)
    found, note = _pictures(pictures, source) if to != "safetensors" else ([], "")
    exported = exporting.export(
        clf.net,
        clf.classes,
        clf.preprocessing,
        known,
        to,
        out or source.parent / f"export-{to}",
        reference=lambda files: answers(clf, files),
        pictures=found,
        source=source,
        whole=whole,
        dynamic=dynamic,
    )
    for line in (note, *exported.notes):
        if line:
            print(f"note: {line}", file=sys.stderr)
    if as_json:
        print(json.dumps(exported.to_dict()))
        return
    for name in exported.files:
        print(f"{exported.folder / name}  {(exported.folder / name).stat().st_size / 1e6:.2f} MB")
    if exported.parity is None:
        print("\nThe file is the model's own, byte for byte.")
        return
    for path, reason in exported.parity.unequal:
        print(f"read by one of the two only: {shown(str(path))}: {reason}", file=sys.stderr)
    way = "resizes pictures itself" if exported.about["whole"] else "takes prepared squares"
    print(f"\nThe graph {way}. Compared with the model, file by file:\n{exported.parity}")
    print(f"\nNow: python {exported.folder / 'predict.py'} PICTURES")


def _pictures(asked: list[str], source: Path) -> tuple[list[Path], str]:
    """Files to compare on, and a sentence where they are not what one would expect."""
    from convarium.data.folders import list_pictures, read_data
    from convarium.errors import UserError

    note = ""
    if asked:
        found = list_pictures(asked)
    else:
        found, split = [], source.parent / "split.csv"
        if split.is_file():
            try:
                parts = read_data(split).parts
                held = next((parts[name] for name in ("val", "test") if name in parts), None)
                found = [Path(p.source) for p in held.pictures if isinstance(p.source, Path)] if held else []
            except UserError as error:
                note = f"the run's own pictures cannot be read ({error}). "
        found = [path for path in found if path.is_file()]
        if not found:
            note += "compared on made pictures only; give some of yours with --pictures"
    if len(found) > MOST:
        found = [found[i * len(found) // MOST] for i in range(MOST)]
    return found, note


def answers(clf: Classifier, files: Sequence[Path]) -> Iterator[np.ndarray | None]:
    """The classifier's probabilities for each file, in the order of its classes."""
    import numpy as np

    for prediction in clf.stream(files, top=len(clf.classes)):
        if prediction.error is not None:
            yield None
            continue
        found = np.empty(len(clf.classes))
        found[[guess.index for guess in prediction]] = [guess.probability for guess in prediction]
        yield found
