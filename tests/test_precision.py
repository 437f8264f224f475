"""How steps are computed: what is taken from which times, and a step's time from real steps."""

from __future__ import annotations

import copy

import pytest
import torch

from convarium.models import create
from convarium.training import precision
from convarium.training.precision import Precision, choose, measure_step
from convarium.training.recipes import Recipe
from convarium.training.task import Classify
from tests.test_loop_accumulate import same, with_batch_norm

CPU = torch.device("cpu")
SHAPE = (16, 3, 16, 16)


def chosen(monkeypatch, *times) -> Precision:
    monkeypatch.setattr(precision, "_seconds", lambda *a: list(times)[: len(a[-1])])
    return choose("auto", with_batch_norm(), SHAPE, 10, CPU)


@pytest.mark.parametrize(
    ("times", "bf16", "channels_last", "words"),
    [
        ((0.100, 0.090, 0.050), True, True, "bfloat16 with channels last runs 2.0 times"),
        ((0.010, 0.009, 0.005), True, True, "bfloat16"),  # short steps, too
        ((0.100, 0.090, 0.085), False, True, "bfloat16 only 1.06 times"),  # bfloat16 adds too little
        ((0.100, 0.099, 0.095), False, False, "1.01 times"),
        ((0.100, 0.120, 0.300), False, False, "bfloat16 only 0.33 times"),  # a processor without it
        ((0.001, 0.0001, 0.0001), False, False, "under 4 ms"),
    ],
)
def test_the_way_taken_from_the_times(monkeypatch, times, bf16, channels_last, words):
    way = chosen(monkeypatch, *times)
    assert (way.bf16, way.channels_last) == (bf16, channels_last)
    assert words in way.reason


def test_real_times_are_taken_of_every_way_and_nothing_is_changed():
    task, before = with_batch_norm(), with_batch_norm()
    drawn = torch.get_rng_state()
    ways = (precision.PLAIN, precision.LAST, precision.SHORT_NUMBERS)
    times = precision._seconds(task, SHAPE, 10, CPU, ways)
    assert len(times) == 3 and all(0 < t < 60 for t in times)
    assert same(task, before) and all(p.grad is None for p in task.parameters())
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize("way", [Precision(False, False, ""), Precision(True, True, "")])
def test_a_step_is_timed_on_a_copy(way):
    task = Classify(create("lenet5"))
    before = copy.deepcopy(task)
    drawn = torch.get_rng_state()
    seconds = measure_step(task, (4, 1, 28, 28), 10, CPU, way, Recipe(ema=0.9))
    assert 0 < seconds < 60
    assert same(task, before) and all(p.grad is None for p in task.parameters())
    assert torch.equal(drawn, torch.get_rng_state())
