"""Two classifiers on the same pictures: is one better, or is it chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from convarium.errors import ArgumentError


@dataclass(frozen=True)
class Paired:
    """What the pictures on which two classifiers disagree say.

    Args:
        only_first: pictures that only the first got right.
        only_second: pictures that only the second got right.
        count: pictures that both were asked about.
        p: how often a difference of this size or larger would come by chance between equal classifiers.
    """

    only_first: int
    only_second: int
    count: int
    p: float

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, -1 to 1."""
        return (self.only_first - self.only_second) / self.count

    @property
    def shown(self) -> bool:
        """Whether a difference is shown at the usual level of 5 %."""
        return self.p < 0.05


def mcnemar(first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray) -> Paired:
    """McNemar's exact test: among the pictures that only one got right, is either favoured?

    Args:
        first: (N,), whether the first classifier was right, picture by picture.
        second: (N,), the same of the second, for the same pictures in the same order.

    Returns:
        The counts and the two-sided p of the binomial test.

    Raises:
        ArgumentError: no pictures, or not the same number.

    Source: McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
    """
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ArgumentError(
            f"answers of shapes {a.shape} and {b.shape}; a paired test needs both for the same pictures, at least one"
        )
    from scipy.stats import binomtest  # half a second to import

    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    p = binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    return Paired(only_first, only_second, len(a), float(p))
