"""The fastest way to compute a training step on this machine, found by measuring."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from convarium.errors import ArgumentError
from convarium.training.task import Task

ALLOWED = ("auto", "fp32", "bf16")

SHORT = 0.03
"""Seconds of a step below which float32 stays."""


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
        return tensor.to(memory_format=torch.channels_last) if self.channels_last else tensor


def choose(
    asked: str, task: Task, shape: tuple[int, int, int, int], classes: int, device: torch.device
) -> Precision:
    """Decide between float32 and bfloat16 with channels last.

    A step shorter than 30 ms in float32 stays so: there is little to gain, and figures stay the same on every
    machine. Otherwise both ways are timed on copies, on a part of a batch, and bfloat16 is taken where it is at
    least 1.2 times as fast.

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
    exact = _seconds(task, part, classes, device, Precision(False, False, ""))
    if exact < SHORT and part != shape:  # much of so short a step does not grow with the batch
        part = shape
        exact = _seconds(task, part, classes, device, Precision(False, False, ""))
    if exact < SHORT:
        return Precision(False, False, f"a step takes under {1000 * SHORT:.0f} ms in float32")
    quick = _seconds(task, part, classes, device, Precision(True, True, ""))
    ratio = exact / quick
    measured = f"bfloat16 with channels last runs {ratio:.1f} times as fast as float32 here"
    return Precision(ratio >= 1.2, ratio >= 1.2, measured)


def _seconds(
    task: Task, shape: tuple[int, int, int, int], classes: int, device: torch.device, precision: Precision
) -> float:
    """Least time of three steps after one to warm up, on a copy, with the generators as they were."""
    copied = copy.deepcopy(task).train()
    if precision.channels_last:
        copied.to(memory_format=torch.channels_last)
    best = float("inf")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        pictures = precision.lay(torch.randn(shape, device=device))
        labels = torch.arange(shape[0], device=device) % classes
        for attempt in range(4):
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision.bf16):
                loss = copied.step(pictures, labels)["loss"]
            loss.backward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if attempt:
                best = min(best, time.perf_counter() - start)
    return best
