"""Candidates with published accuracy, the budget, networks side by side, and the ranking on the user's pictures."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from convarium.choosing import budget, rank, side_by_side
from convarium.choosing.candidates import Source, best, candidates
from convarium.cli import app
from convarium.costs.choose import Limits, Option
from convarium.costs.peaks import Peak
from convarium.costs.records import Records
from convarium.data.folders import read_data
from convarium.errors import ArgumentError, UnknownName, UserError
from convarium.models import published
from tests.pictures import squares


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Measurements of a tenth of a second, kept in a folder of the test."""
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(budget, "SECONDS", 0.1)


def test_the_best_weights_of_a_network_stand_for_it():
    found = {s.option.size: s.option for s in candidates(["resnet50"])}
    assert found[224].top1 == max(
        p.top1 for p in published.available("resnet50") if p.top1 and p.size == 224 and p.classes == 1000
    )
    assert found[224].parameters == 25_557_032
    assert found[224].macs == pytest.approx(4.09e9, rel=0.01)


def test_networks_that_only_timm_has_are_candidates_too():
    rows = candidates(["timm:resnet10t"])
    assert [s.option.title for s in rows] == ["timm:resnet10t"]
    assert rows[0].option.weights.startswith("timm:resnet10t.")
    assert rows[0].build()(torch.zeros(1, 3, 96, 96)).shape == (1, 1000)


def test_ours_are_not_listed_twice():
    titles = {s.option.title for s in candidates(["*resnet50"])}
    assert "resnet50" in titles and "timm:resnet50" not in titles


def test_a_pattern_that_nothing_matches_is_refused():
    with pytest.raises(UnknownName, match="resnet50"):
        candidates(["resnet5O"])


def test_without_published_accuracy_there_is_no_best():
    assert best("lenet5") is None


def test_nothing_is_drawn_from_the_users_random_numbers():
    before = torch.get_rng_state()
    candidates(["squeezenet1_1"])[0].build()
    assert torch.equal(before, torch.get_rng_state())


def peak_of(flops):
    return lambda device, dtype, threads, records=None: Peak(
        **{
            **dict.fromkeys(Peak.__dataclass_fields__, ""),
            "flops": flops,
            "bandwidth": 1e10,
            "threads": threads,
        }
    )


def test_choosing_measures_networks_and_keeps_what_it_measured(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e12))
    records = Records()
    found = budget.choose(
        Limits(ms=1e5, mb=15),
        among=["squeezenet1_*", "mobilenet_v2"],
        way=budget.Way(threads=1),
        records=records,
    )
    kinds = {v.option.title: v.kind for v in found.choice.verdicts}
    assert kinds == {"mobilenet_v2": "chosen", "squeezenet1_1": "not needed", "squeezenet1_0": "not needed"}
    assert found.choice.measured == 1
    assert len(records.find("latency", threads=1)) >= 1


def test_a_machine_too_slow_rejects_on_paper(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e9))
    found = budget.choose(Limits(ms=100), among=["squeezenet1_1"])
    assert found.choice.answer is None and found.choice.measured == 0
    assert "at least on this machine" in found.choice.verdicts[0].reason


def test_a_network_that_cannot_be_built_does_not_end_the_search(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e12))
    build = Source.build

    def fail(self):
        if self.option.title == "mobilenet_v2":
            raise RuntimeError("not enough memory")
        return build(self)

    monkeypatch.setattr(Source, "build", fail)
    found = budget.choose(Limits(ms=1e5), among=["mobilenet_v2", "squeezenet1_1"], way=budget.Way(threads=1))
    assert found.choice.answer.option.title == "squeezenet1_1"
    assert found.choice.verdicts[0].reason == "cannot be run here: not enough memory"


def test_a_budget_of_no_time_is_refused():
    with pytest.raises(ArgumentError, match="minutes"):
        budget.choose(Limits(), minutes=0)


def test_side_by_side_has_published_and_measured_figures():
    rows = side_by_side.compare(["squeezenet1_1", "lenet5"], way=budget.Way(threads=1), seconds=0.1)
    first, second = rows
    assert (first.top1, first.cost.params) == (58.178, 1_235_496)
    assert (second.top1, second.weights, second.cost.params) == (None, "", 61_706)
    assert first.latency.p50 > 0 and first.memory > first.cost.params * 4
    assert (first.front, second.front) == (True, False)


def test_a_trained_model_stands_beside_networks(tmp_path):
    squares(tmp_path / "data", each=6)
    runner = CliRunner()
    asked = [
        "train",
        str(tmp_path / "data"),
        "--model",
        "lenet5",
        "--epochs",
        "1",
        "--out",
        str(tmp_path / "run"),
    ]
    assert runner.invoke(app, asked).exit_code == 0
    done = runner.invoke(
        app, ["compare", str(tmp_path / "run"), "--threads", "1", "--seconds", "0.1", "--json"]
    )
    row = json.loads(done.stdout)
    assert row["top1"] is None and "% of" in row["own_accuracy"]


