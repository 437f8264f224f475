"""How long networks take: measured side by side, with the interval, the settings and the machine in the record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
import torch

from convarium.costs.allocator import in_words
from convarium.costs.candidate import DTYPES, Candidate, left_as_they_were, runner
from convarium.costs.machine import this_machine
from convarium.costs.records import Records
from convarium.costs.turns import FEWEST, TURN, Lane, median_interval, take_turns
from convarium.errors import ArgumentError

__all__ = ["DTYPES", "Candidate", "Latency", "Race", "keep", "measure"]

# Is told the networks that are done, how many there are, and which had its turn.
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Latency:
    """What was measured. Times are not-a-number where nothing could be.

    Args:
        title: of the candidate.
        p50: milliseconds a batch, the median of the turns' medians.
        p95: milliseconds that 95 % of all runs stay below; near the slowest where there are fewer than 20 runs.
        low: lower end of the 95 % interval of p50; not-a-number where there were fewer than 6 turns.
        high: its upper end.
        images_per_second: batch / p50.
        runs: that were counted.
        turns: in which they came.
        warmup: runs before them, not counted.
        status: "settled", "unsettled" (time was up before the interval was narrow enough), "unavailable".
        reason: why it is not settled.
        spread: half the interval's width / p50 that was asked for.
        how: what was done, in words.
        mode: of execution.
        device_name: of the processor or the accelerator.
        date: when, in UTC.

    The other fields are the candidate's settings.
    """

    title: str
    p50: float
    p95: float
    low: float
    high: float
    images_per_second: float
    runs: int
    turns: int
    warmup: int
    status: str
    reason: str
    spread: float
    architecture: str
    picture: tuple[int, int, int]
    batch: int
    threads: int
    dtype: str
    device: str
    channels_last: bool
    torch: str
    machine: str
    device_name: str
    mode: str
    how: str
    date: str

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Latency:
        """The measurement that `to_dict` wrote.

        Raises:
            KeyError: a field is missing.
        """
        row = {f.name: d[f.name] for f in fields(cls)}
        row |= {name: math.nan for name in _FIGURES if row[name] is None}
        return cls(**{**row, "picture": tuple(row["picture"])})

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON; what was not measured is None."""
        row = asdict(self)
        return row | {name: None for name in _FIGURES if math.isnan(row[name])}

    @property
    def half_width(self) -> float:
        """Half the interval's width, relative to p50; not-a-number where there is no interval."""
        return (self.high - self.low) / 2 / self.p50


_FIGURES = ("p50", "p95", "low", "high", "images_per_second")


def keep(measured: Iterable[Latency], records: Records) -> int:
    """Add to the records what could be measured.

    Args:
        measured: measurements.
        records: where they are kept.

    Returns:
        How many are kept now.
    """
    return sum(records.append("latency", one.to_dict()) for one in measured if one.status != "unavailable")


def measure(
    candidates: Sequence[Candidate],
    *,
    seconds: float = 5.0,
    spread: float = 0.03,
    on_progress: Progress | None = None,
    deadline: float | None = None,
) -> list[Latency]:
    """Measure networks in turns; torch's settings and the networks are left as they were.

    Args:
        candidates: the networks and their settings.
        seconds: of running time for each at most, warm-up included; at least one run is made.
        spread: half the width of the median's interval, relative to it, at which a figure is settled.
        on_progress: is told how far it is.
        deadline: moment of `time.perf_counter()` at which to stop; runs under way are finished.

    Returns:
        One measurement a candidate, in their order. A network that fails, as for want of memory, or that the
        deadline left without a run, is "unavailable" with the reason; the others go on.

    Raises:
        ArgumentError: a setting that this machine does not have, or a network without weights.
    """
    race = Race(candidates, seconds=seconds, spread=spread)
    race.run(on_progress, deadline)
    return race.results()


class Race:
    """Networks that are measured together; what is known can be asked for after an interruption too.

    Args:
        candidates: the networks and their settings.
        seconds: of running time for each.
        spread: at which a figure is settled.

    Raises:
        ArgumentError: a limit that is not allowed.
    """

    def __init__(
        self, candidates: Sequence[Candidate], *, seconds: float = 5.0, spread: float = 0.03
    ) -> None:
        if not 0 < seconds < math.inf or not 0 < spread < 1:
            raise ArgumentError(
                f"seconds = {seconds}, spread = {spread}; the time must be above 0, the spread between 0 and 1"
            )
        self.candidates = list(candidates)
        self.spread = spread
        self.lanes = [Lane(lambda: math.nan, seconds, spread) for _ in self.candidates]

    def run(self, on_progress: Progress | None = None, deadline: float | None = None) -> None:
        """Measure.

        Args:
            on_progress: is told how far it is.
            deadline: moment of `time.perf_counter()` at which to stop.
        """

        def tell(index: int) -> None:
            if on_progress:
                done = sum(lane.settled or lane.over for lane in self.lanes)
                on_progress(done, len(self.lanes), self.candidates[index].title)

        placed: dict[Any, Any] = {}
        with left_as_they_were([candidate.net for candidate in self.candidates]):
            for lane, candidate in zip(self.lanes, self.candidates, strict=True):
                lane.once = runner(candidate, placed)
            try:
                take_turns(
                    self.lanes,
                    on_turn=tell,
                    stop=lambda: deadline is not None and time.perf_counter() >= deadline,
                )
            finally:
                for lane in self.lanes:  # they hold the copies of the networks
                    lane.once = lambda: math.nan

    def results(self) -> list[Latency]:
        """What is known by now, one measurement a candidate."""
        return [self._result(*pair) for pair in zip(self.candidates, self.lanes, strict=True)]

    def _result(self, candidate: Candidate, lane: Lane) -> Latency:
        low, high = median_interval(lane.medians)
        p50 = median(lane.medians) if lane.medians else math.nan
        p95 = float(np.quantile(lane.times, 0.95)) if lane.times else math.nan
        why_not = "its time was up" if lane.over else "the measurement was stopped"
        if lane.failure or not lane.medians:
            status, reason = "unavailable", lane.failure or f"{why_not} before it ran"
        elif lane.settled:
            status, reason = "settled", ""
        elif math.isnan(low):
            status, reason = "unsettled", f"{why_not} after {len(lane.medians)} of at least {FEWEST} turns"
        else:
            wide = (high - low) / 2 / p50
            status, reason = "unsettled", f"{why_not} at +-{wide:.1%}, asked was +-{self.spread:.1%}"
        if status == "unavailable":
            p50 = p95 = low = high = math.nan
        on_cuda = candidate.place.type == "cuda"
        return Latency(
            title=candidate.title,
            p50=1000 * p50,
            p95=1000 * p95,
            low=1000 * low,
            high=1000 * high,
            images_per_second=candidate.batch / p50,
            runs=len(lane.times),
            turns=len(lane.medians),
            warmup=lane.warmup,
            status=status,
            reason=reason,
            spread=self.spread,
            **candidate.settings,
            device_name=torch.cuda.get_device_name(candidate.place) if on_cuda else this_machine().cpu,
            mode=f"eager, inference_mode, {in_words()}",
            how=f"{DTYPES[candidate.dtype]}; wall clock around each run"
            + (", the device synchronised before and after" if on_cuda else "")
            + f"; turns of {min(TURN, lane.limit / FEWEST):.3g} s, {len(self.lanes)} network(s) in shuffled order",
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
