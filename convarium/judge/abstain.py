"""When a classifier should say "none of these": only what it is sure enough of is answered.

Coverage is the share of pictures that are answered, risk the share of these that are answered wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convarium.errors import ArgumentError
from convarium.judge.intervals import Proportion
from convarium.judge.metrics import checked


@dataclass(frozen=True)
class CoverageRisk:
    """Risk at every coverage that a threshold can give.

    Args:
        coverages: rising, up to 1.
        risks: the share of wrong answers at each.
        confidences: falling; at each coverage, the least confidence among the answers.
        aurc: mean risk over all coverages; 0 is best.
        excess: how much of it better confidence could save: a classifier with the same mistakes that is least sure
            of just these has 0.
    """

    coverages: tuple[float, ...]
    risks: tuple[float, ...]
    confidences: tuple[float, ...]
    aurc: float
    excess: float

    def at(self, threshold: float) -> tuple[float, float] | None:
        """Coverage and risk where a picture is answered above this confidence; None where none is."""
        answered = sum(confidence > threshold for confidence in self.confidences)
        return (self.coverages[answered - 1], self.risks[answered - 1]) if answered else None


@dataclass(frozen=True)
class Threshold:
    """From which confidence on a picture is answered.

    Args:
        value: answered where the largest probability is above it: 0 answers all, 1 none.
        coverage: share of the pictures it was chosen on that is answered, with its interval.
        risk: share of these answers that is wrong, with its interval; None where nothing is answered.
        asked: what was asked for, as "risk 0.05" or "coverage 0.9".
        met: whether that was reached.
    """

    value: float
    coverage: Proportion
    risk: Proportion | None
    asked: str
    met: bool

    @property
    def sentence(self) -> str:
        """What it does, in plain words."""
        if not self.met and self.asked.startswith("risk"):
            most = 100 * float(self.asked.split()[1])
            return f"No threshold brings the share of wrong answers down to {most:g} %; nothing would be answered."
        return (
            f"Answers with a probability above {self.value:.3f} cover {self.coverage} of the pictures it was chosen "
            f"on; {self.risk} of these answers are wrong."
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "value": self.value,
            "coverage": self.coverage.to_dict(),
            "risk": self.risk.to_dict() if self.risk else None,
            "asked": self.asked,
            "met": self.met,
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Threshold:
        """The threshold that `to_dict` wrote."""
        return cls(
            value=float(d["value"]),
            coverage=Proportion.from_dict(d["coverage"]),
            risk=Proportion.from_dict(d["risk"]) if d["risk"] else None,
            asked=str(d["asked"]),
            met=bool(d["met"]),
        )


def answered(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Which pictures are answered.

    Args:
        probabilities: (N, K), a row a picture.
        threshold: a `Threshold`'s value.

    Returns:
        bool (N,).
    """
    return np.asarray(probabilities).max(axis=-1) > threshold


def coverage_risk(probabilities: np.ndarray, labels: np.ndarray) -> CoverageRisk:
    """How the share of wrong answers falls as unsure pictures are left unanswered.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1.
        labels: (N,), the index of each picture's true class, 0 to K - 1.

    Returns:
        A point for each confidence that occurs; pictures of the same confidence are answered together.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or the rows are no probabilities.

    Source: El-Yaniv and Wiener, "On the foundations of noise-free selective classification", 2010; Geifman, Uziel
        and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers", 2019 (the area).
    """
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), np.shape(probabilities)[-1])
    count = len(p)
    levels, kept, wrong = _levels(p, truth)
    every = np.arange(1, count + 1)
    # Within pictures of one confidence the order is chance: mistakes are spread evenly over them.
    aurc = float((np.interp(every, np.r_[0, kept], np.r_[0, wrong]) / every).mean())
    best = float((np.maximum(0, every - (count - wrong[-1])) / every).mean())
    return CoverageRisk(
        coverages=tuple((kept / count).tolist()),
        risks=tuple((wrong / kept).tolist()),
        confidences=tuple(levels.tolist()),
        aurc=aurc,
        excess=max(0.0, aurc - best),
    )


def fit_threshold(
    probabilities: np.ndarray,
    labels: np.ndarray,
    *,
    risk: float | None = None,
    coverage: float | None = None,
) -> Threshold:
    """Choose the confidence from which on pictures are answered.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1; of pictures that were not trained on.
        labels: (N,), the index of each picture's true class, 0 to K - 1.
        risk: the largest share of answers that may be wrong; 0.05 where neither is given.
        coverage: instead, the least share of pictures to answer.

    Returns:
        The threshold with the largest coverage among those with that risk, or with the least risk among those with
        that coverage. Its intervals say how far other pictures may differ; as it was chosen on these, the risk on
        others is a little larger.

    Raises:
        ArgumentError: both were given or one is no share; shapes do not fit, or the rows are no probabilities.

    Source: El-Yaniv and Wiener 2010; Geifman and El-Yaniv, "Selective classification for deep neural networks",
        2017 (the largest probability as confidence).
    """
    if risk is not None and coverage is not None:
        raise ArgumentError("risk and coverage were both given; a threshold can be chosen for one of them")
    most = 0.05 if risk is None else risk
    for name, share in (("risk", risk), ("coverage", coverage)):
        if share is not None and not 0 <= share <= 1:
            raise ArgumentError(f"{name} = {share!r}; it is a share of pictures, from 0 to 1, as 0.05")
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), np.shape(probabilities)[-1])
    count = len(p)
    levels, kept, wrong = _levels(p, truth)
    values, risks = _below(levels), wrong / kept
    chosen: int | None
    if coverage is None:
        asked, fits = f"risk {most:g}", np.flatnonzero(risks <= most + 1e-12)
        chosen = int(fits[-1]) if len(fits) else None
    else:
        asked, fits = f"coverage {coverage:g}", np.flatnonzero(kept >= coverage * count - 1e-9)
        chosen = int(fits[risks[fits] == risks[fits].min()][-1])
    if chosen is None:
        return Threshold(1.0, Proportion.of(0, count), None, asked, False)
    return Threshold(
        value=float(values[chosen]),
        coverage=Proportion.of(int(kept[chosen]), count),
        risk=Proportion.of(int(wrong[chosen]), int(kept[chosen])),
        asked=asked,
        met=True,
    )


def _levels(p: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each confidence that occurs, falling, with the pictures that have it or more, and the mistakes among them."""
    confidence = p.max(axis=1)
    wrong = p.argmax(axis=1) != truth
    levels, place = np.unique(-confidence, return_inverse=True)
    kept = np.cumsum(np.bincount(place))
    return -levels, kept, np.cumsum(np.bincount(place, wrong)).astype(int)


def _below(levels: np.ndarray) -> np.ndarray:
    """A threshold between each level and the next lower one; 0 below the last."""
    lower = np.r_[levels[1:], 0.0]
    middle = (levels + lower) / 2
    middle[-1] = 0.0
    return np.where(middle < levels, middle, lower)
