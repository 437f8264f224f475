"""Gradients of several batches make one step, which is that of one large batch, and a run goes on between any two."""

from __future__ import annotations

import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from convarium.errors import DataError, Interrupted
from convarium.models import create
from convarium.training import checkpoint, loop, optim
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.signals import Stop
from convarium.training.task import Classify
from convarium.training.watch import Watch

PLAIN = Recipe(epochs=2, batch=4, optimizer="sgd", lr=0.05, warmup=0, schedule="constant", clip=0)


class Noise:
    """The same 27 pictures in the same order, in batches of any size; the last is short."""

    def __init__(self, batch, size=16, channels=3, broken_at=None):
        generator = torch.Generator().manual_seed(1)
        shape = (27, channels, size, size)
        self.pictures = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        self.labels = torch.arange(27) % 10
        self.batch, self.broken_at = batch, broken_at

    def __len__(self):
        return -(-27 // self.batch)

    def batches(self, epoch, start=0):
        for number in range(start, len(self)):
            if number == self.broken_at:
                raise DataError("a picture has vanished")
            rows = slice(number * self.batch, (number + 1) * self.batch)
            yield SimpleNamespace(pictures=self.pictures[rows], labels=self.labels[rows])


def setting(tmp_path, **changes) -> loop.Setting:
    values = {
        "seed": 0,
        "device": torch.device("cpu"),
        "precision": Precision(False, False, "test"),
        "normalise": lambda x: x.float() / 255 - 0.5,
        "validate": None,
        "state": tmp_path / "last.safetensors",
        "minutes": 60.0,
        "stop": Stop(),
        "watcher": Watch(quiet=True),
    }
    return loop.Setting(**{**values, **changes})


def without_batch_norm() -> Classify:
    torch.manual_seed(0)
    return Classify(create("lenet5", in_channels=3, size=16))


def with_batch_norm(seed=0) -> Classify:
    torch.manual_seed(seed)
    return Classify(create("resnet20", depth=8, size=16), mixup=0.4)


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_several_batches_make_the_step_of_one_large_one(tmp_path, clip):
    # Batches of 4: the last group has three, of 4, 4 and 3 pictures: 27 = 16 + 11.
    several, large = without_batch_norm(), without_batch_norm()
    how = replace(PLAIN, clip=clip)
    loop.fit(several, Noise(4), replace(how, accumulate=4), setting(tmp_path))
    loop.fit(large, Noise(16), how, setting(tmp_path))
    for (name, ours), theirs in zip(several.named_parameters(), large.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)


def test_schedule_and_averages_count_steps_and_not_batches(tmp_path, monkeypatch):
    seen = []
    real = optim.learning_rate
    monkeypatch.setattr(optim, "learning_rate", lambda *a: seen.append(a[1:3]) or real(*a))
    how = replace(PLAIN, accumulate=3, ema=0.5, schedule="cosine")
    parts = loop.fit(with_batch_norm(), Noise(4), how, setting(tmp_path))
    assert parts.progress.step == 6  # seven batches an epoch: three, three, one
    assert {steps for _, steps in seen} == {3}
    assert int(parts.average.n_averaged) == 6
    assert [record["step"] for record in parts.progress.history] == [3, 6]


def test_the_figures_of_an_epoch_count_every_picture_once(tmp_path):
    still = replace(PLAIN, epochs=1, lr=1e-12, momentum=0.0, weight_decay=0.0)
    records = [
        loop.fit(without_batch_norm(), Noise(4), replace(still, accumulate=n), setting(tmp_path))
        for n in (1, 4)
    ]
    one, four = (parts.progress.history[0] for parts in records)
    assert four["train_loss"] == pytest.approx(one["train_loss"], rel=1e-6)
    assert four["train_top1"] == one["train_top1"]


@pytest.mark.parametrize("stop_at", [1, 3, 4])
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path, stop_at):
    how = replace(PLAIN, accumulate=3, ema=0.9, optimizer="adamw", lr=1e-3)
    whole = with_batch_norm()
    whole_parts = loop.fit(whole, Noise(4), how, setting(tmp_path))
    stop = Stop()

    class Stopper(Watch):
        def step(self, progress, batches, loss):
            assert batches == 7
            if progress.step == stop_at:
                stop.signal = signal.SIGTERM

    state = tmp_path / "cut.safetensors"
    with pytest.raises(Interrupted, match=f"after step {stop_at}"):
        loop.fit(
            with_batch_norm(),
            Noise(4),
            how,
            setting(tmp_path, state=state, stop=stop, watcher=Stopper(quiet=True)),
        )
    other = with_batch_norm(seed=5)
    parts = loop.fit(other, Noise(4), how, setting(tmp_path, state=state), resume=True)
    assert same(other, whole)
    assert same(loop.kept(parts), loop.kept(whole_parts))


def test_a_step_that_was_cut_short_is_not_kept(tmp_path):
    # Batch norm has seen the group's first batch already: such a state would not be one between two steps.
    how = replace(PLAIN, accumulate=3)
    whole = with_batch_norm()
    loop.fit(whole, Noise(4), how, setting(tmp_path, state=tmp_path / "whole.safetensors"))
    used = setting(tmp_path, minutes=1e-9)
    with pytest.raises(DataError):
        loop.fit(with_batch_norm(), Noise(4, broken_at=4), how, used)
    assert checkpoint.progress(used.state).batch == 3
    resumed = with_batch_norm(seed=5)
    loop.fit(resumed, Noise(4), how, used, resume=True)
    assert same(resumed, whole)


def test_an_error_between_two_steps_keeps_them(tmp_path):
    used = setting(tmp_path)
    with pytest.raises(DataError):
        loop.fit(with_batch_norm(), Noise(4, broken_at=3), replace(PLAIN, accumulate=3), used)
    assert checkpoint.progress(used.state).step == 1
