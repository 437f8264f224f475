"""Calibration: its error by hand, what chance gives, and the temperature that mends it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarium.errors import ArgumentError
from convarium.judge.calibration import Temperature, fit_temperature, reliability, softmax, tempered


def drawn(count: int, sharper: float = 1.0, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits times `sharper`, and labels drawn from the probabilities of the logits themselves."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(count, classes)) * 2
    chances = softmax(logits)
    labels = (chances.cumsum(axis=1) > draw.random((count, 1))).argmax(axis=1)
    return logits * sharper, labels


def test_errors_by_hand():
    # 0.9 sure: three of four right; 0.6 sure: none of one.
    p = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]])
    found = reliability(p, np.array([0, 0, 0, 1, 0]), bins=10)
    assert found.ece == pytest.approx((4 * 0.15 + 1 * 0.6) / 5)
    assert found.mce == pytest.approx(0.6)
    assert found.brier == pytest.approx((3 * 0.02 + 1.62 + 0.72) / 5)
    assert [b.count for b in found.bins] == [0, 0, 0, 0, 0, 1, 0, 0, 4, 0]
    assert found.bins[8].confidence == pytest.approx(0.9)
    assert found.bins[8].accuracy.correct == 3
    assert found.bins[0].accuracy is None


def test_the_ends_of_bins_belong_to_the_lower_one():
    found = reliability(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 0]), bins=2)
    assert [b.count for b in found.bins] == [1, 1]


def test_a_calibrated_classifier_is_not_accused():
    logits, labels = drawn(300)
    found = reliability(softmax(logits), labels)
    assert found.ece <= found.ece_chance
    assert found.ece_low == 0
    assert "no lack of calibration is shown" in found.sentence


@pytest.mark.parametrize(
    ("sharper", "words"), [(3.0, "surer than it is right"), (0.4, "right more often than")]
)
def test_a_classifier_too_sure_or_too_shy_is_told(sharper, words):
    logits, labels = drawn(1000, sharper)
    found = reliability(softmax(logits), labels)
    assert 0 < found.ece_low < found.ece < found.ece_high
    assert found.ece > found.ece_chance
    assert words in found.sentence


def test_the_interval_holds_the_true_error():
    # With very many pictures the error is known; the interval from few must hold it nearly always.
    logits, labels = drawn(40_000, 2.0, seed=99)
    truth = fit_temperature(logits, labels).ece_before
    held = 0
    for seed in range(20):
        logits, labels = drawn(300, 2.0, seed=seed)
        found = reliability(softmax(logits), labels)
        held += found.ece_low <= truth <= found.ece_high
    assert held >= 17


def test_the_bootstrap_is_the_same_twice():
    logits, labels = drawn(100)
    assert reliability(softmax(logits), labels) == reliability(softmax(logits), labels)


def test_the_temperature_that_was_put_in_is_found():
    for sharper in (0.5, 1.0, 3.0):
        logits, labels = drawn(4000, sharper)
        found = fit_temperature(logits, labels)
        assert found.value == pytest.approx(sharper, rel=0.1)
        assert found.nll_after <= found.nll_before
        assert found.note == ""
    assert found.ece_after < 0.03 < found.ece_before


def test_logits_and_logarithms_of_probabilities_give_the_same_temperature():
    logits, labels = drawn(200, 2.0)
    from_logits = fit_temperature(logits, labels)
    from_probabilities = fit_temperature(np.log(softmax(logits)), labels)
    assert from_logits.value == pytest.approx(from_probabilities.value, rel=1e-4)


def test_without_a_mistake_the_temperature_stops_and_says_so():
    found = fit_temperature(np.eye(3)[[0, 1, 2] * 30] * 2, np.array([0, 1, 2] * 30))
    assert found.value == pytest.approx(0.25)
    assert "without a mistake" in found.note


def test_always_wrong_stops_at_the_other_end():
    found = fit_temperature(np.eye(2)[[0, 1] * 30] * 9, np.array([1, 0] * 30))
    assert found.value == pytest.approx(10)
    assert "end of what is tried" in found.note


def test_few_pictures_are_called_vague():
    assert "10 pictures" in fit_temperature(*drawn(10)).note


def test_a_probability_of_zero_is_no_obstacle():
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([[1.0, 0.0], [0.0, 1.0], [0.7, 0.3]]))
    assert np.isfinite(fit_temperature(scores, np.array([0, 1, 1])).nll_after)


@given(st.integers(0, 1000), st.floats(0.25, 10))
def test_probabilities_are_tempered_as_their_logits_would_be(seed, temperature):
    logits = drawn(5, seed=seed)[0]
    wanted = softmax(logits / temperature)
    assert np.allclose(tempered(softmax(logits), temperature), wanted, atol=1e-12)
    assert (wanted.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_a_temperature_survives_json():
    found = fit_temperature(*drawn(60))
    assert Temperature.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_a_reliability_is_ready_for_json():
    logits, labels = drawn(60)
    assert json.loads(json.dumps(reliability(softmax(logits), labels).to_dict()))["count"] == 60


def test_what_cannot_be_judged_is_refused():
    logits, labels = drawn(10)
    with pytest.raises(ArgumentError, match="apply softmax"):
        reliability(logits, labels)
    with pytest.raises(ArgumentError, match="bins"):
        reliability(softmax(logits), labels, bins=0)
    with pytest.raises(ArgumentError, match="diverged"):
        fit_temperature(np.full((2, 2), np.nan), np.array([0, 1]))
    with pytest.raises(ArgumentError, match="above 0"):
        tempered(softmax(logits), 0)
