"""The fastest way to run a network that does not learn, found by measuring, taken only where it agrees.

`choose` (of `job`) is for a classifier's answers: all ways of `ways`, as far as the job is large enough for them.
`fastest` is for the frozen part of a network that is trained: ways of torch only.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from convarium.deploy import fused
from convarium.deploy.job import Chosen as Chosen
from convarium.deploy.job import choose as choose
from convarium.judge.scoring import in_eval_mode
from convarium.net import Head, Net

EXACT = 1e-5
"""Relative difference that a float32 way may have: sums are made in another order."""

NEAR = 0.02
"""Relative difference that a bfloat16 way may have: eight bits of each number are kept."""

FEW = 8
"""Pictures by which ways are compared."""


@dataclass(frozen=True)
class Engine:
    """One way to run a network.

    Args:
        name: in words.
        run: pictures (N, C, H, W), normalised, float32, to float32 outputs.
        seconds: a picture, as measured.
        difference: of the outputs from those of the plain way, relative (L2), on the pictures it was measured on.
    """

    name: str
    run: Callable[[Tensor], Tensor]
    seconds: float
    difference: float


def fastest(
    net: nn.Module, pictures: Tensor, count: int, *, bf16: bool = True, name: str | None = None
) -> Engine:
    """The fastest way that agrees with the plain one; the plain one where rewriting would not pay.

    Args:
        net: lies on the pictures' device; left as it was.
        pictures: some real ones, (N, C, H, W), normalised; `FEW` are used.
        count: how many pictures will be run in all.
        bf16: whether eight bits of each number will do.
        name: of the way to take, as an earlier call chose it, where it can still be taken; the fastest where None.

    Returns:
        The way.
    """
    some = pictures[:FEW]
    with in_eval_mode(net), torch.inference_mode():
        plain, expected = _measured("float32", net, some, None)
        # Rewriting and trying take a second or two.
        if name == plain.name or (name is None and plain.seconds * count < 2):
            return plain
        found = [plain]
        for title, make in _ways(net, some.device, bf16):
            try:
                way, _ = _measured(title, make(), some, expected)
            except (
                RuntimeError,
                TypeError,
                AttributeError,
                NotImplementedError,
            ):  # private operators; see fused.py
                continue
            if way.difference <= (NEAR if "bfloat16" in title else EXACT):
                found.append(way)
    return min(found, key=lambda way: (way.name != name, way.seconds))


def _ways(
    net: nn.Module, device: torch.device, bf16: bool
) -> list[tuple[str, Callable[[], Callable[[Tensor], Tensor]]]]:
    numbers = [("float32", torch.float32)] + ([("bfloat16", torch.bfloat16)] if bf16 else [])
    graph = fused.traced(net)
    base: nn.Module = net if graph is None else fused.folded(graph)
    folded = "" if graph is None else ", batch norms folded"

    def make(number: torch.dtype, onednn: bool) -> Callable[[Tensor], Tensor]:
        # Weights only: buffers may be positions or means, which eight bits would spoil.
        made = copy.deepcopy(base).eval().to(number).to(memory_format=torch.channels_last)
        if onednn:
            made = fused.with_onednn(made)  # type: ignore[arg-type]
        return lambda x: made(x.to(number).contiguous(memory_format=torch.channels_last)).float()

    ways: list[tuple[str, Callable[[], Callable[[Tensor], Tensor]]]] = []
    for name, number in numbers:
        if graph is not None and device.type == "cpu":
            ways.append((f"{name}, fused by oneDNN", partial(make, number, True)))
        else:
            ways.append((f"{name}{folded}, channels last", partial(make, number, False)))
    return ways


def _measured(
    name: str, run: Callable[[Tensor], Tensor], some: Tensor, expected: Tensor | None
) -> tuple[Engine, Tensor]:
    """The better of two runs after one to warm up; of the plain way, which is the slowest, one."""
    out = run(some)
    seconds = []
    for _ in range(1 if expected is None else 2):
        began = time.perf_counter()
        run(some)
        if some.device.type == "cuda":
            torch.cuda.synchronize(some.device)
        seconds.append(time.perf_counter() - began)
    difference = 0.0
    if expected is not None:
        difference = float((out - expected).norm() / expected.norm().clamp_min(1e-12))
        difference = difference if out.isfinite().all() else float("inf")
    return Engine(name, run, min(seconds) / len(some), difference), out


def trunk(net: nn.Module) -> nn.Module:
    """A copy of a network that gives what its classifier would be given.

    Args:
        net: ours, or a wrapped one.

    Returns:
        Pictures to `pre_logits`.
    """
    copied = copy.deepcopy(net)
    if isinstance(copied, Net):
        if not isinstance(copied.head, Head):
            copied.head = nn.Identity()
        else:
            behind = False
            for name in dict(copied.head.named_children()):
                behind = behind or name == copied.head.classifier
                if behind:
                    setattr(copied.head, name, nn.Identity())
        return copied
    copied.head = nn.Identity()  # a wrapped network puts it where its classifier was
    return copied.net  # type: ignore[return-value]


def tail(net: nn.Module) -> nn.Module:
    """What turns `pre_logits` into scores: the network's own parts, shared with it.

    Args:
        net: ours, or a wrapped one.
    """
    if not isinstance(net, Net) or not isinstance(net.head, Head):
        return net.head  # type: ignore[return-value]
    parts = dict(net.head.named_children())
    names = list(parts)
    behind = names[names.index(net.head.classifier) :] if net.head.classifier in names else []
    return parts[behind[0]] if len(behind) == 1 else nn.Sequential(*(parts[name] for name in behind))
