"""One sitting of a run: check the pictures, train from the beginning or the state, judge, write the report."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from convarium.costs.allocator import keep_freed_memory
from convarium.data.folders import Data
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, Interrupted, RunError
from convarium.judge.metrics import Metrics
from convarium.sitting.finish import finish
from convarium.sitting.frozen import head_first, learn_classifier
from convarium.sitting.learn import (
    USUAL,
    fixed_norms,
    learn,
    loader_of,
    network,
    setting_of,
    task_of,
    telling_of_one_picture,
)
from convarium.sitting.look import look
from convarium.sitting.state import End, Sitting, Trained
from convarium.training import checkpoint, finder, precision, signals
from convarium.training.run import RunFolder
from convarium.training.track import tensorboard
from convarium.training.watch import Watch

__all__ = ["End", "already", "find_rate", "sit"]


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
    if config.get("tensorboard"):
        watch.trackers.append(tensorboard(folder.folder / "tensorboard"))
    keep_freed_memory()
    with signals.listening() as stop:
        try:
            started = time.perf_counter()
            look(now, stop)
            now.times["checking pictures"] = time.perf_counter() - started
            preprocessing = now.preprocessing(now.sets["train"].mean, now.sets["train"].std)
            with _threads(now):
                trained = _train(now, preprocessing, stop)
                now.times["training"] = trained.progress.seconds
                metrics = finish(now, trained, preprocessing)
        except Interrupted as error:
            raise Interrupted(f"{error}; {_how_to_go_on(folder)}", error.signal) from None
        except (DataError, RunError) as error:
            if not folder.state.exists() or resume:
                raise
            raise type(error)(f"{error}; when that is mended, {_how_to_go_on(folder)}") from error
        finally:
            for tracker in watch.trackers:
                tracker.close()
    return End(folder, metrics, trained.progress)


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


def _train(now: Sitting, preprocessing: Preprocessing, stop: signals.Stop) -> Trained:
    """By the recipe: all at once, the classifier alone, or the classifier first and then all."""
    recipe, now.began = now.recipe, time.perf_counter()
    net = network(now, fresh=now.resume and recipe.backbone)
    if not recipe.backbone:
        return learn_classifier(now, net, preprocessing, stop)
    if recipe.head and not now.resume:
        head_first(now, net, preprocessing, stop)
    return learn(now, net, preprocessing, stop)


def find_rate(
    folder: RunFolder, config: dict[str, Any], found: Data, watch: Watch, steps: int
) -> finder.Found:
    """Try learning rates for a run, in a folder that is thrown away.

    Args:
        folder: for what is written on the way.
        config: of the run.
        found: the data with its parts.
        watch: told how it goes.
        steps: at most.

    Returns:
        Rates, losses and a suggestion.

    Raises:
        UserError: anything that the user can mend.
        Interrupted: stopped by a signal.
    """
    now = Sitting(
        folder, config, found, watch, False, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    )
    keep_freed_memory()
    with signals.listening() as stop:
        if not now.recipe.backbone:
            raise ArgumentError(
                f"the recipe {config['recipe']['name']} trains the classifier alone, which its own rate suits; take "
                "finetune or scratch to look for one"
            )
        look(now, stop)
        preprocessing = now.preprocessing(now.sets["train"].mean, now.sets["train"].std)
        net = network(now)
        if now.recipe.head:
            head_first(now, net, preprocessing, stop)
        net.frozen = fixed_norms(now, net)
        task, recipe = task_of(now, net, now.recipe), now.recipe
        batch = min(recipe.batch or USUAL, len(now.sets["train"].good))
        size, channels = now.arguments["size"], now.arguments["in_channels"]
        shape = (batch, channels, size, size)
        with telling_of_one_picture(batch):
            way = precision.choose(config["precision"], task, shape, now.arguments["classes"], now.device)
        setting = setting_of(now, way, preprocessing.normalise, lambda net: {}, stop)
        with watch.bar("learning rates") as shown:
            loader = loader_of(now, preprocessing, batch)
            return finder.find(task, loader, recipe, setting, steps=steps, progress=shown)


@contextmanager
def _threads(now: Sitting) -> Iterator[None]:
    """While inside, as many threads as the run began with: another number adds in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(checkpoint.settings(now.folder.state)["threads"] if now.resume else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
