"""One step down the gradient: what the loop repeats, the finder tries, and the choice of precision times.

Everything random in a step is a function of (seed, number of the batch since training began), so no generator's state
is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from convarium.training.recipes import Recipe

if TYPE_CHECKING:
    from convarium.training.precision import Precision


class How(Protocol):
    """What a step needs beside the task, its batches and the recipe; the loop's `Setting` has it."""

    @property
    def seed(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def normalise(self) -> Callable[[Tensor], Tensor]: ...


@dataclass
class Taken:
    """What one step saw.

    Args:
        loss: sum of the losses over the pictures.
        correct: right answers.
        pictures: how many.
        batches: how many.
    """

    loss: Tensor
    correct: Tensor
    pictures: int
    batches: int


def take(
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    group: Iterable[Any],
    rate: float,
    recipe: Recipe,
    how: How,
    number: int,
    average: nn.Module | None = None,
) -> Taken | None:
    """One step of the optimiser on the gradient of all the batches given.

    The gradient is that of the mean loss over all pictures of the group, whatever the batches' sizes, as if they were
    one batch (but for batch norm, whose statistics are each batch's own).

    Args:
        task: a `Task`, trained in place.
        optimizer: of the task's parameters, in groups that have a "rate".
        group: at most `recipe.accumulate` batches of pictures and labels, taken as they are needed.
        rate: the learning rate.
        recipe: says how many batches make a step, and how long the gradient may be.
        how: seed, device, precision and normalisation.
        number: of the first batch, counted from the beginning of training.
        average: averaged weights to bring up to date.

    Returns:
        What was seen; None where there was no batch, and then nothing was done.
    """
    several = recipe.accumulate > 1
    for options in optimizer.param_groups:
        options["lr"] = rate * options["rate"]
    optimizer.zero_grad(set_to_none=True)  # before the forward pass, which needs the memory
    taken = None
    for batch in group:
        found = _gradient(task, batch, how, number + (taken.batches if taken else 0), several)
        if taken is None:
            taken = found
        else:
            taken.loss, taken.correct = taken.loss + found.loss, taken.correct + found.correct
            taken.pictures, taken.batches = taken.pictures + found.pictures, taken.batches + 1
    if taken is None:
        return None
    trained = [p for options in optimizer.param_groups for p in options["params"] if p.grad is not None]
    if several:
        for parameter in trained:
            parameter.grad /= taken.pictures
    if recipe.clip:
        nn.utils.clip_grad_norm_(trained, recipe.clip)
    optimizer.step()
    if average is not None:
        average.update_parameters(task)  # type: ignore[operator]
    return taken


def _gradient(task: nn.Module, batch: Any, how: How, number: int, summed: bool) -> Taken:
    """Add one batch's gradient: of the mean loss, or of the sum where other batches come to it."""
    seed(mixed(how.seed, number), how.device)
    pictures = batch.pictures.to(how.device, non_blocking=True)
    labels = batch.labels.to(how.device, non_blocking=True)
    pictures = how.precision.lay(how.normalise(pictures))
    with torch.autocast(how.device.type, torch.bfloat16, enabled=how.precision.bf16):
        result = task.step(pictures, labels)  # type: ignore[operator]
    count = len(labels)
    loss = result["loss"]
    (loss * count if summed else loss).backward()
    return Taken(loss.detach() * count, result["correct"].detach(), count, 1)


def seed(number: int, device: torch.device) -> None:
    """Seed what the step draws from; torch.manual_seed looks for every kind of device, 0.2 ms each time."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)


def mixed(seed: int, number: int) -> int:
    """One 63-bit seed from two numbers, equal on every machine."""
    digest = hashlib.blake2b(f"step {seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Only algorithms that give the same bits each time; the generators and the setting are put back after."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    only_warn = torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Warnings only on an accelerator: some backward passes there have no deterministic form.
        torch.use_deterministic_algorithms(True, warn_only=device.type != "cpu")
        # Every tensor is written before it is read here; filling each beforehand costs a tenth of a small step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(algorithms, warn_only=only_warn)
            torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = benchmark
