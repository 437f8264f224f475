"""What a network gives to pictures, and batches of it put together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class Given(NamedTuple):
    """What a network gives to a batch.

    scores (N, classes) float64, before softmax; probabilities (N, classes) float64; features (N, D) float32, what the
    classifier was given, averaged over the plane where it is one.
    """

    scores: np.ndarray
    probabilities: np.ndarray
    features: np.ndarray


def joined(batches: Iterable[Given]) -> Given:
    """All batches as one."""
    return Given(*(np.concatenate(values) for values in zip(*batches, strict=True)))
