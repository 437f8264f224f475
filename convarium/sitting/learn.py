"""The training itself: the whole network, or its classifier first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from convarium import storage
from convarium.data.augment import SETS
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, RunError
from convarium.judge.metrics import Metrics, measure
from convarium.judge.scoring import BATCH, probabilities
from convarium.models import front
from convarium.net import Net
from convarium.sitting.state import Sitting, Trained
from convarium.training import checkpoint, loop, signals
from convarium.training.precision import Precision, choose
from convarium.training.recipes import Recipe
from convarium.training.task import Classify

_FIXED = ("architecture", "recipe", "fit", "augment", "seed", "weights", "preprocessing", "fold")


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
        raise RunError(
            f"{weights} has changed since {now.folder.folder} began; put it back, or start a new run"
        )
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
    config, watch, recipe = now.config, now.watch, now.recipe
    task = task_of(now, net, recipe)
    train = now.sets["train"]
    batch = min(recipe.batch, len(train.good))
    loader = Loader(
        train.good,
        preprocessing,
        batch=batch,
        seed=config["seed"],
        augment=SETS[config["augment"]],
        shuffle=True,
        workers=now.workers(train),
        prepared=train.prepared,
        drop_last=len(train.good) % batch == 1 and batch > 1,  # batch norm cannot work on one picture
        balance=recipe.balance == "sampling",
    )
    size = now.arguments["size"]
    shape = (batch, now.arguments["in_channels"], size, size)
    way = kept_way(
        now, lambda: choose(config["precision"], task, shape, now.arguments["classes"], now.device)
    )
    watch.note(
        f"{config['architecture']['name']} on {len(train.good):,} pictures of {len(now.found.classes)} classes, "
        f"{len(now.sets['val'].good):,} held out; {recipe.epochs} epochs; "
        f"{'bfloat16' if way.bf16 else 'float32'} ({way.reason})"
    )

    def validate(network: nn.Module) -> dict[str, float]:
        judged = _judged(now, network, preprocessing, stop)
        return {"val_loss": judged.loss, "val_top1": judged.top1.value}

    setting = setting_of(now, way, preprocessing.normalise, validate, stop)
    with watch.bar("training"), _telling_of_one_picture(batch):
        parts = loop.fit(task, loader, recipe, setting, now.resume)
    return Trained(
        cast(Net, loop.kept(parts)), parts.progress, way
    )  # or a wrapped one, which answers as a Net does


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
    )


def kept_way(now: Sitting, decide: Callable[[], Precision]) -> Precision:
    """How steps are computed: decided when a run begins, and kept, with all that must not change, when it goes on.

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
    way = decide()
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


def _judged(now: Sitting, network: nn.Module, preprocessing: Preprocessing, stop: signals.Stop) -> Metrics:
    """Metrics of the network under training on the validation part."""
    val = now.sets["val"]
    loader = Loader(
        val.good, preprocessing, batch=BATCH, seed=0, prepared=val.prepared, workers=now.workers(val)
    )

    def batches() -> Iterator[Tensor]:
        for batch in loader.batches(0):
            stop.check("the state before validation is kept")
            yield batch.pictures

    found = np.concatenate(list(probabilities(network, batches(), preprocessing.normalise, now.device)))
    return measure(found, np.array([p.label for p in val.good.pictures]), now.found.classes)
