"""The only training loop.

Everything random in a step is a function of (seed, number of the batch), everything random in a picture of (seed,
epoch, picture): so no generator's state is kept, and a run that is killed and resumed ends bit for bit where an
uninterrupted one does. The state is kept between two steps of the optimiser, never within one.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convarium.errors import Interrupted, RunError, UserError
from convarium.training import checkpoint, optim
from convarium.training.checkpoint import Parts, Progress
from convarium.training.pace import Batches, Pace, steps_in
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.signals import Stop
from convarium.training.step import Taken, deterministic, take
from convarium.training.task import Task

OVERRUN = 1.1
"""Times its budget that training may take before it ends early."""


class Diverged(UserError):
    """The loss is not a number any more."""


class Watcher(Protocol):
    """Who is told how training goes."""

    def step(self, progress: Progress, batches: int, loss: Tensor) -> None: ...

    def epoch(self, record: dict[str, Any]) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class Setting:
    """What the loop is given beside the task, the batches and the recipe.

    Args:
        seed: of everything random.
        device: where the task lies.
        precision: how a step is computed.
        normalise: uint8 pictures (N, C, H, W) to what the network takes.
        validate: a network to {"val_loss", "val_top1"}; None where there is nothing to validate on.
        state: file to keep the state in.
        minutes: between two states within an epoch.
        stop: looked at after each step.
        watcher: told how it goes.
        budget: seconds of training and validating, over all sittings; a guard only: after an epoch that ends at more
            than `OVERRUN` times as much, no other begins. None for none.
    """

    seed: int
    device: torch.device
    precision: Precision
    normalise: Callable[[Tensor], Tensor]
    validate: Callable[[nn.Module], dict[str, float]] | None
    state: Path
    minutes: float
    stop: Stop
    watcher: Watcher
    budget: float | None = None


def fit(task: Task, loader: Batches, recipe: Recipe, setting: Setting, resume: bool = False) -> Parts:
    """Train until the recipe's epochs are done, validation stops improving, or somebody asks to stop.

    Args:
        task: trained in place, on the setting's device.
        loader: gives the same batches for the same epoch.
        recipe: how.
        setting: the rest.
        resume: go on from the setting's state instead of from the beginning.

    Returns:
        The parts at the end; `kept(parts)` is the network to keep.

    Raises:
        Interrupted: stopped by a signal; the state is saved.
        UserError: the loss is no number any more; the state before is kept.
        RunError: the state cannot be read, or the last one cannot be written.
    """
    if setting.precision.channels_last:
        task.to(memory_format=torch.channels_last)
    average = optim.averaged(task, recipe)
    parts = Parts(task, optim.optimizer(task, recipe), average, optim.Plateau(recipe.plateau), Progress())
    if resume:
        checkpoint.load(setting.state, parts)
    with deterministic(setting.device):
        while not parts.progress.finished:
            _epoch(parts, loader, recipe, setting)
    return parts


def kept(parts: Parts) -> nn.Module:
    """The network to keep: the best epoch's where training may stop early, else the averaged, else the last."""
    task = copy.deepcopy(_validated(parts))
    if parts.best:
        task.load_state_dict(parts.best)
    return task.net


def settings(setting: Setting) -> dict[str, Any]:
    """What must be the same for a resumed run to end bit for bit where an uninterrupted one does."""
    return {
        "threads": torch.get_num_threads(),
        "device": setting.device.type,
        "torch": torch.__version__,
        "precision": [setting.precision.bf16, setting.precision.channels_last, setting.precision.reason],
    }


