"""A good learning rate, found by trying: the rate grows with every step until the loss explodes.

Smith 2015, arXiv:1506.01186, section 3.3, raised the rate linearly over some epochs and watched the accuracy. Here, as
is usual since Smith 2017, arXiv:1708.07120, it grows by one factor every step, and the loss of each batch is watched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d

from convarium.errors import ArgumentError
from convarium.training import optim, step
from convarium.training.loop import Setting
from convarium.training.pace import Batches
from convarium.training.recipes import Recipe
from convarium.training.task import Task

EXPLODED = 4.0
"""Times the least loss so far at which trying ends."""

NOISE = 1.8
"""Times the difference of one batch from the next that it must fall by, too: the least of 100 averaged losses that only
differ by chance lies about so much below the mean of the first ten."""

FLOWN = 1.2
"""Times the first loss above which a loss counts as so much: it has left the curve."""

WIDTH = 0.15
"""How far losses are averaged, in decades of the rate: the standard deviation of a Gaussian."""

DESCENT = 0.02
"""Share of the first loss that it must fall by, at least, to be called a descent."""


@dataclass(frozen=True)
class Found:
    """What was tried and what is suggested.

    Args:
        rates: tried, growing.
        losses: of the batch before each rate's step.
        smooth: the losses averaged with their neighbours on both sides, so that nothing is shifted.
        suggestion: the rate to take as the recipe's `lr`; None where the loss never fell.
        reason: why, in one sentence.
        steepest: where the loss falls fastest; None where it never fell.
        tenth: a tenth of the rate of the least loss; None where it never fell.
    """

    rates: list[float]
    losses: list[float]
    smooth: list[float]
    suggestion: float | None
    reason: str
    steepest: float | None = field(default=None)
    tenth: float | None = field(default=None)


def find(
    task: Task,
    loader: Batches,
    recipe: Recipe,
    setting: Setting,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """Try learning rates from low to high on a copy of the task, a step each.

    The steps are those of training: the recipe's optimiser, accumulation and clipping, the setting's precision. What
    the task's parameters multiply the rate by (as `layer_decay` does) is kept, too. The task, the generators and all
    files are left as they were.

    Args:
        task: on the setting's device.
        loader: of the training pictures; begun anew where it has fewer batches.
        recipe: its `lr`, warm-up and schedule are not looked at.
        setting: of the loop; seed, device, precision, normalise and stop are used.
        low: first rate.
        high: last rate.
        steps: at most; fewer where the loss explodes.
        progress: called with (done, steps).

    Returns:
        Rates and losses, and the smaller of two suggestions: where the loss falls fastest, and a tenth of the rate
        at which it is least.

    Raises:
        ArgumentError: rates or steps that are not allowed, or no batch.
        Interrupted: a stop was asked for.
    """
    if not 0 < low < high < math.inf:
        raise ArgumentError(f"low = {low}, high = {high}; they must be above 0, and low below high")
    if steps < 20:
        raise ArgumentError(f"steps = {steps}; fewer than 20 show no curve")
    if not len(loader):
        raise ArgumentError("there is no batch to try learning rates on")
    copied = copy.deepcopy(task).train()
    if setting.precision.channels_last:
        copied.to(memory_format=torch.channels_last)
    optimizer = optim.optimizer(copied, recipe)
    rates: list[float] = []
    losses: list[float] = []
    batches, number = _endless(loader), 0
    try:
        with step.deterministic(setting.device):
            for index in range(steps):
                rate = low * (high / low) ** (index / (steps - 1))
                group = islice(batches, recipe.accumulate)
                taken = step.take(copied, optimizer, group, rate, recipe, setting, number)
                assert taken is not None  # the batches never end
                loss, number = float(taken.loss) / taken.pictures, number + taken.batches
                if not math.isfinite(loss):
                    break
                rates.append(rate)
                losses.append(loss)
                if progress is not None:
                    progress(index + 1, steps)
                setting.stop.check("nothing was changed by trying learning rates")
                if loss > EXPLODED * min(losses):
                    break
    finally:
        batches.close()  # type: ignore[attr-defined]
    return judge(rates, losses, steps_a_decade=(steps - 1) / math.log10(high / low))


def judge(rates: list[float], losses: list[float], steps_a_decade: float) -> Found:
    """What the losses say about the rate.

    Args:
        rates: growing by the same factor.
        losses: one a rate, finite.
        steps_a_decade: rates tried in a factor of ten.

    Returns:
        All of it.
    """
    if len(losses) < 10:
        why = (
            f"the loss was no number or exploded after {len(losses)} steps already, at a rate of "
            f"{rates[-1] if rates else 0:.0e}; begin lower, or look at the pictures and labels"
        )
        return Found(rates, losses, list(losses), None, why)
    # At the first rates nothing is learnt yet: their losses tell the level.
    level = float(np.mean(losses[: max(5, len(losses) // 10)]))
    noise = float(np.median(np.abs(np.diff(losses)))) / 0.954  # a standard deviation, were they normal
    # What flew above the level says no more than that it did, and must not bend the curve before it.
    width = max(1.0, WIDTH * steps_a_decade)
    smooth = gaussian_filter1d(np.minimum(losses, FLOWN * level), width, mode="nearest")
    least = int(smooth.argmin())
    drop = level - float(smooth[least])
    if least == 0 or drop < max(DESCENT * level, NOISE * noise):
        why = (
            f"no descent was seen: the loss begins at {level:.3g} and comes to {smooth[least]:.3g} at best, which "
            "is no more than batches differ; more pictures a batch, another network or a look at the labels may help"
        )
        return Found(rates, losses, smooth.tolist(), None, why)
    # The steepest place of the descent itself, not of the noise before it.
    begun = int(np.flatnonzero(smooth[: least + 1] >= level - drop / 4)[-1])
    steepest = rates[begun + int(np.gradient(smooth)[begun : least + 1].argmin())]
    tenth = rates[least] / 10
    suggestion = float(f"{min(steepest, tenth):.1e}")
    why = (
        f"the loss falls fastest at {steepest:.1e} and is least, {smooth[least]:.3g} after {level:.3g}, at "
        f"{rates[least]:.1e}, a tenth of which is {tenth:.1e}; the smaller of both is suggested"
    )
    if least >= len(rates) - 1:
        why += "; the loss had not risen again at the highest rate tried, so more may be possible"
    return Found(rates, losses, smooth.tolist(), suggestion, why, steepest, tenth)


def _endless(loader: Batches) -> Iterator[Any]:
    """The batches of one epoch after the other."""
    epoch = 0
    while True:
        batches = loader.batches(epoch)
        try:
            yield from batches
        finally:
            batches.close()  # type: ignore[attr-defined]
        epoch += 1
