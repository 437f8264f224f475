"""Choosing under limits, on networks whose times are given."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarium.costs import choose as search
from convarium.costs.choose import Limits, Option, choose, pareto
from convarium.errors import ArgumentError


@dataclass
class Timing:
    p50: float
    half: float = 0.02
    reason: str = ""

    @property
    def low(self):
        return self.p50 * (1 - self.half)

    @property
    def high(self):
        return self.p50 * (1 + self.half)


def option(title, top1, ms, parameters=1e6):
    """A network whose work says that it takes a fifth of its time at the peak."""
    return Option(title, f"{title}:weights", top1, parameters, macs=ms * 1e6, size=224)


class Machine:
    """Gives each option the time that its work stands for, and remembers who was asked."""

    def __init__(self, **times):
        self.times = times
        self.asked = []

    def measure(self, options, effort):
        self.asked += [(o.title, effort) for o in options]
        return [self.times.get(o.title, Timing(o.macs / 1e6)) for o in options]

    def floor(self, option):
        return option.macs / 1e6 / 5


NETS = [
    option("tiny", 60, 1),
    option("small", 70, 4),
    option("middle", 76, 8),
    option("large", 80, 16),
    option("huge", 85, 200),
]


def run(options, limits, machine=None, **more):
    machine = machine or Machine()
    return choose(options, limits, measure=machine.measure, floor=machine.floor, **more), machine


def kinds(choice):
    return {v.option.title: v.kind for v in choice.verdicts}


def test_the_most_accurate_within_the_time_is_taken_and_less_accurate_ones_are_not_measured():
    choice, machine = run(NETS, Limits(ms=10))
    assert choice.answer.option.title == "middle"
    assert [title for title, _ in machine.asked] == ["large", "middle"]
    assert kinds(choice) == {
        "huge": "rejected", "large": "rejected", "middle": "chosen", "small": "not needed", "tiny": "not needed",
    }  # fmt: skip
    assert choice.complete and choice.measured == 2


def test_more_finalists_are_found_where_they_are_wanted():
    choice, machine = run(NETS, Limits(ms=10), finalists=2)
    assert [title for title, _ in machine.asked] == ["large", "middle", "small"]
    assert (kinds(choice)["middle"], kinds(choice)["small"]) == ("chosen", "fits")


def test_the_fastest_above_an_accuracy_is_taken_and_heavier_ones_are_not_measured():
    choice, machine = run(NETS, Limits(top1=70))
    assert choice.answer.option.title == "small"
    assert ("huge", 1) not in machine.asked
    reasons = {v.option.title: v.reason for v in choice.verdicts}
    assert reasons["tiny"] == "top-1 60.00 %, below 70"
    assert reasons["huge"] == "takes 40 ms at least on this machine, more than small"


def test_every_rejection_says_why():
    nets = [*NETS, option("heavy", 79, 2, parameters=10e6)]
    choice, _ = run(nets, Limits(ms=10, mb=25), prefer="accuracy")
    assert {v.option.title: v.reason for v in choice.verdicts if v.kind == "rejected"} == {
        "huge": "40 ms at least on this machine, above 10",
        "large": "16 ms measured, above 10",
        "heavy": "40.0 MB of weights, above 25",
    }


def test_no_network_keeps_the_limits():
    choice, _ = run(NETS, Limits(ms=0.1))
    assert choice.answer is None and choice.complete


def test_a_time_too_near_to_the_limit_is_measured_again_and_not_relied_on():
    choice, machine = run(NETS[:3], Limits(ms=8.1))
    assert machine.asked == [("middle", 1), ("middle", 3), ("small", 1)]
    assert choice.answer.option.title == "small"
    assert (
        choice.verdicts[0].reason
        == "8 ms measured (7.84 to 8.16), not a tenth below 8.1, so not to be relied on"
    )


def test_of_the_fastest_that_do_not_differ_the_most_accurate_is_taken():
    nets = [option("a", 76, 8), option("b", 78, 8.1), option("c", 79, 9)]
    choice, machine = run(nets, Limits(top1=75))
    assert choice.answer.option.title == "b"
    assert machine.asked[-3:] == [("a", 3), ("b", 3), ("c", 3)]  # side by side, thoroughly
    assert "times do not differ (a)" in choice.answer.reason


def test_what_cannot_be_run_is_rejected_with_its_reason():
    machine = Machine(middle=Timing(math.nan, reason="out of memory"))
    choice, _ = run(NETS, Limits(ms=10), machine)
    assert choice.answer.option.title == "small"
    assert "cannot be run here: out of memory" in [v.reason for v in choice.verdicts]


@pytest.mark.parametrize("limits", [Limits(ms=10), Limits(top1=70)])
def test_when_time_is_up_the_answer_is_not_called_sure(limits):
    asked = []
    choice, _ = run(NETS, limits, out_of_time=lambda: len(asked) >= 1 or asked.append(1))
    assert not choice.complete
    assert "not reached" in kinds(choice).values()


def test_without_an_interval_the_time_is_taken_as_half_to_double():
    machine = Machine(small=Timing(4, half=math.nan))
    choice, _ = run(NETS, Limits(ms=7), machine)
    assert choice.answer.option.title == "tiny"  # 4 ms may be 8
    choice, _ = run(NETS, Limits(ms=8.85), machine)  # and a machine may be slower by a tenth
    assert choice.answer.option.title == "small"


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(40, 90)), min_size=1, max_size=12, unique=True),
    st.integers(1, 60),
    st.integers(40, 90),
)
def test_no_option_that_keeps_the_limits_is_clearly_better_than_the_answer(points, ms, top1):
    nets = [option(f"n{i}", t, m) for i, (m, t) in enumerate(points)]
    exact = Machine(**{n.title: Timing(n.macs / 1e6, half=0) for n in nets})
    best, _ = run(nets, Limits(ms=ms), exact)
    fits = [n for n in nets if n.macs / 1e6 * (1 + search.DRIFT) <= ms]
    assert (best.answer is None) == (not fits)
    assert best.answer is None or best.answer.option.top1 == max(n.top1 for n in fits)
    quick, _ = run(nets, Limits(ms=ms, top1=top1), exact)
    fits = [n for n in fits if n.top1 >= top1]
    assert (quick.answer is None) == (not fits)
    assert quick.answer is None or quick.answer.option.macs == min(n.macs for n in fits)


def test_the_front_holds_what_nothing_else_beats():
    choice, _ = run([*NETS[:4], option("worse", 65, 12)], Limits(ms=1000), prefer="speed")
    assert [v.option.title for v in choice.front] == ["tiny", "small"]  # the others were not measured
    assert pareto([(1, 5), (2, 4), (2, 5), (3, 3), (1, 5)]) == [0, 1, 3, 4]


@pytest.mark.parametrize(("field", "value"), [("ms", 0), ("mb", -1), ("top1", 101), ("ms", math.nan)])
def test_limits_that_make_no_sense_are_refused(field, value):
    with pytest.raises(ArgumentError):
        Limits(**{field: value})


def test_an_unknown_preference_is_refused():
    with pytest.raises(ArgumentError, match="speed or accuracy"):
        run(NETS, Limits(ms=10), prefer="beauty")