def _epoch(parts: Parts, loader: Batches, recipe: Recipe, setting: Setting) -> None:
    progress = parts.progress
    began = time.perf_counter() - progress.epoch_seconds
    saved = time.perf_counter()
    totals = _Totals(progress, setting.device)
    parts.task.train()
    steps, start = steps_in(loader, recipe), progress.batch
    batches = loader.batches(progress.epoch, start=start)
    pace = Pace(batches, setting.device, loader)
    try:
        while True:
            rate = optim.learning_rate(recipe, progress.step, steps, parts.plateau.factor)
            taken = take(
                parts.task,
                parts.optimizer,
                islice(pace, recipe.accumulate),
                rate,
                recipe,
                setting,
                progress.epoch * len(loader) + progress.batch,
                parts.average,
            )
            if taken is None:
                break
            totals.add(taken)
            progress.batch += taken.batches
            progress.step += 1
            setting.watcher.step(progress, len(loader), taken.loss / taken.pictures)
            due = time.perf_counter() - saved > setting.minutes * 60
            if due or setting.stop.signal is not None:
                totals.write()
                pace.write(progress)
                progress.epoch_seconds = time.perf_counter() - began
                _save(parts, setting, last=setting.stop.signal is not None)
                saved = time.perf_counter()
                setting.stop.check(f"the state after step {progress.step} is kept")
    except UserError as error:
        # As when a picture has vanished: the steps until now are good, unless one is half done.
        if not isinstance(error, Diverged) and start + pace.given == progress.batch:
            totals.write()
            pace.write(progress)
            progress.epoch_seconds = time.perf_counter() - began
            _save(parts, setting, last=False)
        raise
    finally:
        batches.close()  # type: ignore[attr-defined]
    totals.write()
    pace.write(progress)
    record: dict[str, Any] = {
        "epoch": progress.epoch + 1,
        "step": progress.step,
        "train_loss": progress.loss / max(1, progress.seen),
        "train_top1": progress.correct / max(1, progress.seen),
        "lr": optim.learning_rate(recipe, progress.step - 1, steps, parts.plateau.factor),
    }
    try:
        if setting.validate is not None:
            record |= setting.validate(_validated(parts).net)
    except Interrupted:
        # Validation is done again after resuming: the epoch's steps are all in the state.
        progress.epoch_seconds = time.perf_counter() - began
        _save(parts, setting, last=True)
        raise
    record["seconds"] = round(time.perf_counter() - began, 3)
    progress.seconds += record["seconds"]
    progress.history.append(record)
    _remember(parts, record, recipe)
    progress.epoch, progress.batch, progress.epoch_seconds = progress.epoch + 1, 0, 0.0
    progress.loss, progress.correct, progress.seen = 0.0, 0, 0
    _end(progress, recipe, setting)
    _save(parts, setting, last=progress.finished)
    setting.watcher.epoch(record)
    if progress.ended:
        setting.watcher.note(f"note: {progress.ended}")
    setting.stop.check(f"the state after epoch {progress.epoch} is kept")


def _end(progress: Progress, recipe: Recipe, setting: Setting) -> None:
    """Decide after an epoch whether it was the last one."""
    stale = recipe.patience and progress.best["waited"] >= recipe.patience
    progress.finished = bool(progress.epoch >= recipe.epochs or stale)
    if progress.finished or setting.budget is None or progress.seconds <= OVERRUN * setting.budget:
        return
    progress.finished = True
    progress.ended = (
        f"training ended after epoch {progress.epoch} of {recipe.epochs}: it has taken {progress.seconds:.0f} s, and "
        f"{setting.budget:.0f} s were given; the learning rate had not come to its end, so fewer --epochs may do better"
    )


class _Totals:
    """Sums over the epoch, kept on the device so that no step waits for a number to be fetched."""

    def __init__(self, progress: Progress, device: torch.device) -> None:
        self.progress = progress
        kind = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.tensor(progress.loss, dtype=kind, device=device)
        self.correct = torch.tensor(progress.correct, device=device)

    def add(self, taken: Taken) -> None:
        self.loss += taken.loss
        self.correct += taken.correct
        self.progress.seen += taken.pictures

    def write(self) -> None:
        self.progress.loss = self.loss.item()
        self.progress.correct = int(self.correct.item())
        if not math.isfinite(self.progress.loss):
            raise Diverged(
                f"the loss is not a number any more after step {self.progress.step}: training diverged; start again, "
                "in another --out, with a lower --lr (a tenth, say) or with --clip 1; the state before is kept"
            )


def _remember(parts: Parts, record: dict[str, Any], recipe: Recipe) -> None:
    """What the plateau and early stopping learn from an epoch."""
    if "val_top1" in record:
        parts.plateau.update(1 - record["val_top1"])
    if not recipe.patience:
        return
    best = parts.progress.best
    loss = record.get("val_loss", record["train_loss"])
    if not best or loss < best["loss"]:
        parts.progress.best = {"loss": loss, "epoch": record["epoch"], "waited": 0}
        parts.best = {name: t.detach().clone() for name, t in _validated(parts).state_dict().items()}
    else:
        best["waited"] += 1


def _validated(parts: Parts) -> Any:
    """The task whose network is validated: the averaged one where there is one."""
    return parts.task if parts.average is None else parts.average.module


def _save(parts: Parts, setting: Setting, last: bool) -> None:
    """Keep the state; a full disk stops training only where nothing would be kept otherwise."""
    try:
        checkpoint.save(setting.state, parts, settings(setting))
    except RunError as error:
        if last:
            raise RunError(
                f"{error}; the state before is intact, so resume the run when that is mended"
            ) from error
        setting.watcher.note(f"{error}; training goes on, and the state before is intact")
