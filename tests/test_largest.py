"""The largest batch: by prediction on a processor, tried on an accelerator, and never by a crash."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from convarium.costs.memory import memory
from convarium.errors import ArgumentError
from convarium.models import create
from convarium.training import largest as largest_batch
from convarium.training.largest import MARGIN, largest
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.task import Classify

CPU = torch.device("cpu")
FP32 = Precision(False, False, "test")
SGD = Recipe(optimizer="sgd", momentum=0.9)
PICTURE = (3, 16, 16)
MIB = 2**20


def small() -> Classify:
    return Classify(create("resnet20", depth=8, size=16))


def free(monkeypatch, mib):
    monkeypatch.setattr(largest_batch, "free_memory", lambda: None if mib is None else mib * MIB)


def peak(batch, optimizer="momentum") -> int:
    return memory(small().net, PICTURE, batch=batch, training=True, optimizer=optimizer).peak


def test_the_batch_fits_with_its_margin_and_one_more_would_not(monkeypatch):
    free(monkeypatch, 200)
    batch, reason = largest(small(), PICTURE, SGD, CPU, FP32)
    own = sum(t.nbytes for t in small().state_dict().values())
    limit = MARGIN["cpu"] * 200 * MIB + own
    assert peak(batch) <= limit < peak(batch + 1)
    assert f"{batch:,} pictures" in reason and "by prediction" in reason


def test_what_the_recipe_keeps_leaves_room_for_fewer(monkeypatch):
    free(monkeypatch, 20)
    plain = largest(small(), PICTURE, SGD, CPU, FP32).batch
    changes = [{"ema": 0.9}, {"patience": 3}, {"accumulate": 2}, {"optimizer": "adamw"}]
    for change in changes:
        assert largest(small(), PICTURE, replace(SGD, **change), CPU, FP32).batch < plain, change


def test_where_not_even_one_picture_fits_it_says_so(monkeypatch):
    monkeypatch.setattr(largest_batch, "free_memory", lambda: 10_000)
    batch, reason = largest(small(), PICTURE, SGD, CPU, FP32)
    assert batch == 0 and "not even one picture fits" in reason


def test_a_system_that_tells_nothing_is_told(monkeypatch):
    free(monkeypatch, None)
    with pytest.raises(ArgumentError, match="give --batch"):
        largest(small(), PICTURE, SGD, CPU, FP32)
    with pytest.raises(ArgumentError, match="on cpu and cuda, not on mps"):
        largest(small(), PICTURE, SGD, torch.device("mps"), FP32)


def test_a_step_that_runs_out_of_memory_is_halved_and_nothing_is_left_changed(monkeypatch):
    # As on CUDA, with a processor's arithmetic and an error that its allocator would raise.
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    task = small()
    before, training = copy.deepcopy(task.state_dict()), task.training
    drawn = torch.get_rng_state()
    real = Classify.step

    def full(self, pictures, labels):
        result = real(self, pictures, labels)
        if len(labels) > 12:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    monkeypatch.setattr(Classify, "step", full)
    last = Precision(False, True, "test")
    tried = largest_batch._tried(task, PICTURE, SGD, CPU, last, 100, "predicted")
    assert tried.batch == 12 and "12 went well" in tried.reason
    after = task.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(after[name].stride() == before[name].stride() for name in before)
    assert task.training == training and all(p.grad is None for p in task.parameters())
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_step_on_cuda_goes_well():
    device = torch.device("cuda")
    batch, reason = largest(small().to(device), (3, 64, 64), SGD, device, FP32)
    assert batch > 0 and "by one real step" in reason
