"""Networks side by side: published accuracy, size, operations, memory and the time that they take here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from convarium import storage
from convarium.choosing import candidates
from convarium.choosing.budget import Way
from convarium.classifier import load
from convarium.costs.candidate import NUMBERS, WEIGHTS, Candidate, check
from convarium.costs.choose import pareto
from convarium.costs.cost import Cost, cost
from convarium.costs.latency import Latency, keep, measure
from convarium.costs.memory import memory
from convarium.costs.records import Records
from convarium.errors import ArgumentError
from convarium.limits import cores
from convarium.models import front


@dataclass(frozen=True)
class Row:
    """One network of a comparison.

    Args:
        title: its name, or the path of a trained one.
        weights: that `top1` belongs to; empty where none is known.
        top1: accuracy on ImageNet-1k in per cent as published; None where none is.
        own: accuracy of a trained model on its own held-out pictures, in words; empty otherwise.
        size: side of the input in pixels.
        cost: counted for one picture.
        memory: bytes at the peak of inference, predicted for the batch.
        latency: measured here.
        front: whether no other row is both faster and more accurate.
    """

    title: str
    weights: str
    top1: float | None
    own: str
    size: int
    cost: Cost
    memory: int
    latency: Latency
    front: bool = False

    @property
    def megabytes(self) -> float:
        """Of the weights in float32, in units of 10^6 bytes."""
        return self.cost.params * 4 / 1e6

    def to_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        timed = self.latency.to_dict()
        return {
            "name": self.title,
            "weights": self.weights or None,
            "top1": self.top1,
            "own_accuracy": self.own or None,
            "size": self.size,
            "parameters": self.cost.params,
            "macs": self.cost.macs,
            "weights_mb": self.megabytes,
            "memory_bytes": self.memory,
            "front": self.front,
            "latency": timed,
        }


@dataclass(frozen=True)
class _Entry:
    title: str
    weights: str
    top1: float | None
    own: str
    picture: tuple[int, int, int]
    build: Callable[[bool], nn.Module]  # whether on the meta device


def compare(
    names: Sequence[str],
    *,
    way: Way = Way(),  # noqa: B008 (frozen)
    seconds: float = 5.0,
    records: Records | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Look at networks side by side.

    Args:
        names: of networks, ours or of another library as "timm:NAME"; or paths of trained models and runs.
        way: how they are run.
        seconds: of running time for each at most.
        records: where measurements are kept; nowhere where None.
        on_progress: is told in words what is being done.

    Returns:
        One row a name, in their order; those that are measured are measured in turns.

    Raises:
        ArgumentError: no name, one that comes twice, or settings that are not allowed.
        UnknownName: no such network.
        CheckpointError: a file that is no trained model.
    """
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"{len(names)} names; give at least one, and none twice")
    check(way.batch, way.threads, way.dtype, way.device)
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"seconds = {seconds}; it must be above 0")
    threads = way.threads or cores()
    entries = [_entry(name) for name in names]
    on_progress("counting")
    costs, peaks = [], []
    for entry in entries:
        empty = entry.build(True)
        costs.append(cost(empty, entry.picture))
        computed, held = NUMBERS[way.dtype], WEIGHTS[way.dtype]
        # Autocast is for weights in float32; converted ones are computed with as they are.
        dtype = computed if held is torch.float32 else "float32"
        peaks.append(memory(empty.to(held), entry.picture, batch=way.batch, dtype=dtype).peak)
    built = [
        Candidate(
            title=entry.title,
            net=entry.build(False),
            picture=entry.picture,
            batch=way.batch,
            threads=threads,
            dtype=way.dtype,
            device=way.device,
        )
        for entry in entries
    ]
    began = time.perf_counter()

    def tell(done: int, count: int, title: str) -> None:
        on_progress(f"measuring {title}: {done} of {count} done, {time.perf_counter() - began:.0f} s")

    timed = measure(built, seconds=seconds, on_progress=tell)
    if records:
        keep(timed, records)
    rows = [
        Row(e.title, e.weights, e.top1, e.own, e.picture[1], c, p, latency)
        for e, c, p, latency in zip(entries, costs, peaks, timed, strict=True)
    ]
    return _marked(rows)


def _marked(rows: list[Row]) -> list[Row]:
    """The rows, those on the front of time and accuracy marked."""
    known = [i for i, row in enumerate(rows) if row.top1 is not None and not math.isnan(row.latency.p50)]
    best = {known[i] for i in pareto([(rows[i].latency.p50, -float(rows[i].top1 or 0)) for i in known])}
    return [replace(row, front=i in best) for i, row in enumerate(rows)]


def _entry(name: str) -> _Entry:
    if storage.is_model(name):
        clf = load(name, device="cpu")
        net = clf.net
        architecture = net.architecture
        picture = (net.in_channels, clf.preprocessing.size, clf.preprocessing.size)
        told = clf.about.get("metrics", {}).get("top1")
        own = f"{100 * told['value']:.1f} % of {told['count']}" if told else ""
        return _Entry(
            name, "", None, own, picture, lambda meta: front.build_empty(architecture) if meta else net
        )
    source = candidates.best(name)
    if source:
        option, arguments = source.option, source.arguments
        weights, top1, channels, size = option.weights, option.top1, 3, option.size
    else:
        row = front.variant(name)
        weights, top1, channels, size, arguments = "", None, row.in_channels, row.size, {}

    def build(meta: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
            return front.create(name, size=size, **arguments).eval()

    return _Entry(name, weights, top1, "", (channels, size, size), build)
