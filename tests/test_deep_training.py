"""Training on pictures of many bands and of 16 bits: from a folder to a classifier that reads them alike everywhere."""

from __future__ import annotations

import hashlib
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convarium
from convarium.beginning import weights_of
from convarium.errors import ArgumentError, DataError, Interrupted, PictureError
from convarium.planning import planned
from convarium.training import loop

QUICK = {
    "model": "resnet20",
    "arguments": {"depth": 8},
    "size": 16,
    "epochs": 6,
    "batch": 16,
    "precision": "fp32",
    "augment": "none",
}
MOVED = {**QUICK, "epochs": 12, "augment": "light", "channels": 5}
CLASSES = ("barley", "ячмень 2", "oats")


def fine(index: int, bands: int, draw: np.random.Generator) -> np.ndarray:
    """uint16 (20, 18, bands) whose classes lie less than one level of 8 bits apart, in the last band only."""
    values = 1000 + 300 * np.arange(bands) + draw.normal(0, 12, (20, 18, bands))
    values[..., -1] += 90 * index
    return values.astype(np.uint16)


def folder_of(folder: Path, bands: int, ending: str, each: int = 24) -> Path:
    draw = np.random.default_rng(0)
    for index, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(each):
            save(folder / name / f"{number:03}{ending}", fine(index, bands, draw))
    return folder


