"""convarium train and convarium resume: from pictures to a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from convarium.api import Folds, Run


def run(
    data: str = typer.Argument(
        help="Folder of class folders (with or without train/ and val/), CSV file, MNIST folder."
    ),
    model: str = typer.Option("resnet18", help="Name of a network; `convarium list` shows them."),
    weights: str = typer.Option(
        None, help="Trained weights to begin with: a file, or published ones as torchvision:DEFAULT."
    ),
    out: Path = typer.Option(None, help="Folder of the run; a new one below runs/ by default."),
    recipe: str = typer.Option(
        None,
        help="probe, finetune (with weights), scratch (without), alexnet2012, resnet2015, inception2015, efficientnet "
        "or convnext2022; --about tells of one.",
    ),
    about: bool = typer.Option(False, "--about", help="Tell of the recipe, and end."),
    val: str = typer.Option(None, help="Other data to validate on."),
    fraction: float = typer.Option(0.2, help="Share held out where the data has no parts of its own."),
    folds: int = typer.Option(None, help="Train so many times, each time with another part held out."),
    epochs: int = typer.Option(None, help="Passes over the training pictures."),
    minutes: float = typer.Option(None, help="Minutes that training may take; epochs are cut to what fits."),
    seed: int = typer.Option(0, help="Of weights, order, augmentation and split."),
    size: int = typer.Option(None, help="Side of the network's input in pixels."),
    channels: int = typer.Option(
        None, help="1 for grey, 3 for colour; any other number of bands implies --deep."
    ),
    deep: bool = typer.Option(
        False, "--deep", help="Keep 16 bits and floats; pictures in memory then take four times as much."
    ),
    fit: str = typer.Option(
        None, help="crop, squash or pad: how a picture becomes a square; crop, or as the weights ask."
    ),
    mean: str = typer.Option(
        None, help="Per channel, as 0.5,0.5,0.5, where a file of weights does not tell."
    ),
    std: str = typer.Option(None, help="Per channel, likewise."),
    augment: str = typer.Option(
        None, help="none, light (turns, shifts), photo (crops, mirror, colour), randaugment or autoaugment."
    ),
    mixup: float = typer.Option(None, help="Alpha of Mixup; 0 for none."),
    cutmix: float = typer.Option(None, help="Alpha of CutMix; 0 for none."),
    balance: str = typer.Option(None, help="Against unequal classes: none, loss or sampling."),
    norms: str = typer.Option(
        None, help="Statistics that batch norms learn by: of each batch, or kept as the weights brought them."
    ),
    head: int = typer.Option(None, help="Epochs for the classifier alone before all learns."),
    views: int = typer.Option(None, help="Versions of each picture whose features are kept, for probe."),
    layer_decay: float = typer.Option(None, help="Factor of the rate from unit to unit towards the stem."),
    batch: int = typer.Option(None, help="Pictures a pass; 0 for the largest that fits into memory."),
    accumulate: int = typer.Option(None, help="Batches whose gradients are summed for one step."),
    lr: float = typer.Option(None, help="Highest learning rate."),
    optimizer: str = typer.Option(None, help="sgd, rmsprop or adamw."),
    momentum: float = typer.Option(None, help="Of sgd and rmsprop."),
    weight_decay: float = typer.Option(None, help="Pull of weights towards zero."),
    schedule: str = typer.Option(None, help="cosine, plateau, exponential or constant."),
    warmup: float = typer.Option(None, help="Epochs of growing learning rate."),
    label_smoothing: float = typer.Option(None, help="Share of the target spread over all classes."),
    stochastic_depth: float = typer.Option(None, help="Rate at which the last block is left out."),
    dropout: float = typer.Option(None, help="Before the classifier."),
    auxiliary: float = typer.Option(
        None, help="Weight of auxiliary classifiers' losses (GoogLeNet, Inception v3)."
    ),
    clip: float = typer.Option(None, help="Greatest norm of the gradient; 0 for none."),
    ema: float = typer.Option(None, help="Decay of averaged weights, as 0.999; 0 for none."),
    patience: int = typer.Option(None, help="Stop after so many epochs without a better validation loss."),
    workers: int = typer.Option(None, help="Processes that decode pictures."),
    cache: Path = typer.Option(None, help="Folder for prepared pictures that do not fit into memory."),
    tensorboard: bool = typer.Option(False, "--tensorboard", help="Write each epoch for TensorBoard, too."),
    precision: str = typer.Option("auto", help="auto (measures), fp32 or bf16."),
    save_minutes: float = typer.Option(5.0, help="Minutes between saved states within an epoch."),
    arguments: list[str] = typer.Option([], "--set", help="An argument of the network, as --set shortcut=B."),
    as_json: bool = typer.Option(False, "--json", help="End with one JSON object."),
) -> None:
    """Train a network on a folder of pictures, and write the classifier and a report."""
    from convarium import api
    from convarium.training.recipes import about as told

    if about:
        print(told(recipe or ("finetune" if weights else "scratch")))
        return
    asked: dict[str, Any] = {
        "weights": weights,
        "val": val,
        "fraction": fraction,
        "seed": seed,
        "size": size,
        "channels": channels,
        "deep": deep,
        "fit": fit,
        "mean": numbers("--mean", mean),
        "std": numbers("--std", std),
        "recipe": recipe,
        "workers": workers,
        "precision": precision,
        "cache": cache,
        "tensorboard": tensorboard,
        "minutes": minutes,
        "save_minutes": save_minutes,
        "quiet": False,
        "arguments": arguments_of(arguments),
        "epochs": epochs,
        "augment": augment,
        "mixup": mixup,
        "cutmix": cutmix,
        "balance": balance,
        "norms": norms,
        "head": head,
        "views": views,
        "layer_decay": layer_decay,
        "batch": batch,
        "accumulate": accumulate,
        "lr": lr,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup": warmup,
        "label_smoothing": label_smoothing,
        "stochastic_depth": stochastic_depth,
        "dropout": dropout,
        "auxiliary": auxiliary,
        "clip": clip,
        "ema": ema,
        "patience": patience,
    }
    if folds is not None:
        tell_folds(api.train_folds(data, model, out, folds=folds, **asked), as_json)
        return
    tell(api.train(data, model, out, **asked), as_json)


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


def tell_folds(finished: Folds, as_json: bool) -> None:
    """Print how all folds ended."""
    if as_json:
        print(json.dumps(finished.to_dict()))
        return
    for run in finished.runs:
        print(f"{run.folder.name}  {run.metrics.top1}")
    print(f"all     {finished.top1}  (every picture judged by the run that had not seen it)")
    print(f"folder  {finished.folder}")


def numbers(option: str, text: str | None) -> list[float] | None:
    """0.5,0.5,0.5 to a list."""
    from convarium.errors import ArgumentError

    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(
            f"{option} {text}; it must be numbers with commas, as 0.485,0.456,0.406"
        ) from None


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
