"""What lives in memory while a network runs, followed block by block in a run without data.

The network is run on fake tensors (shapes, layouts and devices, but no numbers), through the same autograd and the
same operators as a real run. Every storage that an operator makes is written down when it appears and again when it
dies, so tensors saved for the backward pass, gradients that are freed on the way, views and in-place operators come
out as the allocator would see them. Nothing is known here of any kind of layer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from convarium.costs.scratch import scratch, update
from convarium.costs.shortcuts import shortcut
from convarium.costs.untouched import untouched

aten = torch.ops.aten


@dataclass
class Ledger:
    """Births and deaths of blocks of memory, in order.

    Args:
        granule: blocks are counted in multiples of so many bytes.
        sizes: bytes of each block.
        makers: what made each block: an operator's name, or the part that it was given as.
        events: a block's number + 1 where it is born, the negative of that where it dies.
        reused: events at which a sum is born that autograd writes into an operand, if nothing else holds that; with
            the operands' blocks.
        forward: number of events at the end of the forward pass.
    """

    granule: int = 1
    sizes: list[int] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    reused: dict[int, set[int]] = field(default_factory=dict)
    forward: int = 0

    def born(self, size: int, maker: str) -> int:
        """Write down a new block and return its number."""
        self.sizes.append(-(-size // self.granule) * self.granule)
        self.makers.append(maker)
        self.events.append(len(self.sizes))
        return len(self.sizes) - 1

    def died(self, block: int) -> None:
        """Write down a block's end."""
        self.events.append(-block - 1)

    def alive(self, until: int) -> set[int]:
        """The blocks that are held after so many events."""
        held: set[int] = set()
        for event in self.events[:until]:
            held.add(event - 1) if event > 0 else held.discard(-event - 1)
        return held

    def peak(self) -> tuple[int, int]:
        """The most bytes held at once, and the number of events until then."""
        now = most = at = 0
        for number, event in enumerate(self.events):
            if event < 0:
                now -= self.sizes[-event - 1]
                continue
            now += self.sizes[event - 1]
            held = now - self._taken_over(number)
            if held > most:
                most, at = held, number + 1
        return most, at

    def _taken_over(self, number: int) -> int:
        """Bytes of the operand in whose memory the sum of an event is written."""
        operands = self.reused.get(number, set())
        following = number + 1
        while operands and following < len(self.events) and self.events[following] < 0:
            if -self.events[following] - 1 in operands:
                return self.sizes[-self.events[following] - 1]
            following += 1
        return 0


class _Follow(TorchDispatchMode):
    """Writes every new storage and every storage's death into a ledger."""

    def __init__(self, ledger: Ledger, kernels: bool) -> None:
        super().__init__()
        self.ledger = ledger
        self.kernels = kernels
        self.backward = False
        self.blocks: dict[int, int] = {}  # address of a living storage: its block
        self._watched: dict[int, Any] = {}

    def hold(self, tensor: Tensor, maker: str) -> int:
        """Write down a tensor's storage, if it is new; the number of its block."""
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self.blocks:
            return self.blocks[address]
        block = self.ledger.born(storage.nbytes(), maker)
        self.blocks[address] = block

        def dead(_: Any) -> None:
            del self.blocks[address], self._watched[address]
            self.ledger.died(block)

        self._watched[address] = weakref.ref(storage, dead)
        return block

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = shortcut(func, args, kwargs)
        if result is NotImplemented:
            result = func(*args, **(kwargs or {}))
        first = len(self.ledger.events)
        outputs = (result,) if isinstance(result, Tensor) else tree_leaves(result)
        for output in outputs:
            if isinstance(output, Tensor):
                self.hold(output, str(func))
        if self.backward and func is aten.add.Tensor and len(self.ledger.events) > first:
            # Gradients that meet are summed in place where nothing else holds one of them; autograd does not do so
            # while anybody looks on, as here. The operand dies at once then, before any other block is born.
            operands = [a for a in args if isinstance(a, Tensor)]
            self.ledger.reused[first] = {self.hold(a, str(func)) for a in operands}
        if self.kernels:
            extra = scratch(func, args, outputs)
            if extra:
                self.ledger.died(self.ledger.born(extra, str(func)))
        return result


@dataclass(frozen=True)
class Run:
    """What a run without data has shown.

    Args:
        ledger: every block.
        kinds: "parameters", "gradients", "optimizer", "input", "saved" by block; what is not here only passes.
    """

    ledger: Ledger
    kinds: dict[int, str]


