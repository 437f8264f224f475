"""Whether probabilities mean what they say, and the one number that mends most of it.

Confidence is the probability given to the class that was said. It is calibrated where, of all pictures named
with a confidence of 80 %, 80 % are named rightly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from convarium.errors import ArgumentError
from convarium.judge.intervals import Proportion
from convarium.judge.metrics import checked

DRAWS = 1000
"""Resamples of a bootstrap."""

SMALLEST = 50
"""Below this many pictures a temperature is called vague, in words."""

COLDEST, HOTTEST = 0.25, 10.0
"""Temperatures that are tried: a network without a mistake would be sharpened without end."""


@dataclass(frozen=True)
class Bin:
    """The pictures whose confidence lies in a range.

    Args:
        low: end of the range, not part of it.
        high: the other end, part of it.
        confidence: mean of these pictures; None where there is none.
        accuracy: share of them that was named rightly, with its interval; None where there is none.
    """

    low: float
    high: float
    confidence: float | None
    accuracy: Proportion | None

    @property
    def count(self) -> int:
        """Number of its pictures."""
        return self.accuracy.count if self.accuracy else 0


@dataclass(frozen=True)
class Reliability:
    """How far confidence lies from accuracy.

    Args:
        bins: ranges of confidence, from 0 to 1.
        ece: expected calibration error: the distance of confidence and accuracy, averaged over pictures.
        ece_low: lower end of its 95 % bootstrap interval.
        ece_high: upper end.
        ece_chance: what a calibrated classifier with the same confidences stays below in 95 of 100 draws.
        mce: the largest distance in any bin.
        brier: mean squared distance of the probabilities from the truth, summed over classes: 0 to 2.
        confidence: mean of all pictures.
        accuracy: share of all pictures that was named rightly.
        count: pictures.
    """

    bins: tuple[Bin, ...]
    ece: float
    ece_low: float
    ece_high: float
    ece_chance: float
    mce: float
    brier: float
    confidence: float
    accuracy: float
    count: int

    @property
    def sentence(self) -> str:
        """What it means, in plain words."""
        gap = self.confidence - self.accuracy
        tells = f"Confidence differs from accuracy by {100 * self.ece:.1f} points on average"
        if self.ece <= self.ece_chance:
            return (
                f"{tells}, no more than chance alone gives on {self.count:,} pictures (up to "
                f"{100 * self.ece_chance:.1f}): no lack of calibration is shown."
            )
        tells += f" (95 %: {100 * self.ece_low:.1f} to {100 * self.ece_high:.1f})"
        if abs(gap) < self.ece / 2:
            return f"{tells}, sometimes above and sometimes below."
        way = "surer than it is right" if gap > 0 else "right more often than it is sure"
        return f"{tells}: the classifier is {way}."

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Temperature:
    """The number that scores are divided by before softmax, so that confidence fits accuracy.

    Args:
        value: above 1 makes a classifier less sure, below 1 surer; which class is said never changes.
        nll_before: mean cross-entropy on the pictures it was fitted on, in nats, at temperature 1.
        nll_after: the same at `value`.
        ece_before: calibration error on these pictures at temperature 1.
        ece_after: the same at `value`.
        count: these pictures.
        note: what makes the value doubtful; empty where nothing does.
    """

    value: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    count: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Temperature:
        """The temperature that `to_dict` wrote."""
        return cls(**d)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, seed: int = 0) -> Reliability:
    """Compare confidence with accuracy, in bins of equal width.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1.
        labels: (N,), the index of each picture's true class, 0 to K - 1.
        bins: at least 1.
        seed: of the bootstrap.

    Returns:
        The bins and the errors. A binned error is too large where pictures are few, as chance alone keeps accuracy
        from confidence. Its interval (basic bootstrap) takes that off again, and begins at 0 where a calibrated
        classifier would give as much.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or the rows are no probabilities.

    Source: Guo et al., "On calibration of modern neural networks", 2017, section 2; Brier 1950; Broecker and
        Smith, "Increasing the reliability of reliability diagrams", 2007 (what chance gives).
    """
    if not isinstance(bins, int) or bins < 1:
        raise ArgumentError(f"bins = {bins!r}; it must be a whole number of at least 1")
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), np.shape(probabilities)[-1])
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    place = _places(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    sure = np.bincount(place, confidence, bins)
    hits = np.bincount(place, right, bins)
    gaps = np.abs(sure - hits)
    ece = float(gaps.sum() / len(p))
    low, high, chance = _drawn(confidence, right, place, bins, seed)
    told = tuple(
        Bin(
            k / bins,
            (k + 1) / bins,
            float(sure[k] / n) if n else None,
            Proportion.of(int(hits[k]), int(n)) if n else None,
        )
        for k, n in enumerate(counts)
    )
    aim = np.zeros_like(p)
    aim[np.arange(len(p)), truth] = 1
    return Reliability(
        bins=told,
        ece=ece,
        ece_low=min(ece, max(0.0, 2 * ece - high)) if ece > chance else 0.0,
        ece_high=max(ece, 2 * ece - low),
        ece_chance=chance,
        mce=float((gaps / np.maximum(counts, 1)).max()),
        brier=float(((p - aim) ** 2).sum(axis=1).mean()),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
        count=len(p),
    )


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> Temperature:
    """Find the temperature at which the truth is likeliest.

    Args:
        scores: (N, K), logits or logarithms of probabilities, which give the same temperature: they differ by a
            constant a row, which softmax takes off.
        labels: (N,), the index of each picture's true class, 0 to K - 1; pictures that were not trained on.

    Returns:
        The temperature, from 0.25 to 10, with what it changes on these pictures; a `note` where the pictures are
        few, or do not bound it.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or scores are not numbers.

    Source: Guo et al., "On calibration of modern neural networks", 2017, section 4.2.
    """
    scores = np.maximum(np.asarray(scores, np.float64), -1e4)  # a probability of 0 has no finite logarithm
    if not np.isfinite(scores).all():
        raise ArgumentError("scores are not all numbers; training diverged, or they are no logits")
    before, truth = checked(softmax(scores), np.asarray(labels), np.shape(scores)[-1])
    from scipy.optimize import minimize_scalar  # slow to import

    own = np.arange(len(truth)), truth

    def nll(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(axis=1)
        return float((np.log(np.exp(scaled - top[:, None]).sum(axis=1)) + top - scaled[own]).mean())

    ends = float(np.log(COLDEST)), float(np.log(HOTTEST))
    found = minimize_scalar(nll, bounds=ends, method="bounded", options={"xatol": 1e-6}).x
    # The search never reaches its ends, and a flat loss leaves it anywhere.
    best = min((0.0, *ends, float(found)), key=nll)
    value = float(np.exp(best))
    wrong = int((before.argmax(axis=1) != truth).sum())
    notes = []
    if best in ends:
        notes.append(
            f"it stands at the end of what is tried ({COLDEST:g} to {HOTTEST:g})"
            + ("; without a mistake nothing bounds it" if not wrong else "")
        )
    if len(truth) < SMALLEST:
        notes.append(f"{len(truth)} pictures tell it only vaguely")
    return Temperature(
        value=value,
        nll_before=nll(0.0),
        nll_after=nll(best),
        ece_before=_error(before, truth),
        ece_after=_error(softmax(scores / value), truth),
        count=len(truth),
        note="; ".join(notes),
    )


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities as they would be with the scores divided by a temperature.

    Args:
        probabilities: (N, K), each row summing to 1.
        temperature: above 0.

    Returns:
        float64 (N, K); what was 0 stays 0.

    Raises:
        ArgumentError: the temperature is not above 0.
    """
    if not temperature > 0:
        raise ArgumentError(f"a temperature of {temperature!r}; it must be above 0")
    with np.errstate(divide="ignore"):
        return softmax(np.log(np.asarray(probabilities, np.float64)) / temperature)


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(scores) divided by its sum, row by row.

    Args:
        scores: (N, K).

    Returns:
        float64 (N, K).
    """
    scores = np.asarray(scores, np.float64)
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def _places(confidence: np.ndarray, bins: int) -> np.ndarray:
    """The bin of each picture."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def _error(p: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error alone."""
    confidence = p.max(axis=1)
    gap = confidence - (p.argmax(axis=1) == truth)
    return float(np.abs(np.bincount(_places(confidence, bins), gap)).sum() / len(p))


def _drawn(
    confidence: np.ndarray, right: np.ndarray, place: np.ndarray, bins: int, seed: int
) -> tuple[float, float, float]:
    """The calibration error over resamples: its 2.5 % and 97.5 % points, and 95 % of what chance alone gives."""
    draw = np.random.default_rng(seed)
    count, gap = len(confidence), confidence - right
    again, chance = np.empty(DRAWS), np.empty(DRAWS)
    for i in range(DRAWS):
        some = draw.integers(0, count, count)
        again[i] = np.abs(np.bincount(place[some], gap[some], bins)).sum() / count
        luck = confidence - (draw.random(count) < confidence)
        chance[i] = np.abs(np.bincount(place, luck, bins)).sum() / count
    low, high = np.quantile(again, (0.025, 0.975))
    return float(low), float(high), float(np.quantile(chance, 0.95))
