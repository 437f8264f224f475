"""The front door of the library: names and paths in, objects out. The command line and the page call these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convarium import __version__, classifier, sitting
from convarium.classifier import Classifier
from convarium.data.folders import Data, read_data
from convarium.data.splits import lonely, stratified
from convarium.errors import ArgumentError, DataError, unknown_name
from convarium.judge.metrics import Metrics
from convarium.models import front
from convarium.training import recipes
from convarium.training.run import RunFolder, new_folder
from convarium.training.watch import Watch

if TYPE_CHECKING:
    from convarium.costs.cost import Cost


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: where everything lies.
        metrics: on the held-out pictures, with intervals.
        model: path of the classifier's file.
        report: path of the report.
        seconds: spent on training and validating, over all sittings.
        history: one record an epoch.
    """

    folder: Path
    metrics: Metrics
    model: Path
    report: Path
    seconds: float
    history: list[dict[str, Any]]

    @property
    def classifier(self) -> Classifier:
        """The trained classifier, loaded from its file."""
        return classifier.load(self.model)

    def to_dict(self) -> dict[str, Any]:
        """{"run", "model", "report", "top1", "top5", "seconds", "epochs"}, JSON-able."""
        judged = self.metrics.to_dict()
        return {
            "run": str(self.folder),
            "model": str(self.model),
            "report": str(self.report),
            "top1": judged["top1"],
            "top5": judged["top5"],
            "seconds": round(self.seconds, 3),
            "epochs": len(self.history),
        }


def cost(
    net: nn.Module | str | Path,
    picture: tuple[int, int, int] | None = None,
    *,
    batch: int = 1,
    dtype: str = "float32",
) -> Cost:
    """What a network costs, part by part: shapes, parameters, operations, activations, receptive fields.

    Args:
        net: any module; the name of a network, also as "timm:NAME"; or the path of a trained model or run.
        picture: (channels, height, width) of the input; the network's own where None.
        batch: pictures at once; figures are for all of them.
        dtype: "float32", "bfloat16", "float16" or "float64", for figures in bytes.

    Returns:
        The whole and all its parts; `print` shows the tree.

    Raises:
        UnknownName: no such network.
        ArgumentError: a picture that the network cannot take, or a value that is not allowed.
        CheckpointError: a file that is no trained model.
    """
    from convarium.costs.cost import cost as count

    if isinstance(net, nn.Module):
        return count(net, picture, batch=batch, dtype=dtype)
    name = str(net)
    if name.endswith(".safetensors") or Path(name, "model.safetensors").is_file():
        return count(classifier.load(name).net, picture, batch=batch, dtype=dtype)
    with torch.device("meta"):
        channels, side = (picture[0], picture[1]) if picture else (None, None)
        own = front.variant(name)
        size = side if side != own.size else None
        built = front.create(name, in_channels=channels, size=size)
    return count(built, picture, batch=batch, dtype=dtype)


