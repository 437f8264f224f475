"""Predicted memory: by hand where that can be, else beside the allocator's own record; and the largest batch."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from convarium.costs import measured_memory, saved
from convarium.costs.measured_memory import MeasurementFailed, measure
from convarium.costs.memory import CUDA_BLOCK, Memory, largest_batch, memory, setting
from convarium.errors import ArgumentError
from convarium.models import create
from convarium.net import Net
from tests.tiny import tiny

FLOAT, LABEL = 4, 8  # bytes
KIB = 1024


def allocated(net: nn.Module, picture: tuple[int, int, int], **how: Any) -> int:
    """The most that torch's allocator holds, on a copy of the network that is made while it is recorded."""
    asked = setting(picture, **how)
    with torch.device("meta"):
        empty = net.to("meta")

    def steps() -> None:
        # Every tensor must come from the recorded allocator.
        real = empty.to_empty(device="cpu")
        for tensor in [*real.parameters(), *real.buffers()]:
            tensor.data.fill_(1)
        measured_memory._steps(real, asked)
        empty.to("meta")

    return measured_memory._on_cpu(steps)[0]


class Layers(nn.Module):
    """10 -> 20 -> 5, with or without an activation in place."""

    def __init__(self, in_place: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(10, 20, bias=False)
        self.act = nn.ReLU(in_place)
        self.second = nn.Linear(20, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        x = self.act(x)
        return self.second(x)


WEIGHTS = (10 * 20 + 20 * 5) * FLOAT
PICTURE = (1, 2, 5)


def test_inference_holds_the_weights_the_input_and_two_activations():
    said = memory(Layers(), PICTURE, batch=64)
    assert said.peak == WEIGHTS + 64 * (10 * FLOAT + LABEL) + 2 * 64 * 20 * FLOAT
    assert said.parts["parameters"] == WEIGHTS
    assert said.parts["saved"] == said.parts["gradients"] == said.parts["optimizer"] == 0


def test_an_activation_in_place_holds_one():
    said = memory(Layers(in_place=True), PICTURE, batch=64)
    assert said.peak == WEIGHTS + 64 * (10 * FLOAT + LABEL) + 64 * (20 + 5) * FLOAT


def test_the_parts_sum_to_the_peak_and_the_optimizer_keeps_its_own():
    found = {o: memory(Layers(), PICTURE, training=True, optimizer=o) for o in ("sgd", "momentum", "adamw")}
    assert [one.parts["optimizer"] for one in found.values()] == [0, WEIGHTS, 2 * WEIGHTS]
    assert all(sum(one.parts.values()) == one.peak for one in found.values())


def test_training_holds_what_the_backward_pass_needs():
    # The activation before ReLU is not needed: its result says where it was above zero.
    one, two = (memory(Layers(), PICTURE, batch=n, training=True).parts["saved"] for n in (1000, 2000))
    scores = 3 * 5 * FLOAT  # scores, their logarithms, and the gradient's way through them
    assert 20 * FLOAT <= (two - one) / 1000 <= 20 * FLOAT + scores


def test_frozen_weights_take_no_gradient_and_no_state():
    net = Layers()
    net.first.requires_grad_(False)
    said = memory(net, PICTURE, training=True)
    assert said.parts["optimizer"] == 20 * 5 * FLOAT
    assert said.parts["gradients"] <= 20 * 5 * FLOAT


def test_weights_that_are_shared_are_counted_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(10, 10, bias=False)
            self.b = nn.Linear(10, 10, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x.flatten(1)))

    assert memory(Twice(), PICTURE).parts["parameters"] == 100 * FLOAT


def test_what_is_computed_again_is_not_kept():
    class Block(nn.Module):
        def __init__(self, again: bool) -> None:
            super().__init__()
            self.again = again
            self.inner = nn.Sequential(nn.Linear(10, 500), nn.Tanh(), nn.Linear(500, 10))

        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x)

    kept, again = (memory(Block(a), PICTURE, batch=500, training=True).parts["saved"] for a in (False, True))
    assert kept > 500 * 500 * FLOAT > again


def test_attention_keeps_no_table_of_all_pairs():
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(2).transpose(1, 2)[:, None].contiguous()  # (N, 1, T, 8)
            return F.scaled_dot_product_attention(x, x, x).mean((1, 2))

    tokens = 32 * 32
    said = memory(Attention(), (8, 32, 32))
    assert said.peak < tokens * tokens * FLOAT


def test_the_network_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    net[1].eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    memory(net, (3, 8, 8), batch=2, training=True, dtype="bfloat16")
    assert [m.training for m in net] == [True, False, True, True]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert all(p.grad is None and type(p) is nn.Parameter for p in net.parameters())


