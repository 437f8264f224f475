"""A network and how it is to be run: made ready, run once and timed, left as it was."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from convarium.costs.machine import this_machine, threads
from convarium.errors import ArgumentError
from convarium.limits import cores

DTYPES = {
    "fp32": "float32 throughout",
    "bf16": "autocast to bfloat16, entered for each run; weights stay float32",
    "bf16-weights": "weights and pictures converted to bfloat16",
}

NUMBERS = {"fp32": "float32", "bf16": "bfloat16", "bf16-weights": "bfloat16"}
"""The number type that a network computes in, by its name for `cost`."""

WEIGHTS = {"fp32": torch.float32, "bf16": torch.float32, "bf16-weights": torch.bfloat16}
"""The number type of weights and pictures."""


@dataclass(frozen=True)
class Candidate:
    """A network and how it is to be run.

    Args:
        title: what to call it.
        net: with weights; left as it was. Random ones do, the time does not depend on them.
        picture: (channels, height, width).
        batch: pictures at once.
        threads: of the processor; as many as torch uses now where None.
        dtype: one of `DTYPES`.
        device: "cpu", "cuda" or "cuda:1".
        channels_last: lay pictures and weights out with channels innermost; otherwise as a new network lies.

    Raises:
        ArgumentError: a setting that is not allowed or that this machine does not have; a network without weights.
    """

    title: str
    net: nn.Module
    picture: tuple[int, int, int]
    batch: int = 1
    threads: int | None = None
    dtype: str = "fp32"
    device: str = "cpu"
    channels_last: bool = False

    def __post_init__(self) -> None:
        check(self.batch, self.threads, self.dtype, self.device)
        if any(tensor.is_meta for tensor in (*self.net.parameters(), *self.net.buffers())):
            raise ArgumentError(
                f"{self.title} has no weights (it is on the meta device); build it on the processor, random weights do"
            )

    @property
    def place(self) -> torch.device:
        """The device, with its number."""
        kind, _, number = self.device.partition(":")
        if kind == "cpu":
            return torch.device("cpu")
        return torch.device("cuda", int(number) if number else torch.cuda.current_device())

    @property
    def architecture(self) -> str:
        """What the network is, by which an earlier measurement is found; empty where it does not tell."""
        told = getattr(self.net, "architecture", None)
        return json.dumps(told, sort_keys=True) if isinstance(told, Mapping) else ""

    @property
    def settings(self) -> dict[str, Any]:
        """All that an earlier measurement must share with this one, as fields of `Latency`."""
        return {
            "architecture": self.architecture,
            "picture": self.picture,
            "batch": self.batch,
            "threads": self.threads or torch.get_num_threads(),
            "dtype": self.dtype,
            "device": str(self.place),
            "channels_last": self.channels_last,
            "torch": torch.__version__,
            "machine": this_machine().fingerprint,
        }


def check(batch: int, threads: int | None, dtype: str, device: str) -> None:
    """Say what is wrong with the settings of a `Candidate`, before a network is built.

    Raises:
        ArgumentError: one is not allowed, or this machine does not have it.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"dtype {dtype!r}; it must be one of {', '.join(DTYPES)}")
    if batch < 1:
        raise ArgumentError(f"a batch of {batch}; it must have at least one picture")
    most = cores()
    if threads is not None and not 1 <= threads <= most:
        raise ArgumentError(
            f"{threads} threads; this process may use {most} core{'s' * (most != 1)}, so 1 to {most}"
        )
    if device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", device, re.ASCII):
        raise ArgumentError(f"device {device!r}; it must be cpu, cuda, or cuda: and a number")
    count = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device != "cpu" and int(device.partition(":")[2] or 0) >= count:
        there = f"this machine has {count}" if count else "torch finds none on this machine"
        raise ArgumentError(f"device {device!r}: {there}; measure on cpu")


def runner(candidate: Candidate, placed: dict[Any, Any]) -> Callable[[], float]:
    """What makes one run and returns its seconds; network and pictures are brought into place by the first."""
    device, count = candidate.place, candidate.settings["threads"]
    ready: list[Any] = []

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def once() -> float:
        if not ready:
            ready.extend((_placed_net(candidate, placed), _placed_pictures(candidate, placed)))
        net, pictures = ready
        if torch.get_num_threads() != count:  # setting even the same number makes a new team of threads
            torch.set_num_threads(count)
        # What surrounds this call must not decide how a float32 network runs.
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            wait()
            start = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16) if candidate.dtype == "bf16" else nullcontext():
                net(pictures)
            wait()
            return time.perf_counter() - start

    return once


def _placed_net(candidate: Candidate, placed: dict[Any, Any]) -> nn.Module:
    """The network itself where nothing must change, else a copy that candidates with equal settings share."""
    net, device = candidate.net, candidate.place
    number = WEIGHTS[candidate.dtype]
    fits = all(
        tensor.device == device and (tensor.dtype == number or not tensor.is_floating_point())
        for tensor in (*net.parameters(), *net.buffers())
    )
    if fits and not candidate.channels_last:
        return net
    key = (id(net), device, number, candidate.channels_last)
    if key not in placed:
        copied = copy.deepcopy(net).to(device=device, dtype=number)
        placed[key] = copied.to(memory_format=torch.channels_last) if candidate.channels_last else copied
    return placed[key]


def _placed_pictures(candidate: Candidate, placed: dict[Any, Any]) -> Tensor:
    """Normal noise, (N, C, H, W)."""
    key = (candidate.batch, candidate.picture, candidate.place, candidate.dtype, candidate.channels_last)
    if key not in placed:
        noise = torch.randn(candidate.batch, *candidate.picture, generator=torch.Generator().manual_seed(0))
        noise = noise.to(candidate.place, WEIGHTS[candidate.dtype])
        layout = torch.channels_last if candidate.channels_last else torch.contiguous_format
        placed[key] = noise.contiguous(memory_format=layout)
    return placed[key]


@contextmanager
def left_as_they_were(nets: Sequence[nn.Module]) -> Iterator[None]:
    """While inside, networks are in evaluation mode; then their modes, threads and generators are as before."""
    modes = [(module, module.training) for net in nets for module in net.modules()]
    used = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with threads(torch.get_num_threads()), torch.random.fork_rng(devices=used):
        try:
            for net in nets:
                net.eval()
            yield
        finally:
            for module, training in modes:
                module.training = training
