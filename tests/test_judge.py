"""Shares, their intervals and the metrics."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarium.errors import ArgumentError
from convarium.judge import Metrics, Proportion, measure


def wilson(correct: int, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The interval from Wilson's formula, written out."""
    p = correct / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def one_hot(said: list[int], classes: int) -> np.ndarray:
    return np.eye(classes)[said]


@pytest.mark.parametrize(("correct", "count"), [(355, 360), (0, 5), (5, 5), (1, 1), (7352, 10000)])
def test_interval_is_wilsons(correct: int, count: int) -> None:
    p = Proportion.of(correct, count)
    assert (p.low, p.high) == pytest.approx(wilson(correct, count), abs=1e-9)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(max_examples=50, deadline=None)
def test_interval_holds_its_value_and_is_never_empty(pair: tuple[int, int]) -> None:
    p = Proportion.of(*pair)
    assert 0 <= p.low <= p.value <= p.high <= 1
    assert p.low < p.high


def test_proportion_reads_as_a_person_says_it() -> None:
    assert str(Proportion.of(355, 360)) == "98.6 % (96.8 to 99.4, 355 of 360)"


def test_one_picture_more_shows_in_the_digits() -> None:
    assert str(Proportion.of(9903, 10000)) != str(Proportion.of(9904, 10000))


@pytest.mark.parametrize(("correct", "count"), [(0, 0), (1, 0), (6, 5), (-1, 5)])
def test_a_share_of_nothing_is_refused(correct: int, count: int) -> None:
    with pytest.raises(ArgumentError):
        Proportion.of(correct, count)


def test_confidence_must_be_a_share() -> None:
    with pytest.raises(ArgumentError, match="as in 0.95"):
        Proportion.of(1, 2, confidence=95)


def test_more_confidence_makes_a_wider_interval() -> None:
    assert Proportion.of(80, 100, 0.99).high > Proportion.of(80, 100, 0.9).high


def test_confusion_has_the_truth_in_rows() -> None:
    metrics = measure(one_hot([1, 1, 1, 0], 2), np.array([0, 0, 1, 0]), ["cat", "dog"])
    assert metrics.confusion == ((1, 2), (0, 1))


def test_scores_by_hand() -> None:
    metrics = measure(one_hot([1, 1, 1, 0], 2), np.array([0, 0, 1, 0]), ["cat", "dog"])
    cat, dog = metrics.classes
    assert (cat.precision, cat.recall, cat.f1) == pytest.approx((1, 1 / 3, 1 / 2))
    assert (dog.precision, dog.recall, dog.f1) == pytest.approx((1 / 3, 1, 1 / 2))
    assert (cat.count, cat.predicted, dog.count, dog.predicted) == (3, 1, 1, 3)


def test_a_class_never_said_has_no_precision() -> None:
    score = measure(one_hot([0, 0], 2), np.array([0, 1]), ["a", "b"]).classes[1]
    assert (score.precision, score.recall, score.f1) == (None, 0.0, None)


def test_a_class_without_pictures_has_no_recall() -> None:
    score = measure(one_hot([0, 1], 2), np.array([0, 0]), ["a", "b"]).classes[1]
    assert (score.precision, score.recall, score.f1) == (0.0, None, None)


def test_loss_is_the_mean_cross_entropy_in_nats() -> None:
    metrics = measure(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([0, 1]), ["a", "b"])
    assert metrics.loss == pytest.approx(-(math.log(0.5) + math.log(0.9)) / 2)


def test_a_probability_of_zero_leaves_the_loss_finite() -> None:
    assert measure(one_hot([0], 2), np.array([1]), ["a", "b"]).loss == pytest.approx(87.3, abs=0.1)


@pytest.mark.parametrize(("classes", "has"), [(2, False), (5, False), (6, True)])
def test_top5_needs_more_than_five_classes(classes: int, has: bool) -> None:
    metrics = measure(one_hot([0], classes), np.array([0]), [str(i) for i in range(classes)])
    assert (metrics.top5 is not None) == has


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_ranking_is_a_stable_sort_also_where_probabilities_tie(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.integers(1, 4, (30, 8)).astype(float)
    p /= p.sum(axis=1, keepdims=True)
    labels = rng.integers(0, 8, 30)
    order = np.argsort(-p, axis=1, kind="stable")
    metrics = measure(p, labels, list("abcdefgh"))
    assert metrics.top1.correct == (order[:, 0] == labels).sum() == np.trace(metrics.confusion)
    assert metrics.top5 is not None
    assert metrics.top5.correct == (order[:, :5] == labels[:, None]).any(axis=1).sum()


def test_metrics_survive_json() -> None:
    rng = np.random.default_rng(0)
    metrics = measure(rng.dirichlet(np.ones(7), 40), rng.integers(0, 6, 40), list("abcdef") + ["قطة"])
    assert Metrics.from_dict(json.loads(json.dumps(metrics.to_dict(), allow_nan=False))) == metrics


def test_dict_has_the_names_that_others_read() -> None:
    d = measure(one_hot([0, 1], 2), np.array([0, 1]), ["a", "b"]).to_dict()
    assert list(d) == ["top1", "top5", "loss", "classes", "confusion"]
    assert set(d["top1"]) == {"value", "low", "high", "correct", "count"}
    assert set(d["classes"][0]) == {"class", "index", "precision", "recall", "f1", "count", "predicted"}
    assert d["top5"] is None


def test_nan_says_that_training_diverged() -> None:
    p = np.array([[0.5, 0.5], [np.nan, np.nan]])
    with pytest.raises(ArgumentError, match="1 of 2 pictures: training diverged; .*learning rate"):
        measure(p, np.array([0, 1]), ["a", "b"])


@pytest.mark.parametrize(
    ("p", "labels", "classes", "message"),
    [
        (np.eye(2), np.array([0]), ["a", "b"], "one row and one label a picture"),
        (np.eye(2), np.array([0, 1]), ["a"], "give as many"),
        (np.eye(2)[:0], np.array([], int), ["a", "b"], "no picture to judge"),
        (np.eye(2), np.array([0, 2]), ["a", "b"], "from 0 to 1; got int64 from 0 to 2"),
        (np.eye(2), np.array([0, -1]), ["a", "b"], "from 0 to 1"),
        (np.eye(2), np.array([0.0, 1.0]), ["a", "b"], "whole numbers"),
        (np.eye(2) * 9 - 3, np.array([0, 1]), ["a", "b"], "apply softmax first"),
    ],
)
def test_what_cannot_be_judged_is_refused(p, labels, classes, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ArgumentError, match=message):
        measure(p, labels, classes)
