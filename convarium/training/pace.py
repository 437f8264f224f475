"""Where the time of training goes, and how far a given time reaches."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, Protocol

import torch

from convarium.limits import cores
from convarium.training import optim, step
from convarium.training.checkpoint import Progress
from convarium.training.recipes import Recipe
from convarium.training.step import How
from convarium.training.task import Task

WAITS = 0.2
"""Share of the time spent waiting for pictures from which training is called data-bound."""

SHARED = 0.25
"""Share of the cores taken by the threads that prepare pictures from which the same is said; they compute, too."""

SHORTEST = 1.0
"""Seconds of training below which nothing is said."""


class Batches(Protocol):
    """What is needed of a loader; one that counts what its threads take has `spent`, their seconds so far."""

    def __len__(self) -> int: ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Any]: ...


class Pace:
    """Gives out the batches of an epoch, and measures how long computing stood still for want of them.

    On a CUDA device, which computes while the processor goes on, the device's own clock is asked: what counts is how
    long it had nothing to do.

    Args:
        batches: those of one epoch.
        device: where is computed.
        loader: that gives them; asked what its threads have taken.
    """

    def __init__(self, batches: Iterator[Any], device: torch.device, loader: Batches | None = None) -> None:
        self.given = 0
        self._batches = batches
        self._loader = loader
        self._device = device
        self._waited = 0.0
        self._since = time.perf_counter()
        self._spent = self._taken()
        self._idle: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def __iter__(self) -> Pace:
        return self

    def __next__(self) -> Any:
        cuda = self._device.type == "cuda"
        before = _moment() if cuda else time.perf_counter()
        batch = next(self._batches)
        self.given += 1
        if cuda:
            self._idle.append((before, _moment()))  # type: ignore[arg-type]
            self._read()
        else:
            self._waited += time.perf_counter() - before  # type: ignore[operator]
        return batch

    def write(self, progress: Progress) -> None:
        """Add what was measured since the last time; on CUDA, what the device has come to by now."""
        self._read()
        now, spent = time.perf_counter(), self._taken()
        progress.waiting += self._waited
        progress.computing += max(0.0, now - self._since - self._waited)
        if self._device.type == "cpu":
            progress.preparing += spent - self._spent
        self._waited, self._since, self._spent = 0.0, now, spent

    def _taken(self) -> float:
        """Processor seconds of the threads that prepare pictures; 0 where nobody counts them."""
        return getattr(self._loader, "spent", 0.0)

    def _read(self) -> None:
        """Take over the waits that the device has passed."""
        while self._idle and self._idle[0][1].query():
            began, ended = self._idle.pop(0)
            self._waited += began.elapsed_time(ended) / 1000


def verdict(progress: Progress, bf16: bool = False) -> str:
    """Whether training waited for pictures or for arithmetic, and what to do, in one sentence.

    Args:
        progress: at the end of training, or on the way.
        bf16: whether it runs in bfloat16 already.

    Returns:
        The sentence; it begins with "data-bound", "compute-bound" or "too short".
    """
    whole = progress.waiting + progress.computing
    if whole < SHORTEST:
        return "too short to tell whether pictures or arithmetic took the time"
    share, taken = progress.waiting / whole, progress.preparing / (whole * cores())
    if share >= WAITS:
        return (
            f"data-bound: {share:.0%} of the training time went by waiting for pictures; --cache keeps them prepared, "
            "and more --workers prepare them sooner where cores are free"
        )
    if taken >= SHARED:
        return (
            f"data-bound: preparing pictures took {taken:.0%} of the processor that computes, too; "
            "--cache keeps them prepared"
        )
    way = "a larger --batch" if bf16 else "--precision bf16 or a larger --batch"
    return (
        f"compute-bound: only {share:.0%} of the training time went by waiting for pictures; {way} may make it "
        "faster, a smaller --size or network will"
    )


def epochs_within(
    seconds_left: float, seconds_per_step: float, steps_per_epoch: int, seconds_of_validation: float
) -> int:
    """How many whole epochs fit into a time.

    Args:
        seconds_left: for all of it.
        seconds_per_step: of one step of the optimiser, with its pictures.
        steps_per_epoch: steps of the optimiser.
        seconds_of_validation: after each epoch.

    Returns:
        Epochs; 0 where not even one fits.
    """
    epoch = seconds_per_step * steps_per_epoch + seconds_of_validation
    return max(0, math.floor(seconds_left / max(epoch, 1e-6)))


def steps_in(loader: Batches, recipe: Recipe) -> int:
    """Steps of the optimiser in one epoch; the last one may have fewer batches than the others."""
    return math.ceil(len(loader) / recipe.accumulate)


def rehearse(
    task: Task, loader: Batches, recipe: Recipe, how: How, steps: int = 12, most: float = 20.0
) -> float:
    """Seconds that one step takes with everything that belongs to it: reading, workers, optimiser, averaging.

    It is taken on a copy; the task and the generators are left as they were. The first half of the steps is not
    counted: workers begin in it, and give out what they have prepared ahead.

    Args:
        task: on the device.
        loader: the real one.
        recipe: the real one.
        how: a loop's `Setting`, or what a step needs of it.
        steps: to be taken, if there are as many.
        most: seconds after which no further step is begun.

    Returns:
        Seconds a step of the optimiser.
    """
    copied = copy.deepcopy(task).train()
    if how.precision.channels_last:
        copied.to(memory_format=torch.channels_last)
    optimizer, average = optim.optimizer(copied, recipe), optim.averaged(copied, recipe)
    times: list[float] = []
    began = time.perf_counter()
    batches = loader.batches(0)
    try:
        with step.deterministic(how.device):
            while len(times) < steps and time.perf_counter() - began < most:
                start = time.perf_counter()
                group = islice(batches, recipe.accumulate)
                if step.take(copied, optimizer, group, recipe.lr, recipe, how, len(times), average) is None:
                    break
                if how.device.type == "cuda":
                    torch.cuda.synchronize(how.device)
                times.append(time.perf_counter() - start)
    finally:
        batches.close()  # type: ignore[attr-defined]
    later = times[len(times) // 2 :]
    return sum(later) / max(1, len(later))


def _moment() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