def save(path: Path, values: np.ndarray) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    elif values.shape[2] == 1:
        Image.fromarray(values[..., 0]).save(path)
    else:
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig", compression="zlib")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """A finished run on TIFFs of five bands, with two that cannot be used among them."""
    folder = tmp_path_factory.mktemp("fields")
    data = folder_of(folder / "data", 5, ".tif")
    save(data / "oats" / "four.tif", fine(0, 4, np.random.default_rng(1)))
    (data / "oats" / "cut.tif").write_bytes((data / "oats" / "000.tif").read_bytes()[:-40])
    return data, convarium.train(data, out=folder / "run", **MOVED)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_five_bands_are_learnt_below_the_levels_of_eight_bits(fields):
    _, run = fields
    assert run.metrics.top1.value > 0.6  # a third by chance
    clf = run.classifier
    assert clf.preprocessing.mode == "F" and clf.preprocessing.channels == clf.net.in_channels == 5
    assert clf.preprocessing.mean[0] == pytest.approx(1000 / 65535, rel=0.01)


def test_pictures_that_cannot_be_used_are_listed_with_both_numbers(fields):
    _, run = fields
    damaged = dict(line.split("\t") for line in (run.folder / "damaged.txt").read_text().splitlines())
    assert damaged["oats/four.tif"] == "4 bands, want 5"
    assert damaged["oats/cut.tif"].startswith("cut short")


def test_prediction_and_evaluation_agree_exactly_with_training(fields):
    _, run = fields
    judged = convarium.evaluate(run.model, run.folder / "split.csv", part="val")
    assert judged.metrics == run.metrics
    pictures = judged.scored.pictures.pictures
    clf = convarium.load(run.model)
    tifffile = pytest.importorskip("tifffile")
    arrays = [tifffile.imread(picture.source) for picture in pictures]
    for sources in ([picture.source for picture in pictures], arrays):
        said = clf.predict(sources, top=3)
        rows = np.array([[{g.index: g.probability for g in p}[i] for i in range(3)] for p in said])
        assert np.array_equal(rows, judged.scored.probabilities)


def test_a_picture_of_other_bands_is_answered_with_both_numbers(fields):
    _, run = fields
    assert run.classifier.predict(np.zeros((9, 9, 3), np.uint16))[0].error == "3 bands, want 5"


def test_the_report_says_and_shows_what_was_read(fields):
    _, run = fields
    page = run.report.read_text("utf-8")
    assert "5 bands with all bits" in page
    assert page.count("data:image/") >= 6


def test_a_run_that_was_stopped_ends_with_the_same_bytes(fields, tmp_path, monkeypatch):
    data, run = fields
    real = loop._remember

    def once(parts, record, recipe):
        real(parts, record, recipe)
        signal.raise_signal(signal.SIGTERM)

    cache = {"workers": 2, "cache": tmp_path / "cache"}
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(loop, "_remember", once)
        convarium.train(data, out=tmp_path / "run", **cache, **MOVED)
    assert list((tmp_path / "cache").glob("*.prepared"))
    resumed = convarium.resume(tmp_path / "run")
    assert sha256(resumed.model) == sha256(run.model)


def test_grey_of_16_bits_is_kept_where_asked(tmp_path):
    data = folder_of(tmp_path / "data", 1, ".png")
    run = convarium.train(data, out=tmp_path / "run", channels=1, deep=True, **QUICK)
    assert run.metrics.top1.value > 0.8
    assert run.classifier.preprocessing.bands == 1


def test_arrays_in_files_are_learnt_from(tmp_path):
    data = folder_of(tmp_path / "data", 2, ".npy", each=16)
    run = convarium.train(data, out=tmp_path / "run", channels=2, **QUICK)
    assert run.metrics.top1.value > 0.5
    assert convarium.evaluate(run.model, run.folder / "split.csv", part="val").metrics == run.metrics


def test_the_command_line_trains_and_predicts(convarium, tmp_path):
    data = folder_of(tmp_path / "data", 4, ".tif", each=6)
    options = "--model resnet20 --set depth=8 --size 16 --epochs 1 --batch 8 --precision fp32 --channels 4"
    status, _, said = convarium("train", data, "--out", tmp_path / "run", *options.split())
    assert status == 0, said
    status, answer, _ = convarium("predict", tmp_path / "run", data / "oats", "--json")
    assert status == 0 and '"error": null' in answer
    status, _, said = convarium("train", data, "--out", tmp_path / "other", *options.split()[:-1], "5")
    assert status == 2 and "4 bands, want 5" in said and "Traceback" not in said


def test_what_cannot_be_is_told_before_anything_is_read(tmp_path):
    data = folder_of(tmp_path / "data", 1, ".png", each=2)
    for channels in (0, -1, 2.5, 10**6):
        with pytest.raises(ArgumentError, match="channels"):
            planned(data, "resnet20", size=16, channels=channels)
    for changes in ({"augment": "photo"}, {"recipe": "convnext2022"}):
        with pytest.raises(ArgumentError, match="--augment light"):
            planned(data, "resnet20", size=16, channels=1, deep=True, **changes)
    assert planned(data, "resnet18", channels=3, deep=True).config["augment"] == "light"
    assert "deep" not in planned(data, "resnet18", channels=3).config
    with pytest.raises(DataError, match="1 band, want 3"):
        convarium.train(data, out=tmp_path / "run", channels=3, deep=True, **QUICK)


@pytest.fixture
def colours(tmp_path):
    """A file of weights for three channels that says how its pictures are prepared."""
    net = convarium.create("resnet20", depth=8, classes=2, size=16)
    how = convarium.Preprocessing(16, mean=(0.2, 0.3, 0.7), std=(0.1, 0.2, 0.6))
    return convarium.Classifier(net, ("a", "b"), how).save(tmp_path / "colours.safetensors")


def test_weights_of_three_channels_give_their_averages_to_every_band(colours):
    start = weights_of("resnet20", colours, None, 5, None, None, None, True)
    assert start.preprocessing["mode"] == "F" and start.preprocessing["bands"] == 5
    assert start.preprocessing["mean"] == pytest.approx([0.4] * 5)
    assert start.preprocessing["std"] == pytest.approx([0.3] * 5)
    assert any("5 bands" in note for note in start.notes)
    own = weights_of("resnet20", colours, None, 2, None, [0.1, 0.2], [0.5], True)
    assert own.preprocessing["mean"] == [0.1, 0.2] and own.preprocessing["std"] == [0.5, 0.5]
    assert not own.notes


def test_weights_of_as_many_channels_keep_theirs(colours):
    start = weights_of("resnet20", colours, None, 3, None, None, None, True)
    assert start.preprocessing["mean"] == [0.2, 0.3, 0.7] and not start.notes
    usual = weights_of("resnet20", colours, None, 3, None, None, None)
    assert "bands" not in usual.preprocessing and usual.preprocessing["mode"] == "RGB"
    with pytest.raises(ArgumentError, match="leave it out"):
        weights_of("resnet20", colours, None, 3, None, [0.5, 0.5, 0.5], None, True)


def test_bands_are_learnt_on_top_of_weights_for_colours(colours, tmp_path):
    data = folder_of(tmp_path / "data", 5, ".tif", each=8)
    quick = {**QUICK, "epochs": 1, "weights": colours}
    run = convarium.train(data, out=tmp_path / "run", channels=5, **quick)
    assert run.classifier.net.in_channels == 5
    assert "5 bands" in run.report.read_text("utf-8")


def test_without_deep_bands_that_pillow_cannot_show_are_listed(tmp_path):
    folder = folder_of(tmp_path / "data", 5, ".tif", each=2)
    with pytest.raises(PictureError):
        convarium.Preprocessing(16).open(folder / "oats" / "000.tif")