def loss_of(output: Any, labels: Tensor) -> Tensor:
    """The loss that stands for any: cross-entropy of every table of scores, the mean of any other tensor.

    Args:
        output: whatever a network gives.
        labels: (N,), class indices.

    Returns:
        The sum over all tensors of the output.
    """
    given = [t for t in tree_leaves(output) if isinstance(t, Tensor) and t.is_floating_point()]
    losses = [
        F.cross_entropy(t.float(), labels) if t.ndim == 2 and len(t) == len(labels) else t.float().mean()
        for t in given
    ]
    return sum(losses[1:], losses[0])


def forward(
    call: Callable[[Tensor], Any], pictures: Tensor, labels: Tensor, training: bool, bf16: bool
) -> Any:
    """What is kept of a forward pass: the loss in training, else the output."""
    with (
        torch.set_grad_enabled(training),
        torch.autocast(pictures.device.type, torch.bfloat16, enabled=bf16),
    ):
        output = call(pictures)
        return loss_of(output, labels) if training else output


def follow(
    net: nn.Module,
    shape: tuple[int, int, int, int],
    *,
    training: bool,
    bf16: bool,
    channels_last: bool,
    states: int,
    updated: bool,
    granule: int,
    kernels: bool,
) -> Run:
    """Run a network without data, and write down what lives when.

    Args:
        net: any module that takes pictures; left as it was.
        shape: of the pictures, (N, C, H, W).
        training: forward, loss and backward with gradients; otherwise forward without.
        bf16: under autocast to bfloat16.
        channels_last: pictures and weights lie with channels innermost.
        states: tensors of a parameter's size that the optimiser keeps for each.
        updated: whether an optimiser works on the weights at the end.
        granule: blocks are counted in multiples of so many bytes.
        kernels: count what this processor's kernels hold beside their results, as far as it is known.

    Returns:
        The ledger, with what each block is.
    """
    ledger = Ledger(granule)
    kinds: dict[int, str] = {}
    lay = torch.channels_last if channels_last else torch.preserve_format
    with FakeTensorMode(allow_non_fake_inputs=True), untouched(net):
        net.train(training)
        twins: dict[str, Tensor] = {}
        same: dict[int, Tensor] = {}
        for name, tensor in [
            *net.named_parameters(remove_duplicate=False),
            *net.named_buffers(remove_duplicate=False),
        ]:
            if id(tensor) not in same:
                same[id(tensor)] = _twin(tensor, channels_last)
            twins[f"net.{name}"] = same[id(tensor)]
        # Weights that were converted as a whole take pictures of their own type.
        number = next((t.dtype for t in same.values() if isinstance(t, nn.Parameter)), torch.float32)
        pictures = torch.empty(shape, dtype=number).to(memory_format=lay)
        labels = torch.zeros(shape[0], dtype=torch.int64)
        mode = _Follow(ledger, kernels)

        def keep(tensors: list[Tensor], kind: str) -> None:
            for tensor in tensors:
                kinds.setdefault(mode.hold(tensor, kind), kind)

        learnt = [t for t in same.values() if training and t.requires_grad]
        optimizer = [torch.empty_like(t) for t in learnt for _ in range(states)]
        keep(list(same.values()), "parameters")
        keep(optimizer, "optimizer")
        keep([pictures, labels], "input")

        def step(twin: nn.Module) -> None:
            kept = forward(twin, pictures, labels, training, bf16)
            ledger.forward = len(ledger.events)
            if training:
                for block in ledger.alive(ledger.forward):
                    kinds.setdefault(block, "saved")
                mode.backward = True
                kept.backward()
                if kernels and updated:
                    ledger.died(ledger.born(update(learnt), "aten._fused_step_"))

        with mode:
            torch.func.functional_call(_Within(net, step), twins, (), tie_weights=False)
        keep([t.grad for t in learnt if t.grad is not None], "gradients")
    # What dies from here on is no part of the run.
    return Run(
        Ledger(granule, ledger.sizes, ledger.makers, list(ledger.events), ledger.reused, ledger.forward),
        kinds,
    )


class _Within(nn.Module):
    """A whole step as a module, for `functional_call`: what is computed again in the backward pass needs the twins."""

    def __init__(self, net: nn.Module, step: Callable[[nn.Module], None]) -> None:
        super().__init__()
        self.net = net
        self.step = step

    def forward(self) -> None:
        self.step(self.net)


def _twin(tensor: Tensor, channels_last: bool) -> Tensor:
    """A tensor of the same shape and type without data."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    if channels_last and tensor.ndim == 4:
        made = made.to(memory_format=torch.channels_last)
    return nn.Parameter(made, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else made