def test_weights_in_half_the_bytes_take_half_the_memory():
    ways = [budget.Way(threads=1, dtype=dtype) for dtype in ("fp32", "bf16", "bf16-weights")]
    whole, autocast, half = (side_by_side.compare(["lenet5"], way=way, seconds=0.1)[0] for way in ways)
    assert half.memory < 0.6 * whole.memory < whole.memory < autocast.memory
    assert half.latency.dtype == "bf16-weights" and half.latency.p50 > 0


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"way": budget.Way(dtype="fp16")}, "dtype 'fp16'; it must be one of fp32, bf16, bf16-weights"),
        ({"way": budget.Way(batch=0)}, "a batch of 0"),
        ({"way": budget.Way(device="tpu")}, "device 'tpu'"),
        ({"seconds": 0.0}, "seconds = 0.0"),
    ],
)
def test_settings_of_a_comparison_are_refused_before_a_network_is_built(monkeypatch, asked, said):
    monkeypatch.setattr(side_by_side, "_entry", lambda name: pytest.fail("a network was looked for"))
    with pytest.raises(ArgumentError, match=said):
        side_by_side.compare(["lenet5"], **asked)


@pytest.mark.parametrize("names", [[], ["lenet5", "lenet5"]])
def test_side_by_side_wants_different_names(names):
    with pytest.raises(ArgumentError, match="none twice"):
        side_by_side.compare(names)


def test_choose_says_why(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e12))
    done = CliRunner().invoke(
        app,
        [
            "choose",
            "squeezenet1_*",
            "mobilenet_v2",
            "--max-ms",
            "1e5",
            "--min-top1",
            "70",
            "--threads",
            "1",
            "--all",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "Take mobilenet_v2: the fastest that keeps the limits." in done.stdout
    assert "rejected: top-1 58.18 %, below 70" in done.stdout


def test_no_network_within_the_limits_is_exit_2(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e12))
    done = CliRunner().invoke(app, ["choose", "squeezenet1_1", "--max-mb", "1"])
    assert done.exit_code == 2
    assert "No network keeps these limits." in done.stdout


def trained(name, file, shared):
    """A network with real weights on disk."""
    known = next(p for p in published.available(name) if p.publisher == "torchvision")
    option = Option(name, str(shared / "weights" / file), known.top1, 1e6, 1e9, 224)
    return Source(option, known)


def test_finalists_are_ranked_on_real_pictures(shared, tmp_path):
    pytest.importorskip("sklearn")
    flowers = shared / "flowers5" / "flowers5.tar"
    if not flowers.exists():
        pytest.skip("needs shared/data/flowers5")
    import tarfile

    with tarfile.open(flowers) as tar:
        kept = [
            m
            for i, m in enumerate(sorted(tar.getmembers(), key=lambda m: m.name))
            if m.isdir() or i % 14 == 0
        ]
        tar.extractall(tmp_path, members=kept, filter="data")
    sources = [
        trained("mobilenet_v2", "mobilenet_v2_imagenet.safetensors", shared),
        trained("squeezenet1_1", "squeezenet1_1_imagenet.safetensors", shared),
    ]
    root = next(p for p in tmp_path.iterdir() if p.name != "cache")
    found = rank.rank(sources, rank.sample(root), deadline=time.perf_counter() + 100)
    assert [place.title for place in found.places][0] == "mobilenet_v2"
    assert found.places[0].accuracy.value > 0.75
    assert found.places[1].against_best.count == found.pictures
    assert found.sentence


def test_finalists_whose_weights_cannot_be_had_are_left_out(tmp_path):
    squares(tmp_path / "data", each=6)
    source = candidates(["squeezenet1_1"])[0]
    gone = Source(
        Option("squeezenet1_1", str(tmp_path / "none.safetensors"), 58, 1e6, 1e9, 224), source.weights
    )
    found = rank.rank([gone], rank.sample(tmp_path / "data"), deadline=time.perf_counter() + 60)
    assert found.places == () and "none.safetensors" in found.left_out[0][1]
    assert found.sentence == "None of the finalists could be tried on your pictures."


def test_after_the_deadline_no_finalist_is_begun(tmp_path):
    squares(tmp_path / "data", each=6)
    found = rank.rank(candidates(["squeezenet1_1"]), rank.sample(tmp_path / "data"), deadline=-math.inf)
    assert found.left_out == (("squeezenet1_1", "time was up"),)


def test_a_sample_keeps_each_class_in_its_share(tmp_path):
    squares(tmp_path / "data", each=20)
    whole = [p for part in read_data(tmp_path / "data").parts.values() for p in part.pictures]
    some = rank.sample(tmp_path / "data", most=20)
    counts = np.bincount([p.label for p in some.pictures])
    assert len(some) <= 22 < len(whole)
    assert counts.max() - counts.min() <= 1
    assert [p.key for p in rank.sample(tmp_path / "data", most=20).pictures] == [p.key for p in some.pictures]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"way": budget.Way(batch=0)}, "batch of 0"),
        ({"way": budget.Way(threads=0)}, "0 threads"),
        ({"way": budget.Way(dtype="fp8")}, "fp8"),
        ({"way": budget.Way(device="tpu")}, "tpu"),
        ({"prefer": "beauty"}, "beauty"),
        ({"data": "nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_measured(monkeypatch, asked, said):
    monkeypatch.setattr(budget, "peak", lambda *a, **k: pytest.fail("the machine was measured"))
    with pytest.raises(UserError, match=said):
        budget.choose(Limits(), **asked)


def test_a_network_faster_than_the_peak_raises_it(monkeypatch):
    monkeypatch.setattr(budget, "peak", peak_of(1e6))
    found = budget.choose(Limits(), among=["squeezenet1_1"], way=budget.Way(threads=1))
    timing = found.choice.answer.timing
    assert found.peak.flops == pytest.approx(2 * found.choice.answer.option.macs / timing.p50 * 1e3)
