"""The finder: rates grow, the curve is read rightly, nothing is left changed, and without a descent nothing is told."""

from __future__ import annotations

import math
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from convarium.draw.plot_finder import finder as plot
from convarium.draw.plot_theme import image
from convarium.errors import ArgumentError, Interrupted
from convarium.models import create
from convarium.training.finder import find, judge
from convarium.training.signals import Stop
from convarium.training.task import Classify
from tests.test_loop_accumulate import PLAIN, Noise, same, setting, with_batch_norm

RATES = list(np.geomspace(1e-7, 10, 100))
DECADE = 99 / 8


def curve(fall_at=1e-2, rise_at=0.5, noise=0.02, level=2.3):
    """Losses that fall from a rate on and explode from another on."""
    draw = np.random.default_rng(0)
    logs = np.log10(RATES)
    fallen = 1.2 / (1 + np.exp(-(logs - math.log10(fall_at)) * 6))
    risen = np.exp(np.clip((logs - math.log10(rise_at)) * 8, -30, 3))
    return list(level - fallen + risen + draw.normal(0, noise, 100))


def test_the_steepest_place_and_a_tenth_of_the_least_are_told():
    found = judge(RATES, curve(), DECADE)
    assert found.steepest == pytest.approx(1e-2, rel=0.5)
    assert 0.005 < found.tenth < 0.05
    assert found.suggestion == pytest.approx(min(found.steepest, found.tenth), rel=0.05)
    assert f"{found.steepest:.1e}" in found.reason and f"{found.tenth:.1e}" in found.reason


def test_a_late_explosion_does_not_move_the_suggestion():
    losses = curve()
    cut = [loss for loss in losses if loss < 9]
    one = judge(RATES[: len(cut)], cut, DECADE)
    other = judge(RATES[: len(cut) + 1], [*cut, 1e9], DECADE)
    assert one.suggestion == other.suggestion


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_noise_without_a_descent_is_refused(noise):
    losses = list(2.3 + np.random.default_rng(1).normal(0, noise, 100))
    found = judge(RATES, losses, DECADE)
    assert found.suggestion is None
    assert found.reason.startswith("no descent was seen")


def test_a_loss_that_explodes_at_once_is_refused():
    found = judge(RATES[:3], [2.3, 5.0, 80.0], DECADE)
    assert found.suggestion is None and "after 3 steps" in found.reason


def test_a_loss_that_only_falls_says_that_more_may_be_possible():
    assert "more may be possible" in judge(RATES, curve(rise_at=1e9), DECADE).reason


def test_rates_grow_by_one_factor_and_all_is_left_as_it_was(tmp_path):
    task, before = with_batch_norm(), with_batch_norm()
    drawn = torch.get_rng_state()
    found = find(task, Noise(4), PLAIN, setting(tmp_path), low=1e-5, high=1e-1, steps=21)
    steps = np.diff(np.log10(found.rates))
    assert found.rates[0] == pytest.approx(1e-5) and steps == pytest.approx([0.2] * len(steps))
    assert len(found.rates) == len(found.losses) == len(found.smooth)
    assert same(task, before) and all(p.grad is None for p in task.parameters())
    assert torch.equal(drawn, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()
    assert not list(tmp_path.iterdir())


def test_the_same_seed_finds_the_same(tmp_path):
    both = [find(with_batch_norm(), Noise(4), PLAIN, setting(tmp_path), steps=25) for _ in range(2)]
    assert both[0] == both[1]


def test_it_ends_where_the_loss_explodes(tmp_path):
    task = Classify(create("lenet5", in_channels=3, size=16))
    found = find(task, Noise(9), PLAIN, setting(tmp_path), low=1e-3, high=1e6, steps=40)
    assert len(found.rates) < 40
    assert all(map(math.isfinite, found.losses))


def test_a_network_that_cannot_learn_is_told(tmp_path):
    class Still(Classify):
        def step(self, pictures, labels):
            result = super().step(pictures, labels)
            return {**result, "loss": 0 * result["loss"] + 2.3}

    found = find(Still(create("lenet5", in_channels=3, size=16)), Noise(9), PLAIN, setting(tmp_path))
    assert found.suggestion is None


def test_each_step_has_as_many_batches_as_in_training(tmp_path):
    seen = []

    class Counted(Noise):
        def batches(self, epoch, start=0):
            for batch in super().batches(epoch, start):
                seen.append(epoch)
                yield batch

    how = replace(PLAIN, accumulate=2)
    find(with_batch_norm(), Counted(4), how, setting(tmp_path), low=1e-9, high=1e-8, steps=20)
    assert len(seen) == 40
    assert sorted(set(seen)) == [0, 1, 2, 3, 4, 5]


def test_a_stop_is_heard(tmp_path):
    stop = Stop()
    stop.signal = signal.SIGINT
    with pytest.raises(Interrupted, match="nothing was changed"):
        find(with_batch_norm(), Noise(4), PLAIN, setting(tmp_path, stop=stop))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"low": 0.0}, "low = 0.0"), ({"low": 1.0, "high": 0.1}, "low below high"), ({"steps": 5}, "steps = 5")],
)
def test_what_shows_no_curve_is_refused(tmp_path, change, words):
    with pytest.raises(ArgumentError, match=words):
        find(with_batch_norm(), Noise(4), PLAIN, setting(tmp_path), **change)


def test_the_chart_marks_the_suggestion_and_says_why():
    found = judge(RATES, curve(), DECADE)
    chart = plot(found.rates, found.losses, found.smooth, found.suggestion, found.reason, subtitle="a net")
    texts = [text.get_text() for text in chart.figure.axes[0].texts]
    assert texts == [f"{found.suggestion:.1e}"]
    footer = " ".join(text.get_text() for text in chart.figure.texts)
    assert "falls fastest at" in footer and "a net" in footer
    assert b"<svg" in image(chart, "svg")


def test_the_chart_of_a_refusal_marks_nothing():
    chart = plot(RATES, [2.3] * 100, [2.3] * 100, None, "no descent was seen")
    assert not chart.figure.axes[0].texts
