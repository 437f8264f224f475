"""convarium engines: its table, its JSON, what it keeps and forgets, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from convarium.classifier import Classifier
from convarium.cli import engines
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import measuring, remembered, ways
from convarium.errors import CheckpointError, DataError, UnknownName
from convarium.models import create

app = typer.Typer()
app.command()(engines.run)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A saved classifier; of the ways only two need no time to be set up."""
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    some = [way for way in ways._CPU if way.name in (ways.PLAIN, "folded-fp32")]
    monkeypatch.setattr(measuring, "ways", lambda subject: some)
    clf = Classifier(create("lenet5", classes=3), list("abc"), Preprocessing(size=28, mode="L"), device="cpu")
    return clf.save(tmp_path / "model.safetensors")


@pytest.fixture
def photos(tmp_path) -> Path:
    draw = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(3):
        pixels = draw.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


def run(*arguments: object):
    done = CliRunner().invoke(app, [*map(str, arguments), "--seconds", "0.1"])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_table_marks_the_best_and_it_is_remembered(model, photos):
    done = run(model, photos, "--batch", 2)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert "batch 2" in lines[1] and lines[1].endswith("answers compared on 3 pictures")
    table = [line for line in lines if " plain " in line or "folded-fp32" in line]
    assert len(table) == 2 and sum(line.startswith("*") for line in table) == 1
    assert all("taken" in line for line in table if line.startswith("*"))
    assert done.stderr.splitlines()[-1] == "remembered: predict takes it from now on"
    assert remembered.known(model, 2).keys() == {"plain", "folded-fp32"}


def test_on_made_pictures_nothing_is_remembered(model):
    done = run(model, "--batch", 2)
    assert "compared on 6 made pictures" in done.stdout and "not remembered: on made pictures" in done.stderr
    assert remembered.known(model, 2) == {}


def test_json_has_every_row(model, photos):
    done = run(model, photos, "--batch", 2, "--json")
    told = json.loads(done.stdout)
    assert told["remembered"] is True and told["pictures"] == 3 and told["made"] is False
    assert [row["name"] for row in told["rows"]] == ["plain", "folded-fp32"]
    assert told["best"] in ("plain", "folded-fp32") and told["versions"]["convarium"]
    row = told["rows"][1]
    assert row["agrees"] and row["scores"] < 1e-5 and row["images_per_second"] > 0 and row["setup"] > 0


def test_a_network_by_name_has_random_weights_and_is_not_remembered(model):
    done = run("lenet5", "--batch", 2)
    assert done.exit_code == 0 and "not remembered: random weights answer nothing" in done.stderr


def test_what_is_known_can_be_forgotten(model, photos):
    run(model, photos, "--batch", 2)
    done = run(model, "--batch", 2, "--forget")
    assert "forgot what was measured" in done.stderr and remembered.known(model, 2) == {}
    assert "nothing was kept" in run(model, "--batch", 2, "--forget").stderr


def test_a_damaged_picture_is_left_out(model, photos):
    (photos / "bad.png").write_bytes(b"no picture")
    done = run(model, photos, "--batch", 2)
    assert "left out: " in done.stderr and "compared on 3 pictures" in done.stdout


def test_mistakes_are_told(model, tmp_path):
    with pytest.raises(UnknownName, match="no mode is called 'fast'"):
        run(model, "--mode", "fast")
    with pytest.raises(UnknownName, match="no network is called"):
        run("lenet55")
    with pytest.raises(CheckpointError, match="no model at"):
        run(tmp_path / "none.safetensors")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of these pictures"):
        run(model, tmp_path / "bad.png")
