"""What a device can do at most, and how near to that a network comes: the roofline.

Peaks are measured, not looked up: clock speeds, virtual machines and limits of threads make data sheets useless.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import torch
from torch import Tensor, nn

from convarium.costs.machine import this_machine, threads
from convarium.costs.records import Records
from convarium.errors import ArgumentError
from convarium.limits import free_memory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

COPIED = 1 << 28  # bytes of the array whose copy tells the bandwidth: more than caches hold
SURE = 3  # measurements, each at another time, after which a peak is only remembered: one may meet a busy machine
FAR = 0.2  # neither bound explains so much of the time: the computation waits for something else


@dataclass(frozen=True)
class Peak:
    """The most that a device was seen to do.

    Args:
        device: "cpu" or "cuda:0".
        dtype: "fp32" or "bf16".
        threads: of the processor.
        flops: FLOP/s, the better of a matrix product and a 3x3 convolution; a multiply-add counts as two.
        bandwidth: bytes/s, read and written, of copying an array.
        torch: its version.
        date: when, in UTC.
        how: what was run.
    """

    device: str
    dtype: str
    threads: int
    flops: float
    bandwidth: float
    torch: str = field(default_factory=lambda: torch.__version__)
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    how: str = ""

    @property
    def ridge(self) -> float:
        """FLOP/byte from which on arithmetic, not memory, is what a computation waits for."""
        return self.flops / self.bandwidth


@dataclass(frozen=True)
class Roofline:
    """How near a computation comes to what its machine can do.

    Args:
        achieved: FLOP/s.
        share: of the peak, 1 where it is reached.
        intensity: FLOP/byte.
        ridge: FLOP/byte of the machine.
        compute_share: part of the time that the arithmetic would take at the peak.
        memory_share: part of the time that moving the bytes would take at the peak.
        verdict: "memory-bound here", "compute-bound here" or "overhead-bound here".
    """

    achieved: float
    share: float
    intensity: float
    ridge: float
    compute_share: float
    memory_share: float
    verdict: str


def roofline(flops: float, moved: float, seconds: float, peak: Peak) -> Roofline:
    """time >= max(flops / peak.flops, moved / peak.bandwidth); the greater of the two names the bound.

    Where neither bound explains a fifth of the time, the computation waits for something else: starting many small
    kernels, memory being mapped, one thread working alone. It is then "overhead-bound". Bytes are counted as if
    every operator read its inputs from memory and wrote its output there; what stays in a cache is faster, so
    shares above 1 can occur.

    Args:
        flops: arithmetic operations, a multiply-add counts as two.
        moved: bytes read and written.
        seconds: what the computation took.
        peak: of the machine, for the same dtype, device and threads.

    Returns:
        Shares of the bounds and the verdict.

    Raises:
        ArgumentError: a time that is not above zero, or less than no work.

    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", 2009.
    """
    if not seconds > 0 or not flops >= 0 or not moved >= 0:
        raise ArgumentError(
            f"{flops} operations on {moved} bytes in {seconds} seconds; the time must be above zero, and neither of "
            "the others below"
        )
    compute, memory = flops / peak.flops / seconds, moved / peak.bandwidth / seconds
    if max(compute, memory) < FAR:
        verdict = "overhead-bound here"
    else:
        verdict = "compute-bound here" if compute >= memory else "memory-bound here"
    intensity = flops / moved if moved else float("inf")
    return Roofline(flops / seconds, compute, intensity, peak.ridge, compute, memory, verdict)


def peak(
    device: str,
    dtype: str,
    threads: int,
    *,
    records: Records | None = None,
    at_least: float = 0.0,
    seconds: float = 1.0,
) -> Peak:
    """What the device can do at most; measured at the first three uses on a machine with a version of torch.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        dtype: "fp32" or "bf16".
        threads: of the processor.
        records: where it is remembered; nowhere where None.
        at_least: FLOP/s that something reached already: a lower remembered peak was taken while the machine was
            busy, and is measured once more.
        seconds: about so long are arithmetic and memory measured together.

    Returns:
        The peak; the best of all that were measured.
    """
    if dtype not in DTYPES:
        raise ArgumentError(f"the peak for {dtype!r} cannot be measured; known are {', '.join(DTYPES)}")
    known = _known(device, dtype, threads, records) if records is not None else []
    if len(known) < SURE or _best(known).flops < at_least:
        known.append(_measure(device, dtype, threads, seconds))
        if records is not None:
            records.append("peak", {"machine": this_machine().fingerprint, **asdict(known[-1])})
    return _best(known)


def remembered(device: str, dtype: str, threads: int, records: Records) -> Peak | None:
    """The best of the peaks that were measured on this machine with this version of torch; None where none was.

    Args:
        device: "cpu", "cuda" or "cuda:1".
        dtype: one of `DTYPES`.
        threads: of the processor.
        records: where they are.
    """
    known = _known(device, dtype, threads, records)
    return _best(known) if known else None


def _known(device: str, dtype: str, threads: int, records: Records) -> list[Peak]:
    known = []
    for row in records.find(
        "peak",
        machine=this_machine().fingerprint,
        torch=torch.__version__,
        device=device,
        dtype=dtype,
        threads=threads,
    ):
        with suppress(KeyError):  # written by another version
            found = Peak(**{name: row[name] for name in Peak.__dataclass_fields__})
            if _is_rate(found.flops) and _is_rate(found.bandwidth):
                known.append(found)
    return known


def _best(peaks: Sequence[Peak]) -> Peak:
    fastest = max(peaks, key=lambda peak: peak.flops)
    return replace(fastest, bandwidth=max(peak.bandwidth for peak in peaks))


def _is_rate(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf


def _measure(device: str, dtype: str, count: int, seconds: float) -> Peak:
    """The best of many runs: what disturbs can only make them slower."""
    share = seconds / 3
    with threads(count), torch.inference_mode():
        rates = dict((_product(device, DTYPES[dtype], share), _convolution(device, DTYPES[dtype], share)))
        copied, bandwidth = _copy(device, share)
    best = max(rates, key=lambda name: rates[name])
    how = f"{best}; {copied}; each the fastest run of {share:.2g} s"
    return Peak(device, dtype, count, rates[best], bandwidth, how=how)


def _product(device: str, number: torch.dtype, seconds: float) -> tuple[str, float]:
    side = 8192 if _on_cuda(device) else 2048
    square = _ramp((side, side), device).to(number)
    product = torch.empty_like(square)
    taken = _fastest(lambda: torch.mm(square, square, out=product), device, seconds)
    return f"a {side}x{side} matrix product", 2 * side**3 / taken


def _convolution(device: str, number: torch.dtype, seconds: float) -> tuple[str, float]:
    pictures, side, channels = 64 if _on_cuda(device) else 8, 28, 256
    x = _ramp((pictures, channels, side, side), device).to(number, memory_format=torch.channels_last)
    w = _ramp((channels, channels, 3, 3), device).to(number, memory_format=torch.channels_last)
    taken = _fastest(lambda: nn.functional.conv2d(x, w, padding=1), device, seconds)
    return f"a 3x3 convolution of {channels} channels", 2 * pictures * side**2 * channels**2 * 9 / taken


def _copy(device: str, seconds: float) -> tuple[str, float]:
    size = COPIED if _on_cuda(device) else min(COPIED, (free_memory() or 8 * COPIED) // 8)
    source = _ramp((max(size // 4, 1024),), device)
    target = torch.ones_like(source)  # written to once: mapping fresh pages is not bandwidth
    taken = _fastest(lambda: target.copy_(source), device, seconds)
    return f"a copy of {source.nbytes / 2**20:.0f} MiB", 2 * source.nbytes / taken


def _ramp(shape: tuple[int, ...], device: str) -> Tensor:
    """Numbers of many values: a product of ones needs less power, which is what limits an accelerator's clock."""
    return torch.linspace(-1, 1, math.prod(shape), device=device).view(shape)


def _fastest(work: Callable[[], object], device: str, seconds: float) -> float:
    """Seconds of the fastest run, after one to warm up."""

    def once() -> float:
        start = time.perf_counter()
        work()
        if _on_cuda(device):
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    once()
    end = time.perf_counter() + seconds
    best = once()
    while time.perf_counter() < end:
        best = min(best, once())
    return best


def _on_cuda(device: str) -> bool:
    return torch.device(device).type == "cuda"
