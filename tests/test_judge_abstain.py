"""When not to answer: thresholds, the curve of risk by coverage, its area."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarium.errors import ArgumentError
from convarium.judge.abstain import Threshold, answered, coverage_risk, fit_threshold


def sure(confidences: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of two classes with these confidences in the first, which is right or wrong."""
    p = np.array([[c, 1 - c] for c in confidences])
    return p, np.array([0 if r else 1 for r in right])


def test_the_largest_coverage_within_the_risk_is_chosen():
    p, labels = sure([0.95, 0.9, 0.85, 0.8, 0.7, 0.6], [True, True, False, True, True, False])
    found = fit_threshold(p, labels, risk=0.2)
    assert (found.coverage.correct, found.risk.correct, found.risk.count) == (5, 1, 5)
    assert 0.6 < found.value < 0.7
    assert answered(p, found.value).tolist() == [True] * 5 + [False]


def test_the_least_risk_with_the_coverage_is_chosen():
    p, labels = sure([0.95, 0.9, 0.85, 0.8, 0.7, 0.6], [True, True, False, True, True, False])
    found = fit_threshold(p, labels, coverage=0.5)
    assert found.coverage.correct == 5
    assert fit_threshold(p, labels, coverage=0.1).coverage.correct == 2
    assert fit_threshold(p, labels, coverage=1).value == 0


def test_pictures_of_one_confidence_are_answered_together():
    p, labels = sure([0.9, 0.9, 0.9, 0.6], [True, True, False, True])
    assert not fit_threshold(p, labels, risk=0.1).met
    assert fit_threshold(p, labels, risk=0.3).coverage.correct == 4


def test_a_risk_that_cannot_be_had_answers_nothing_and_says_so():
    p, labels = sure([1.0, 0.9], [False, True])
    found = fit_threshold(p, labels, risk=0.01)
    assert not found.met and found.risk is None
    assert not answered(p, found.value).any()
    assert "down to 1 %; nothing would be answered" in found.sentence


def test_without_mistakes_all_are_answered():
    p, labels = sure([0.9, 0.6], [True, True])
    found = fit_threshold(p, labels)
    assert found.value == 0 and found.coverage.value == 1
    assert found.asked == "risk 0.05"


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_threshold_gives_just_the_coverage_it_promises(seed, risk):
    draw = np.random.default_rng(seed)
    p = draw.dirichlet(np.ones(3), 20).round(1)
    p[:, 2] = 1 - p[:, 0] - p[:, 1]
    p = p.clip(0, 1)
    labels = draw.integers(0, 3, 20)
    found = fit_threshold(p, labels, risk=risk)
    kept = answered(p, found.value)
    assert kept.sum() == found.coverage.correct
    if found.met:
        assert (p.argmax(axis=1) != labels)[kept].mean() <= risk + 1e-9
    told = coverage_risk(p, labels).at(found.value)
    assert told == ((found.coverage.value, found.risk.value) if found.met else None)


def test_the_curve_ends_with_everything_answered():
    p, labels = sure([0.9, 0.8, 0.7, 0.6], [True, True, True, False])
    found = coverage_risk(p, labels)
    assert found.coverages == (0.25, 0.5, 0.75, 1.0)
    assert found.risks == (0, 0, 0, 0.25)
    assert found.aurc == pytest.approx(0.0625)
    assert found.excess == 0


def test_the_area_tells_good_confidence_from_bad():
    confidences = [0.9, 0.8, 0.7, 0.6]
    good = coverage_risk(*sure(confidences, [True, True, False, False]))
    bad = coverage_risk(*sure(confidences, [False, False, True, True]))
    assert good.excess == pytest.approx(0)
    assert bad.aurc == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)


def test_a_confidence_that_tells_nothing_has_the_area_of_chance():
    found = coverage_risk(*sure([0.9] * 8, [True, False] * 4))
    assert found.aurc == pytest.approx(0.5)


def test_a_threshold_survives_json():
    p, labels = sure([0.9, 0.6], [True, False])
    for risk in (0.05, 0.5, 0.0):
        found = fit_threshold(p, labels, risk=risk)
        assert Threshold.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("given", [{"risk": 0.1, "coverage": 0.9}, {"risk": -1}, {"coverage": 90}])
def test_what_is_no_share_is_refused(given):
    with pytest.raises(ArgumentError):
        fit_threshold(*sure([0.9], [True]), **given)
