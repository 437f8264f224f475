"""Measuring networks: with which settings they run, what is told, and that nothing is left changed."""

from __future__ import annotations

import itertools
import json
import math
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from convarium.costs import candidate as candidate_module
from convarium.costs.candidate import Candidate
from convarium.costs.latency import Latency, Race, keep, measure
from convarium.costs.records import Records
from convarium.errors import ArgumentError

PICTURE = (3, 8, 8)


class Small(nn.Sequential):
    """A network that notes how it was run."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
        self.seen: list[dict] = []

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        self.seen.append(
            {
                "shape": tuple(x.shape),
                "threads": torch.get_num_threads(),
                "training": self.training or self[1].training,
                "inference": torch.is_inference_mode_enabled(),
                "weights": self[0].weight.dtype,
                "out": out.dtype,
                "channels_last": self[0].weight.is_contiguous(memory_format=torch.channels_last)
                and x.is_contiguous(memory_format=torch.channels_last),
            }
        )
        return out

    def __deepcopy__(self, memo: dict) -> Small:
        copied = Small()
        copied.load_state_dict(self.state_dict())
        copied.seen = self.seen  # what a copy sees is noted too
        return copied


class Broken(Small):
    """Fails after some runs, in the way asked for."""

    def __init__(self, error: BaseException, after: int = 0) -> None:
        super().__init__()
        self.error, self.left = error, after

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            torch.rand(1)  # and draws from the generator
            raise self.error
        return super().forward(x)


def test_a_measurement_tells_all_that_it_was_made_with():
    net = Small()
    (found,) = measure([Candidate("small", net, PICTURE, batch=3, threads=1)], seconds=0.05)
    assert (found.title, found.batch, found.threads, found.dtype, found.device) == (
        "small",
        3,
        1,
        "fp32",
        "cpu",
    )
    assert found.torch == torch.__version__ and found.picture == PICTURE and not found.channels_last
    assert (
        found.mode.startswith("eager, inference_mode, ")
        and found.device_name
        and found.machine
        and found.date
    )
    assert found.runs >= found.turns >= 1 and found.warmup >= 1
    assert found.p50 > 0 and found.images_per_second == pytest.approx(3000 / found.p50)
    assert all(seen["shape"] == (3, *PICTURE) for seen in net.seen)
    assert len(net.seen) == found.runs + found.warmup


def test_the_status_says_whether_the_interval_was_reached():
    candidates = [Candidate("small", Small(), PICTURE)]
    with patch.object(candidate_module.time, "perf_counter", itertools.count(0, 0.06).__next__):
        (settled,) = measure(candidates, seconds=5)
    assert settled.status == "settled" and settled.reason == "" and settled.half_width < 0.03
    (hurried,) = measure(candidates, seconds=1e-9)
    assert hurried.status == "unsettled" and "1 of at least 6" in hurried.reason and math.isnan(hurried.low)


def test_networks_run_in_evaluation_and_inference_mode_with_the_threads_asked_for():
    net = Small().train()
    measure([Candidate("small", net, PICTURE, threads=1)], seconds=0.02)
    assert all(seen["threads"] == 1 and seen["inference"] and not seen["training"] for seen in net.seen)


@pytest.mark.parametrize(
    ("dtype", "weights", "out"),
    [
        ("fp32", torch.float32, torch.float32),
        ("bf16", torch.float32, torch.bfloat16),
        ("bf16-weights", torch.bfloat16, torch.bfloat16),
    ],
)
def test_number_types_are_what_they_are_called(dtype, weights, out):
    net = Small()
    (found,) = measure([Candidate("small", net, PICTURE, dtype=dtype)], seconds=0.02)
    assert found.status != "unavailable", found.reason
    assert {(seen["weights"], seen["out"]) for seen in net.seen} == {(weights, out)}
    assert {p.dtype for p in net.parameters()} == {torch.float32}


def test_fp32_is_fp32_also_within_autocast():
    net = Small()
    with torch.autocast("cpu", torch.bfloat16):
        measure([Candidate("small", net, PICTURE)], seconds=0.02)
    assert {seen["out"] for seen in net.seen} == {torch.float32}


def test_channels_last_lays_out_a_copy():
    net = Small()
    measure([Candidate("small", net, PICTURE, channels_last=True)], seconds=0.02)
    assert all(seen["channels_last"] for seen in net.seen)
    assert net[0].weight.is_contiguous()


def state(net: nn.Module) -> tuple:
    return (
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        [module.training for module in net.modules()],
        {name: (t.dtype, t.stride(), t.sum().item()) for name, t in net.state_dict().items()},
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "bf16-weights"])
def test_everything_is_as_before(dtype):
    net = Small().train()
    net[1].eval()  # a mode of parts is kept too
    before = state(net)
    measure([Candidate("small", net, PICTURE, 2, 1, dtype, channels_last=True)], seconds=0.02)
    assert state(net) == before


@pytest.mark.parametrize("after", [0, 3])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit()])
def test_everything_is_as_before_after_an_interruption(error, after):
    net = Broken(error, after).train()
    before = state(net)
    with pytest.raises(type(error)):
        measure([Candidate("broken", net, PICTURE, threads=1)], seconds=5)
    assert state(net) == before


def test_what_was_measured_before_an_interruption_can_be_asked_for():
    class Clock:
        """Interrupts after enough turns of both."""

        def __call__(self, done: int, total: int, title: str) -> None:
            if all(one.medians for one in race.lanes):
                raise KeyboardInterrupt

    race = Race([Candidate("a", Small(), PICTURE), Candidate("b", Small(), PICTURE)], seconds=5)
    with pytest.raises(KeyboardInterrupt):
        race.run(Clock())
    found = race.results()
    assert [one.title for one in found] == ["a", "b"] and all(one.p50 > 0 for one in found)
    assert all(one.status == "unsettled" and "stopped" in one.reason for one in found)


def test_a_network_that_fails_is_named_and_the_others_go_on():
    candidates = [
        Candidate("broken", Broken(RuntimeError("no such kernel\nand more")), PICTURE),
        Candidate("small", Small(), PICTURE),
    ]
    before = torch.get_rng_state()
    broken, small = measure(candidates, seconds=0.02)
    assert broken.status == "unavailable" and broken.reason == "it fails: no such kernel"
    assert math.isnan(broken.p50) and not broken.p50 <= 1e9
    assert small.runs > 0
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 400 GB"),
    ],
)
def test_too_little_memory_is_called_so(error):
    (found,) = measure([Candidate("large", Broken(error, after=1), PICTURE)], seconds=0.02)
    assert found.status == "unavailable" and "too little memory" in found.reason


def test_a_deadline_that_is_over_leaves_all_unrun():
    net = Small()
    (found,) = measure([Candidate("small", net, PICTURE)], seconds=5, deadline=0.0)
    assert found.status == "unavailable" and "before it ran" in found.reason and net.seen == []


def test_progress_is_told():
    told: list[tuple[int, int, str]] = []
    candidates = [Candidate(title, Small(), PICTURE) for title in "ab"]
    measure(candidates, seconds=0.02, on_progress=lambda *args: told.append(args))
    assert {total for _, total, _ in told} == {2} and {title for *_, title in told} == {"a", "b"}
    assert told[-1][0] == 2


def test_a_measurement_survives_json():
    (good,) = measure([Candidate("small", Small(), PICTURE)], seconds=0.05)
    (bad,) = measure([Candidate("bad", Broken(RuntimeError("x")), PICTURE)], seconds=0.05)
    for one in (good, bad):
        again = Latency.from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        assert again.to_dict() == one.to_dict() and again.picture == PICTURE
    assert bad.to_dict()["p50"] is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dtype": "fp8"}, "'fp8'; it must be one of fp32, bf16"),
        ({"batch": 0}, "batch of 0"),
        ({"threads": 0}, "so 1 to"),
        ({"threads": 100_000}, "100000 threads; this process may use"),
        ({"device": "tpu"}, "'tpu'; it must be cpu, cuda"),
        ({"device": "cuda:x"}, "it must be cpu, cuda"),
        ({"device": "cuda:99"}, "measure on cpu"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ArgumentError, match=said):
        Candidate("small", Small(), PICTURE, **settings)


def test_cuda_that_is_absent_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ArgumentError, match="torch finds none on this machine; measure on cpu"):
        Candidate("small", Small(), PICTURE, device="cuda")


def test_a_network_without_weights_is_refused():
    with pytest.raises(ArgumentError, match="has no weights"), torch.device("meta"):
        Candidate("empty", Small(), PICTURE)


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"seconds": math.nan}, {"spread": 0}, {"spread": 1}])
def test_limits_that_cannot_be_are_refused(limits):
    with pytest.raises(ArgumentError, match="must be above 0"):
        Race([], **limits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_measured_on_a_copy():
    net = Small()
    (found,) = measure([Candidate("small", net, PICTURE, device="cuda")], seconds=0.2)
    assert found.status != "unavailable" and found.device == "cuda:0"
    assert {p.device.type for p in net.parameters()} == {"cpu"}


def test_what_was_measured_is_kept_and_what_could_not_be_is_not(tmp_path):
    good, bad = Candidate("good", Small(), PICTURE), Candidate("bad", Broken(RuntimeError("no")), PICTURE)
    records = Records(tmp_path / "records.jsonl")
    assert keep(measure([good, bad], seconds=0.05), records) == 1
    assert [row["title"] for row in records.find("latency")] == ["good"]
