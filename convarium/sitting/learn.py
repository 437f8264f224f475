"""The training itself: the whole network, or its classifier first."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from convarium import storage
from convarium.data.augment import SETS
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, RunError
from convarium.judge.metrics import brief
from convarium.judge.scoring import BATCH, probabilities
from convarium.models import front
from convarium.net import Net
from convarium.sitting.state import Sitting, Trained
from convarium.training import checkpoint, loop, signals
from convarium.training.largest import largest
from convarium.training.pace import epochs_within, rehearse, steps_in
from convarium.training.precision import Precision, choose
from convarium.training.recipes import Recipe
from convarium.training.task import Classify

_FIXED = ("architecture", "recipe", "fit", "augment", "seed", "weights", "preprocessing", "fold", "deep")


USUAL = 64
"""Pictures in a batch by which ways to compute are compared, where the largest batch is asked for."""

STEPS = 16
"""Steps of an epoch that the largest batch leaves, or little would be learnt."""


@dataclass(frozen=True)
class Decided:
    """What a run finds out when it begins.

    Args:
        way: how steps are computed.
        batch: pictures a pass.
        epochs: that there is time for.
        fixed: paths of batch norms that go by their kept statistics in training, too.
        notes: what the user is told of it.
    """

    way: Precision
    batch: int
    epochs: int
    fixed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def network(now: Sitting, fresh: bool = False) -> Net:
    """The run's network with the weights that it begins with.

    Args:
        now: the sitting.
        fresh: without published weights, because a state will be read.

    Raises:
        RunError: the file of weights is another one than when the run began.
    """
    weights = None if fresh else now.config.get("weights")
    sha256 = now.config.get("weights_sha256")
    if weights and sha256 and storage.sha256(weights) != sha256:
        what = "has changed" if Path(weights).exists() else "is gone"
        raise RunError(f"{weights} {what} since {now.folder.folder} began; put it back, or start a new run")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(now.config["seed"])
        net = front.create(now.config["architecture"]["name"], weights=weights, **now.arguments)
    return net.to(now.device)


def task_of(now: Sitting, net: nn.Module, recipe: Recipe) -> Classify:
    """The network with the loss that the recipe asks for."""
    counts = torch.tensor(now.sets["train"].good.counts, dtype=torch.float32)
    weights = counts.sum() / (len(counts) * counts) if recipe.balance == "loss" else None
    task = Classify(
        net,
        recipe.label_smoothing,
        recipe.auxiliary,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        class_weights=weights,
    )
    return task.to(now.device)


def learn(now: Sitting, net: Net, preprocessing: Preprocessing, stop: signals.Stop) -> Trained:
    """Train all that learns of a network, by the loop.

    Args:
        now: the sitting.
        net: as training begins.
        preprocessing: of the pictures.
        stop: looked at after each step.

    Returns:
        The network to keep.
    """
    config, watch, train = now.config, now.watch, now.sets["train"]
    task = task_of(now, net, now.recipe)

    def validate(network: nn.Module) -> dict[str, float]:
        return _judged(now, network, preprocessing, stop)

    with telling_of_one_picture(now.recipe.batch):
        decided = kept_decisions(now, lambda: _decide(now, task, preprocessing, stop))
    net.frozen = decided.fixed  # in evaluation mode; their weights learn
    way, recipe = decided.way, replace(now.recipe, batch=decided.batch, epochs=decided.epochs)
    watch.epochs = recipe.epochs
    arithmetic = "bfloat16" if way.bf16 else "float32"
    watch.note(
        f"{config['architecture']['name']} on {len(train.good):,} pictures of {len(now.found.classes)} classes, "
        f"{len(now.sets['val'].good):,} held out; {recipe.epochs} epochs; {arithmetic} ({way.reason})"
    )
    for note in decided.notes:
        watch.note(note)
    loader = loader_of(now, preprocessing, recipe.batch)
    setting = setting_of(now, way, preprocessing.normalise, validate, stop)
    with watch.bar("training"), telling_of_one_picture(recipe.batch):
        parts = loop.fit(task, loader, recipe, setting, now.resume)
    net = cast(Net, loop.kept(parts))  # or a wrapped one, which answers as a Net does
    return Trained(net, parts.progress, way, notes=tuple(filter(None, (parts.progress.ended,))))


def loader_of(now: Sitting, preprocessing: Preprocessing, batch: int) -> Loader:
    """The training pictures in batches."""
    train = now.sets["train"]
    return Loader(
        train.good,
        preprocessing,
        batch=batch,
        seed=now.config["seed"],
        augment=SETS[now.config["augment"]],
        shuffle=True,
        workers=now.workers(train),
        prepared=train.prepared,
        drop_last=len(train.good) % batch == 1 and batch > 1,  # batch norm cannot work on one picture
        balance=now.recipe.balance == "sampling",
    )


def _decide(now: Sitting, task: Classify, preprocessing: Preprocessing, stop: signals.Stop) -> Decided:
    """What is found out when a run begins: how to compute, the batch, and how many epochs there is time for."""
    recipe, notes, count = now.recipe, list[str](), len(now.sets["train"].good)
    fixed = fixed_norms(now, task.net)
    task.net.frozen = fixed  # type: ignore[assignment]
    if fixed and recipe.norms != "kept":
        notes.append(
            f"{len(fixed)} batch norms of these weights hold no statistics, as where they were folded into the "
            "convolutions: they stay what they are, or the first step would change what the network computes"
        )
    size, channels = now.arguments["size"], now.arguments["in_channels"]
    batch = min(recipe.batch or USUAL, count)
    shape = (batch, channels, size, size)
    way = choose(now.config["precision"], task, shape, now.arguments["classes"], now.device)
    if not recipe.batch:
        found = largest(task, (channels, size, size), recipe, now.device, way)
        if not found.batch:
            raise ArgumentError(f"{found.reason}; take a smaller --size or another network")
        batch = max(2, min(found.batch, count // STEPS))
        notes.append(
            f"a batch of {batch}: {found.reason}"
            if batch == found.batch
            else f"a batch of {batch}, so that an epoch has {STEPS} steps; by memory {found.batch} would do"
        )
    epochs = recipe.epochs
    if budget := now.config.get("budget"):
        loader = loader_of(now, preprocessing, batch)
        setting = setting_of(now, way, preprocessing.normalise, lambda net: {}, stop)
        step = rehearse(task, loader, recipe, setting)
        # A picture that is only looked at takes about a third of one that is learnt from.
        looking = step / batch / recipe.accumulate / 3 * len(now.sets["val"].good)
        # Features, and the classifier's own epochs before these, have taken some of it.
        left = max(0.0, 60 * budget - (time.perf_counter() - now.began))
        epochs = epochs_within(left, step, steps_in(loader, recipe), looking)
        if not epochs:
            one = (step * steps_in(loader, recipe) + looking) / 60
            raise ArgumentError(
                f"--minutes {budget:g}: one epoch takes about {one:.2g} minutes here, and {left / 60:.2g} are left; "
                "give it more, or take a smaller "
                "network or --size, or the recipe probe"
            )
        if epochs < recipe.epochs:
            notes.append(
                f"{epochs} of {recipe.epochs} epochs fit into {budget:g} minutes; the schedule is cut to them"
            )
        epochs = min(epochs, recipe.epochs)
    return Decided(way, batch, epochs, fixed, tuple(notes))


def fixed_norms(now: Sitting, net: nn.Module) -> tuple[str, ...]:
    """Paths of the batch norms that go by their kept statistics in training, too.

    All, where the recipe asks for it; otherwise those whose statistics are what they were made with, mean 0 and
    variance 1 everywhere, as where they were folded into convolutions.

    Args:
        now: the sitting.
        net: with the weights that it begins with.
    """
    if "weights" not in now.config:
        return ()
    norms = {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module.running_var is not None
    }
    if now.recipe.norms == "kept":
        return tuple(norms)
    return tuple(
        path
        for path, module in norms.items()
        if not module.running_mean.any() and bool((module.running_var == 1).all())  # type: ignore[union-attr]
    )


def setting_of(
    now: Sitting,
    way: Precision,
    normalise: Callable[[Tensor], Tensor],
    validate: Callable[[nn.Module], dict[str, float]],
    stop: signals.Stop,
) -> loop.Setting:
    """What the loop is given beside task, batches and recipe; each epoch is then written to metrics.jsonl."""
    history = checkpoint.progress(now.folder.state).history if now.resume else []
    now.folder.record(history)

    def note_epoch(record: dict[str, Any]) -> None:
        history.append(record)
        try:
            now.folder.record(history)
        except RunError as error:  # the state holds the records too
            now.watch.note(f"{error}; training goes on")

    now.watch.record = note_epoch
    return loop.Setting(
        seed=now.config["seed"],
        device=now.device,
        precision=way,
        normalise=normalise,
        validate=validate,
        state=now.folder.state,
        minutes=now.config["minutes"],
        stop=stop,
        watcher=now.watch,
        budget=60 * now.config["budget"] if "budget" in now.config else None,
    )


def kept_decisions(now: Sitting, decide: Callable[[], Decided]) -> Decided:
    """What is decided when a run begins, and kept, with all that must not change, when it goes on.

    Args:
        now: the sitting.
        decide: is asked where the run begins.

    Raises:
        RunError: what was kept cannot be read, or the run's settings were edited.
        DataError: the pictures have changed.
    """
    kept = now.folder.state.with_name("settings.json")
    fixed = {name: now.config[name] for name in _FIXED if name in now.config}
    # A test part is looked at once, at the end: it decides nothing.
    data = {part: sha256 for part, sha256 in now.sha256.items() if part != "test"}
    if now.resume and kept.exists():
        try:
            before = json.loads(kept.read_text("utf-8"))
            decided = Decided(
                Precision(*before["precision"]),
                before.get("batch", now.recipe.batch),
                before.get("epochs", now.recipe.epochs),
                tuple(before.get("fixed", ())),
            )
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
        return decided
    decided = decide()
    way = decided.way
    content = {
        "precision": [way.bf16, way.channels_last, way.reason],
        "batch": decided.batch,
        "epochs": decided.epochs,
        "fixed": decided.fixed,
        "data": data,
        "config": fixed,
    }
    storage.write_text(kept, json.dumps(content))
    return decided


@contextmanager
def telling_of_one_picture(batch: int) -> Iterator[None]:
    """Batch norm cannot work on a single value, and torch's message does not say what to do."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ArgumentError(
            f"batch = {batch}; this network needs at least 2 pictures a step at this size"
        ) from error


def _judged(
    now: Sitting, network: nn.Module, preprocessing: Preprocessing, stop: signals.Stop
) -> dict[str, float]:
    """Loss and top-1 of the network under training on the validation part."""
    val = now.sets["val"]
    loader = Loader(
        val.good, preprocessing, batch=BATCH, seed=0, prepared=val.prepared, workers=now.workers(val)
    )

    def batches() -> Iterator[Tensor]:
        for batch in loader.batches(0):
            stop.check("the state before validation is kept")
            yield batch.pictures

    found = np.concatenate(list(probabilities(network, batches(), preprocessing.normalise, now.device)))
    return brief(found, np.array([p.label for p in val.good.pictures]))
