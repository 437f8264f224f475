"""The network to take under limits of time, size and accuracy: rejected on paper where that is certain, else measured.

Which one is taken: of all that keep every limit, the fastest ("speed") or the most accurate ("accuracy"). Networks are
measured in an order in which the answer comes early, and measuring stops when no other network can be the answer:

    accuracy   from the most accurate down; the first that keeps the limits is the answer
    speed      from the least work up; when even at this machine's best the next would take longer than the best so
               far, the best so far is the answer; networks that cannot be told apart from it are then measured
               side by side, and of those whose times do not differ the most accurate is taken
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from convarium.errors import ArgumentError

PREFER = ("speed", "accuracy")
CLOSE = 0.15
"""Networks within this share of the fastest are measured again, side by side with it."""


DRIFT = 0.1
"""A network must stay so far below the limit of time: what a machine does now and later differs by about a tenth."""


class Timing(Protocol):
    """What choosing needs of a measurement: milliseconds a batch."""

    @property
    def p50(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def bounds(timing: Timing) -> tuple[float, float]:
    """The interval of a time in milliseconds; from half to twice the median where too few runs gave none."""
    if math.isnan(timing.low) or math.isnan(timing.high):
        return timing.p50 / 2, timing.p50 * 2
    return timing.low, timing.high


@dataclass(frozen=True)
class Option:
    """A network with trained weights that could be taken.

    Args:
        title: the network's name.
        weights: the weights that `top1` belongs to.
        top1: published accuracy in per cent.
        parameters: of the network.
        macs: multiply-accumulates a picture.
        size: side of the input in pixels.
        source: where `top1` comes from.
        licence: of the weights, in the publisher's words; empty where none is stated with them.
    """

    title: str
    weights: str
    top1: float
    parameters: float
    macs: float
    size: int
    source: str = ""
    licence: str = ""

    @property
    def megabytes(self) -> float:
        """Of the weights in float32, in units of 10^6 bytes."""
        return self.parameters * 4 / 1e6


@dataclass(frozen=True)
class Limits:
    """What a network must keep; None is no limit.

    Args:
        ms: milliseconds a batch at most.
        mb: size of the float32 weights at most, in 10^6 bytes.
        top1: published accuracy at least, in per cent.
    """

    ms: float | None = None
    mb: float | None = None
    top1: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("--max-ms", self.ms), ("--max-mb", self.mb), ("--min-top1", self.top1)):
            if value is not None and not 0 < value < math.inf:
                raise ArgumentError(f"{name} {value}; it must be above 0")
        if self.top1 is not None and self.top1 > 100:
            raise ArgumentError(f"--min-top1 {self.top1:g}; it is in per cent, so at most 100")


@dataclass(frozen=True)
class Verdict:
    """What became of one option.

    Args:
        option: the network.
        kind: "chosen", "fits" (keeps the limits, another is better), "rejected", "not needed" (could not change the
            answer) or "not reached" (time was up before it).
        reason: why, in words.
        timing: the measurement, where there was one.
    """

    option: Option
    kind: str
    reason: str
    timing: Any = None


@dataclass(frozen=True)
class Choice:
    """The answer and how it was found.

    Args:
        answer: None where no network keeps the limits.
        verdicts: of all options, in the order in which they were looked at.
        prefer: "speed" or "accuracy".
        complete: whether time sufficed to be sure of the answer.
    """

    answer: Verdict | None
    verdicts: tuple[Verdict, ...]
    prefer: str
    complete: bool

    @property
    def measured(self) -> int:
        """How many networks were measured."""
        return sum(verdict.timing is not None for verdict in self.verdicts)

    @property
    def front(self) -> list[Verdict]:
        """Of the measured ones those to which no other is both faster and more accurate, the fastest first."""
        timed = [v for v in self.verdicts if v.timing is not None and not math.isnan(v.timing.p50)]
        kept = pareto([(v.timing.p50, -v.option.top1) for v in timed])
        return sorted((timed[i] for i in kept), key=lambda v: v.timing.p50)


def pareto(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Places of the points that no other point matches or beats everywhere and beats somewhere; less is better."""
    return [
        i
        for i, p in enumerate(points)
        if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)
    ]


def choose(
    options: Iterable[Option],
    limits: Limits,
    *,
    measure: Callable[[Sequence[Option], int], list[Any]],
    floor: Callable[[Option], float],
    prefer: str | None = None,
    finalists: int = 1,
    out_of_time: Callable[[], bool] = lambda: False,
) -> Choice:
    """Find the network to take.

    Args:
        options: networks with published accuracy.
        limits: what it must keep.
        measure: times options side by side, 1 to 3 times as thoroughly as usual; one `Timing` an option, whose
            numbers are not-a-number, with a `reason`, where it could not be run.
        floor: milliseconds that an option takes at least on this machine.
        prefer: "speed" or "accuracy"; speed where `limits.top1` is given, else accuracy, where None.
        finalists: by accuracy, networks to find that keep the limits before the search stops.
        out_of_time: whether to stop.

    Returns:
        The answer, with the reason for every rejection.

    Raises:
        ArgumentError: an unknown preference.
    """
    prefer = preference(prefer, limits)
    search = _Search(limits, measure, floor, out_of_time)
    rows = list(options)
    if prefer == "accuracy":
        search.by_accuracy(sorted(rows, key=lambda o: (-o.top1, floor(o), o.title)), finalists)
    else:
        search.by_speed(sorted(rows, key=lambda o: (floor(o), -o.top1, o.title)))
    verdicts = tuple(search.verdicts)
    answer = next((v for v in verdicts if v.kind == "chosen"), None)
    return Choice(answer, verdicts, prefer, not any(v.kind == "not reached" for v in verdicts))


