"""When to stop measuring, and whose turn it is: on invented times."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from convarium.costs.turns import FEWEST, LAST, TURN, Lane, median_interval, take_turns


def lane(times, limit: float = 100.0, spread: float = 0.03) -> Lane:
    """A lane whose runs take these seconds, the last of them for ever."""
    times = list(times)
    stream = itertools.chain(times, itertools.repeat(times[-1]))
    return Lane(lambda: next(stream), limit, spread)


# The interval of the median


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (20, 6, 15), (100, 40, 61)])
def test_the_interval_of_a_median_has_the_ranks_of_the_binomial_tables(n, low, high):
    values = [float(i) for i in range(1, n + 1)]
    random.Random(1).shuffle(values)
    assert median_interval(values) == (low, high)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_values_have_no_interval(n):
    assert all(math.isnan(end) for end in median_interval([1.0] * n))


def test_the_interval_holds_the_median_of_skewed_times_as_often_as_it_says():
    draw = random.Random(3)
    hits = 0
    for _ in range(2000):
        low, high = median_interval([draw.expovariate(1.0) for _ in range(15)])
        hits += low <= math.log(2) <= high
    assert hits / 2000 > 0.94


# Warm-up


def test_warm_up_ends_when_the_last_runs_are_alike():
    one = lane([9.0, 5.0, 2.0, 1.0, 1.05, 1.0, 1.02, 1.0])
    one.warm()
    assert one.warmup == 3 + LAST


def test_warm_up_that_never_settles_takes_a_quarter_of_the_time():
    one = lane(itertools.islice(itertools.cycle([1.0, 2.0]), 200), limit=60.0)
    one.warm()
    assert one.spent == 15.0 and one.warmup == 10


def test_a_slow_network_has_one_run_to_warm_up():
    one = lane([30.0], limit=5.0)
    one.warm()
    assert one.warmup == 1


# Turns and when to stop


def test_times_that_hold_still_stop_at_the_fewest_turns():
    one = lane([0.06])
    take_turns([one])
    assert one.settled and len(one.medians) == FEWEST


def test_times_that_never_hold_still_stop_when_the_time_is_up():
    one = lane(itertools.islice(itertools.cycle([0.1, 0.3]), 1000), limit=10.0)
    take_turns([one])
    assert not one.settled and one.over
    assert 10.0 <= one.spent < 10.5


def test_one_that_is_never_settled_ends_at_its_limit_and_the_other_with_it():
    still, restless = lane([0.1], limit=10.0), lane([0.1, 0.3] * 500, limit=10.0)
    take_turns([still, restless])
    assert still.settled and not restless.settled
    assert abs(len(still.medians) - len(restless.medians)) <= len(still.medians) // 2 + 1


def test_a_settled_one_runs_on_while_the_other_is_not():
    still, slow_to_settle = lane([0.1]), lane([0.1] * 4 + [0.1, 0.2] * 4 + [0.15])
    take_turns([still, slow_to_settle])
    assert len(still.medians) == len(slow_to_settle.medians) > FEWEST


def test_a_narrower_spread_needs_more_turns():
    draw = random.Random(5)
    times = [0.06 + 0.02 * draw.random() for _ in range(5000)]
    wide, narrow = lane(times, spread=0.1), lane(times, spread=0.02)
    take_turns([wide])
    take_turns([narrow])
    assert wide.settled and narrow.settled and len(wide.medians) < len(narrow.medians)


def test_every_lane_has_a_turn_however_short_the_time():
    lanes = [lane([1.0], limit=1e-9) for _ in range(3)]
    take_turns(lanes)
    assert [len(one.medians) for one in lanes] == [1, 1, 1]
    assert not any(one.settled for one in lanes)


def test_a_turn_of_short_runs_lasts_its_time_and_is_one_observation():
    one = lane([0.01, 0.01, 0.01, 0.01, 0.04])
    one.turn(alone=True)
    assert one.medians == [0.01] and sum(one.times) >= TURN and len(one.times) == 5


def test_the_first_short_run_after_another_network_is_not_counted():
    one = lane([0.02, 0.01])
    one.turn(alone=False)
    assert 0.02 not in one.times and one.warmup == 1


def test_a_long_run_after_another_network_is_counted():
    one = lane([0.5, 0.1])
    one.turn(alone=False)
    assert one.times == [0.5] and one.warmup == 0


def turns_of(lanes: list[Lane], rounds: int) -> list[int]:
    order: list[int] = []
    take_turns(lanes, on_turn=order.append, stop=lambda: len(order) >= len(lanes) * (rounds + 1))
    return order[len(lanes) :]  # after the warm-up


def test_each_round_has_every_network_once_in_a_new_order():
    order = turns_of([lane([0.1, 0.2] * 500) for _ in range(5)], 8)
    rounds = [tuple(order[i : i + 5]) for i in range(0, 40, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len(set(rounds)) > 4


def test_the_order_is_the_same_each_time():
    assert turns_of([lane([0.1, 0.2] * 500) for _ in range(4)], 5) == turns_of(
        [lane([0.1, 0.2] * 500) for _ in range(4)], 5
    )


def test_drift_of_the_machine_hits_all_alike():
    clock = itertools.count()

    def drifting() -> float:
        return 0.06 * (1 + next(clock) / 400)

    lanes = [Lane(drifting, 20.0, 0.001) for _ in range(2)]
    take_turns(lanes, stop=lambda: len(lanes[1].medians) >= 60)
    first, second = (sorted(one.medians)[len(one.medians) // 2] for one in lanes)
    assert first / second == pytest.approx(1, abs=0.03)  # one after the other they would differ by 15 %
