"""Pictures of another kind than those trained on: a score that is high for what is familiar, and where it ends.

Two scores. *Energy* needs only the logits that every forward pass gives. *Features* compares the features before
the classifier with what training pictures had there. Measured with MobileNetV2's ImageNet features under a linear
classifier of five flowers (600 pictures to train, 300 others, at 160 px): sign-language photographs are told from
flowers with an AUROC of 0.90 by energy (0.88 by the largest logit, 0.83 by the largest probability) and 0.99 by
features; a flower of a class left out of training with 0.73 (0.73, 0.73) and 0.69. So features find what is of
another kind; what is nearly of this kind neither finds surely.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from convarium.errors import ArgumentError
from convarium.judge.intervals import Proportion

CENTRES = 16
"""Directions that features are compared with: 16 of 2048 numbers are 87 kB in a checkpoint, 64 were no better."""

ENOUGH = 4_000
"""Training pictures that the directions are found from; of more, these are drawn."""


@dataclass(frozen=True)
class Outlier:
    """Where the familiar ends.

    Args:
        kind: "energy" or "features".
        threshold: a picture is an outlier where its score is below this.
        kept: share of the validation pictures that are not, with its interval.
        centres: for features, float32 (C, D), each of length 1; empty for energy.
    """

    kind: str
    threshold: float
    kept: Proportion
    centres: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32), repr=False)

    def score(self, values: np.ndarray) -> np.ndarray:
        """How familiar pictures are, higher for more.

        Args:
            values: (N, K) logits for energy, (N, D) features before the classifier for features.

        Returns:
            float64 (N,): the energy, or the cosine to the nearest centre.

        Raises:
            ArgumentError: the width is not that of the features it was fitted on.
        """
        values = _rows(values, "features" if self.kind == "features" else "logits")
        return energy(values) if self.kind == "energy" else _nearest(values, self.centres)

    def outside(self, values: np.ndarray) -> np.ndarray:
        """Which pictures are of another kind than those trained on.

        Args:
            values: as for `score`.

        Returns:
            bool (N,).
        """
        return self.score(values) < self.threshold

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON; the centres as base64 of float16."""
        told = {"kind": self.kind, "threshold": self.threshold, "kept": self.kept.to_dict()}
        if self.kind == "energy":
            return told
        coded = base64.b64encode(self.centres.astype("<f2").tobytes()).decode()
        return {**told, "width": self.centres.shape[1], "centres": coded}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Outlier:
        """What `to_dict` wrote, also after a way through JSON.

        Raises:
            ArgumentError: it is damaged.
        """
        try:
            kind, threshold, kept = str(d["kind"]), float(d["threshold"]), Proportion.from_dict(d["kept"])
            if kind == "energy":
                return cls(kind, threshold, kept)
            flat = np.frombuffer(base64.b64decode(d["centres"], validate=True), "<f2")
            return cls(kind, threshold, kept, flat.reshape(-1, int(d["width"])).astype(np.float32))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise ArgumentError(f"this is no description of an outlier score ({error})") from error


def energy(logits: np.ndarray) -> np.ndarray:
    """log of the sum of exp(logits), the negative of the free energy: high for familiar pictures.

    Args:
        logits: (N, K), before softmax. From probabilities it cannot be had: softmax takes it off.

    Returns:
        float64 (N,).

    Source: Liu et al., "Energy-based out-of-distribution detection", 2020, equation 4 at temperature 1.
    """
    logits = _rows(logits, "logits")
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


def fit_energy(logits: np.ndarray, keep: float = 0.95) -> Outlier:
    """The energy below which a picture counts as an outlier; the score by default.

    Args:
        logits: (M, K) of validation pictures.
        keep: share of them that is to count as familiar, between 0 and 1.

    Returns:
        The score with its threshold.

    Raises:
        ArgumentError: no picture, numbers that are not finite, or no such share.
    """
    return _fitted("energy", energy(logits), keep)


def fit_outlier(training: np.ndarray, validation: np.ndarray, keep: float = 0.95, seed: int = 0) -> Outlier:
    """The cosine to the nearest of a few directions of training features below which a picture is an outlier.

    Args:
        training: (N, D), features before the classifier of pictures trained on.
        validation: (M, D), of pictures not trained on.
        keep: share of the validation pictures that is to count as familiar, between 0 and 1.
        seed: of the draw and of k-means.

    Returns:
        The score with its threshold and at most 16 directions, small enough for a checkpoint's metadata.

    Raises:
        ArgumentError: no picture, numbers that are not finite, widths that differ, or no such share.

    Source: after Sun et al., "Out-of-distribution detection with deep nearest neighbors", 2022 (features of
        length 1, distance to the nearest); here to the means of k-means in place of every picture.
    """
    known, others = _rows(training, "training features"), _rows(validation, "validation features")
    if known.shape[1] != others.shape[1]:
        raise ArgumentError(
            f"features of {known.shape[1]} numbers to train and of {others.shape[1]} to validate; want the same"
        )
    from sklearn.cluster import KMeans  # slow to import

    draw = np.random.default_rng(seed)
    some = known[draw.permutation(len(known))[:ENOUGH]] if len(known) > ENOUGH else known
    known = np.unique(_unit(some).astype(np.float32), axis=0)
    if len(known) > CENTRES:
        known = KMeans(CENTRES, n_init=1, max_iter=50, random_state=seed).fit(known).cluster_centers_
    # As a checkpoint will hold them, so that scores are the same before and after.
    centres = _unit(known).astype(np.float16).astype(np.float32)
    return _fitted("features", _nearest(others, centres), keep, centres)


def _fitted(kind: str, scores: np.ndarray, keep: float, centres: np.ndarray | None = None) -> Outlier:
    if not 0 < keep < 1:
        raise ArgumentError(f"keep = {keep!r}; it is a share between 0 and 1, as 0.95")
    ordered = np.sort(scores)
    threshold = float(ordered[int(np.floor((1 - keep) * len(ordered) + 1e-9))])
    kept = Proportion.of(int((scores >= threshold).sum()), len(scores))
    return Outlier(kind, threshold, kept) if centres is None else Outlier(kind, threshold, kept, centres)


def _nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    if features.shape[1] != centres.shape[1]:
        raise ArgumentError(
            f"features of {features.shape[1]} numbers; the outlier score was fitted on {centres.shape[1]}"
        )
    return (_unit(features) @ centres.T.astype(np.float64)).max(axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _rows(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size:
        raise ArgumentError(f"{what} of shape {values.shape}; want one row a picture, at least one")
    if not np.isfinite(values).all():
        raise ArgumentError(f"{what} are not all finite numbers; training diverged")
    return values
