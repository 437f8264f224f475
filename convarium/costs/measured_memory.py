"""The memory that a network really takes, measured in a process of its own.

A child process builds the network with the same shapes (its values are drawn anew: they change nothing), takes a step,
and reports two figures: the most bytes that torch's allocator handed out at once, from the profiler's record of every
allocation, and how far the process itself grew. The second has what the first cannot see: buffers inside of oneDNN and
MKL, the profiler, and above all freed blocks that the C library keeps for later. glibc keeps fewer where the
environment says MALLOC_MMAP_THRESHOLD_=65536: both figures are then nearly equal.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.costs.memory import Setting, setting
from convarium.costs.saved import forward
from convarium.errors import ArgumentError, UserError


class MeasurementFailed(UserError):
    """The child process did not come to an end."""


@dataclass(frozen=True)
class Measured:
    """What a child process took.

    Args:
        allocated: the most bytes of torch's allocator at once.
        grown: bytes by which the process grew beyond what it was before the network was built; None where the system
            does not say.
        setting: what was run.
        threads: of the CPU.
        method: how it was found.
    """

    allocated: int
    grown: int | None
    setting: Setting
    threads: int
    method: str


def measure(
    net: nn.Module,
    picture: tuple[int, int, int],
    *,
    batch: int = 1,
    training: bool = False,
    dtype: str = "float32",
    optimizer: str = "momentum",
    device: str = "cpu",
    channels_last: bool | None = None,
    threads: int | None = None,
    seconds: float | None = None,
) -> Measured:
    """Run a network in a process of its own and measure the most memory that it holds at once.

    Args:
        net: any module that can be pickled; its shapes are sent, not its values. May be on the meta device.
        picture: (channels, height, width).
        batch: pictures at once.
        training: two training steps, of which the second is measured; otherwise inference once.
        dtype: as for `memory`.
        optimizer: as for `memory`.
        device: "cpu" or "cuda".
        channels_last: as for `memory`.
        threads: of the CPU in the child; those of this process where None.
        seconds: after which it is given up; never where None.

    Returns:
        Both figures, in bytes.

    Raises:
        ArgumentError: a value that is not allowed, or a network that cannot be sent to another process.
        MeasurementFailed: the child ran out of memory, failed, or took too long.
    """
    asked = setting(
        picture,
        batch=batch,
        training=training,
        dtype=dtype,
        optimizer=optimizer,
        device=device,
        channels_last=channels_last,
    )
    threads = threads or torch.get_num_threads()
    sent = io.BytesIO()
    try:
        _Pickler(sent).dump(net)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(
            f"{type(net).__name__} cannot be sent to another process: {error}; its class must stand in a module of "
            "its own, not in a function"
        ) from error
    # The path comes first: the child must find this package, and the network's classes, where this process did.
    code = (
        "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer);"
        "from convarium.costs.measured_memory import child; child()"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=pickle.dumps(sys.path) + pickle.dumps((asked, threads)) + sent.getvalue(),
            capture_output=True,
            env=environment,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementFailed(f"the measurement took more than {seconds:g} s and was stopped") from None
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode < 0:
        raise MeasurementFailed(
            f"the measurement was ended by signal {-done.returncode}: on most systems that means that there was not "
            "enough memory; take a smaller batch"
        )
    if done.returncode:
        raise MeasurementFailed(f"the measurement failed: {said[-1] if said else 'nothing was said'}")
    figures = json.loads(done.stdout.decode().splitlines()[-1])
    return Measured(figures["allocated"], figures["grown"], asked, threads, figures["method"])


class _Pickler(pickle.Pickler):
    """Sends a tensor's shape in place of its values, except small tables of numbers, which may be indices."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        kind = nn.Parameter if isinstance(obj, nn.Parameter) else None
        values = None
        if not (obj.is_meta or obj.is_floating_point() or obj.is_complex()):
            values = obj.detach().cpu().numpy()
        return _made, (kind, tuple(obj.shape), tuple(obj.stride()), obj.dtype, obj.requires_grad, values)


def _made(kind: Any, shape: Any, stride: Any, dtype: torch.dtype, learns: bool, values: Any) -> Tensor:
    """A tensor as it was sent, with values of a usual size: tiny ones would be slow."""
    if values is not None:
        made = torch.from_numpy(values.copy())
    else:
        made = torch.empty_strided(shape, stride, dtype=dtype)
        if made.is_floating_point() and made.ndim > 1:
            made.normal_(std=(made.shape[0] / max(1, made.numel())) ** 0.5)
        else:
            made.fill_(1 if made.is_floating_point() else 0)
    return kind(made, requires_grad=learns) if kind else made.requires_grad_(learns)


def child() -> None:
    """Take the measurement that standard input asks for; the answer is one line on standard output."""
    asked, threads = pickle.load(sys.stdin.buffer)  # written by the parent process, through a pipe of its own
    torch.set_num_threads(threads)
    sent = sys.stdin.buffer.read()
    record = _on_cuda if asked.device == "cuda" else _on_cpu
    # What is loaded but once is no part of the network: its classes, torch's libraries, the profiler.
    with torch.device("meta"):
        pickle.loads(sent)
    record(_warm)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident("VmRSS")
    allocated, method = record(lambda: _steps(pickle.loads(sent), asked))
    peak = resident("VmHWM")
    grown = peak - before if peak is not None and before is not None else None
    print(json.dumps({"allocated": allocated, "grown": grown, "method": method}))


def _warm() -> None:
    layer = nn.Conv2d(16, 16, 3)
    layer(torch.zeros(2, 16, 8, 8)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=0.1, fused=True).step()


def _steps(net: nn.Module, asked: Setting) -> None:
    """Inference once, or two training steps; everything is gone afterwards."""
    net.to(asked.device).train(asked.training)
    if asked.channels_last:
        net.to(memory_format=torch.channels_last)
    learnt = [p for p in net.parameters() if p.requires_grad]
    optimizer = _optimizer(asked.optimizer, learnt) if asked.training else None
    if optimizer is not None:
        _step(net, asked, min(2, asked.batch), optimizer)  # makes the optimiser's state
    _step(net, asked, asked.batch, optimizer)


def _step(net: nn.Module, asked: Setting, batch: int, optimizer: torch.optim.Optimizer | None) -> None:
    pictures = torch.randn((batch, *asked.picture), device=asked.device)
    if asked.channels_last:
        pictures = pictures.to(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64, device=asked.device)
    net.zero_grad(set_to_none=True)
    kept = forward(net, pictures, labels, asked.training, asked.bf16)
    if asked.training:
        kept.backward()
        if optimizer is not None:
            optimizer.step()


def _optimizer(name: str, learnt: list[nn.Parameter]) -> torch.optim.Optimizer | None:
    if name == "none" or not learnt:
        return None
    if name == "adamw":
        return torch.optim.AdamW(learnt, lr=1e-6, fused=True)
    return torch.optim.SGD(learnt, lr=1e-6, momentum=0.9 if name == "momentum" else 0.0, fused=True)


def _on_cpu(steps: Callable[[], None]) -> tuple[int, str]:
    """The most bytes at once, by the profiler's record of every allocation."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        steps()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most, "the allocator's record of every allocation (torch.profiler)"


def _on_cuda(steps: Callable[[], None]) -> tuple[int, str]:
    torch.cuda.reset_peak_memory_stats()
    steps()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), "torch.cuda.max_memory_allocated"


def resident(field: str = "VmRSS") -> int | None:
    """Bytes of this process that lie in memory, now ("VmRSS") or at most ("VmHWM"); None where only Linux says."""
    with suppress(OSError):
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else None
    return None