def preference(asked: str | None, limits: Limits) -> str:
    """What is preferred of networks that keep the limits.

    Args:
        asked: "speed" or "accuracy"; by the limits where None.
        limits: where they ask for an accuracy, the fastest that has it is preferred, else the most accurate.

    Raises:
        ArgumentError: an unknown preference.
    """
    prefer = asked or ("accuracy" if limits.top1 is None else "speed")
    if prefer not in PREFER:
        raise ArgumentError(f"--prefer {prefer}; it must be {' or '.join(PREFER)}")
    return prefer


class _Search:
    """One search; verdicts come in the order in which options are looked at."""

    def __init__(
        self,
        limits: Limits,
        measure: Callable[[Sequence[Option], int], list[Any]],
        floor: Callable[[Option], float],
        out_of_time: Callable[[], bool],
    ) -> None:
        self.limits = limits
        self.measure = measure
        self.floor = floor
        self.out_of_time = out_of_time
        self.verdicts: list[Verdict] = []

    def by_accuracy(self, options: list[Option], wanted: int) -> None:
        chosen: Option | None = None
        for option in options:
            if why := self._on_paper(option):
                self._add(option, "rejected", why)
            elif chosen and wanted <= 0:
                self._add(
                    option, "not needed", f"no more accurate than {chosen.title}, which keeps the limits"
                )
            elif self.out_of_time():
                self._add(option, "not reached", "time was up")
            else:
                verdict = self._judged(option)
                wanted -= verdict.kind == "fits"
                if verdict.kind == "fits" and not chosen:
                    verdict = replace(
                        verdict, kind="chosen", reason="the most accurate that keeps the limits"
                    )
                    chosen = option
                self.verdicts.append(verdict)

    def by_speed(self, options: list[Option]) -> None:
        best: Verdict | None = None
        for option in options:
            least = self.floor(option)
            if why := self._on_paper(option):
                self._add(option, "rejected", why)
            elif best and least >= bounds(best.timing)[1]:
                why = f"takes {least:.3g} ms at least on this machine, more than {best.option.title}"
                self._add(option, "not needed", why)
            elif self.out_of_time():
                self._add(option, "not reached", "time was up")
            else:
                verdict = self._judged(option)
                self.verdicts.append(verdict)
                if verdict.kind == "fits" and (best is None or verdict.timing.p50 < best.timing.p50):
                    best = verdict
        if best:
            self._decide(best)

    def _on_paper(self, option: Option) -> str:
        """Why an option cannot keep the limits, whatever a measurement would say."""
        limits = self.limits
        if limits.top1 is not None and option.top1 < limits.top1:
            return f"top-1 {option.top1:.2f} %, below {limits.top1:g}"
        if limits.mb is not None and option.megabytes > limits.mb:
            return f"{option.megabytes:.1f} MB of weights, above {limits.mb:g}"
        if limits.ms is not None and (least := self.floor(option)) > limits.ms:
            return f"{least:.3g} ms at least on this machine, above {limits.ms:g}"
        return ""

    def _judged(self, option: Option) -> Verdict:
        """Measured, and again more thoroughly while the limit lies within the interval."""
        limit = self.limits.ms
        for effort in (1, 3):
            timing = self.measure([option], effort)[0]
            if math.isnan(timing.p50):
                return Verdict(option, "rejected", f"cannot be run here: {timing.reason}")
            low, high = bounds(timing)
            if limit is None or high * (1 + DRIFT) <= limit:
                return Verdict(option, "fits", "keeps the limits", timing)
            if low > limit:
                return Verdict(option, "rejected", f"{timing.p50:.3g} ms measured, above {limit:g}", timing)
        why = f"{timing.p50:.3g} ms measured ({low:.3g} to {high:.3g}), not a tenth below {limit:g}, so not "
        why += "to be relied on"
        return Verdict(option, "rejected", why, timing)

    def _decide(self, best: Verdict) -> None:
        """Measure what lies near the fastest side by side, and take the most accurate of those alike."""
        reach = best.timing.p50 * (1 + CLOSE)
        near = [v for v in self.verdicts if v.kind == "fits" and bounds(v.timing)[0] <= reach]
        if len(near) > 1:
            timings = self.measure([v.option for v in near], 3)
            near = [replace(v, timing=timing) for v, timing in zip(near, timings, strict=True)]
        limit = self.limits.ms or math.inf
        kept = [v for v in near if bounds(v.timing)[1] * (1 + DRIFT) <= limit] or [best]
        fastest = min(kept, key=lambda v: v.timing.p50)
        alike = [v for v in kept if bounds(v.timing)[0] <= bounds(fastest.timing)[1]]
        chosen = min(alike, key=lambda v: (-v.option.top1, v.option.parameters, v.option.title))
        if len(alike) > 1:
            others = ", ".join(v.option.title for v in alike if v is not chosen)
            why = f"the most accurate of the {len(alike)} fastest, whose times do not differ ({others})"
        else:
            why = "the fastest that keeps the limits"
        again = {v.option: v for v in near}
        again[chosen.option] = replace(chosen, kind="chosen", reason=why)
        self.verdicts = [again.get(v.option, v) for v in self.verdicts]

    def _add(self, option: Option, kind: str, reason: str) -> None:
        self.verdicts.append(Verdict(option, kind, reason))
