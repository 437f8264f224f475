"""From trained weights: the classifier alone, the classifier first, and what is refused."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import convarium
from convarium import api, beginning, storage
from convarium.deploy import halves
from convarium.errors import ArgumentError, DataError, Interrupted, RunError
from convarium.training.signals import Stop
from tests.pictures import squares

QUICK = {"model": "resnet20", "arguments": {"depth": 8}, "batch": 16, "precision": "fp32", "augment": "none"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A trained network, other pictures of the same kind, and where features are kept."""
    folder = tmp_path_factory.mktemp("transfer")
    run = convarium.train(
        squares(folder / "first", ("a", "b", "c"), each=15), out=folder / "run", size=16, epochs=4, **QUICK
    )
    return folder, run.model, squares(folder / "second", ("тёмные", "светлые"), each=20, seed=1)


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """How many pictures went through the frozen network; features are kept in a folder of the test."""
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    seen = []

    def count(found):
        def run(pictures):
            seen.append(len(pictures))
            return found.ready.run(pictures)

        return run

    _through(monkeypatch, count)
    return seen


def _through(monkeypatch, made):
    """The way that is chosen runs as `made` of it does."""
    chosen = halves.chosen

    def changed(*given, **told):
        found = chosen(*given, **told)
        return replace(found, ready=replace(found.ready, run=made(found)))

    monkeypatch.setattr(halves, "chosen", changed)


def probe(base, out, **changes):
    return convarium.train(
        base[2], out=out, weights=base[1], recipe="probe", **{**QUICK, "epochs": 20, **changes}
    )


def test_a_probe_trains_the_classifier_and_leaves_the_rest(base, tmp_path, counted):
    run = probe(base, tmp_path / "run")
    assert run.metrics.top1.value > 0.9
    before, after = convarium.load(base[1]), run.classifier
    assert after.classes == ("светлые", "тёмные")
    assert after.preprocessing == before.preprocessing
    for name, tensor in after.net.state_dict().items():
        assert name.startswith("head.fc") or torch.equal(tensor, before.net.state_dict()[name]), name


def test_what_was_judged_on_features_is_what_the_file_says(base, tmp_path, counted):
    run = probe(base, tmp_path / "run")
    again = convarium.evaluate(run.model, run.folder / "split.csv", part="val")
    assert again.top1 == run.metrics.top1
    assert again.loss == pytest.approx(run.metrics.loss, rel=1e-5)
    assert "0 other answers" in (run.folder / "report.html").read_text("utf-8")


def test_each_picture_goes_through_the_network_once(base, tmp_path, counted):
    probe(base, tmp_path / "one")
    assert sum(counted) == 40
    probe(base, tmp_path / "two", lr=1e-3, epochs=5)
    assert sum(counted) == 40
    probe(base, tmp_path / "three", seed=3, epochs=5)  # another split of the same pictures
    assert sum(counted) == 40
    probe(base, tmp_path / "four", precision="auto", epochs=5)  # may be computed in fewer bits
    assert sum(counted) == 80


def test_augmented_views_are_kept_beside_the_plain_one(base, tmp_path, counted):
    probe(base, tmp_path / "one", views=3, augment="light", epochs=6)
    assert sum(counted) == 40 + 2 * 32
    probe(base, tmp_path / "two", views=2, augment="light", epochs=6)
    assert sum(counted) == 40 + 2 * 32


