"""convarium train and convarium resume: from pictures to a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.api import Run


def run(
    data: str = typer.Argument(
        help="Folder of class folders (with or without train/ and val/), CSV file, MNIST folder."
    ),
    model: str = typer.Option("resnet18", help="Name of a network; `convarium list` shows them."),
    out: Path = typer.Option(None, help="Folder of the run; a new one below runs/ by default."),
    val: str = typer.Option(None, help="Other data to validate on."),
    fraction: float = typer.Option(0.2, help="Share held out where the data has no parts of its own."),
    epochs: int = typer.Option(None, help="Passes over the training pictures."),
    seed: int = typer.Option(0, help="Of weights, order, augmentation and split."),
    size: int = typer.Option(None, help="Side of the network's input in pixels."),
    channels: int = typer.Option(None, help="1 for grey, 3 for colour."),
    fit: str = typer.Option("crop", help="crop, squash or pad: how a picture becomes a square."),
    augment: str = typer.Option(
        "auto", help="none, light (small turns and shifts) or photo (crops, mirror, colour)."
    ),
    recipe: str = typer.Option("scratch", help="scratch, alexnet2012, resnet2015 or inception2015."),
    batch: int = typer.Option(None, help="Pictures a step."),
    lr: float = typer.Option(None, help="Highest learning rate."),
    optimizer: str = typer.Option(None, help="sgd, rmsprop or adamw."),
    momentum: float = typer.Option(None, help="Of sgd and rmsprop."),
    weight_decay: float = typer.Option(None, help="Pull of weights towards zero."),
    schedule: str = typer.Option(None, help="cosine, plateau, exponential or constant."),
    warmup: float = typer.Option(None, help="Epochs of growing learning rate."),
    label_smoothing: float = typer.Option(None, help="Share of the target spread over all classes."),
    auxiliary: float = typer.Option(
        None, help="Weight of auxiliary classifiers' losses (GoogLeNet, Inception v3)."
    ),
    clip: float = typer.Option(None, help="Greatest norm of the gradient; 0 for none."),
    ema: float = typer.Option(None, help="Decay of averaged weights, as 0.999; 0 for none."),
    patience: int = typer.Option(None, help="Stop after so many epochs without a better validation loss."),
    workers: int = typer.Option(None, help="Processes that decode pictures."),
    precision: str = typer.Option("auto", help="auto (measures), fp32 or bf16."),
    save_minutes: float = typer.Option(5.0, help="Minutes between saved states within an epoch."),
    arguments: list[str] = typer.Option([], "--set", help="An argument of the network, as --set shortcut=B."),
    as_json: bool = typer.Option(False, "--json", help="End with one JSON object."),
) -> None:
    """Train a network on a folder of pictures, and write the classifier and a report."""
    from convarium import api

    finished = api.train(
        data,
        model,
        out,
        val=val,
        fraction=fraction,
        seed=seed,
        size=size,
        channels=channels,
        fit=fit,
        augment=augment,
        recipe=recipe,
        workers=workers,
        precision=precision,
        minutes=save_minutes,
        quiet=False,
        arguments=arguments_of(arguments),
        epochs=epochs,
        batch=batch,
        lr=lr,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        schedule=schedule,
        warmup=warmup,
        label_smoothing=label_smoothing,
        auxiliary=auxiliary,
        clip=clip,
        ema=ema,
        patience=patience,
    )
    tell(finished, as_json)


def go_on(
    run: Path = typer.Argument(help="Folder of a run that was cut off."),
    as_json: bool = typer.Option(False, "--json", help="End with one JSON object."),
) -> None:
    """Go on with a run that was cut off, to bit for bit the same end."""
    from convarium import api

    tell(api.resume(run, quiet=False), as_json)


def tell(finished: Run, as_json: bool, **more: Any) -> None:
    """Print how a run ended."""
    if as_json:
        print(json.dumps({**finished.to_dict(), **more}))
        return
    print(f"top-1   {finished.metrics.top1}")
    if finished.metrics.top5:
        print(f"top-5   {finished.metrics.top5}")
    print(f"model   {finished.model}")
    print(f"report  {finished.report}")


def arguments_of(pairs: list[str]) -> dict[str, Any]:
    """shortcut=B, width=0.5 or aux=no to Python values: a number, a list, true or false (yes, no) or else text."""
    from convarium.errors import ArgumentError

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ArgumentError(f"--set {pair}: it must be NAME=VALUE, as --set shortcut=B")
        try:
            found[name] = json.loads(text)
        except ValueError:
            words = {"true": True, "yes": True, "false": False, "no": False}
            found[name] = words.get(text.strip().lower(), text)
    return found
