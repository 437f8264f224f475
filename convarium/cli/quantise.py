"""convarium quantise: a trained model in 8 bits, for OpenVINO or ONNX Runtime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from convarium.cli import asked

if TYPE_CHECKING:
    from convarium.data.pictures import PictureSet
    from convarium.deploy.quantised import Quantised


def run(
    model: str = typer.Argument(help="The .safetensors file of a classifier, or the folder of a run."),
    data: str = typer.Argument(help="Folder of class folders, CSV file, or MNIST folder."),
    max_drop: float = typer.Option(0.5, help="Points of top-1 that 8 bits may cost."),
    part: str = typer.Option(
        None, help="Part on which the drop is measured; by default val, else test, else a fifth of all."
    ),
    pictures: int = typer.Option(300, help="Pictures of the training part to take ranges from.", min=1),
    to: str = typer.Option("openvino", help="openvino or onnx."),
    out: Path = typer.Option(
        None, "--out", "-o", help="Folder to make; int8-FORMAT beside the model by default."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Write a model in 8 bits, if it stays within the drop of accuracy that you allow.

    Layers that hurt are found and left in float32. Where that does not suffice, nothing is written: exit status 1.
    """
    from convarium.data.folders import read_data
    from convarium.deploy.quantise import quantise

    clf, source, known = asked.trained(model)
    found = read_data(data, classes=clf.classes)
    train, judged, unseen, notes = _parts(found.parts, part, data)
    screen = sys.stderr.isatty()
    done = quantise(
        clf.net,
        clf.classes,
        clf.preprocessing,
        known,
        train,
        judged,
        out or source.parent / f"int8-{to}",
        max_drop=max_drop,
        to=to,
        count=pictures,
        unseen=unseen,
        source=source,
        tell=lambda line: print(f"{line} ...", file=sys.stderr) if screen else None,
    )
    for note in (*found.notes, *notes, *done.notes):
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        print(json.dumps(done.to_dict()))
    else:
        _tell(done)
    if done.folder is None:
        print(
            f"error: 8 bits cost {done.drop:.2f} points of top-1, allowed are {max_drop:g}; nothing was written. Allow "
            "more with --max-drop, take ranges from more pictures with --pictures, or convarium export in float32",
            file=sys.stderr,
        )
        raise typer.Exit(1)


def _parts(
    parts: dict[str, PictureSet], asked: str | None, where: str
) -> tuple[PictureSet, PictureSet, PictureSet | None, list[str]]:
    """Pictures for the ranges, those that decide, those that only are judged; and what was decided here."""
    from convarium.data.grouped import divide
    from convarium.errors import DataError

    notes: list[str] = []
    if asked is not None and asked not in parts:
        raise DataError(f"{where} has no part {asked!r}; it has {', '.join(parts)}")
    name = asked or next((name for name in ("val", "test") if name in parts), None)
    rest = [held for known, held in parts.items() if known in ("train", "all") and known != name]
    if name is None:
        divided, more = divide(rest[0], {"val": 0.2})
        notes.append(
            "no part was held out, so a fifth was, as by `convarium split`; the model may have learnt it"
        )
        return divided["train"], divided["val"], None, notes + more
    if not rest:
        notes.append(f"ranges are taken from the part {name!r} itself, as there is no other to train on")
    if name in ("train", "all"):
        notes.append(f"the drop is measured on the part {name!r}, from which the model may have learnt")
    unseen = parts.get("test") if name != "test" else None
    return (rest or [parts[name]])[0], parts[name], unseen, notes


def _tell(done: Quantised) -> None:
    if done.folder is not None:
        for name in done.files:
            print(f"{done.folder / name}  {(done.folder / name).stat().st_size / 1e6:.2f} MB")
        print()
    print(f"float32  {done.versus.first}")
    print(f"int8     {done.versus.second}")
    print(done.versus.sentence)
    if done.unseen is not None:
        print(f"On the test part, which decided nothing: {done.unseen.sentence}")
    print(f"Against float32: {done.parity}")
    print(f"Ranges from {done.calibrated} pictures.")
    if done.kept:
        print(f"\nLeft in float32, {len(done.kept)} of {done.parts} parts:")
        for path in done.kept:
            print(f"  {path}")
    print("\nbatch  float32/s    int8/s  ratio")
    for speed in done.speeds:
        print(f"{speed.batch:>5}  {speed.plain:>9,.0f}  {speed.rounded:>8,.0f}  {speed.ratio:>5.2f}")
    if done.folder is not None:
        print(f"\nNow: python {done.folder / 'predict.py'} PICTURES")