def test_a_probe_is_repeated_bit_for_bit(base, tmp_path, counted):
    files = [probe(base, tmp_path / name, epochs=5).model.read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_an_interrupted_probe_ends_as_an_uninterrupted_one(base, tmp_path, counted, monkeypatch):
    whole = probe(base, tmp_path / "whole", epochs=6)
    calls, check = [], Stop.check

    def stop(self, text):
        calls.append(text)
        if "after epoch 3" in text:
            raise Interrupted(text, 2)
        check(self, text)

    with monkeypatch.context() as patch:
        patch.setattr(Stop, "check", stop)
        with pytest.raises(Interrupted, match="resume"):
            probe(base, tmp_path / "cut", epochs=6)
    assert convarium.resume(tmp_path / "cut").model.read_bytes() == whole.model.read_bytes()


def test_finetuning_begins_with_a_classifier_that_fits(base, tmp_path, counted):
    run = convarium.train(
        base[2], out=tmp_path / "run", weights=base[1], **{**QUICK, "epochs": 1, "head": 20, "lr": 1e-5}
    )
    assert json.loads((run.folder / "metrics.jsonl").read_text())["train_top1"] > 0.8
    assert run.metrics.top1.value > 0.9
    moved = run.classifier.net.state_dict()["stem.conv.weight"]
    assert not torch.equal(moved, convarium.load(base[1]).net.state_dict()["stem.conv.weight"])


def test_batch_norms_that_were_folded_stay_as_they_are_and_learn(base, tmp_path, counted):
    net = convarium.load(base[1]).net
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    save_file(start, tmp_path / "folded.safetensors")
    run = convarium.train(
        base[2],
        out=tmp_path / "run",
        weights=tmp_path / "folded.safetensors",
        size=16,
        **{**QUICK, "epochs": 1, "norms": "batch"},
    )
    after = run.classifier.net.state_dict()
    assert after["stem.norm.running_var"].eq(1).all() and not after["stem.norm.running_mean"].any()
    assert not torch.equal(after["stem.norm.bias"], start["stem.norm.bias"])


@pytest.mark.parametrize("norms", ["kept", "batch"])
def test_finetuning_keeps_the_statistics_of_batch_norms_unless_told(base, tmp_path, counted, norms):
    start = convarium.load(base[1]).net.state_dict()
    run = convarium.train(
        base[2], out=tmp_path / "run", weights=base[1], **{**QUICK, "epochs": 1, "norms": norms}
    )
    after = run.classifier.net.state_dict()
    for name in start:
        if "running_" in name:
            assert torch.equal(after[name], start[name]) == (norms == "kept"), name
    assert not torch.equal(after["stem.norm.bias"], start["stem.norm.bias"])


def test_other_weights_under_the_same_name_are_noticed(base, tmp_path, counted, monkeypatch):
    copied = tmp_path / "weights.safetensors"
    copied.write_bytes(base[1].read_bytes())
    monkeypatch.setattr(storage, "sha256", lambda path: "another")
    with pytest.raises(RunError, match="checksum|changed"):
        start = probe((base[0], copied, base[2]), tmp_path / "run", epochs=1)
        monkeypatch.setattr(storage, "sha256", lambda path: "one more")
        (start.folder / "report.html").unlink()
        convarium.resume(start.folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": None}, "needs trained weights"),
        ({"mean": [0.5]}, "leave it out"),
        ({"minutes": 0}, "minutes = 0"),
        ({"norms": "kept"}, "only the classifier learns"),
        ({"recipe": "scratch", "weights": None, "norms": "kept"}, "no weights bring any"),
        ({"weights": None, "recipe": "scratch", "std": [0.5]}, "computed from the training pictures"),
    ],
)
def test_what_cannot_be_is_refused(base, tmp_path, changes, said):
    asked = {"recipe": "probe", "weights": base[1], **QUICK, **changes}
    with pytest.raises(ArgumentError, match=said):
        convarium.train(base[2], out=tmp_path / "run", **asked)
    assert not (tmp_path / "run" / "config.toml").exists()


def test_a_file_that_tells_nothing_gets_imagenets_preprocessing_and_a_note(tmp_path):
    net = convarium.create("mobilenetv2_035", classes=7)
    path = tmp_path / "plain.safetensors"
    save_file(net.state_dict(), path)
    start = beginning.weights_of("mobilenetv2_035", path, None, 3, None, None, None)
    assert start.preprocessing["mean"] == beginning.CUSTOM["mean"] and start.preprocessing["resize"] == 256
    assert "does not say" in start.notes[0]
    told = beginning.weights_of("mobilenetv2_035", path, 160, 3, "squash", [0.5], [0.5])
    assert told.preprocessing["mean"] == [0.5] * 3 and told.preprocessing["resize"] is None
    assert told.preprocessing["size"] == 160 and not told.notes