class Residual(nn.Module):
    """Gradients meet at every sum: autograd adds them in place."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(100, 100) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = x + layer(x).tanh() * 0.5
        return x


@pytest.mark.parametrize("training", [False, True])
def test_equals_the_allocator_where_gradients_meet(training):
    picture = (1, 10, 10)
    said = memory(Residual(), picture, batch=300, training=training)
    assert said.peak == pytest.approx(allocated(Residual(), picture, batch=300, training=training), rel=0.001)


FAMILIES = ("vgg", "resnet", "densenet", "mobilenet_v2", "efficientnet", "convnext", "googlenet")


@pytest.mark.parametrize("family", FAMILIES)
def test_within_ten_per_cent_of_the_allocator(family):
    net = tiny(family)
    picture = (net.in_channels, net.size, net.size)
    for training in (False, True):
        said = memory(net, picture, batch=16, training=training)
        assert said.peak == pytest.approx(allocated(net, picture, batch=16, training=training), rel=0.1)


@pytest.mark.parametrize("training", [False, True])
def test_within_ten_per_cent_under_autocast(training):
    net = _empty("resnet18", 96)
    how = {"batch": 2, "training": training, "dtype": "bfloat16", "optimizer": "adamw"}
    assert memory(net, (3, 96, 96), **how).peak == pytest.approx(allocated(net, (3, 96, 96), **how), rel=0.1)


def _empty(name: str, size: int, **options: Any) -> Net:
    with torch.device("meta"):
        return create(name, classes=10, size=size, **options)


@pytest.mark.parametrize("family", ["resnet", "densenet", "vit", "mobilenet_v3"])
def test_shortcuts_say_what_torch_says(family, monkeypatch):
    net = tiny(family)
    shape = (2, net.in_channels, net.size, net.size)
    how: dict[str, Any] = {"bf16": False, "channels_last": False, "states": 1, "updated": True}

    def followed() -> saved.Ledger:
        return saved.follow(net, shape, training=True, granule=1, kernels=True, **how).ledger

    quick = followed()
    monkeypatch.setattr(saved, "shortcut", lambda *given: NotImplemented)
    slow = followed()
    assert quick.sizes == slow.sizes
    assert quick.makers == slow.makers
    assert quick.peak() == slow.peak()


def test_a_card_hands_out_whole_blocks_and_the_rest_is_named():
    said = memory(Layers(), PICTURE, device="cuda")
    assert all(size % CUDA_BLOCK == 0 for size in said.parts.values())
    assert said.status == "partial"
    assert "cuDNN" in said.notes[0]


@pytest.mark.parametrize("batch", [1, 5, 37, 400])
def test_the_largest_batch_is_the_largest(batch):
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 49, 5))
    how: dict[str, Any] = {"training": True, "optimizer": "adamw"}
    picture = (3, 16, 16)
    limit = memory(net, picture, batch=batch, **how).peak
    fit = largest_batch(net, picture, limit, **how)
    assert fit.batch == batch
    assert fit.memory.peak == limit
    assert fit.beyond is not None
    assert fit.beyond.setting.batch == batch + 1
    assert fit.beyond.peak > limit
    assert len(fit.tried) <= 12


def test_not_even_one_picture():
    fit = largest_batch(Layers(), PICTURE, WEIGHTS)
    assert fit.batch == 0
    assert fit.memory.setting.batch == 1
    assert fit.memory.peak > WEIGHTS


def test_a_batch_norm_of_single_pixels_starts_from_two_pictures():
    class Pooled(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).flatten(1)

    net = Pooled(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    assert largest_batch(net, (3, 8, 8), 100 * KIB, training=True).batch > 2


def test_the_search_ends_where_nothing_grows(monkeypatch):
    monkeypatch.setattr("convarium.costs.memory.MOST", 64)
    fit = largest_batch(Layers(), PICTURE, 1 << 40)
    assert (fit.batch, fit.beyond) == (64, None)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"dtype": "float16"}, "float32, bfloat16"),
        ({"optimizer": "lion"}, "none, sgd, momentum, adamw"),
        ({"device": "tpu"}, "cpu, cuda"),
        ({"batch": 0}, "1 or more"),
        ({"batch": "4"}, "batch = '4'; it must be a whole number"),
        ({"batch": 2.0}, "1 or more"),
    ],
)
def test_what_is_not_there_is_refused(how, said):
    with pytest.raises(ArgumentError, match=said):
        memory(Layers(), PICTURE, **how)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_course_that_depends_on_numbers_is_named():
    with pytest.raises(ArgumentError, match="Branching.*depends on numbers.*measure it"):
        memory(Branching(), PICTURE)


def test_a_picture_that_does_not_fit_the_network_is_named():
    with pytest.raises(
        ArgumentError, match="inference of Layers on 1 pictures of 3 x 9 x 9 cannot be followed"
    ):
        memory(Layers(), (3, 9, 9))


def test_a_child_process_measures_the_same():
    net = _empty("lenet5", 32)
    said: Memory = memory(net, (1, 32, 32), batch=512, training=True)
    got = measure(net, (1, 32, 32), batch=512, training=True, seconds=120)
    assert said.peak == pytest.approx(got.allocated, rel=0.1)
    assert got.grown is None or got.grown > got.allocated / 2


def test_a_class_that_no_other_process_knows_is_named():
    class Hidden(nn.Identity):
        pass

    with pytest.raises(ArgumentError, match="Hidden cannot be sent to another process"):
        measure(Hidden(), PICTURE)


@pytest.mark.parametrize(
    ("status", "said", "told"),
    [
        (1, b"Traceback\nRuntimeError: no room", "failed: RuntimeError: no room"),
        (-9, b"", "not enough memory"),
    ],
)
def test_what_goes_wrong_in_the_child_is_told(status, said, told, monkeypatch):
    ended = subprocess.CompletedProcess([], status, stdout=b"", stderr=said)
    monkeypatch.setattr(subprocess, "run", lambda *given, **how: ended)
    with pytest.raises(MeasurementFailed, match=told):
        measure(nn.Linear(3, 3), (1, 4, 4))


def test_nothing_that_learns_is_told():
    with pytest.raises(ArgumentError, match="nothing of Layers learns: all its parameters are frozen"):
        memory(Layers().requires_grad_(False), PICTURE, training=True)


def test_weights_that_were_converted_take_pictures_of_their_type():
    whole, half = memory(Layers(), PICTURE), memory(Layers().to(torch.bfloat16), PICTURE)
    assert 2 * half.parts["parameters"] == whole.parts["parameters"]
    assert whole.parts["input"] - half.parts["input"] == 10 * FLOAT // 2
