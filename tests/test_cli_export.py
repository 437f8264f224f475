"""The verb `export`: what it says, what it compares on, and mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import export as verb
from convarium.errors import ConvariumError
from convarium.models import create
from tests.test_deploy_export import classifier, noise
from tests.test_models_onnx import operators_are_listed_once  # noqa: F401 (a fixture, for this file too)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "модель" / "model.safetensors"
    path.parent.mkdir()
    classifier(create("lenet5")).save(path)
    return path


def run(*arguments):
    app = typer.Typer()
    app.command()(verb.run)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_verb_says_what_it_wrote_and_how_it_agrees(model, tmp_path):
    noise(50, 40).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    ended = run(model, "--to", "onnx", "--pictures", tmp_path / "a.png", "--pictures", tmp_path / "b.png")
    assert ended.exit_code == 0, ended.output
    assert "1 pictures: 0 flips, largest difference " in ended.output and "predict.py" in ended.output
    assert (model.parent / "export-onnx" / "model.onnx").is_file()


def test_the_verb_takes_the_pictures_that_the_run_held_out(model, tmp_path):
    noise(50, 40).save(tmp_path / "a.png")
    rows = ["path,label,part,key", "t.png,x,train,t", "u.png,y,train,u", f"{tmp_path}/a.png,x,val,a"]
    (model.parent / "split.csv").write_text("\n".join(rows), "utf-8")
    ended = run(model.parent, "--to", "torch-export", "-o", tmp_path / "out", "--json")
    told = json.loads(ended.stdout)
    assert told["about"]["parity"]["pictures"] == 1 and not told["about"]["parity"]["made"]
    assert told["files"] == ["model.pt2", "predict.py", "model.json"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--to", "onxx"), "no format is called 'onxx'; did you mean onnx"),
        (("--to", "openvino", "--whole"), "leave out --whole"),
        (("--to", "safetensors", "--dynamic"), "leave out --whole and --dynamic"),
        (("--to", "onnx", "-o", "."), "folder of the model itself"),
        (("--to", "onnx", "-o", "full"), "full holds other files"),
        (("--to", "onnx", "-o", "model.safetensors"), "is a file"),
        (("--to", "onnx", "--pictures", "full"), "full has no pictures"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(model, monkeypatch, arguments, said):
    monkeypatch.chdir(model.parent)
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    ended = run(model.name, *arguments)
    assert isinstance(ended.exception, ConvariumError) and said in str(ended.exception)
    assert sorted(path.name for path in model.parent.iterdir()) == ["full", "model.safetensors"]


def test_a_missing_library_is_named(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    ended = run(model, "--to", "onnx")
    assert "need onnxscript, which is not installed; `pip install convarium[deploy]`" in str(ended.exception)


def test_an_export_can_be_made_again(model):
    for _ in range(2):
        assert run(model, "--to", "safetensors", "-o", model.parent / "out").exit_code == 0
