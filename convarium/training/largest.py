"""The largest batch that trains without running out of memory, found without a crash.

The peak of a step is predicted by a run without data (`costs.memory`). On a processor, where a process that asks for
too much is killed by the system, nothing is tried: the prediction is held against what is free, with a margin. On a
CUDA device, where too much is only an error, the predicted batch takes one real step, and is halved until it fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import nn

from convarium.costs.memory import largest_batch
from convarium.errors import ArgumentError
from convarium.limits import free_memory
from convarium.training import optim, step
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.task import Task

MARGIN = {"cpu": 0.7, "cuda": 0.9}
"""Share of the free memory that is used. On a processor workers, prepared pictures and what the C library keeps of
freed blocks need the rest; on CUDA fragments and the workspaces of its libraries."""

MIB = 2**20


class Largest(NamedTuple):
    """A batch, and why it is the largest."""

    batch: int
    reason: str


def largest(
    task: Task,
    picture: tuple[int, int, int],
    recipe: Recipe,
    device: torch.device,
    precision: Precision,
) -> Largest:
    """The largest batch whose training step fits into the memory that is free now.

    Args:
        task: on the device; left as it was.
        picture: (channels, height, width).
        recipe: gives the optimiser, averaging, accumulation and early stopping, which all take memory.
        device: where training will run.
        precision: how it will be computed.

    Returns:
        The batch and a sentence with what it takes; 0 where not even one picture fits.

    Raises:
        ArgumentError: the system does not say how much is free, the device is neither processor nor CUDA, or the
            network cannot be followed without data.
    """
    limit = _limit(task, recipe, device)
    optimizer = recipe.optimizer
    if optimizer == "sgd":
        optimizer = "momentum" if recipe.momentum else "sgd"
    elif optimizer == "rmsprop":  # a mean of squares, and the momentum
        optimizer = "adamw" if recipe.momentum else "momentum"
    fit = largest_batch(
        task.net,
        picture,
        max(1, limit),
        training=True,
        dtype="bfloat16" if precision.bf16 else "float32",
        optimizer=optimizer,
        device=device.type,
        channels_last=precision.channels_last,
    )
    if fit.batch == 0:
        return Largest(
            0,
            f"not even one picture fits: it takes {_human(fit.memory.peak)}, and {_human(limit)} can be used",
        )
    reason = f"a step on {fit.batch:,} pictures takes {_human(fit.memory.peak)} of {_human(limit)} that can be used"
    if device.type == "cpu":
        return Largest(fit.batch, f"{reason} ({MARGIN['cpu']:.0%} of what is free), by prediction")
    return _tried(task, picture, recipe, device, precision, fit.batch, reason)


def _limit(task: Task, recipe: Recipe, device: torch.device) -> int:
    """Bytes for what the prediction counts: free memory less the margin and what it does not know of."""
    if device.type == "cuda":
        stored = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free: int | None = torch.cuda.mem_get_info(device)[0] + stored
    elif device.type == "cpu":
        free = free_memory()
    else:
        raise ArgumentError(f"the largest batch is found on cpu and cuda, not on {device.type}; give --batch")
    if free is None:
        raise ArgumentError("this system does not say how much memory is free; give --batch")
    own = sum(t.nbytes for t in (*task.parameters(), *task.buffers()))
    learnt = sum(p.nbytes for p in task.parameters() if p.requires_grad)
    more = own * (bool(recipe.ema) + bool(recipe.patience))  # the averaged weights; those of the best epoch
    more += learnt * (recipe.accumulate > 1)  # gradients live through the forward pass, too
    more += learnt * (recipe.optimizer == "rmsprop")  # which has no fused form, and works on copies
    return (
        int(MARGIN[device.type] * free) + own - more
    )  # the weights are there already, and are predicted, too


def _tried(
    task: Task,
    picture: tuple[int, int, int],
    recipe: Recipe,
    device: torch.device,
    precision: Precision,
    batch: int,
    reason: str,
) -> Largest:
    """One real step, on half as many pictures until it ends well."""
    asked = batch
    while batch:
        try:
            with _unchanged(task, device, precision):
                _step(task, (batch, *picture), recipe, device, precision)
        except torch.OutOfMemoryError:
            batch //= 2
        else:
            how = "tried" if batch == asked else f"but that ran out of memory; {batch:,} went well, tried"
            return Largest(batch, f"{reason}, {how} by one real step")
        finally:
            torch.cuda.empty_cache()
    return Largest(0, f"{reason}, but not even one picture went through a real step")


def _step(
    task: Task, shape: tuple[int, ...], recipe: Recipe, device: torch.device, precision: Precision
) -> None:
    """One step of training on noise."""
    optimizer, average = optim.optimizer(task, recipe), optim.averaged(task, recipe)
    how = SimpleNamespace(
        seed=0, device=device, precision=precision, normalise=lambda pictures: pictures.float().div_(255)
    )
    batch = SimpleNamespace(
        pictures=torch.randint(0, 256, shape, dtype=torch.uint8),
        labels=torch.zeros(shape[0], dtype=torch.int64),
    )
    step.take(task, optimizer, [batch] * min(2, recipe.accumulate), recipe.lr, recipe, how, 0, average)
    torch.cuda.synchronize(device)


@contextmanager
def _unchanged(task: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """While inside, the task trains; weights, buffers, layout, gradients and generators are put back after."""
    kept = {name: tensor.detach().to("cpu", copy=True) for name, tensor in task.state_dict().items()}
    training = {module: module.training for module in task.modules()}
    layouts = [(parameter, parameter.data) for parameter in task.parameters()]
    if precision.channels_last:
        task.to(memory_format=torch.channels_last)
    task.train()
    try:
        with step.deterministic(device):
            yield
    finally:
        task.zero_grad(set_to_none=True)
        for parameter, data in layouts:
            parameter.data = data
        task.load_state_dict(kept)
        for module, mode in training.items():
            module.training = mode


def _human(count: int) -> str:
    return f"{count / MIB:,.0f} MiB" if count < 2**30 else f"{count / 2**30:.2f} GiB"
