"""convarium weights: the published weights of a network; a model's own weights in a publisher's names."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer


def run(
    name: str = typer.Argument(
        help="Name of a network, as 'resnet50' or 'timm:resnet10t'; with --save-as, a model's file or run."
    ),
    save_as: str = typer.Option(
        None,
        help="Save the model's weights in the names of this publisher: torchvision, timm, openai, open_clip.",
    ),
    out: Path = typer.Option(None, "--out", "-o", help="With --save-as: the .safetensors file to make."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object a line."),
) -> None:
    """List the trained weights that publishers offer for a network, with accuracy, size, input and licence.

    With --save-as, write a trained model's weights so that the publisher's own library loads them:

    convarium weights runs/flowers --save-as torchvision -o flowers.safetensors
    """
    from convarium import storage
    from convarium.errors import ArgumentError

    if save_as or out:
        if not (save_as and out):
            raise ArgumentError("--save-as PUBLISHER and --out FILE belong together; give both")
        _save(name, save_as, out, as_json)
        return
    if storage.is_model(name):
        raise ArgumentError(
            f"{name} is a trained model; name a network to list its published weights, or add --save-as PUBLISHER "
            "--out FILE to write this one's in a publisher's names (`convarium doctor FILE` tells what a file is)"
        )
    _list(name, as_json)


def _save(source: str, publisher: str, out: Path, as_json: bool) -> None:
    from convarium.classifier import load
    from convarium.errors import ArgumentError
    from convarium.models.inverse import save_as

    if out.exists() and Path(source).is_file() and out.samefile(source):
        raise ArgumentError(f"--out {out} is the model itself; choose another name")
    if not out.absolute().parent.is_dir():
        raise ArgumentError(f"--out {out}: there is no folder {out.parent}; make it first")
    clf = load(source, device="cpu")
    about = {"classes": list(clf.classes), "preprocessing": clf.preprocessing.to_dict()}
    found = save_as(clf.net, out, publisher, about)
    if as_json:
        told = {"publisher": publisher, "model": found.model, "arguments": found.arguments}
        print(json.dumps({"out": str(out), **told, "tensors": len(found.state), **about}, ensure_ascii=False))
        return
    print(f"weights   {out}, {out.stat().st_size / 1e6:.1f} MB, {len(found.state)} tensors")
    print(f"network   {found.model} of {publisher}, {len(clf.classes)} classes")
    print("pictures  to be prepared as for this model: the file's metadata tells how, and names the classes")
    print(f"\nNow, in Python:\n{found.loading(out)}")


def _list(name: str, as_json: bool) -> None:
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
    print(f"top-1 on ImageNet-1k as the publisher tells it; used by create({name!r}, weights=...)")
