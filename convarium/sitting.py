"""One sitting of a run: check the pictures, train from the beginning or the state, judge, write the report."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from convarium import __version__, account, classifier, storage
from convarium.classifier import Classifier
from convarium.data.augment import Augment
from convarium.data.folders import Data, fingerprint
from convarium.data.loader import Checked, Loader, check
from convarium.data.preprocessing import Preprocessing
from convarium.data.splits import write_split
from convarium.errors import ArgumentError, DataError, Interrupted, RunError
from convarium.judge.metrics import Metrics, measure
from convarium.judge.report import render
from convarium.judge.scoring import BATCH, probabilities
from convarium.models import front
from convarium.net import Net
from convarium.training import checkpoint, loop, recipes, signals
from convarium.training.precision import Precision, choose
from convarium.training.run import RunFolder
from convarium.training.task import Classify
from convarium.training.watch import Watch

# What training pictures are changed by, by name; "auto" takes "photo" for colour pictures of 64 pixels and more.
AUGMENTS: dict[str, Augment | None] = {
    "none": None,
    "light": Augment(rotate=10, shift=0.08, scale=0.1),
    "photo": Augment(area=(0.35, 1.0), flip=True, color=0.2),
}


@dataclass
class Sitting:
    """What one sitting works with.

    Args:
        folder: of the run, held by this process.
        config: what its config.toml says.
        found: the data with its parts.
        watch: told how it goes.
        resume: whether to go on from the state.
        device: where to compute.
        sets: the pictures that can be read, by part.
        damaged: key and reason of each other.
        times: seconds by phase.
        sha256: fingerprint of each part's pictures.
    """

    folder: RunFolder
    config: dict[str, Any]
    found: Data
    watch: Watch
    resume: bool
    device: torch.device
    sets: dict[str, Checked] = field(default_factory=dict)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network: classes, in_channels, size and its own."""
        return self.config["architecture"]["arguments"]

    @property
    def held_out(self) -> tuple[str, Checked]:
        """The part that the final figures are measured on."""
        part = "test" if "test" in self.sets else "val"
        return part, self.sets[part]


@dataclass(frozen=True)
class End:
    """How a run ended."""

    folder: RunFolder
    metrics: Metrics
    progress: checkpoint.Progress


