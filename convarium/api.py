"""The front door of the library: names and paths in, objects out. The command line and the page call these."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from convarium import beginning, classifier, sitting
from convarium.classifier import Classifier
from convarium.errors import ArgumentError, RunError
from convarium.judge.answers import NAME, read_answers, write_answers
from convarium.judge.intervals import Proportion
from convarium.judge.metrics import Metrics
from convarium.models import front
from convarium.planning import planned
from convarium.training import recipes
from convarium.training.run import RunFolder, new_folder
from convarium.training.watch import Watch

if TYPE_CHECKING:
    from convarium.costs.cost import Cost
    from convarium.training.finder import Found


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
    dtype: str | torch.dtype = "float32",
) -> Cost:
    """What a network costs, part by part: shapes, parameters, operations, activations, receptive fields.

    Args:
        net: any module; the name of a network, also as "timm:NAME"; or the path of a trained model or run.
        picture: (channels, height, width) of the input; the network's own where None.
        batch: pictures at once; figures are for all of them.
        dtype: "float32", "bfloat16", "float16" or "float64", or torch's own; for figures in bytes.

    Returns:
        The whole and all its parts; `print` shows the tree.

    Raises:
        UnknownName: no such network.
        ArgumentError: a picture that the network cannot take, or a value that is not allowed.
        CheckpointError: a file that is no trained model.
    """
    from convarium import storage
    from convarium.costs.cost import checked
    from convarium.costs.cost import cost as count

    if picture is not None:
        picture = checked(picture)
    if isinstance(net, nn.Module):
        return count(net, picture, batch=batch, dtype=dtype)
    name = str(net)
    if storage.is_model(name):
        return count(classifier.load(name).net, picture, batch=batch, dtype=dtype)
    with torch.device("meta"):
        channels, rows, columns = picture or (None, None, None)
        # Networks are built for a square; another picture goes through one of the usual size, where it can.
        square = rows if rows == columns != front.variant(name).size else None
        built = front.create(name, in_channels=channels, size=square)
    return count(built, picture, batch=batch, dtype=dtype)


def train(
    data: str | Path,
    model: str = "resnet18",
    out: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    val: str | Path | None = None,
    fraction: float = 0.2,
    fold: tuple[int, int] | None = None,
    seed: int = 0,
    size: int | None = None,
    channels: int | None = None,
    deep: bool = False,
    fit: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recipe: str | None = None,
    workers: int | None = None,
    precision: str = "auto",
    cache: str | Path | None = None,
    tensorboard: bool = False,
    minutes: float | None = None,
    save_minutes: float = 5.0,
    quiet: bool = True,
    arguments: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Train a network on pictures, from nothing or from trained weights, to a classifier and its report.

    Args:
        data: a folder of class folders, with or without train/ and val/; a CSV file; a folder of the MNIST files.
        model: name of a network.
        out: folder of the run; a new one below runs/ where None.
        weights: trained ones to begin with: published ones by name ("torchvision:DEFAULT"), or a file. Pictures are
            then prepared as these weights ask for, and the classifier is made anew for the data's classes.
        val: other data to validate on.
        fraction: share of each class that is held out where the data has no parts of its own.
        fold: (which, of how many): the data is divided into so many parts alike, and this one, from 0, is held out.
        seed: of the weights, the order, the augmentation and the split.
        size: side of the network's input in pixels; that of the weights or the network where None.
        channels: 1 for grey, 3 for colour, any other number for so many bands; the network's own where None.
        deep: keep more than 8 bits a channel; so it is for other channels than 1 and 3 in any case.
        fit: "crop", "squash" or "pad" (see `Preprocessing`); as the weights ask for, or "crop", where None.
        mean: per channel, 0..1, where the file of weights does not tell; ImageNet's by custom.
        std: likewise.
        recipe: name of a recipe; "finetune" with weights and "scratch" without where None.
        workers: threads that decode pictures; none where small ones fit into memory, else one a core, where None.
        precision: "auto" measures, "fp32", or "bf16".
        cache: folder for prepared pictures where they do not fit into memory; none are kept where None.
        tensorboard: also write each epoch for TensorBoard, into the run's folder (needs the extra `track`).
        minutes: that training may take in all; the recipe's epochs are then cut to what fits.
        save_minutes: between two saved states within an epoch.
        quiet: say nothing about progress.
        arguments: the network's own, as {"shortcut": "B"}.
        changes: fields of the recipe, as epochs=5, lr=0.1, augment="none".

    Returns:
        The finished run.

    Raises:
        UserError: anything that the user can mend; the message says how.
        Interrupted: stopped by a signal; `resume` goes on.
    """
    plan = planned(
        data,
        model,
        weights=weights,
        val=val,
        fraction=fraction,
        fold=fold,
        seed=seed,
        size=size,
        channels=channels,
        deep=deep,
        fit=fit,
        mean=mean,
        std=std,
        recipe=recipe,
        workers=workers,
        precision=precision,
        cache=cache,
        tensorboard=tensorboard,
        minutes=minutes,
        save_minutes=save_minutes,
        arguments=arguments,
        **changes,
    )
    _check_path(Path(out or "."))
    folder = RunFolder(
        Path(out)
        if out is not None
        else new_folder(Path("runs"), f"{_plain(Path(data))}-{model.replace(':', '-')}")
    )
    with folder.held():
        folder.start(plan.config, plan.needed)
        watch = Watch(quiet, plan.config["recipe"]["epochs"])
        return _finished(sitting.sit(folder, plan.config, plan.found, watch, resume=False))


