"""When to stop measuring: turns until the median holds still, on nothing but times.

Networks that are compared run round after round, each round in a new order, so that a machine which slows down
slows all of them. A turn is some 50 ms of runs of one network; its median is one observation, because runs that
follow each other are not independent. The figure is the median of the turns with its order-statistic interval.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from statistics import median

import torch

TURN = 0.05  # seconds of runs that make one observation
FEWEST = 6  # turns: of fewer, not even the whole range is a 95 % interval of the median
ALIKE = 0.1  # warm-up ends when the last runs are within a tenth of each other ...
LAST = 4  # ... so many of them ...
WARM_SHARE = 0.25  # ... or when it has used a quarter of the time
SEED = 20150000  # of the order of turns


class Lane:
    """The times of one candidate.

    Args:
        once: makes one run and returns its seconds.
        limit: seconds of running time.
        spread: at which the figure is settled.

    Attributes:
        spent: seconds of all runs.
        warmup: runs that are not counted.
        times: seconds of those that are.
        medians: of the turns, in seconds.
        failure: what went wrong; empty where nothing did.
    """

    def __init__(self, once: Callable[[], float], limit: float, spread: float) -> None:
        self.once = once
        self.limit = limit
        self.spread = spread
        self.spent = 0.0
        self.warmup = 0
        self.times: list[float] = []
        self.medians: list[float] = []
        self.failure = ""

    def warm(self) -> None:
        """Run until the last runs are alike, or a quarter of the time is used."""
        recent: list[float] = []
        with self._failing():
            while len(recent) < LAST or max(recent) > (1 + ALIKE) * min(recent):
                recent = [*recent[1 - LAST :], self._run()]
                self.warmup += 1
                if self.spent >= WARM_SHARE * self.limit:
                    break

    def turn(self, alone: bool) -> None:
        """Some runs, their median one observation.

        Args:
            alone: nothing else ran since the last turn; otherwise the first run of a short one is not counted,
                because it finds the caches full of another network's numbers.
        """
        length = min(TURN, self.limit / FEWEST)
        with self._failing():
            taken = [self._run()]
            if not alone and taken[0] < length:
                taken = []
                self.warmup += 1
            while not taken or sum(taken) < length:
                taken.append(self._run())
            self.times += taken
            self.medians.append(median(taken))

    @property
    def settled(self) -> bool:
        """Whether the median's interval is as narrow as asked."""
        low, high = median_interval(self.medians)
        return high - low <= 2 * self.spread * median(self.medians) if self.medians else False

    @property
    def over(self) -> bool:
        """Whether its time is used up, or it failed."""
        return bool(self.failure) or (self.spent >= self.limit and bool(self.medians))

    def _run(self) -> float:
        seconds = self.once()
        self.spent += seconds
        return seconds

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """A network may fail in as many ways as there are libraries; the others go on."""
        try:
            yield
        except Exception as error:
            self.failure = _failure(error)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """(x_(k), x_(n+1-k)) with the greatest k for which P(Binomial(n, 1/2) < k) <= 2.5 %.

    Args:
        values: independent observations, in any order.

    Returns:
        The 95 % interval of their median; not-a-number for fewer than 6.

    Source: David and Nagaraja, "Order Statistics", 2003, section 7.1.
    """
    k = _rank(len(values))
    if k == 0:
        return math.nan, math.nan
    ordered = sorted(values)
    return ordered[k - 1], ordered[-k]


@cache
def _rank(n: int) -> int:
    tail, k = 0, 0
    while (tail := tail + math.comb(n, k)) * 40 <= 2**n:
        k += 1
    return k


def take_turns(
    lanes: Sequence[Lane],
    *,
    on_turn: Callable[[int], None] = lambda index: None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Warm all up, then give turns in rounds, each in a new order, until all are settled or out of time.

    One that is settled runs on while others are not, so that what disturbs the machine then disturbs all.

    Args:
        lanes: the candidates' times, which this fills.
        on_turn: is told the index of the lane that ran.
        stop: asked before each turn whether to end now.
    """
    order = random.Random(SEED)
    for index, lane in enumerate(lanes):
        if stop():
            return
        if not lane.failure:
            lane.warm()
            on_turn(index)
    previous = len(lanes) - 1
    while any(not (lane.settled or lane.over) for lane in lanes):
        going = [index for index, lane in enumerate(lanes) if not lane.over]
        order.shuffle(going)
        for index in going:
            if stop():
                return
            lanes[index].turn(alone=index == previous)
            previous = index
            on_turn(index)


def _failure(error: Exception) -> str:
    """Why a network did not run, in one line."""
    first = str(error).strip().split("\n")[0]
    short = ("can't allocate memory", "not enough memory", "out of memory", "could not create a memory")
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(s in str(error) for s in short):
        return "too little memory for this batch; take a smaller one"
    return f"it fails: {first or type(error).__name__}"
