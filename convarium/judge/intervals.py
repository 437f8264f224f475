"""A share of pictures, and how surely so few of them can tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from convarium.errors import ArgumentError


@dataclass(frozen=True)
class Proportion:
    """correct / count, with the Wilson interval around it.

    Args:
        value: the share, 0 to 1.
        low: lower end of the interval, 0 to 1.
        high: upper end of the interval, 0 to 1.
        correct: pictures that were right.
        count: pictures that were judged.
    """

    value: float
    low: float
    high: float
    correct: int
    count: int

    @classmethod
    def of(cls, correct: int, count: int, confidence: float = 0.95) -> Proportion:
        """The share of `correct` in `count`, with its Wilson score interval.

        Args:
            correct: pictures that were right, 0 to `count`.
            count: pictures that were judged, at least 1.
            confidence: how often such an interval holds the true share, between 0 and 1.

        Returns:
            The share and its interval; the interval is never empty, not even at 0 % and at 100 %.

        Raises:
            ArgumentError: nothing was judged, or more were right than were judged.

        Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
        """
        if count < 1:
            raise ArgumentError(f"a share of {count} pictures has no value; judge at least one picture")
        if not 0 <= correct <= count:
            raise ArgumentError(f"{correct} right of {count} judged; allowed are 0 to {count}")
        if not 0 < confidence < 1:
            raise ArgumentError(f"a confidence of {confidence}; allowed is between 0 and 1, as in 0.95")
        from scipy.stats import binomtest  # half a second to import, and loading a model needs none of it

        interval = binomtest(int(correct), int(count)).proportion_ci(confidence, method="wilson")
        # At 0 % and 100 % rounding may put an end a hair outside of what it must hold.
        value = correct / count
        low, high = min(float(interval.low), value), max(float(interval.high), value)
        return cls(value, max(low, 0.0), min(high, 1.0), int(correct), int(count))

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Proportion:
        """The proportion that `to_dict` wrote."""
        return cls(float(d["value"]), float(d["low"]), float(d["high"]), int(d["correct"]), int(d["count"]))

    def to_dict(self) -> dict[str, float | int]:
        """The five fields, ready for JSON."""
        return asdict(self)

    @property
    def digits(self) -> int:
        """Digits after the point at which a percentage still shows one picture more or less."""
        return 1 if self.count <= 1000 else 2

    def __str__(self) -> str:
        value, low, high = (f"{100 * x:.{self.digits}f}" for x in (self.value, self.low, self.high))
        return f"{value} % ({low} to {high}, {self.correct} of {self.count})"
