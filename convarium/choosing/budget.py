"""The network to take under a budget: candidates of the registry and of timm, measured on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from convarium.choosing.candidates import Source, candidates
from convarium.choosing.rank import Ranking, rank, sample
from convarium.costs import choose as search
from convarium.costs.candidate import check
from convarium.costs.choose import Choice, Limits, Option
from convarium.costs.latency import Candidate, measure
from convarium.costs.machine import this_machine
from convarium.costs.peaks import Peak, peak
from convarium.costs.records import Records
from convarium.errors import ArgumentError
from convarium.limits import cores

SECONDS = 1.5
"""Of running time for one network, at most, in the first measurement."""

MARGIN = 1.25
"""So many times faster than ever seen the machine may turn out to be: what is rejected on paper is rejected surely."""


@dataclass(frozen=True)
class Way:
    """How networks are run while they are measured.

    Args:
        batch: pictures at once.
        threads: of the processor; all that this process may use where None.
        device: "cpu" or "cuda".
        dtype: "fp32" or "bf16".
    """

    batch: int = 1
    threads: int | None = None
    device: str = "cpu"
    dtype: str = "fp32"


@dataclass(frozen=True)
class Chosen:
    """What was found, and under which settings.

    Args:
        choice: the answer, and the reason for every rejection.
        limits: what had to be kept.
        way: how networks were run.
        peak: what this machine can do at most, by which networks were rejected on paper.
        machine: the machine, in words.
        seconds: that the search took.
        ranking: of the finalists on the user's pictures; None where no pictures were given.
        notes: what else a user should know.
    """

    choice: Choice
    limits: Limits
    way: Way
    peak: Peak
    machine: str
    seconds: float
    ranking: Ranking | None = None
    notes: tuple[str, ...] = field(default=())


def choose(
    limits: Limits,
    *,
    among: Sequence[str] = (),
    timm: bool = True,
    prefer: str | None = None,
    way: Way = Way(),  # noqa: B008 (frozen)
    data: str | Path | None = None,
    minutes: float = 5.0,
    records: Records | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> Chosen:
    """Find the network to take.

    Args:
        limits: what it must keep.
        among: shell-style names of the networks to look at; all where empty.
        timm: look at networks that only timm has, too.
        prefer: "speed" or "accuracy"; see `convarium.costs.choose`.
        way: how it will be run.
        data: pictures of the user's, by class; the finalists are ranked on them by a linear probe.
        minutes: that all of it may take.
        records: where measurements are kept; nowhere where None.
        on_progress: is told in words what is being done.

    Returns:
        The answer, with reasons; its ranking on the user's pictures where there are some.

    Raises:
        ArgumentError: limits, settings or names that are not allowed.
        DataError: the pictures cannot be used.
    """
    if not 0 < minutes < math.inf:
        raise ArgumentError(f"--minutes {minutes:g}; it must be above 0")
    prefer = search.preference(prefer, limits)
    check(way.batch, way.threads, way.dtype, way.device)
    pictures = sample(data) if data is not None else None
    began = time.perf_counter()
    # Ranking takes the last third of the time, where there are pictures.
    deadline = began + 60 * minutes * (2 / 3 if pictures else 1)
    on_progress("collecting networks with published accuracy")
    found = {source.option: source for source in candidates(among, timm)}
    threads = way.threads or cores()
    highest = peak(way.device, way.dtype, threads, records=records)
    stopwatch = _Stopwatch(found, way, highest, deadline, records, on_progress)
    choice = search.choose(
        found,
        limits,
        measure=stopwatch,
        floor=lambda option: floor(option, way.batch, stopwatch.peak),
        prefer=prefer,
        finalists=4 if pictures else 1,
        out_of_time=lambda: time.perf_counter() >= deadline,
    )
    ranking = None
    if pictures is not None:
        finalists = [v for v in choice.verdicts if v.kind in ("chosen", "fits")]
        finalists = sorted(finalists, key=lambda v: (v.kind != "chosen", -v.option.top1))[:4]
        ranking = rank(
            [found[v.option] for v in finalists],
            pictures,
            deadline=began + 60 * minutes,
            device=way.device,
            on_progress=on_progress,
        )
    return Chosen(
        choice=choice,
        limits=limits,
        way=way,
        peak=stopwatch.peak,
        machine=str(this_machine()),
        seconds=time.perf_counter() - began,
        ranking=ranking,
        notes=tuple(records.notes if records else ()),
    )


def floor(option: Option, batch: int, highest: Peak) -> float:
    """Milliseconds below which this machine cannot run a batch: all multiply-accumulates above its peak.

    Args:
        option: its `macs` are counted.
        batch: pictures at once.
        highest: the machine's peak.
    """
    return 2 * option.macs * batch / (MARGIN * highest.flops) * 1e3


class _Stopwatch:
    """Times options; a network is built only while it is measured.

    One that is faster than the peak shows that the peak was measured while the machine was busy: it is raised.
    """

    def __init__(
        self,
        sources: dict[Option, Source],
        way: Way,
        highest: Peak,
        deadline: float,
        records: Records | None,
        on_progress: Callable[[str], None],
    ) -> None:
        self.sources = sources
        self.way = way
        self.peak = highest
        self.deadline = deadline
        self.records = records
        self.on_progress = on_progress
        self.count = 0

    def __call__(self, options: Iterable[Option], effort: int) -> list[Any]:
        timings: list[Any] = []
        built: list[Candidate] = []
        places: list[int] = []
        asked = list(options)
        for place, option in enumerate(asked):
            self.count += 1
            self.on_progress(f"measuring {option.title} ({self.count})")
            timings.append(None)
            try:
                built.append(self._candidate(option))
                places.append(place)
            except (RuntimeError, ArgumentError, MemoryError) as error:  # one network must not end the search
                timings[place] = Failed(str(error).splitlines()[0])
        seconds = SECONDS * effort
        # A measurement that was begun is brought to an end that can be used, even where time is up.
        deadline = max(self.deadline, time.perf_counter() + seconds)
        for place, latency in zip(places, measure(built, seconds=seconds, deadline=deadline), strict=True):
            timings[place] = latency
            if latency.status == "unavailable":
                continue
            if self.records:
                self.records.append("latency", latency.to_dict())
            reached = 2 * asked[place].macs * self.way.batch / latency.p50 * 1e3
            self.peak = replace(self.peak, flops=max(self.peak.flops, reached))
        return timings

    def _candidate(self, option: Option) -> Candidate:
        way = self.way
        return Candidate(
            title=option.title,
            net=self.sources[option].build(),
            picture=(3, option.size, option.size),
            batch=way.batch,
            threads=self.peak.threads,
            dtype=way.dtype,
            device=way.device,
        )


@dataclass(frozen=True)
class Failed:
    """Stands for the time of a network that could not be built."""

    reason: str
    p50: float = math.nan
    low: float = math.nan
    high: float = math.nan
