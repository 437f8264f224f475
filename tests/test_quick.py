"""Answers without torch: by a way that is remembered, or from an export."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from convarium.classifier import Classifier
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import export, quick, remembered
from convarium.errors import ArgumentError, CheckpointError
from convarium.judge.outliers import fit_outlier
from convarium.judge.scoring import given
from convarium.models import create
from convarium.net import last_part
from tests.reference import randomise

WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "scipy", "sklearn", "huggingface_hub", "matplotlib"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Absent())
from convarium.cli import main
main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier with a doubtful temper, its file, and a folder of three pictures and one that is none."""
    folder = tmp_path_factory.mktemp("quick")
    net = randomise(create("resnet20", depth=8, classes=3))
    draw = np.random.default_rng(0)
    wide = fit_outlier(draw.normal(size=(40, 64)), draw.normal(size=(40, 64)), keep=0.5).to_dict()
    told = {"temperature": {"value": 1.5}, "threshold": {"value": 0.6}, "outlier": wide}
    clf = Classifier(net, ("кот", "dog", "hen"), Preprocessing(16, resize=18), told, device="cpu")
    file = clf.save(folder / "m.safetensors")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(3):
        values = draw.integers(0, 256, (40, 30 + 9 * number, 3), np.uint8)
        Image.fromarray(values).save(pictures / f"к{number}.png")
    (pictures / "wrong.png").write_text("no picture")
    return SimpleNamespace(clf=clf, file=file, pictures=pictures, folder=folder)


class Ready:
    """The plain way, as if it were another library's."""

    def __init__(self, clf, name="stub-fp32", batch=2):
        self.clf, self.name, self.batch, self.calls = clf, name, batch, 0

    def __call__(self, pictures):
        self.calls += 1
        assert pictures.dtype == np.uint8 and 1 <= len(pictures) <= self.batch
        c = self.clf
        batches = [torch.from_numpy(pictures)]
        (found,) = given(c.net, last_part(c.net), batches, c.preprocessing.normalise, c.device)
        return found.scores.astype(np.float32), found.features


def remember(monkeypatch, clf, **changes):
    """Have a way remembered; what was asked for it."""
    asked = []
    way = {"needs_torch": False, "name": "stub-fp32", "open": lambda: Ready(clf), **changes}

    def find(path, mode, count, batch):
        asked.append((Path(path), mode, count, batch))
        return SimpleNamespace(**way)

    monkeypatch.setattr(remembered, "find", find)
    return asked


def alike(found, expected, strange=True):
    for one, other in zip(found, expected, strict=True):
        assert (one.path, one.error, one.unsure) == (other.path, other.error, other.unsure)
        assert [(g.name, g.index) for g in one] == [(g.name, g.index) for g in other]
        assert [g.probability for g in one] == pytest.approx([g.probability for g in other], abs=1e-5)
        if strange:
            assert one.strange == other.strange


@pytest.mark.parametrize("mirror", [False, True])
def test_a_remembered_way_answers_as_the_classifier_does(monkeypatch, made, mirror):
    asked = remember(monkeypatch, made.clf)
    found = quick.open(made.file, "exact", 7, 2)
    assert asked == [(made.file, "exact", 7, 2)] and found.way == "stub-fp32" and found.batch == 2
    sources = [*sorted(made.pictures.iterdir()), np.zeros((9, 9, 3), np.uint8)]
    monkeypatch.setattr(made.clf, "mirror", mirror)
    found.mirror = mirror
    alike(found.predict(sources), made.clf.predict(sources))
    assert {one.strange for one in found.predict(sources)} == {True, False}


def test_a_run_is_found_by_its_folder(monkeypatch, made, tmp_path):
    remember(monkeypatch, made.clf)
    made.clf.save(tmp_path / "model.safetensors")
    assert quick.open(tmp_path).classes == made.clf.classes


@pytest.mark.parametrize(
    "changes",
    [
        {"needs_torch": True},
        {"open": lambda: (_ for _ in ()).throw(CheckpointError("gone"))},
    ],
)
def test_where_torch_is_needed_or_files_are_gone_there_is_nothing_quick(monkeypatch, made, changes):
    remember(monkeypatch, made.clf, **changes)
    assert quick.open(made.file) is None


def test_the_plain_way_is_not_looked_up(monkeypatch, made):
    asked = remember(monkeypatch, made.clf)
    assert quick.open(made.file, "plain") is None and not asked


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 64])
def test_what_is_no_classifier_is_left_for_loading_to_explain(monkeypatch, made, tmp_path, content):
    remember(monkeypatch, made.clf)
    (tmp_path / "m.safetensors").write_bytes(content)
    assert quick.open(tmp_path / "m.safetensors") is None
    assert quick.described(tmp_path / "m.safetensors") is None
    assert quick.open(tmp_path / "none.safetensors") is None


