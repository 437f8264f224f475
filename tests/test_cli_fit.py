"""convarium memory and convarium fit: the tables, the answers, and what is told where there is none."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import fit, memory
from convarium.errors import ArgumentError, UnknownName

SMALL = ["lenet5"]


@pytest.fixture
def said():
    """Run a verb and give what it prints; its errors come through."""
    app = typer.Typer()
    app.command("memory")(memory.run)
    app.command("fit")(fit.run)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return call


def test_a_sweep_is_a_table_with_bars(said):
    lines = said("memory", *SMALL, "--batch", "1,64", "--train", "--device", "cpu").splitlines()
    assert lines[0] == "lenet5, 1 x 28 x 28, training with momentum, float32, cpu"
    head = next(line for line in lines if "peak" in line).split()
    assert head == ["batch", "peak", "parameters", "gradients", "optimizer", "saved", "working", "input"]
    rows = [line.split() for line in lines if line[:6].strip().isdigit()]
    assert [row[0] for row in rows] == ["1", "64"]
    bars = [line.strip() for line in lines if set(line.strip()) <= set("PGOSWI") and line.strip()]
    assert len(bars[0]) < len(bars[1]) == memory.WIDTH
    assert lines[-1].startswith("P parameters and buffers, G gradients")


def test_every_batch_is_one_object_whose_parts_sum(said):
    rows = [json.loads(line) for line in said("memory", *SMALL, "--batch", "2,4", "--json").splitlines()]
    assert [row["setting"]["batch"] for row in rows] == [2, 4]
    assert all(sum(row["parts"].values()) == row["peak"] for row in rows)
    assert rows[0]["parts"]["saved"] == 0


def test_a_batch_that_cannot_be_measured_does_not_hide_the_others(said, monkeypatch):
    from convarium.costs import measured_memory

    def fail(*given, **how):
        raise measured_memory.MeasurementFailed("the measurement was ended by signal 9")

    monkeypatch.setattr(measured_memory, "measure", fail)
    assert said("memory", *SMALL, "--batch", "1,2", "--measure").count("ended by signal 9") == 2


def test_a_measured_figure_stands_beside(said, monkeypatch):
    from convarium.costs import measured_memory
    from convarium.costs.measured_memory import Measured
    from convarium.costs.memory import setting

    got = Measured(10 * 2**20, 12 * 2**20, setting((1, 28, 28)), 1, "told")
    monkeypatch.setattr(measured_memory, "measure", lambda *given, **how: got)
    row = said("memory", *SMALL, "--batch", "1", "--measure").splitlines()[4].split()
    assert (row[-3], row[-1]) == ("10.0", "12.0")
    assert float(row[-2]) == pytest.approx(float(row[1]) / 10, abs=0.06)


@pytest.mark.parametrize("batch", ["a", "1,", "1;2", "-1"])
def test_batches_that_are_no_numbers_are_refused(said, batch):
    with pytest.raises(ArgumentError, match="as 1,8,16"):
        said("memory", *SMALL, f"--batch={batch}")


def test_an_unknown_dtype_is_refused_with_those_there_are(said):
    with pytest.raises(UnknownName, match="bf16"):
        said("memory", *SMALL, "--dtype", "fp16")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8G", 8 << 30),
        ("8 GiB", 8 << 30),
        ("8gb", 8 << 30),
        ("1.5M", 3 << 19),
        ("512K", 1 << 19),
        ("1T", 1 << 40),
    ],
)
def test_sizes_are_powers_of_two(text, size):
    assert fit.size_of(text) == size


@pytest.mark.parametrize("text", ["8", "G", "-1G", "8X", "0G", "8G8", ""])
def test_sizes_without_sense_are_refused(text):
    with pytest.raises(ArgumentError, match="8G or 512M"):
        fit.size_of(text)


def test_the_answer_is_the_largest_batch(said):
    found = json.loads(said("fit", *SMALL, "--memory", "64M", "--device", "cpu", "--json"))
    assert found["memory"]["peak"] <= 64 << 20 < found["beyond"]["peak"]
    assert found["beyond"]["setting"]["batch"] == found["batch"] + 1
    text = said("fit", *SMALL, "--memory", "64M", "--device", "cpu")
    assert f"largest batch {found['batch']:,}: " in text
    assert "of 64.0 MiB (1 GiB = 2^30 bytes)" in text
    assert "activations kept for the backward pass" in text


def test_inference_takes_more_pictures(said):
    learning, using = (
        json.loads(said("fit", *SMALL, "--memory", "64M", mode, "--json"))["batch"]
        for mode in ("--train", "--inference")
    )
    assert using > learning


def test_what_would_make_it_fit_is_said(said):
    text = said("fit", "lenet5", "--memory", "700K", "--optimizer", "adamw", "--device", "cpu")
    assert "not even one picture fits in 0.7 MiB" in text
    assert "this would fit: " in text
    assert "--inference takes" in text


def test_where_nothing_helps_that_is_said(said):
    text = said("fit", "lenet5", "--memory", "1K", "--device", "cpu")
    assert "neither would --dtype bf16 nor --optimizer sgd nor --inference alone" in text


def test_what_is_free_here_is_the_limit_by_default(said, monkeypatch):
    monkeypatch.setattr(fit, "free", lambda device: 5 << 20)
    assert json.loads(said("fit", *SMALL, "--device", "cpu", "--json"))["limit"] == 5 << 20


def test_a_card_that_is_not_there_needs_a_size(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ArgumentError, match="no CUDA device here.*--memory 8G"):
        fit.free("cuda")


def test_what_a_card_holds_besides_is_named(said):
    assert "partial: workspaces of cuDNN" in said("fit", *SMALL, "--memory", "64M", "--device", "cuda")


def test_inference_can_be_asked_for_by_name(said):
    assert said("memory", *SMALL, "--inference") == said("memory", *SMALL)


@pytest.mark.parametrize("verb", [("memory", "--batch", "2"), ("fit", "--memory", "1G", "--inference")])
def test_pictures_that_are_no_squares(said, verb):
    name, *options = verb
    assert said(name, "resnet20", *options, "--size", "32x48").startswith("resnet20, 3 x 32 x 48, inference")
