"""Paired tests and the linear probe."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from convarium.errors import ArgumentError, DataError
from convarium.judge.paired import mcnemar
from convarium.judge.probe import out_of_fold


def test_mcnemar_counts_what_only_one_got_right():
    found = mcnemar([1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1])
    assert (found.only_first, found.only_second, found.count) == (2, 1, 6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.p == 1.0 and not found.shown


def test_mcnemar_is_the_exact_binomial_test():
    first = np.r_[np.ones(90, bool), np.zeros(10, bool)]
    second = first.copy()
    second[:9] = False
    second[95] = True
    found = mcnemar(first, second)
    assert found.p == pytest.approx(2 * binom.cdf(1, 10, 0.5))
    assert found.shown


def test_equal_answers_show_no_difference():
    assert mcnemar([True, False], [True, False]).p == 1.0


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1, 0]), ([[1]], [[0]])])
def test_unpaired_answers_are_refused(a, b):
    with pytest.raises(ArgumentError, match="same pictures"):
        mcnemar(a, b)


def test_a_probe_finds_what_is_there_and_nothing_in_noise():
    draw = np.random.default_rng(0)
    labels = np.arange(120) % 3
    noise = draw.normal(size=(120, 40))
    told = noise + 3 * np.eye(40)[labels]
    assert out_of_fold(told, labels).mean() > 0.9
    assert out_of_fold(noise, labels).mean() < 0.5


def test_a_probe_needs_two_of_each_class():
    with pytest.raises(DataError, match="smallest of 1"):
        out_of_fold(np.zeros((3, 2)), np.array([0, 0, 1]))
    with pytest.raises(DataError, match="1 classes"):
        out_of_fold(np.zeros((3, 2)), np.array([0, 0, 0]))
