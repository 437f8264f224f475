"""Trackers get each record; one that fails ends nothing; TensorBoard is asked for where it is not installed."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import pytest

from convarium.errors import MissingExtra
from convarium.training import loop, track
from convarium.training.watch import Watch
from tests.test_loop_accumulate import PLAIN, Noise, setting, without_batch_norm

RECORD = {
    "epoch": 3,
    "step": 21,
    "train_loss": 1.5,
    "train_top1": 0.5,
    "lr": 0.1,
    "seconds": 2.0,
    "val_loss": 1.75,
    "val_top1": 0.25,
}


class Kept:
    def __init__(self):
        self.records = []

    def epoch(self, record):
        self.records.append(record)

    def close(self):
        self.records.append("closed")


class Failing(Kept):
    def epoch(self, record):
        super().epoch(record)
        raise OSError("no space left")


def test_a_tracker_gets_the_records_of_the_history(tmp_path):
    kept = Kept()
    used = setting(tmp_path, watcher=Watch(quiet=True, trackers=[kept]))
    parts = loop.fit(without_batch_norm(), Noise(4), PLAIN, used)
    assert kept.records == parts.progress.history
    assert {"epoch", "step", "train_loss", "train_top1", "lr", "seconds"} <= set(kept.records[0])


def test_a_tracker_that_fails_is_told_no_more_and_the_others_are(tmp_path):
    notes, failing, kept = [], Failing(), Kept()
    watch = Watch(quiet=True, trackers=[failing, kept])
    watch.note = notes.append
    parts = loop.fit(without_batch_norm(), Noise(4), PLAIN, setting(tmp_path, watcher=watch))
    assert parts.progress.finished
    assert len(failing.records) == 1 and len(kept.records) == 2
    assert [note for note in notes if "no space left" in note and "training goes on" in note]


def test_tensorboard_is_asked_for_where_it_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"convarium\[track\]"):
        track.tensorboard(tmp_path / "events")
    assert not (tmp_path / "events").exists()


def test_curves_of_training_and_validation_share_a_chart(monkeypatch, tmp_path):
    written = []

    class Writer:
        def __init__(self, folder):
            written.append(folder)

        def add_scalar(self, name, value, epoch):
            written.append((name, value, epoch))

        def flush(self):
            written.append("flush")

        def close(self):
            written.append("close")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    tracker = track.tensorboard(tmp_path / "events")
    tracker.epoch(RECORD)
    tracker.close()
    assert written[0] == str(tmp_path / "events")
    assert ("loss/train", 1.5, 3) in written and ("loss/val", 1.75, 3) in written
    assert ("top-1/train", 0.5, 3) in written and ("top-1/val", 0.25, 3) in written
    assert written[-2:] == ["flush", "close"]


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard_reads_what_is_written(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = track.tensorboard(tmp_path)
    tracker.epoch(RECORD)
    tracker.close()
    read = EventAccumulator(str(tmp_path)).Reload()
    (event,) = read.Scalars("loss/val")
    assert (event.step, event.value) == (3, 1.75)