def test_folds_hold_out_every_picture_once(tmp_path):
    data = squares(tmp_path / "data", ("a", "b"), each=10)
    done = api.train_folds(data, out=tmp_path / "runs", folds=2, size=16, epochs=2, **QUICK)
    assert [run.folder.name for run in done.runs] == ["fold0", "fold1"]
    seen = [(run.folder / "answers.csv").read_text().splitlines()[1:] for run in done.runs]
    joined = (done.folder / "answers.csv").read_text().splitlines()[1:]
    assert joined == [line for lines in seen for line in lines]
    keys = [line.split(",")[0] for line in joined]
    assert sorted(keys) == sorted(f"{c}/{n:03}.png" for c in "ab" for n in range(10))
    assert done.top1.count == 20
    again = api.train_folds(data, out=tmp_path / "runs", folds=2, size=16, epochs=2, **QUICK)
    assert again.to_dict() == done.to_dict()
    with pytest.raises(RunError, match="other settings \\(recipe\\)"):
        api.train_folds(data, out=tmp_path / "runs", folds=2, size=16, epochs=3, **QUICK)


def test_data_with_parts_is_not_divided_into_folds(tmp_path):
    squares(tmp_path / "data" / "train", each=4)
    squares(tmp_path / "data" / "test", each=4)
    with pytest.raises(ArgumentError, match="parts of its own"):
        beginning.read(tmp_path / "data", None, 0.2, 0, (0, 2))


def test_a_class_too_small_for_the_folds_is_named(tmp_path):
    squares(tmp_path / "data", each=3)
    with pytest.raises(DataError, match="dark"):
        beginning.read(tmp_path / "data", None, 0.2, 0, (0, 5))


def test_a_strange_picture_is_told_from_those_trained_on(base, tmp_path, counted):
    clf = probe(base, tmp_path / "run").classifier
    stripes = np.zeros((16, 16, 3), np.uint8)
    stripes[::2] = (255, 0, 0)
    usual, odd = clf.predict([sorted((base[2] / "светлые").iterdir())[0], Image.fromarray(stripes)])
    assert not usual.strange and odd.strange
    assert {"unsure", "strange"} <= usual.to_dict().keys()


def test_large_pictures_that_are_not_kept_in_memory_are_probed_too(base, tmp_path, counted, monkeypatch):
    look = importlib.import_module("convarium.sitting.look")
    check = look.check
    monkeypatch.setattr(look, "check", lambda *given, **told: check(*given, memory=0, **told))
    run = probe(base, tmp_path / "run", epochs=10, workers=2)
    assert sum(counted) == 40 and run.metrics.top1.count == 8


def test_features_of_another_architecture_are_not_taken(base, tmp_path, counted):
    for shortcut in "AB":  # weights drawn by one rule, so that only the architecture tells them apart
        arguments = {"depth": 8, "shortcut": shortcut}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = convarium.create("resnet20", size=16, **arguments)
        save_file(net.state_dict(), tmp_path / f"{shortcut}.safetensors")
        weights = tmp_path / f"{shortcut}.safetensors"
        probe((base[0], weights, base[2]), tmp_path / shortcut, epochs=1, size=16, arguments=arguments)
    assert sum(counted) == 80


def test_a_resumed_probe_computes_what_is_missing_in_the_same_way(base, tmp_path, counted, monkeypatch):
    run = probe(base, tmp_path / "run", epochs=2)
    named = []
    chosen = halves.chosen
    monkeypatch.setattr(
        halves,
        "chosen",
        lambda *given, **told: named.append((told["name"], given[5])) or chosen(*given, **told),
    )
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "other"))
    (run.folder / "report.html").unlink()
    convarium.resume(run.folder)
    assert named == [("plain", 32)]


def test_kept_features_that_disagree_with_the_model_are_not_believed(base, tmp_path, counted, monkeypatch):
    _through(monkeypatch, lambda found: lambda x: [-part for part in found.ready.run(x)])
    run = probe(base, tmp_path / "run")
    again = convarium.evaluate(run.model, run.folder / "split.csv", part="val")
    assert again.top1 == run.metrics.top1
    assert "judged in plain float32" in (run.folder / "report.html").read_text("utf-8")
