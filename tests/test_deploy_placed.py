"""The folder of an export: what is begun is no export, and only what an export wrote goes."""

from __future__ import annotations

import pytest

from convarium import storage
from convarium.deploy import export, quick, script
from convarium.errors import CheckpointError, RunError
from convarium.models import create
from tests.test_deploy_export import classifier, exported, operators_are_listed_once  # noqa: F401 (a fixture)

pytest.importorskip("openvino")


def test_an_export_that_was_cut_off_is_no_export_and_can_be_made_again(tmp_path, monkeypatch):
    clf, folder = classifier(create("lenet5")), tmp_path / "out"
    clf.save(tmp_path / "model.safetensors")
    exported(clf, "safetensors", folder, source=tmp_path / "model.safetensors")
    write = storage.write

    def cut(path, writer):
        if path == folder / script.NAME:
            raise KeyboardInterrupt
        write(path, writer)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(storage, "write", cut)
        exported(clf, "openvino", folder)
    with pytest.raises(CheckpointError, match="export the model anew"):
        quick.open(folder)
    exported(clf, "onnx", folder)
    assert {file.name for file in folder.iterdir()} == {"model.onnx", script.NAME, "model.json"}
    assert quick.open(folder).way == "onnxruntime"


def test_files_of_an_earlier_export_go_and_those_of_others_stay(tmp_path):
    clf, folder = classifier(create("lenet5")), tmp_path / "out"
    exported(clf, "openvino", folder)
    for name in ("model.onnx", "notes.txt"):
        (folder / name).write_text("mine")
    clf.save(tmp_path / "model.safetensors")
    exported(clf, "safetensors", folder, source=tmp_path / "model.safetensors")
    assert {file.name for file in folder.iterdir()} == {
        "model.safetensors",
        "model.json",
        "model.onnx",
        "notes.txt",
    }
    assert (folder / "model.onnx").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(
        storage, "must_be_writable", lambda path: (_ for _ in ()).throw(RunError(f"cannot write {path}"))
    )
    monkeypatch.setattr(export, "traced", lambda *asked: pytest.fail("began"))
    with pytest.raises(RunError, match="cannot write"):
        exported(classifier(create("lenet5")), "onnx", tmp_path / "a" / "b")