def exported(made, folder, **asked):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    clf = made.clf
    known = {"temperature": clf.temperature, "threshold": clf.threshold}

    def reference(files):
        for one in clf.stream(files, 3):
            row = {guess.index: guess.probability for guess in one}
            yield None if one.error else np.array([row[i] for i in range(3)])

    pictures = sorted(made.pictures.glob("к*"))
    made_of = (clf.net, clf.classes, clf.preprocessing, known)
    return export.export(*made_of, "onnx", folder, reference=reference, pictures=pictures, **asked)


@pytest.fixture(scope="module")
def squares(made):
    """An export that takes one prepared square."""
    return exported(made, made.folder / "export", whole=False).folder


@pytest.mark.parametrize(
    ("asked", "batch"),
    [({"whole": False, "dynamic": True}, quick.BATCH), ({"whole": True, "dynamic": True}, 1)],
)
def test_an_export_of_free_sides_answers_as_the_classifier_does(made, tmp_path, asked, batch):
    folder = exported(made, tmp_path / "out", **asked).folder
    agrees(quick.open(folder), made, batch)


def test_an_export_of_one_square_answers_as_the_classifier_does(made, squares):
    agrees(quick.open(squares), made, 1)


def agrees(found, made, batch):
    assert (found.way, found.batch) == ("onnxruntime", batch)
    sources = sorted(made.pictures.iterdir())
    alike(found.predict(sources), made.clf.predict(sources), strange=False)
    found.mirror = True
    if found.graph.whole:  # its crop would lie elsewhere than the model's
        with pytest.raises(ArgumentError, match="leave out --mirror"):
            found.predict(sources)
        return
    assert found.predict(sources)[-1][0].probability != made.clf.predict(sources)[-1][0].probability


def test_an_export_says_what_it_cannot(squares, tmp_path):
    folder = shutil.copytree(squares, tmp_path / "out")
    with pytest.raises(ArgumentError, match="leave out --engine plain"):
        quick.open(folder, "plain")
    assert [file.name for file in quick.files(folder)] == ["model.json", "model.onnx"]
    (folder / "model.onnx").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be run .*; export the model anew"):
        quick.open(folder)
    told = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.onnx").unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        quick.open(folder)
    (folder / "model.json").write_text(json.dumps({**told, "file": "model.pt2"}), "utf-8")
    with pytest.raises(ArgumentError, match="only its own predict.py runs"):
        quick.open(folder)
    (folder / "model.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read as that of an export"):
        quick.open(folder)


def in_process(*arguments, cwd, **environment):
    """The command line in a process in which torch cannot be imported."""
    root = str(Path(__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", **environment},
    )


def test_a_remembered_way_is_taken_without_torch(made, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from convarium.deploy.measuring import measure

    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    prepared = np.stack([made.clf.preprocessing.square(Image.open(p)) for p in made.pictures.glob("к*")])
    only = ["onnxruntime-fp32"]
    folder = remembered.folder_of(made.file)
    table = measure(made.clf, prepared, 2, mode="exact", seconds=0.1, folder=folder, only=only)
    # Starting torch is what makes the plain way the slower one for so few pictures.
    why = remembered.remember(made.file, "exact", [row.to_dict() for row in table.rows if row.agreement])
    assert why == ""
    cache = {"CONVARIUM_CACHE": str(tmp_path / "cache")}
    done = in_process(
        "predict", made.file, made.pictures, "--engine", "exact", "--json", cwd=tmp_path, **cache
    )
    assert (done.returncode, done.stderr) == (3, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row, said in zip(rows, made.clf.predict(sorted(made.pictures.iterdir())), strict=True):
        expected = said.to_dict()
        given = [row.pop("predictions"), expected.pop("predictions")]
        assert row == expected
        assert [g["class"] for g in given[0]] == [g["class"] for g in given[1]]
        found = [[g["probability"] for g in some] for some in given]
        assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_an_export_is_answered_without_torch_and_gone_on_with(made, squares, tmp_path):
    done = in_process("predict", squares, made.pictures, "-o", "answers.csv", cwd=tmp_path)
    assert done.returncode == 3 and done.stderr == "answers.csv: 4 pictures, of which 1 could not be read\n"
    whole = (tmp_path / "answers.csv").read_bytes()
    (tmp_path / "answers.csv").write_bytes(whole[:-20])
    done = in_process("predict", squares, made.pictures, "-o", "answers.csv", "--resume", cwd=tmp_path)
    assert done.returncode == 3 and (tmp_path / "answers.csv").read_bytes() == whole


def test_openvino_is_imported_without_its_converter_that_reports_to_its_makers():
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    script = (
        "import sys; from convarium.deploy import silent; silent.openvino().Core; "
        "sys.exit(', '.join(m for m in sys.modules if 'telemetry' in m or m == 'openvino.tools.ovc') or 0)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, cwd=root
    )
    assert (done.returncode, done.stderr) == (0, "")