def train(
    data: str | Path,
    model: str = "resnet18",
    out: str | Path | None = None,
    *,
    val: str | Path | None = None,
    fraction: float = 0.2,
    seed: int = 0,
    size: int | None = None,
    channels: int | None = None,
    fit: str = "crop",
    augment: str = "auto",
    recipe: str = "scratch",
    workers: int | None = None,
    precision: str = "auto",
    minutes: float = 5.0,
    quiet: bool = True,
    arguments: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Train a network on pictures, from nothing to a classifier and its report.

    Args:
        data: a folder of class folders, with or without train/ and val/; a CSV file; a folder of the MNIST files.
        model: name of a network.
        out: folder of the run; a new one below runs/ where None.
        val: other data to validate on.
        fraction: share of each class that is held out where the data has no parts of its own.
        seed: of the weights, the order, the augmentation and the split.
        size: side of the network's input in pixels; the network's own where None.
        channels: 1 for grey, 3 for colour; the network's own where None.
        fit: "crop", "squash" or "pad" (see `Preprocessing`).
        augment: "auto", "none", "light" (small turns and shifts) or "photo" (crops, mirror, colour).
        recipe: name of a recipe.
        workers: processes that decode pictures; none where all fit into memory, else one a core, where None.
        precision: "auto" measures, "fp32", or "bf16".
        minutes: between two saved states within an epoch.
        quiet: say nothing about progress.
        arguments: the network's own, as {"shortcut": "B"}.
        changes: fields of the recipe, as epochs=5, lr=0.1.

    Returns:
        The finished run.

    Raises:
        UserError: anything that the user can mend; the message says how.
        Interrupted: stopped by a signal; `resume` goes on.
    """
    row = front.variant(model)
    if row.family == "clip":  # its `classes` are the width of a common space
        raise ArgumentError(
            f"{model} gives features of pictures and texts, not class scores, so it cannot be trained on classes here; "
            "choose another network; `convarium list` shows them"
        )
    elsewhere = {
        "classes": "the data decides it",
        "in_channels": "say it with --channels",
        "size": "say it with --size",
        "weights": "not here",
    }
    for name, way in elsewhere.items():
        if name in (arguments or {}):
            raise ArgumentError(f"{name} is no argument to set on the network: {way}")
    if not str(data):
        raise DataError("no data: the path is empty")
    _check_path(Path(out or "."))
    chosen = recipes.recipe(recipe, **changes)
    if augment != "auto" and augment not in sitting.AUGMENTS:
        raise unknown_name("augmentation", augment, ["auto", *sitting.AUGMENTS])
    if not minutes > 0:
        raise ArgumentError(f"minutes = {minutes}; it must be above 0")
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ArgumentError(f"workers = {workers!r}; it must be 0 or more")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(f"seed = {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    found = _read(Path(data), None if val is None else Path(val), fraction, seed)
    if channels is None:
        channels = row.in_channels if row.in_channels in (1, 3) else 3
    if channels not in (1, 3):
        raise ArgumentError(f"channels = {channels}; it must be 1 (grey) or 3 (colour)")
    with torch.device("meta"):  # a first look, so that a wrong size is told before any picture is read
        probe = front.create(
            model, classes=len(found.classes), in_channels=channels, size=size, **(arguments or {})
        )
    if changes.get("auxiliary") and not getattr(probe, "taps", ()):
        raise ArgumentError(
            f"auxiliary = {changes['auxiliary']}, but {model} has no auxiliary classifiers that are trained here; "
            "leave it out"
        )
    config = {
        "convarium": __version__,
        "data": str(Path(data).absolute()),
        "val": None if val is None else str(Path(val).absolute()),
        "classes": list(found.classes),
        "fraction": float(fraction),
        "seed": seed,
        "fit": fit,
        "augment": augment
        if augment != "auto"
        else ("photo" if channels == 3 and probe.size >= 64 else "light"),
        "workers": workers,
        "precision": precision,
        "minutes": minutes,
        "architecture": probe.architecture,
        "recipe": {"name": recipe, **chosen.to_dict()},
    }
    tensors = [*probe.parameters(), *probe.buffers()]
    # Two states (the old one stays until the new one is whole), each with two moments and an average; the model.
    needed = 10 * sum(t.numel() * t.element_size() for t in tensors) + 2_000_000
    folder = RunFolder(
        Path(out)
        if out is not None
        else new_folder(Path("runs"), f"{_plain(Path(data))}-{model.replace(':', '-')}")
    )
    with folder.held():
        folder.start(config, needed)
        return _finished(sitting.sit(folder, config, found, Watch(quiet, chosen.epochs), resume=False))


def resume(run: str | Path, quiet: bool = True) -> Run:
    """Go on with a run that was cut off; the end is bit for bit that of an uninterrupted one.

    Args:
        run: its folder.
        quiet: say nothing about progress.

    Returns:
        The finished run; one that was finished already comes back as it is.

    Raises:
        RunError: no run there, or another process is at it.
        DataError: the pictures have changed since.
    """
    folder = RunFolder(Path(run))
    config = folder.config()
    if folder.finished:
        return _finished(sitting.already(folder))
    with folder.held():
        val = config.get("val")
        found = _read(Path(config["data"]), Path(val) if val else None, config["fraction"], config["seed"])
        watch = Watch(quiet, config["recipe"]["epochs"])
        return _finished(sitting.sit(folder, config, found, watch, resume=folder.state.exists()))


def _finished(end: sitting.End) -> Run:
    folder, progress = end.folder, end.progress
    return Run(folder.folder, end.metrics, folder.model, folder.report, progress.seconds, progress.history)


def _read(data: Path, val: Path | None, fraction: float, seed: int) -> Data:
    """The data with parts "train" and "val", and "test" where it has one beside a validation part."""
    found = read_data(data)
    parts = found.parts
    if val is not None:
        other = read_data(val, classes=found.classes)
        name = next(p for p in ("val", "test", "all", "train") if p in other.parts)
        parts = {"train": parts.get("train") or parts["all"], "val": other.parts[name]}
        found.notes += other.notes
    elif "all" in parts:
        found.notes += lonely(parts["all"])
        parts = dict(zip(("train", "val"), stratified(parts["all"], fraction, seed), strict=True))
    elif "train" not in parts:
        raise DataError(f"{data} has no pictures to train on; it has {', '.join(parts)}")
    elif "val" not in parts and "test" in parts:
        # Nothing is selected by it unless early stopping is asked for, which the report then says.
        parts = {"train": parts["train"], "val": parts["test"]}
    elif "val" not in parts:
        found.notes += lonely(parts["train"])
        parts = dict(zip(("train", "val"), stratified(parts["train"], fraction, seed), strict=True))
    return Data(found.root, found.classes, parts, found.notes)


def _check_path(path: Path) -> None:
    """Refuse a folder whose name files of weights cannot be opened by."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError(f"the path {str(path)!r} is not valid UTF-8; choose another --out") from error


def _plain(path: Path) -> str:
    """A name for a folder from the data's name, in any script."""
    return re.sub(r"[^\w.-]+", "_", path.resolve().name).strip("._") or "data"
