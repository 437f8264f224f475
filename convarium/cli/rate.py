"""convarium rate: which learning rate to take."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def run(
    data: str = typer.Argument(help="Folder of class folders, CSV file, MNIST folder."),
    model: str = typer.Option("resnet18", help="Name of a network."),
    weights: str = typer.Option(None, help="Trained weights to begin with, as for train."),
    recipe: str = typer.Option(None, help="As for train; its rate and schedule are not looked at."),
    size: int = typer.Option(None, help="Side of the network's input in pixels."),
    batch: int = typer.Option(None, help="Pictures a step."),
    optimizer: str = typer.Option(None, help="sgd, rmsprop or adamw."),
    augment: str = typer.Option(None, help="As for train."),
    seed: int = typer.Option(0, help="Of weights, order and augmentation."),
    steps: int = typer.Option(100, help="Rates to try, at most.", min=20),
    out: Path = typer.Option(None, "-o", "--out", help="Picture of the curve, .svg or .png."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object."),
) -> None:
    """Try learning rates from low to high, a step each, and suggest one; nothing is trained or kept."""
    from convarium import api, storage
    from convarium.draw import plot_finder, plot_theme
    from convarium.errors import ArgumentError

    form = out.suffix.lower().removeprefix(".") if out else "svg"
    if form not in ("svg", "png"):
        raise ArgumentError(f"{out}; the picture must end in .svg or .png")
    found = api.find_rate(
        data,
        model,
        weights=weights,
        recipe=recipe,
        size=size,
        seed=seed,
        steps=steps,
        quiet=False,
        batch=batch,
        optimizer=optimizer,
        augment=augment,
    )
    if out:
        chart = plot_finder.finder(
            found.rates,
            found.losses,
            found.smooth,
            found.suggestion,
            found.reason,
            subtitle=f"{model} on {data}",
        )
        storage.write(out, lambda temporary: temporary.write_bytes(plot_theme.image(chart, form)))
    if as_json:
        told = {
            "suggestion": found.suggestion,
            "reason": found.reason,
            "rates": found.rates,
            "losses": found.losses,
        }
        print(json.dumps(told))
        return
    print(f"--lr {found.suggestion:.2g}" if found.suggestion else "no rate can be suggested")
    print(found.reason)
    if out:
        print(f"curve   {out}")
