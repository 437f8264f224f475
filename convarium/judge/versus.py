"""Two runs on the same pictures: how much better one is, how surely, and a sentence that says no more than that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convarium.errors import DataError
from convarium.judge.answers import Answer
from convarium.judge.intervals import Proportion
from convarium.judge.paired import Paired, mcnemar

DRAWS = 10_000
"""Resamples of the bootstrap."""

LEAST = 6
"""Fewer pictures on which two differ show nothing at 5 %: all five on one side come by chance with p = 0.0625."""


@dataclass(frozen=True)
class Versus:
    """What the pictures that two runs were both judged on say.

    Args:
        names: of the runs.
        first: accuracy of the first, with its interval.
        second: accuracy of the second.
        paired: the test on the pictures that only one got right.
        low: lower end of the 95 % interval of the difference in accuracy, first minus second, -1 to 1.
        high: its upper end.
        left_out: pictures that only the first and only the second was judged on.
        notes: what a reader must know besides.
    """

    names: tuple[str, str]
    first: Proportion
    second: Proportion
    paired: Paired
    low: float
    high: float
    left_out: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdict, in plain words."""
        digits = self.first.digits
        a, b = self.names
        count, p = f"{self.paired.count:,} pictures", self.paired.p
        chance = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
        if not self.paired.only_first + self.paired.only_second:
            return f"No difference is shown: {a} and {b} are right on the same {self.first.correct:,} of {count}."
        low, high = 100 * self.low, 100 * self.high
        points = 100 * self.paired.difference
        shares = f"{a} {100 * self.first.value:.{digits}f} %, {b} {100 * self.second.value:.{digits}f} %"
        if self.paired.shown:
            if points < 0:
                low, high = -high, -low
            known = f"95 %: {low:.{digits}f} to {high:.{digits}f}; {chance}"
            better = a if points > 0 else b
            return f"{better} is better by {abs(points):.{digits}f} points ({known}): {shares} of {count}."
        known = f"{points:+.{digits}f} points, 95 %: {low:+.{digits}f} to {high:+.{digits}f}; {chance}"
        return f"No difference is shown: {shares} of {count} ({known})."

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "names": list(self.names),
            "first": self.first.to_dict(),
            "second": self.second.to_dict(),
            "pictures": self.paired.count,
            "only_first_right": self.paired.only_first,
            "only_second_right": self.paired.only_second,
            "difference": self.paired.difference,
            "low": self.low,
            "high": self.high,
            "p": self.paired.p,
            "shown": self.paired.shown,
            "left_out": list(self.left_out),
            "sentence": self.sentence,
            "notes": list(self.notes),
        }


def compare_runs(
    first: Sequence[Answer],
    second: Sequence[Answer],
    names: tuple[str, str] = ("A", "B"),
    *,
    common: bool = False,
    seed: int = 0,
) -> Versus:
    """Compare two runs by their answers on the same pictures.

    Args:
        first: answers of one run.
        second: answers of the other, in any order.
        names: of the two, for the sentence.
        common: compare on the pictures that both were judged on, where each was judged on others too.
        seed: of the bootstrap.

    Returns:
        McNemar's exact test, and the interval of the difference by a paired bootstrap over pictures.

    Raises:
        DataError: the pictures are not the same, or their classes are not.

    Source: McNemar 1947; Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.
    """
    pairs = _pairs(first, second)
    a, b = names
    alone = len(first) - len(pairs), len(second) - len(pairs)
    if not pairs:
        raise DataError(
            f"{a} and {b} have no picture in common ({len(first):,} and {len(second):,}); judge both on the same part "
            "of the same data, as with `convarium evaluate`"
        )
    if any(alone) and not common:
        raise DataError(
            f"{a} was judged on {len(first):,} pictures and {b} on {len(second):,}, of which {len(pairs):,} are the "
            "same; compare on these with --common, or judge both on the same pictures"
        )
    _same_classes(pairs, names)
    paired = mcnemar([x.right for x, _ in pairs], [y.right for _, y in pairs])
    low, high = _interval(paired, seed)
    notes = []
    if any(alone):
        notes.append(
            f"Left out: {alone[0]:,} pictures that only {a} was judged on, {alone[1]:,} that only {b} was."
        )
    if not all(x.sha256 and y.sha256 for x, y in pairs):
        notes.append("Pictures were matched by name; their content was not kept to compare.")
    differ = paired.only_first + paired.only_second
    if 0 < differ < LEAST:
        notes.append(
            f"Only {differ} of the pictures tell the two apart; no difference is shown by fewer than {LEAST}."
        )
    return Versus(
        names=names,
        first=Proportion.of(sum(x.right for x, _ in pairs), len(pairs)),
        second=Proportion.of(sum(y.right for _, y in pairs), len(pairs)),
        paired=paired,
        low=low,
        high=high,
        left_out=alone,
        notes=tuple(notes),
    )


def _pairs(first: Sequence[Answer], second: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Answers on the same picture: of the same name where the content does not differ, else of the same content."""
    named = {y.picture: y for y in second}
    pairs = {
        x.picture: y
        for x in first
        if (y := named.get(x.picture)) and (not x.sha256 or not y.sha256 or x.sha256 == y.sha256)
    }
    taken = {y.picture for y in pairs.values()}
    alike: dict[str, list[Answer]] = defaultdict(list)
    for y in second:
        if y.sha256 and y.picture not in taken:
            alike[y.sha256].append(y)
    for x in first:
        if x.picture not in pairs and x.sha256 and alike[x.sha256]:
            pairs[x.picture] = alike[x.sha256].pop(0)
    return [(x, pairs[x.picture]) for x in first if x.picture in pairs]


def _same_classes(pairs: Sequence[tuple[Answer, Answer]], names: tuple[str, str]) -> None:
    other = [(x, y) for x, y in pairs if x.truth != y.truth]
    if not other:
        return
    x, y = other[0]
    of_a, of_b = {x.truth for x, _ in pairs}, {y.truth for _, y in pairs}
    a, b = names
    if of_a != of_b:
        raise DataError(
            f"the class names differ: only {a} has {_listed(of_a - of_b)}, only {b} has {_listed(of_b - of_a)}; "
            "runs can be compared where both learnt the same classes"
        )
    raise DataError(
        f"{len(other):,} of {len(pairs):,} pictures have another true class in {b} than in {a}, as {x.picture} "
        f"({x.truth}, {y.truth}): labels changed between the runs; judge both again on the same labels"
    )


def _listed(names: set[str]) -> str:
    some = sorted(names)
    return ", ".join(map(repr, some[:4])) + (f" and {len(some) - 4} more" if len(some) > 4 else "") or "none"


def _interval(paired: Paired, seed: int) -> tuple[float, float]:
    """The 95 % interval of the difference.

    A resample of pictures holds a multinomial number of each kind, so that the kinds are drawn in place of pictures.
    """
    count = paired.count
    differ = paired.only_first, paired.only_second
    if not any(differ):
        # Every resample is alike. With 95 % confidence the two differ on less than this share of all pictures.
        most = 1 - 0.05 ** (1 / count)
        return -most, most
    less, more = sorted(differ)
    kinds = np.array([more, less, count - more - less]) / count
    drawn = np.random.default_rng(seed).multinomial(count, kinds, DRAWS)
    gains = (drawn[:, 0] - drawn[:, 1]) * (
        1 if more == differ[0] else -1
    )  # the same whichever run comes first
    low, high = np.quantile(gains / count, (0.025, 0.975))
    return float(low), float(high)
