"""convarium pack: foreign weights into a classifier's file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from convarium.cli.train import arguments_of


def run(
    weights: str = typer.Argument(
        help="A file of weights, or published ones by name, as torchvision:IMAGENET1K_V1."
    ),
    model: str = typer.Option(help="Name of the network; `convarium doctor FILE` finds it."),
    out: Path = typer.Option(help="The .safetensors file to make."),
    classes: str = typer.Option(
        None, help="File of class names (.txt, one a line, or .csv), or the names with commas between them."
    ),
    column: str = typer.Option(
        None, help="Column of the .csv file; by default class_name, name or wnid, the first that it has."
    ),
    size: int = typer.Option(None, help="Side of the network's input in pixels."),
    resize: int = typer.Option(None, help="Shorter side before the middle is cut out, in pixels."),
    fit: str = typer.Option(None, help="crop, squash or pad: how a picture becomes a square."),
    filter: str = typer.Option(None, help="nearest, bilinear, bicubic or lanczos."),
    mean: str = typer.Option(None, help="Subtracted, of values 0..1, as 0.5 or 0.485,0.456,0.406."),
    std: str = typer.Option(None, help="Divided by, of values 0..1, as 0.5 or 0.229,0.224,0.225."),
    channels: int = typer.Option(None, help="1 for grey, 3 for colour; as the file by default."),
    arguments: list[str] = typer.Option(
        [], "--set", help="An argument of the network, as --set padding=same."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Make a classifier for evaluate and predict of weights that others trained.

    Published weights bring their own preprocessing and class names; of a file, say them.
    """
    from convarium import packing
    from convarium.errors import ArgumentError

    if out.suffix != ".safetensors":
        raise ArgumentError(f"--out {out}: its name must end in .safetensors")
    if Path(weights).exists() and out.exists() and out.samefile(weights):
        raise ArgumentError(f"--out {out} is the file of weights itself; choose another name")
    if not out.absolute().parent.is_dir():
        raise ArgumentError(f"--out {out}: there is no folder {out.parent}; make it first")
    if channels not in (None, 1, 3):
        raise ArgumentError(f"--channels {channels}; it must be 1 (grey) or 3 (colour)")
    if column and not classes:
        raise ArgumentError("--column is for a .csv file; give it with --classes")
    mode = {1: "L", 3: "RGB"}.get(channels)
    fields: dict[str, Any] = {"size": size, "mode": mode, "resize": resize, "fit": fit, "filter": filter}
    fields = {name: value for name, value in fields.items() if value is not None}
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            fields[name] = _numbers(name, text)
    clf = packing.pack(
        weights,
        model,
        classes=packing.read_classes(classes, column) if classes else None,
        preprocessing=fields,
        arguments=arguments_of(arguments),
    )
    clf.save(out)
    for note in clf.about["notes"]:
        print(f"note: {note}", file=sys.stderr)
    if as_json:
        answer = {
            "model": str(out),
            "architecture": clf.net.architecture,
            "classes": list(clf.classes),
            "preprocessing": clf.preprocessing.to_dict(),
            **clf.about,
        }
        print(json.dumps(answer))
        return
    p = clf.preprocessing
    way = (
        f"shorter side to {p.resize or p.size}, middle {p.size}"
        if p.fit == "crop"
        else f"{p.fit} to {p.size}"
    )
    print(f"model     {out}, {out.stat().st_size / 1e6:.1f} MB")
    print(f"network   {clf.net.architecture['name']}, {len(clf.classes)} classes")
    print(f"pictures  {p.mode}, {way}, {p.filter}, mean {_told(p.mean)}, std {_told(p.std)}")
    print(f"\nNow: convarium predict {out} PICTURES, or convarium evaluate {out} DATA")


def _numbers(name: str, text: str) -> list[float]:
    from convarium.errors import ArgumentError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ArgumentError(f"--{name} {text}: want numbers with commas between them") from error


def _told(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
