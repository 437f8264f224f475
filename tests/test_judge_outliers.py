"""Pictures of another kind: the two scores, what they keep, and how they survive in a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from convarium.errors import ArgumentError
from convarium.judge.outliers import CENTRES, Outlier, energy, fit_energy, fit_outlier


def test_energy_is_the_log_of_the_sum():
    assert energy(np.array([[0.0, 0.0], [1000.0, 0.0]])) == pytest.approx([np.log(2), 1000])


@pytest.mark.parametrize("keep", [0.5, 0.9, 0.95])
def test_the_share_asked_for_is_kept(keep):
    logits = np.random.default_rng(0).normal(size=(200, 5))
    found = fit_energy(logits, keep)
    assert found.kept.value == pytest.approx(keep, abs=0.006)
    assert found.outside(logits).sum() == found.kept.count - found.kept.correct


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Real digits 0 to 7 to train and to validate, and pictures of another kind: the same pixels, mixed up."""
    images, labels = load_digits(return_X_y=True)
    known = images[labels < 8] / 16
    mixed = known[:300][:, np.random.default_rng(0).permutation(64)]
    return known[:700], labels[labels < 8][:700], known[700:1000], mixed


def test_features_tell_mixed_up_pictures_from_digits(digits):
    train, _, val, other = digits
    found = fit_outlier(train, val)
    told = roc_auc_score(np.r_[np.ones(len(val)), np.zeros(len(other))], found.score(np.r_[val, other]))
    assert told > 0.98
    assert found.outside(other).mean() > 0.9
    assert found.outside(val).mean() == pytest.approx(0.05, abs=0.01)


def test_energy_tells_them_better_than_chance(digits):
    train, labels, val, other = digits
    scores = LogisticRegression(max_iter=200).fit(train, labels).decision_function
    found = fit_energy(scores(val))
    together = np.r_[found.score(scores(val)), found.score(scores(other))]
    assert roc_auc_score(np.r_[np.ones(len(val)), np.zeros(len(other))], together) > 0.8


@pytest.mark.parametrize("rows", [1, 5, 200])
def test_a_score_survives_json_bit_for_bit(rows):
    draw = np.random.default_rng(0)
    train, val = draw.normal(size=(rows, 30)), draw.normal(size=(50, 30))
    found = fit_outlier(train, val)
    assert len(found.centres) == min(rows, CENTRES)
    for outlier in (found, fit_energy(val)):
        back = Outlier.from_dict(json.loads(json.dumps(outlier.to_dict())))
        assert (back.kind, back.threshold, back.kept) == (outlier.kind, outlier.threshold, outlier.kept)
        assert (back.score(val) == outlier.score(val)).all()


def test_it_is_small_enough_for_metadata():
    draw = np.random.default_rng(0)
    found = fit_outlier(draw.normal(size=(64, 2048)), draw.normal(size=(4, 2048)))
    assert len(json.dumps(found.to_dict())) < 100_000


def test_pictures_that_are_all_alike_need_no_warning():
    found = fit_outlier(np.ones((40, 3)), np.ones((4, 3)))
    assert not found.outside(np.ones((1, 3))).any()
    assert found.outside(-np.ones((1, 3))).all()


def test_features_without_length_are_outliers():
    found = fit_outlier(np.ones((4, 3)), np.ones((4, 3)))
    assert found.outside(np.zeros((1, 3))).all()


def test_what_cannot_be_fitted_is_refused():
    good = np.ones((4, 3))
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        fit_energy(good, keep=1)
    with pytest.raises(ArgumentError, match="want the same"):
        fit_outlier(good, np.ones((4, 2)))
    with pytest.raises(ArgumentError, match="one row a picture"):
        fit_energy(np.zeros((0, 3)))
    with pytest.raises(ArgumentError, match="finite"):
        fit_outlier(good, good * np.nan)
    with pytest.raises(ArgumentError, match="fitted on 3"):
        fit_outlier(good, good).score(np.ones((1, 4)))
    with pytest.raises(ArgumentError, match="no description"):
        Outlier.from_dict({"kind": "features", "threshold": 1})
