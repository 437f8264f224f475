"""Whether two ways of running a classifier say the same, within what their numbers allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convarium.judge.scoring import softmax

EXACT = 1e-5
"""Relative difference (L2) of scores, and of features, that float32 may make: sums are formed in another order, and
each rounds to 6e-8. Ways that keep float32 differ by some 1e-6; one that quietly computes in fewer bits by 1e-3."""

TIE = 1e-4
"""Difference of a probability that a float32 way may make: 1e-5 of scores of some tens."""

SHORT = 0.05
"""Difference of a probability that numbers of 16 bits may make, of nineteen pictures in twenty. They keep 8 or 11 bits
of each number, and of photographs the probabilities then differ by a hundredth or two. A bound on the largest
difference would depend on how many pictures are compared."""

SHARE = 0.95
"""Of the pictures must stay within `SHORT`."""

ROWS = 0.1
"""Relative difference (L2) that numbers of 16 bits may make to features that another classifier will learn from. Such
differences are random, and it sums them away: with MobileNetV2's of 0.03, a probe on five flowers named the same 462 of
500 pictures rightly as in float32 (SqueezeNet's of 0.02: 430 the same, one each way)."""

LEAD = 0.2
"""Lead of the likeliest class over the second up to which numbers of 16 bits may make the second one the likeliest."""


@dataclass(frozen=True)
class Agreement:
    """How the answers of two ways agree.

    Args:
        pictures: compared.
        probability: largest difference of any class's.
        usual: that difference within which nineteen pictures in twenty stay.
        flips: pictures of which another class is the likeliest.
        margin: the largest lead of the reference's likeliest class over its second, of the flips; 0 without flips.
        scores: relative difference (L2).
        features: relative difference (L2).
        refused: why this is not agreement; empty where it is.
    """

    pictures: int
    probability: float
    usual: float
    flips: int
    margin: float
    scores: float
    features: float
    refused: str


def compare(
    expected: tuple[np.ndarray, np.ndarray],
    found: tuple[np.ndarray, np.ndarray],
    numbers: str,
    temperature: float | None = 1.0,
) -> Agreement:
    """Whether one way says what another says, within what its numbers allow.

    Args:
        expected: scores (N, classes) and features (N, D) of the plain way.
        found: the same of the other.
        numbers: "float32", or shorter ones.
        temperature: that scores are divided by before softmax; None where what is given as scores are features that
            will be kept, which have no probabilities: then 16 bits are held to `ROWS`.

    Returns:
        The comparison.
    """
    count = len(expected[0])
    shapes = [part.shape for part in (*expected, *found)]
    if shapes[:2] != shapes[2:]:
        nothing = (float("inf"), float("inf"), count, 1.0, float("inf"), float("inf"))
        return Agreement(count, *nothing, f"refused: shapes differ: {shapes[2:]}, expected {shapes[:2]}")
    if temperature is None:
        return _of_rows(expected[0], found[0], numbers)
    truth, said = (softmax(pair[0].astype(np.float64), temperature) for pair in (expected, found))
    finite = all(np.isfinite(part).all() for part in found)
    apart = np.abs(said - truth).max(axis=1) if finite else np.full(count, float("inf"))
    probability = float(apart.max())
    usual = float(np.quantile(apart, SHARE)) if finite else probability
    flipped = said.argmax(1) != truth.argmax(1)
    first_two = np.sort(truth, axis=1)[:, -2:]
    lead = first_two[:, -1] - first_two[:, 0] if truth.shape[1] > 1 else np.ones(count)
    margin = float(lead[flipped].max()) if flipped.any() else 0.0
    pairs = zip(expected, found, strict=True)
    scores, features = (_apart(*pair) if finite else float("inf") for pair in pairs)
    exact = numbers == "float32"
    most, lead_allowed = (probability, 2 * TIE) if exact else (usual, LEAD)
    allowed = TIE if exact else SHORT
    refused = ""
    if not finite:
        refused = "refused: gives what is not a number"
    elif exact and max(scores, features) > EXACT:
        part = "scores" if scores > EXACT else "features"
        refused = f"refused: {part} differ by {max(scores, features):.1e}, allowed is {EXACT:.0e}"
    elif most > allowed:
        refused = f"refused: probabilities differ by {most:.2g}, allowed is {allowed:.2g}"
        refused += "" if exact else f" of {SHARE:.0%} of the pictures"
    elif margin > lead_allowed:
        over = int((lead[flipped] > lead_allowed).sum())
        refused = f"refused: {over} flips at margins above {lead_allowed:.2g}"
    return Agreement(count, probability, usual, int(flipped.sum()), margin, scores, features, refused)


def _of_rows(expected: np.ndarray, found: np.ndarray, numbers: str) -> Agreement:
    rows = _apart(expected, found) if np.isfinite(found).all() else float("inf")
    allowed = EXACT if numbers == "float32" else ROWS
    refused = ""
    if numbers == "float16":
        refused = "refused: features above 65,504 would be lost, and they are kept"
    elif not rows <= allowed:
        refused = f"refused: features differ by {rows:.1e}, allowed is {allowed:.0e}"
    return Agreement(len(expected), 0.0, 0.0, 0, 0.0, rows, rows, refused)


def _apart(expected: np.ndarray, found: np.ndarray) -> float:
    """||found - expected|| / ||expected||."""
    size = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(size, 1e-12)
