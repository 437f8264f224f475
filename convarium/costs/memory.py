"""How much memory a network takes, in use and in training, before it is run; and the largest batch that fits.

Counted are the bytes that torch's allocator hands out, at the moment when they are the most: what
`torch.cuda.max_memory_allocated` gives on a GPU and the profiler's memory record on a CPU. Not counted is what lies
outside of it: Python and torch themselves, the CUDA context, buffers inside of libraries, what an allocator keeps in
store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from convarium.costs import scratch
from convarium.costs.cost import checked
from convarium.costs.saved import Run, follow
from convarium.errors import ArgumentError, ConvariumError

DTYPES = ("float32", "bfloat16")
STATES = {"none": 0, "sgd": 0, "momentum": 1, "adamw": 2}
"""Tensors of a parameter's size that an optimiser keeps for each."""

PARTS = ("parameters", "gradients", "optimizer", "saved", "working", "input")

METHOD = "run on tensors without data; every storage followed from birth to death"

MOST = 1 << 20
"""No larger batch is looked for."""

CUDA_BLOCK = (
    512  # bytes: torch's CUDA allocator hands out multiples of it (kMinBlockSize, CUDACachingAllocator)
)


@dataclass(frozen=True)
class Setting:
    """What the memory of a network depends on, besides the network.

    Args:
        picture: (channels, height, width).
        batch: pictures at once.
        training: a whole training step; otherwise inference without gradients.
        dtype: "float32"; or "bfloat16": autocast, weights in float32.
        optimizer: in training, "none", "sgd", "momentum" or "adamw".
        device: "cpu" or "cuda".
        channels_last: whether pictures and weights lie with channels innermost.
    """

    picture: tuple[int, int, int]
    batch: int
    training: bool
    dtype: str
    optimizer: str
    device: str
    channels_last: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a batch of pictures."""
        return (self.batch, *self.picture)

    @property
    def bf16(self) -> bool:
        """Whether it runs under autocast to bfloat16."""
        return self.dtype == "bfloat16"


@dataclass(frozen=True)
class Memory:
    """The most memory that a network holds at once.

    Args:
        peak: bytes.
        parts: bytes of "parameters" (and buffers), "gradients", "optimizer" (its state), "saved" (activations kept for
            the backward pass), "working" (everything that only passes) and "input" at that moment; they sum to the
            peak.
        moment: when it is: the pass and the operator.
        setting: what it holds for.
        method: how it was found.
        status: "complete", or "partial" where something that the device holds is not known.
        notes: what is left out.
    """

    peak: int
    parts: dict[str, int]
    moment: str
    setting: Setting
    method: str
    status: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Fit:
    """The largest batch that fits.

    Args:
        batch: pictures; 0 where not even one fits.
        limit: bytes that there are.
        memory: what this batch takes, or one picture where not even that fits.
        beyond: what one picture more takes; None where the search ended before anything was too large.
        tried: batches that were looked at.
    """

    batch: int
    limit: int
    memory: Memory
    beyond: Memory | None
    tried: tuple[int, ...]


def setting(
    picture: tuple[int, int, int],
    *,
    batch: int = 1,
    training: bool = False,
    dtype: str = "float32",
    optimizer: str = "momentum",
    device: str = "cpu",
    channels_last: bool | None = None,
) -> Setting:
    """Put a setting together, and refuse what there is not; the arguments are those of `memory`."""
    for name, got, allowed in (
        ("dtype", dtype, DTYPES),
        ("optimizer", optimizer, tuple(STATES)),
        ("device", device, ("cpu", "cuda")),
    ):
        if got not in allowed:
            raise ArgumentError(f"{name} = {got!r}; it must be one of {', '.join(allowed)}")
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ArgumentError(f"batch = {batch!r}; it must be a whole number, 1 or more")
    innermost = dtype == "bfloat16" if channels_last is None else channels_last
    return Setting(checked(picture), batch, training, dtype, optimizer, device, innermost)


def memory(
    net: nn.Module,
    picture: tuple[int, int, int],
    *,
    batch: int = 1,
    training: bool = False,
    dtype: str = "float32",
    optimizer: str = "momentum",
    device: str = "cpu",
    channels_last: bool | None = None,
) -> Memory:
    """The most memory that inference or a training step holds at once, without running it.

    A training step is one of many: the optimiser's state exists, gradients of the step before are freed before the
    forward pass, and the optimiser works in place (torch's `fused` form). The loss is cross-entropy.

    Args:
        net: any module that takes a batch of pictures; left as it was.
        picture: (channels, height, width).
        batch: pictures at once.
        training: a training step; otherwise inference without gradients.
        dtype: "float32"; or "bfloat16": autocast, weights in float32.
        optimizer: in training, "none", "sgd", "momentum" or "adamw".
        device: "cpu" or "cuda".
        channels_last: whether pictures and weights lie with channels innermost; where None, as Convarium trains: with
            bfloat16 only.

    Returns:
        The peak in bytes and what it consists of.

    Raises:
        ArgumentError: a value that is not allowed, or a network that cannot be run without data.
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
    if training and not any(parameter.requires_grad for parameter in net.parameters()):
        raise ArgumentError(
            f"nothing of {type(net).__name__} learns: all its parameters are frozen, or it has none; ask for inference"
        )
    return _predict(net, asked)


def largest_batch(net: nn.Module, picture: tuple[int, int, int], limit: int, **how: Any) -> Fit:
    """The largest batch whose peak is at most a limit.

    The peak is nearly a straight line in the batch, so a few runs without data find it; the answer and one picture
    more have both been looked at.

    Args:
        net: any module that takes a batch of pictures; left as it was.
        picture: (channels, height, width).
        limit: bytes.
        how: training, dtype, optimizer, device and channels_last, as for `memory`.

    Returns:
        The batch with what it takes; 0 where not even one picture fits.

    Raises:
        ArgumentError: as `memory`.
    """
    if limit < 1:
        raise ArgumentError(f"a limit of {limit} bytes; it must be 1 or more")
    seen: dict[int, Memory] = {}

    def peak(batch: int) -> int:
        if batch not in seen:
            seen[batch] = memory(net, picture, batch=batch, **how)
        return seen[batch].peak

    first = _smallest(net, picture, how)
    if peak(first) > limit:
        return Fit(0, limit, seen[first], seen[first], tuple(seen))
    low, high = first, 8  # `low` fits; `high` does not, once it is known
    while low < MOST and peak(high) <= limit:
        below, low = low, high
        slope = max(1.0, (peak(low) - peak(below)) / (low - below))
        high = min(MOST, max(low + 1, low + int((limit - peak(low)) / slope) + 1))
    if low == MOST:
        return Fit(MOST, limit, seen[MOST], None, tuple(seen))
    while high - low > 1:
        share = (limit - peak(low)) / max(1, peak(high) - peak(low))
        guess = low + int(share * (high - low))
        middle = min(high - 1, max(low + 1, guess))
        if peak(middle) > limit:
            high = middle
        else:
            low = middle
            if middle + 1 < high and peak(middle + 1) > limit:
                high = middle + 1
    return Fit(low, limit, seen[low], seen[high], tuple(seen))


def _smallest(net: nn.Module, picture: tuple[int, int, int], how: dict[str, Any]) -> int:
    """The smallest batch that runs: a batch norm of single pixels cannot be trained on one picture."""
    try:
        memory(net, picture, batch=1, **how)
    except ValueError:
        if not how.get("training"):
            raise
        memory(net, picture, batch=2, **how)
        return 2
    return 1


def _predict(net: nn.Module, asked: Setting) -> Memory:
    on_cpu = asked.device == "cpu"
    try:
        run = follow(
            net,
            asked.shape,
            training=asked.training,
            bf16=asked.bf16,
            channels_last=asked.channels_last,
            states=STATES[asked.optimizer],
            updated=asked.optimizer != "none",
            granule=1 if on_cpu else CUDA_BLOCK,
            kernels=on_cpu and scratch.KNOWN,
        )
    except ConvariumError:
        raise
    except Exception as error:
        what = "a training step" if asked.training else "inference"
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, (DataDependentOutputException, DynamicOutputShapeException)):
            why = f"its course depends on numbers ({why}), which a run without data does not have; measure it instead"
        raise ArgumentError(
            f"{what} of {type(net).__name__} on {asked.batch} pictures of {' x '.join(map(str, asked.picture))} "
            f"cannot be followed: {why}"
        ) from error
    peak, until = run.ledger.peak()
    notes = _notes(asked)
    return Memory(
        peak=peak,
        parts=_parts(run, peak, until),
        moment=_moment(run, until),
        setting=asked,
        method=METHOD,
        status="partial" if notes else "complete",
        notes=notes,
    )


def _parts(run: Run, peak: int, until: int) -> dict[str, int]:
    """Bytes by kind at the peak."""
    parts = dict.fromkeys(PARTS, 0)
    for block in run.ledger.alive(until):
        parts[run.kinds.get(block, "working")] += run.ledger.sizes[block]
    parts["working"] -= sum(parts.values()) - peak  # a sum that is written into one of its operands
    return parts


def _moment(run: Run, until: int) -> str:
    if until == 0:
        return "before the run"
    maker = run.ledger.makers[run.ledger.events[until - 1] - 1]
    if maker in PARTS:
        return "before the run"
    return f"{'forward' if until <= run.ledger.forward else 'backward'}, {maker.split('.')[1]}"


def _notes(asked: Setting) -> tuple[str, ...]:
    if asked.device == "cuda":
        return ("workspaces of cuDNN and cuBLAS, which depend on the card, are not in it",)
    if not scratch.KNOWN:
        return ("what this processor's kernels hold beside their results is not known",)
    return ()
