"""From a folder of pictures to a classifier: what a user gets, and what he is told."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

import convarium
from convarium.errors import ArgumentError, CheckpointError, DataError, Interrupted, RunError, UnknownName
from tests.pictures import squares

QUICK = {
    "model": "resnet20",
    "arguments": {"depth": 8},
    "size": 16,
    "epochs": 2,
    "batch": 16,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    data = squares(folder / "data", ("тёмные", "light ones", "mid"), each=30)
    (data / "mid" / "broken.png").write_bytes((data / "mid" / "000.png").read_bytes()[:300])
    (data / "mid" / "empty.jpg").touch()
    return data, convarium.train(data, out=folder / "run", **{**QUICK, "epochs": 6})


def test_a_run_leaves_what_it_promises(finished):
    _, run = finished
    names = {path.name for path in run.folder.iterdir()}
    expected = {
        "config.toml",
        "metrics.jsonl",
        "split.csv",
        "damaged.txt",
        "state",
        "model.safetensors",
        "report.html",
    }
    assert expected <= names
    assert [json.loads(line)["epoch"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()] == [
        1, 2, 3, 4, 5, 6,
    ]  # fmt: skip
    assert run.metrics.top1.value > 0.9


def test_damaged_pictures_are_listed_with_the_reason(finished):
    _, run = finished
    lines = (run.folder / "damaged.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["mid/broken.png", "mid/empty.jpg"]
    assert "cut short" in lines[0] and "empty file" in lines[1]


def test_evaluation_and_prediction_agree_exactly_with_what_training_validated(finished, tmp_path):
    _, run = finished
    elsewhere = tmp_path / "elsewhere.safetensors"
    shutil.copy(run.model, elsewhere)
    judged = convarium.evaluate(elsewhere, run.folder / "split.csv", part="val")
    assert judged.metrics == run.metrics
    assert judged.top1.value == run.history[-1]["val_top1"]
    assert judged.loss == pytest.approx(run.history[-1]["val_loss"], rel=1e-6)
    paths = [picture.source for picture in judged.scored.pictures.pictures]
    said = convarium.load(elsewhere).predict(paths, top=3)
    rows = np.array([[{g.index: g.probability for g in p}[i] for i in range(3)] for p in said])
    assert np.array_equal(rows, judged.scored.probabilities)


def test_a_prediction_names_classes_in_falling_probability(finished):
    data, run = finished
    (said,) = run.classifier.predict(data / "light ones" / "003.png")
    assert said[0].name == "light ones"
    assert [g.probability for g in said] == sorted((g.probability for g in said), reverse=True)
    assert sum(g.probability for g in said) == pytest.approx(1)
    name, probability, index = said[0]
    assert run.classifier.classes[index] == name == "light ones"


def test_pictures_in_memory_and_on_disk_are_predicted_alike(finished):
    data, run = finished
    path = data / "mid" / "004.png"
    picture = Image.open(path)
    said = run.classifier.predict([path, str(path), picture, np.asarray(picture)])
    assert len({p.guesses for p in said}) == 1
    assert [p.path for p in said] == [str(path), str(path), "", ""]


def test_a_picture_that_cannot_be_read_keeps_its_place(finished, tmp_path):
    data, run = finished
    good, missing = data / "mid" / "000.png", tmp_path / "none.png"
    said = run.classifier.predict([good, missing, data / "mid" / "broken.png", good])
    assert [p.error is None for p in said] == [True, False, False, True]
    assert said[0].guesses == said[3].guesses and not said[1].guesses


def test_the_same_seed_gives_the_same_file_and_another_another(finished, tmp_path):
    data, _ = finished
    runs = [
        convarium.train(data, out=tmp_path / str(i), seed=seed, **QUICK) for i, seed in enumerate((0, 0, 1))
    ]
    contents = [run.model.read_bytes() for run in runs]
    assert contents[0] == contents[1] != contents[2]


def stopped(data, out, monkeypatch, **changes):
    """A run that is interrupted after its first epoch."""
    from convarium.training import loop

    real = loop._remember

    def once(parts, record, recipe):
        real(parts, record, recipe)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="go on with: convarium resume"):
        patch.setattr(loop, "_remember", once)
        convarium.train(data, out=out, **{**QUICK, **changes})
    return out


@pytest.mark.parametrize(
    ("part", "words"), [("train", "the training pictures"), ("val", "the validation pictures")]
)
def test_changed_pictures_are_noticed_when_resuming(tmp_path, monkeypatch, part, words):
    for name in ("train", "val"):
        squares(tmp_path / "data" / name, each=20, seed=len(name))
    out = stopped(tmp_path / "data", tmp_path / "run", monkeypatch)
    shutil.copy(tmp_path / "data" / part / "light" / "000.png", tmp_path / "data" / part / "dark" / "000.png")
    with pytest.raises(DataError, match=f"{words} have changed"):
        convarium.resume(out)


def test_a_network_of_another_library_is_trained_resumed_judged_and_predicts(tmp_path, monkeypatch, capsys):
    from typer.testing import CliRunner

    from convarium.cli import app

    data = squares(tmp_path / "data")
    timm = {"model": "timm:resnet10t", "arguments": {}, "size": 32}
    whole = convarium.train(data, out=tmp_path / "whole", **{**QUICK, **timm})
    run = convarium.resume(stopped(data, tmp_path / "run", monkeypatch, **timm))
    assert run.model.read_bytes() == whole.model.read_bytes()
    assert "timm:resnet10t" in run.report.read_text("utf-8")
    judged = convarium.evaluate(run.folder, run.folder / "split.csv", part="val")
    assert judged.metrics == run.metrics
    for arguments in (
        ["predict", str(run.folder), str(data / "dark" / "000.png")],
        ["show", str(run.folder)],
    ):
        said = CliRunner().invoke(app, arguments)
        assert said.exit_code == 0, said.output
        assert ("dark" if arguments[0] == "predict" else "timm:resnet10t") in said.output


def test_an_edited_configuration_is_noticed_when_resuming(finished, tmp_path, monkeypatch):
    out = stopped(finished[0], tmp_path / "run", monkeypatch)
    config = out / "config.toml"
    config.write_text(config.read_text().replace("batch = 16", "batch = 8"))
    with pytest.raises(RunError, match="config.toml was edited since the run began \\(recipe\\)"):
        convarium.resume(out)
    config.write_text("data = 5")
    with pytest.raises(RunError, match="lacks a usable 'data'"):
        convarium.resume(out)


def test_a_finished_run_is_not_judged_anew(finished, tmp_path):
    data = shutil.copytree(finished[0], tmp_path / "data")
    run = convarium.train(data, out=tmp_path / "run", **QUICK)
    before = run.model.read_bytes(), run.report.read_bytes()
    shutil.rmtree(data)
    again = convarium.resume(run.folder)
    assert again == run
    assert (run.model.read_bytes(), run.report.read_bytes()) == before


def test_validating_on_the_training_pictures_is_said(tmp_path):
    data = squares(tmp_path / "data", each=6)
    run = convarium.train(data, val=data, out=tmp_path / "run", **QUICK)
    assert "12 of the val pictures are training pictures too" in run.report.read_text()


def test_classes_are_matched_by_name_across_parts(finished, tmp_path):
    _, run = finished
    # "mid" is absent and a stranger sorts first, so that any matching by position would be wrong.
    squares(tmp_path / "other", ("aaa", "тёмные", "light ones"), each=3)
    shutil.rmtree(tmp_path / "other" / "тёмные")
    squares(tmp_path / "dark", ("тёмные", "x", "y"), each=3)
    shutil.copytree(tmp_path / "dark" / "тёмные", tmp_path / "other" / "тёмные")
    judged = convarium.evaluate(run.model, tmp_path / "other")
    assert [score.count for score in judged.classes] == [3, 0, 3]
    assert any("aaa" in note for note in judged.notes)


def test_a_run_folder_is_used_once(finished):
    data, run = finished
    with pytest.raises(RunError, match="holds a run already; go on with `convarium resume"):
        convarium.train(data, out=run.folder, **QUICK)


def test_two_runs_do_not_share_a_folder(finished, tmp_path):
    data, _ = finished
    with FileLock(tmp_path / ".lock"), pytest.raises(RunError, match="another process is training"):
        convarium.train(data, out=tmp_path, **QUICK)


def test_a_failed_start_can_be_repeated_in_the_same_folder(tmp_path):
    data = squares(tmp_path / "data", each=5)
    for picture in (data / "dark").iterdir():
        picture.write_bytes(b"")
    with pytest.raises(DataError, match="no picture to train on is left of 'dark'"):
        convarium.train(data, out=tmp_path / "run", **QUICK)
    shutil.rmtree(data)
    squares(data, each=5)
    assert convarium.train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1}).model.exists()


def test_one_picture_a_class_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match="every class has a single picture"):
        convarium.train(squares(tmp_path / "data", each=1), out=tmp_path / "run", **QUICK)


def test_resuming_nothing_says_so(tmp_path):
    with pytest.raises(RunError, match="no run at"):
        convarium.resume(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "resnet2"}, UnknownName, "did you mean"),
        ({"recipe": "scrach"}, UnknownName, "did you mean scratch"),
        ({"augment": "lots"}, ArgumentError, "light"),
        ({"fit": "stretch"}, ArgumentError, "squash"),
        ({"channels": 0}, ArgumentError, "1 \\(grey\\), 3 \\(colour\\)"),
        ({"seed": -1}, ArgumentError, "seed = -1"),
        ({"workers": -1}, ArgumentError, "workers = -1"),
        ({"precision": "fp8"}, ArgumentError, "bf16"),
        ({"epoch": 3}, UnknownName, "did you mean epochs"),
        ({"fraction": 1.5}, ArgumentError, "fraction"),
        ({"arguments": {"dept": 8}}, ArgumentError, "takes no argument 'dept'"),
        ({"arguments": {"depth": "abc"}}, ArgumentError, "cannot be built with"),
        ({"arguments": {"classes": 7}}, ArgumentError, "the data decides it"),
        ({"epochs": 2.5}, ArgumentError, "epochs = 2.5; it must be a whole number"),
        ({"channels": 0}, ArgumentError, "channels = 0"),
        ({"batch": 1, "size": 4}, ArgumentError, "at least 2 pictures a step"),
        ({"auxiliary": 0.3}, ArgumentError, "resnet20 has no auxiliary classifiers"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(finished, tmp_path, changes, error, words):
    data, _ = finished
    with pytest.raises(error, match=words):
        convarium.train(data, out=tmp_path / "run", **{**QUICK, **changes})
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_clip_is_refused_before_any_picture_is_looked_for(tmp_path):
    with pytest.raises(ArgumentError, match="features of pictures and texts, not class scores"):
        convarium.train(tmp_path / "none", "clip_vit_b_32", out=tmp_path / "run")


def test_a_weight_of_auxiliary_losses_in_a_recipe_is_no_fault_of_the_users(tmp_path):
    data = squares(tmp_path / "data", each=6)
    quick = {**QUICK, "epochs": 1, "recipe": "inception2015", "auxiliary": 0}
    assert convarium.train(data, out=tmp_path / "zero", **quick).model.exists()
    del quick["auxiliary"]
    assert convarium.train(data, out=tmp_path / "recipe", **quick).model.exists()


@pytest.mark.parametrize("head", [torch.nn.Linear(64, 3), torch.nn.Sequential(torch.nn.Linear(64, 10))])
def test_a_network_that_could_not_be_loaded_again_is_not_saved(tmp_path, head):
    net = convarium.create("resnet20")
    clf = convarium.Classifier(net, [str(i) for i in range(10)], convarium.Preprocessing(32))
    clf.net.head.fc = head
    with pytest.raises(CheckpointError, match="(?s)not the resnet20 that its architecture tells of.*head.fc"):
        clf.save(tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_classifier_made_by_hand_is_saved_and_loaded(tmp_path):
    net = convarium.create("lenet5")
    clf = convarium.Classifier(
        net, [str(i) for i in range(10)], convarium.Preprocessing(28, "L"), {"licence": "none"}
    )
    clf.save(tmp_path / "m.safetensors")
    again = convarium.load(tmp_path / "m.safetensors")
    assert again.classes == clf.classes and again.preprocessing == clf.preprocessing
    assert again.about["licence"] == "none"
    noise = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    assert again.predict([noise])[0].guesses == clf.predict([noise])[0].guesses


def test_class_names_must_be_as_many_as_the_network_has():
    with pytest.raises(ArgumentError, match="2 class names for a network of 10 classes"):
        convarium.Classifier(convarium.create("lenet5"), ["a", "b"], convarium.Preprocessing(28, "L"))


def test_weights_without_a_description_say_what_to_do(shared):
    with pytest.raises(CheckpointError, match="convarium.create"):
        convarium.load(shared / "weights" / "cifar10_resnet20.safetensors")


def test_a_cut_model_is_refused(finished, tmp_path):
    _, run = finished
    (tmp_path / "cut.safetensors").write_bytes(run.model.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not a whole .safetensors file"):
        convarium.load(tmp_path / "cut.safetensors")


def test_the_real_cifar_weights_reach_their_accuracy(shared, tmp_path):
    import tarfile

    with tarfile.open(shared / "cifar10" / "cifar10_small.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = next(Path(tmp_path).glob("*/test"))
    net = convarium.create("resnet20", weights=shared / "weights" / "cifar10_resnet20.safetensors")
    names = sorted(folder.name for folder in found.iterdir())
    look = convarium.Preprocessing(32, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    judged = convarium.evaluate(convarium.Classifier(net, names, look), found)
    assert (judged.top1.count, judged.top1.count - judged.top1.correct) == (
        2000,
        174,
    )  # 8.70 %, as stated there


@pytest.mark.parametrize("wrong", [None, 5, b"abc", [None]])
def test_predicting_what_is_no_picture_says_what_to_give(finished, wrong):
    with pytest.raises(ArgumentError, match="give paths, PIL pictures or uint8 arrays"):
        finished[1].classifier.predict(wrong)


def test_public_names_are_there():
    for name in convarium.__all__:
        assert getattr(convarium, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        convarium.trian  # noqa: B018