@dataclass(frozen=True)
class Folds:
    """Runs of which each held out another part of the same pictures.

    Args:
        folder: in which they lie, as fold0, fold1, ...
        runs: in this order.
    """

    folder: Path
    runs: tuple[Run, ...]

    @property
    def top1(self) -> Proportion:
        """Over all pictures, each judged by the run that had not seen it."""
        found = [run.metrics.top1 for run in self.runs]
        return Proportion.of(sum(p.correct for p in found), sum(p.count for p in found))

    def to_dict(self) -> dict[str, Any]:
        """{"folder", "top1", "runs"}, JSON-able."""
        return {
            "folder": str(self.folder),
            "top1": self.top1.to_dict(),
            "runs": [run.to_dict() for run in self.runs],
        }


def train_folds(
    data: str | Path,
    model: str = "resnet18",
    out: str | Path | None = None,
    *,
    folds: int = 5,
    quiet: bool = True,
    **asked: Any,
) -> Folds:
    """Train several times, each time with another part of the pictures held out (cross-validation).

    Args:
        data: a folder of class folders without parts.
        model: name of a network.
        out: folder of the runs, and of answers.csv, where each picture is judged by the run that had not seen it; a new
            one below runs/ where None. What is there of an interrupted call with the same settings is gone on with.
        folds: parts.
        quiet: say nothing about progress.
        asked: as for `train`.

    Returns:
        The finished runs.

    Raises:
        UserError: anything that the user can mend.
        Interrupted: stopped by a signal; the same call goes on.
    """
    if not isinstance(folds, int) or folds < 2:
        raise ArgumentError(f"folds = {folds!r}; it must be a whole number of at least 2")
    _check_path(Path(out or "."))
    named = f"{_plain(Path(data))}-{model.replace(':', '-')}-{folds}folds"
    folder = new_folder(Path("runs"), named) if out is None else Path(out)
    runs = []
    for number in range(folds):
        place = RunFolder(folder / f"fold{number}")
        if place.state.exists():
            _must_be_the_same(place, planned(data, model, fold=(number, folds), **asked).config)
            runs.append(resume(place.folder, quiet))
        else:
            runs.append(train(data, model, place.folder, fold=(number, folds), quiet=quiet, **asked))
    write_answers(folder / NAME, [answer for run in runs for answer in read_answers(run.folder / NAME)])
    return Folds(folder, tuple(runs))


def _must_be_the_same(place: RunFolder, config: dict[str, Any]) -> None:
    """Refuse to take a fold of other settings for one of these."""
    there = place.config()
    other = sorted(n for n in {*config, *there} - {"convarium"} if config.get(n) != there.get(n))
    if other:
        raise RunError(
            f"{place.folder} was trained with other settings ({', '.join(other)}); repeat them, or choose another --out"
        )


def find_rate(
    data: str | Path, model: str = "resnet18", *, steps: int = 100, quiet: bool = True, **asked: Any
) -> Found:
    """Try learning rates from low to high, a step each, and suggest one; nothing is kept.

    Args:
        data: as for `train`.
        model: as for `train`.
        steps: at most.
        quiet: say nothing about progress.
        asked: all else as for `train`.

    Returns:
        Rates, losses, and a suggestion with its reason.

    Raises:
        UserError: anything that the user can mend.
        Interrupted: stopped by a signal.
    """
    plan = planned(data, model, **asked)
    with tempfile.TemporaryDirectory() as folder:
        place = RunFolder(Path(folder))
        place.start(plan.config, plan.needed)
        return sitting.find_rate(place, plan.config, plan.found, Watch(quiet), steps)


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
        fold = config.get("fold")
        found = beginning.read(
            Path(config["data"]),
            Path(val) if val else None,
            config["fraction"],
            config["seed"],
            tuple(fold) if fold else None,
            config.get("deep", False),
        )
        watch = Watch(quiet, recipes.recipe(**config["recipe"]).epochs)
        return _finished(sitting.sit(folder, config, found, watch, resume=folder.state.exists()))


def _finished(end: sitting.End) -> Run:
    folder, progress = end.folder, end.progress
    return Run(folder.folder, end.metrics, folder.model, folder.report, progress.seconds, progress.history)


def _check_path(path: Path) -> None:
    """Refuse a folder whose name files of weights cannot be opened by."""
    try:
        str(path.absolute()).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ArgumentError(f"the path {str(path)!r} is not valid UTF-8; choose another --out") from error


def _plain(path: Path) -> str:
    """A name for a folder from the data's name, in any script."""
    return re.sub(r"[^\w.-]+", "_", path.resolve().name).strip("._") or "data"
