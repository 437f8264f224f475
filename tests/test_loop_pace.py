"""What the loop says of its time: waiting and computing, the verdict, and a time that must not be exceeded."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from convarium.training import checkpoint, loop
from convarium.training.checkpoint import Progress
from convarium.training.pace import Pace, epochs_within, rehearse, steps_in, verdict
from tests.test_loop_accumulate import PLAIN, Noise, same, setting, with_batch_norm, without_batch_norm

CPU = torch.device("cpu")


class Slow(Noise):
    """Pictures that must be waited for."""

    def batches(self, epoch, start=0):
        for batch in super().batches(epoch, start):
            time.sleep(0.02)
            yield batch


def test_the_loop_tells_waiting_from_computing(tmp_path):
    slow = loop.fit(without_batch_norm(), Slow(4), PLAIN, setting(tmp_path)).progress
    assert slow.waiting >= 14 * 0.02
    quick = loop.fit(without_batch_norm(), Noise(4), PLAIN, setting(tmp_path)).progress
    assert quick.waiting < slow.waiting / 2
    assert quick.computing > 0
    assert checkpoint.progress(tmp_path / "last.safetensors").computing == quick.computing


def test_what_the_loaders_threads_took_is_counted():
    progress, loader = Progress(), SimpleNamespace(spent=1.0)
    pace = Pace(iter([1]), CPU, loader)
    loader.spent = 1.75
    pace.write(progress)
    pace.write(progress)
    assert progress.preparing == 0.75


@pytest.mark.parametrize(
    ("waiting", "computing", "preparing", "beginning", "advice"),
    [
        (40.0, 60.0, 0.0, "data-bound: 40% of the training time", "--cache"),
        (1.0, 99.0, 0.0, "compute-bound: only 1% of the training time", "--precision bf16"),
        (1.0, 99.0, 80.0, "data-bound: preparing pictures took 40% of the processor", "--cache"),
        (0.1, 0.2, 0.0, "too short", "to tell"),
    ],
)
def test_the_verdict_says_what_to_do(monkeypatch, waiting, computing, preparing, beginning, advice):
    monkeypatch.setattr("convarium.training.pace.cores", lambda: 2)
    said = verdict(Progress(waiting=waiting, computing=computing, preparing=preparing))
    assert said.startswith(beginning)
    assert advice in said


def test_bfloat16_is_not_advised_to_who_has_it():
    assert "bf16" not in verdict(Progress(waiting=1, computing=99), bf16=True)


@pytest.mark.parametrize(
    ("left", "step", "steps", "validation", "epochs"),
    [(600, 0.5, 100, 10, 10), (599, 0.5, 100, 10, 9), (59, 0.5, 100, 10, 0), (-1, 0.5, 100, 10, 0)],
)
def test_epochs_that_fit_into_a_time(left, step, steps, validation, epochs):
    assert epochs_within(left, step, steps, validation) == epochs


def test_training_ends_when_the_time_is_overspent_and_stays_ended(tmp_path):
    notes = []
    used = setting(tmp_path, budget=0.05)
    used.watcher.note = notes.append
    parts = loop.fit(without_batch_norm(), Slow(4), replace(PLAIN, epochs=50), used)
    assert parts.progress.epoch == 1
    assert "ended after epoch 1 of 50" in notes[-1]
    kept = checkpoint.progress(used.state)
    assert kept.finished and kept.ended == parts.progress.ended
    assert loop.fit(without_batch_norm(), Slow(4), PLAIN, used, resume=True).progress.epoch == 1


def test_the_time_of_all_sittings_counts(tmp_path):
    used = setting(tmp_path)
    parts = loop.fit(without_batch_norm(), Noise(4), replace(PLAIN, epochs=1), used)
    parts.progress.finished, parts.progress.seconds = False, 100.0
    checkpoint.save(used.state, parts, loop.settings(used))
    again = loop.fit(
        without_batch_norm(), Noise(4), replace(PLAIN, epochs=9), replace(used, budget=50), resume=True
    )
    assert again.progress.epoch == 2


def test_a_time_that_is_kept_changes_nothing(tmp_path):
    one, other = with_batch_norm(), with_batch_norm()
    parts = loop.fit(one, Noise(4), PLAIN, setting(tmp_path, budget=1e6))
    loop.fit(other, Noise(4), PLAIN, setting(tmp_path))
    assert same(one, other)
    assert parts.progress.ended == ""


def test_a_state_from_before_these_figures_still_loads(tmp_path, monkeypatch):
    used = setting(tmp_path)
    new = ("waiting", "computing", "preparing", "ended")
    with monkeypatch.context() as before:
        before.setattr(checkpoint, "asdict", lambda x: {k: v for k, v in asdict(x).items() if k not in new})
        loop.fit(without_batch_norm(), Noise(4), replace(PLAIN, epochs=1), used)
    assert checkpoint.progress(used.state).waiting == 0.0
    assert loop.fit(without_batch_norm(), Noise(4), PLAIN, used, resume=True).progress.finished


def test_a_rehearsal_times_real_steps_and_changes_nothing(tmp_path):
    task, before = with_batch_norm(), with_batch_norm()
    drawn = torch.get_rng_state()
    seconds = rehearse(task, Slow(4), replace(PLAIN, accumulate=2, ema=0.9), setting(tmp_path))
    assert seconds >= 2 * 0.02 * 0.5  # the last step has but one batch
    assert same(task, before) and all(p.grad is None for p in task.parameters())
    assert torch.equal(drawn, torch.get_rng_state())


def test_steps_of_an_epoch():
    assert [steps_in(Noise(4), replace(PLAIN, accumulate=n)) for n in (1, 2, 3, 7, 8)] == [7, 4, 3, 1, 1]


def test_an_accelerator_waits_where_its_own_clock_says_so(monkeypatch):
    # It is still busy for the first batch, idle for 30 ms before the second, and has not come to the third yet.
    passed = {0: 0.0, 1: 0.0, 2: 1.0, 3: 31.0}

    class Event:
        def __init__(self, number):
            self.number = number

        def query(self):
            return self.number in passed

        def elapsed_time(self, other):
            return passed[other.number] - passed[self.number]

    numbers = iter(range(9))
    monkeypatch.setattr("convarium.training.pace._moment", lambda: Event(next(numbers)))
    progress = Progress()
    pace = Pace(iter("abc"), torch.device("cuda"))
    assert list(zip(range(3), pace, strict=False)) == [(0, "a"), (1, "b"), (2, "c")]
    pace.write(progress)
    assert progress.waiting == pytest.approx(0.03)
    passed[4], passed[5] = 40.0, 60.0
    pace.write(progress)
    assert progress.waiting == pytest.approx(0.05)