def sit(folder: RunFolder, config: dict[str, Any], found: Data, watch: Watch, resume: bool) -> End:
    """Train in a folder that this process holds, until the end or a signal.

    Args:
        folder: of the run.
        config: what its config.toml says.
        found: the data with parts "train" and "val", perhaps "test".
        watch: told how it goes.
        resume: go on from the state.

    Returns:
        The end of the run.

    Raises:
        UserError: anything that the user can mend.
        Interrupted: stopped by a signal.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    now = Sitting(folder, config, found, watch, resume, device)
    if list(found.classes) != config["classes"]:
        raise DataError(f"{found.root} has other classes than when {folder.folder} began; start a new run")
    with signals.listening() as stop:
        try:
            started = time.perf_counter()
            _check(now, stop)
            now.times["checking pictures"] = time.perf_counter() - started
            preprocessing = _preprocessing(now, now.sets["train"].mean, now.sets["train"].std)
            with _threads(now):
                parts, way = _train(now, preprocessing, stop)
                now.times["training"] = parts.progress.seconds
                metrics = _finish(now, parts, way, preprocessing)
        except Interrupted as error:
            raise Interrupted(f"{error}; {_how_to_go_on(folder)}", error.signal) from None
        except (DataError, RunError) as error:
            if not folder.state.exists() or resume:
                raise
            raise type(error)(f"{error}; when that is mended, {_how_to_go_on(folder)}") from error
    return End(folder, metrics, parts.progress)


def already(folder: RunFolder) -> End:
    """The end of a run that is finished, as its files tell it; nothing is computed or written."""
    try:
        metrics = Metrics.from_dict(json.loads(folder.evaluation.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{folder.evaluation} cannot be read ({error}); remove it to have it made anew"
        ) from error
    return End(folder, metrics, checkpoint.progress(folder.state))


def _how_to_go_on(folder: RunFolder) -> str:
    return f"go on with: convarium resume {shlex.quote(str(folder.folder))}"


def _check(now: Sitting, stop: signals.Stop) -> None:
    """Decode every picture of every part; refuse what cannot be trained on; write down what was left out."""
    for part, pictures in now.found.parts.items():
        with now.watch.bar(f"checking {part} pictures") as shown:

            def progress(done: int, total: int, shown: Any = shown) -> None:
                stop.check("no training was lost: pictures were still being checked")
                shown(done, total)

            now.sets[part] = checked = check(pictures, _preprocessing(now), progress=progress)
        now.damaged += checked.damaged
        if now.damaged and not now.found.root.exists():
            raise DataError(
                f"{now.found.root} vanished while its pictures were checked; put it back and start again"
            )
        if not len(checked.good):
            now.folder.list_damaged(now.damaged)
            raise DataError(
                f"not one picture of the {part} part can be read; the first: {': '.join(checked.damaged[0])}"
            )
    now.folder.list_damaged(now.damaged)
    train = now.sets["train"].good
    empty = [name for name, count in zip(now.found.classes, train.counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"no picture to train on is left of {', '.join(map(repr, empty[:5]))}: all are damaged "
            f"(see {now.folder.damaged_file}); mend them or remove the class's folder"
        )
    now.sha256 = {part: fingerprint(checked.good) for part, checked in now.sets.items()}
    if not now.resume and all(isinstance(p.source, Path) for p in train.pictures):
        write_split(now.folder.split_file, {part: checked.good for part, checked in now.sets.items()})
    for note in now.found.notes:
        now.watch.note(f"note: {note}")
    if now.damaged:
        now.watch.note(
            f"note: {len(now.damaged)} pictures cannot be read and are left out; see {now.folder.damaged_file}"
        )


def _train(
    now: Sitting, preprocessing: Preprocessing, stop: signals.Stop
) -> tuple[checkpoint.Parts, Precision]:
    """The training itself."""
    config, folder, watch = now.config, now.folder, now.watch
    recipe = recipes.recipe(**config["recipe"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        net = front.create(config["architecture"]["name"], **now.arguments)
    task = Classify(net.to(now.device), recipe.label_smoothing, recipe.auxiliary)
    train = now.sets["train"]
    batch = min(recipe.batch, len(train.good))
    loader = Loader(
        train.good,
        preprocessing,
        batch=batch,
        seed=config["seed"],
        augment=AUGMENTS[config["augment"]],
        shuffle=True,
        workers=_workers(config.get("workers"), train),
        prepared=train.prepared,
        drop_last=len(train.good) % batch == 1 and batch > 1,  # batch norm cannot work on one picture
    )
    way = _way(now, task, batch)
    watch.note(
        f"{config['architecture']['name']} on {len(train.good):,} pictures of {len(now.found.classes)} classes, "
        f"{len(now.sets['val'].good):,} held out; {recipe.epochs} epochs; "
        f"{'bfloat16' if way.bf16 else 'float32'} ({way.reason})"
    )
    history = checkpoint.progress(folder.state).history if now.resume else []
    folder.record(history)

    def note_epoch(record: dict[str, Any]) -> None:
        history.append(record)
        try:
            folder.record(history)
        except RunError as error:  # the state holds the records too
            watch.note(f"{error}; training goes on")

    def validate(network: nn.Module) -> dict[str, float]:
        judged = _judged(now, network, preprocessing, stop)
        return {"val_loss": judged.loss, "val_top1": judged.top1.value}

    watch.record = note_epoch
    setting = loop.Setting(
        seed=config["seed"],
        device=now.device,
        precision=way,
        normalise=preprocessing.normalise,
        validate=validate,
        state=folder.state,
        minutes=config["minutes"],
        stop=stop,
        watcher=watch,
    )
    with watch.bar("training"), _telling_of_one_picture(batch):
        return loop.fit(task, loader, recipe, setting, now.resume), way


def _finish(now: Sitting, parts: checkpoint.Parts, way: Precision, preprocessing: Preprocessing) -> Metrics:
    """Judge what was trained, from the very file in which it is kept, and write the report."""
    started = time.perf_counter()
    about = {
        "recipe": now.config["recipe"],
        "augment": now.config["augment"],
        "seed": now.config["seed"],
        "precision": "bf16" if way.bf16 else "fp32",
        "data": {
            "name": os.fsencode(now.found.root.name).decode("utf-8", "replace"),
            "pictures": {part: len(checked.good) for part, checked in now.sets.items()},
            "sha256": now.sha256,
        },
        "version": __version__,
        "torch": torch.__version__,
    }
    net = cast(Net, loop.kept(parts))  # or a wrapped one, which answers as a Net does
    Classifier(net, now.found.classes, preprocessing, about).save(now.folder.model)
    clf = classifier.load(now.folder.model)
    part, held = now.held_out
    scored = clf.score(held.good, held.prepared)
    metrics = measure(scored.probabilities, np.array([p.label for p in held.good.pictures]), clf.classes)
    judged = metrics.to_dict()
    clf.about["metrics"] = {"part": part, **{key: judged[key] for key in ("top1", "top5", "loss")}}
    clf.save(now.folder.model)
    now.times["judging"] = time.perf_counter() - started
    content = account.report(
        config=now.config,
        found=now.found,
        sets=now.sets,
        damaged=now.damaged,
        times=now.times,
        clf=clf,
        way=way,
        progress=parts.progress,
        metrics=metrics,
        held=held,
        given=scored.probabilities,
    )
    storage.write_text(now.folder.evaluation, json.dumps(judged))
    storage.write_text(now.folder.report, render(content))
    now.watch.note(f"top-1 {metrics.top1}; report: {now.folder.report}")
    return metrics


def _preprocessing(now: Sitting, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Preprocessing:
    """How pictures are prepared: as photographs are by custom from 64 pixels on, whole below that."""
    size, fit = now.arguments["size"], now.config["fit"]
    resize = round(size * 256 / 224) if fit == "crop" and size >= 64 else None
    mode = "L" if now.arguments["in_channels"] == 1 else "RGB"
    return Preprocessing(size, mode, fit, resize, mean=mean, std=std)


def _workers(asked: int | None, checked: Checked) -> int:
    if asked is not None:
        return asked
    return 0 if checked.prepared is not None else min(8, torch.get_num_threads())


def _way(now: Sitting, task: Classify, batch: int) -> Precision:
    """How steps are computed: chosen when a run begins, and kept, with all that must not change, when it goes on."""
    kept = now.folder.state.with_name("settings.json")
    fixed = {name: now.config[name] for name in ("architecture", "recipe", "fit", "augment", "seed")}
    # A test part is looked at once, at the end: it decides nothing.
    data = {part: sha256 for part, sha256 in now.sha256.items() if part != "test"}
    if now.resume and kept.exists():
        try:
            before = json.loads(kept.read_text("utf-8"))
            way = Precision(*before["precision"])
            changed = [part for part in data if before["data"].get(part) != data[part]]
            edited = [
                name for name in fixed if before["config"].get(name) != json.loads(json.dumps(fixed[name]))
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{kept} cannot be read ({error}); the run cannot go on bit for bit; start a new one"
            ) from error
        if changed:
            words = " and ".join({"train": "training", "val": "validation"}[part] for part in changed)
            raise DataError(
                f"the {words} pictures have changed since {now.folder.folder} began, so it cannot go on as if "
                "uninterrupted; put them back, or start a new run"
            )
        if edited:
            raise RunError(
                f"{now.folder.config_file} was edited since the run began ({', '.join(edited)}); put it back, "
                "or start a new run with these settings"
            )
        torch_then = checkpoint.settings(now.folder.state)["torch"]
        if torch_then != torch.__version__:
            now.watch.note(f"note: begun with torch {torch_then}, now {torch.__version__}: bits may differ")
        return way
    size = now.arguments["size"]
    shape = (batch, now.arguments["in_channels"], size, size)
    way = choose(now.config["precision"], task, shape, now.arguments["classes"], now.device)
    content = {"precision": [way.bf16, way.channels_last, way.reason], "data": data, "config": fixed}
    storage.write_text(kept, json.dumps(content))
    return way


@contextmanager
def _telling_of_one_picture(batch: int) -> Iterator[None]:
    """Batch norm cannot work on a single value, and torch's message does not say what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ArgumentError(
            f"batch = {batch}; this network needs at least 2 pictures a step at this size"
        ) from error


@contextmanager
def _threads(now: Sitting) -> Iterator[None]:
    """While inside, as many threads as the run began with: another number adds in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(checkpoint.settings(now.folder.state)["threads"] if now.resume else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _judged(now: Sitting, network: nn.Module, preprocessing: Preprocessing, stop: signals.Stop) -> Metrics:
    """Metrics of the network under training on the validation part."""
    val = now.sets["val"]
    workers = _workers(now.config.get("workers"), val)
    loader = Loader(val.good, preprocessing, batch=BATCH, seed=0, prepared=val.prepared, workers=workers)

    def batches() -> Iterator[Tensor]:
        for batch in loader.batches(0):
            stop.check("the state before validation is kept")
            yield batch.pictures

    found = np.concatenate(list(probabilities(network, batches(), preprocessing.normalise, now.device)))
    return measure(found, np.array([p.label for p in val.good.pictures]), now.found.classes)
