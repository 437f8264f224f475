"""The fastest way to compute a training step on this machine, found by measuring."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor

from convarium.errors import ArgumentError
from convarium.training import optim, step
from convarium.training.recipes import Recipe
from convarium.training.task import Task

ALLOWED = ("auto", "fp32", "bf16")

SHORT = 0.03
"""Seconds of a step on a part of a batch below which the whole batch is timed."""

TINY = 0.004
"""Seconds of a step below which nothing is chosen."""

PAYS = 1.1
"""Times as fast that bfloat16 must be: it rounds to 8 bits, so a small gain is not worth it."""

LAID = 1.05
"""Times as fast that channels innermost must be: the arithmetic is the same, the order of the sums is not."""


@dataclass(frozen=True)
class Precision:
    """How a step is computed.

    Args:
        bf16: whether convolutions and linears are computed in bfloat16 (autocast); weights stay float32.
        channels_last: whether pictures and weights lie with channels innermost.
        reason: why, with what was measured.
    """

    bf16: bool
    channels_last: bool
    reason: str

    def lay(self, tensor: Tensor) -> Tensor:
        """The same tensor, (N, C, H, W), laid out in memory as this way of computing wants it."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return tensor.to(memory_format=layout) if tensor.ndim == 4 else tensor  # features are no planes


PLAIN, LAST, SHORT_NUMBERS = (
    Precision(False, False, ""),
    Precision(False, True, ""),
    Precision(True, True, ""),
)
"""The ways that are timed."""


def choose(
    asked: str, task: Task, shape: tuple[int, int, int, int], classes: int, device: torch.device
) -> Precision:
    """Decide between float32, float32 with channels last, and bfloat16 with channels last.

    All three are timed in turn on a copy. bfloat16 is taken where it is at least 1.1 times as fast as the better of
    the others; channels last where they are at least 1.05 times as fast. A step of under 4 ms stays as it is: there
    is little to gain, and so short a time is measured badly.

    Args:
        asked: "auto", "fp32" or "bf16".
        task: left as it was.
        shape: of a batch of pictures.
        classes: number of classes.
        device: where training will run.

    Returns:
        The way, with its reason.

    Raises:
        ArgumentError: `asked` is none of these.
    """
    if asked not in ALLOWED:
        raise ArgumentError(f"precision = {asked!r}; it must be one of {', '.join(ALLOWED)}")
    if asked == "fp32":
        return Precision(False, False, "asked for")
    if asked == "bf16":
        return Precision(True, True, "asked for")
    part = (min(shape[0], 8), *shape[1:])
    ways = (PLAIN, LAST, SHORT_NUMBERS)
    times = _seconds(task, part, classes, device, ways[:1])
    if times[0] < SHORT and part != shape:  # much of so short a step does not grow with the batch
        part = shape
        times = _seconds(task, part, classes, device, ways[:1])
    if times[0] < TINY:
        return Precision(False, False, f"a step takes under {1000 * TINY:.0f} ms in float32")
    return _decide(*_seconds(task, part, classes, device, ways))


def _decide(plain: float, last: float, quick: float) -> Precision:
    """The way to take, from the seconds of each."""
    if min(plain, last) / quick >= PAYS:
        return Precision(
            True, True, f"bfloat16 with channels last runs {plain / quick:.1f} times as fast as float32 here"
        )
    bf16 = f"bfloat16 only {min(plain, last) / quick:.2f} times"
    if plain / last >= LAID:
        return Precision(
            False, True, f"channels last run {plain / last:.2f} times as fast here, {bf16} as fast again"
        )
    return Precision(False, False, f"channels last run {plain / last:.2f} times as fast here, {bf16}")


def measure_step(
    task: Task,
    shape: tuple[int, int, int, int],
    classes: int,
    device: torch.device,
    precision: Precision,
    recipe: Recipe | None = None,
) -> float:
    """Seconds that one batch takes in training, without reading its pictures.

    Args:
        task: left as it was.
        shape: of a batch of pictures.
        classes: number of classes.
        device: where training will run.
        precision: how it is computed.
        recipe: gives the optimiser, clipping and averaging; the default recipe's where None.

    Returns:
        The least of three, after one to warm up.
    """
    recipe = recipe or Recipe()
    copied = copy.deepcopy(task).train()
    if precision.channels_last:
        copied.to(memory_format=torch.channels_last)
    optimizer, average = optim.optimizer(copied, recipe), optim.averaged(copied, recipe)
    how = SimpleNamespace(seed=0, device=device, precision=precision, normalise=lambda pictures: pictures)
    batch = SimpleNamespace(
        pictures=torch.zeros(shape, device=device),
        labels=torch.arange(shape[0], device=device) % classes,
    )

    def once() -> None:
        step.take(copied, optimizer, [batch], recipe.lr, recipe, how, 0, average)

    with step.deterministic(device):
        batch.pictures.normal_()
        return min(_timed(once, device) for _ in range(4))


def _seconds(
    task: Task,
    shape: tuple[int, int, int, int],
    classes: int,
    device: torch.device,
    ways: Sequence[Precision],
) -> list[float]:
    """Least time of three steps of each way, in turn after one to warm up, on a copy; short ones are taken oftener."""
    copied = copy.deepcopy(task).train()
    best = [float("inf")] * len(ways)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        labels = torch.arange(shape[0], device=device) % classes
        pictures = torch.randn(shape, device=device)
        rounds, began = 0, time.perf_counter()
        while rounds < 4 or (rounds < 12 and time.perf_counter() - began < 0.5):
            for number, way in enumerate(ways):
                layout = torch.channels_last if way.channels_last else torch.contiguous_format
                copied.zero_grad(set_to_none=True)
                copied.to(memory_format=layout)
                laid = pictures.contiguous(memory_format=layout)

                def once(way: Precision = way, laid: Tensor = laid) -> None:
                    with torch.autocast(device.type, torch.bfloat16, enabled=way.bf16):
                        loss = copied.step(laid, labels)["loss"]
                    loss.backward()

                taken = _timed(once, device)
                if rounds:
                    best[number] = min(best[number], taken)
            rounds += 1
    return best


def _timed(once: Callable[[], None], device: torch.device) -> float:
    """Seconds of one call, to the end of what the device has to do for it."""
    start = time.perf_counter()
    once()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
