"""An exported model answers as the classifier does, by its own program, without torch and without this package."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convarium.classifier import Classifier, load
from convarium.cli import export as verb
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import export, openvino_file, parity, resizing, script, silent
from convarium.errors import ArgumentError, CheckpointError, DataError, PictureError
from convarium.models import create
from convarium.packing import pack
from tests.test_models_onnx import operators_are_listed_once  # noqa: F401 (a fixture, for this file too)
from tests.tiny import TINY, tiny

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# What a program meets that has neither torch nor this package.
WITHOUT = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "convarium"):
            raise ImportError(f"{name} is not here")
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def classifier(net, **fields):
    mode = "RGB" if net.in_channels == 3 else "L"
    named = [f"класс {number}" for number in range(net.classes)]
    return Classifier(net, named, Preprocessing(net.size, mode, **fields), device="cpu")


def exported(clf, to, folder, **asked):
    known = {"temperature": clf.temperature, "threshold": clf.threshold}
    return export.export(
        clf.net,
        clf.classes,
        clf.preprocessing,
        known,
        to,
        folder,
        reference=lambda files: verb.answers(clf, files),
        **asked,
    )


def noise(width, height, mode="RGB", seed=0):
    """A picture in which each pixel is drawn."""
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(drawn).convert(mode)


def by_program(folder, *arguments):
    """Answers of predict.py, in a process without torch and without this package."""
    ended = subprocess.run(
        [sys.executable, "-I", "-c", WITHOUT, str(folder / "predict.py"), "--json", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


WAYS = [
    Preprocessing(24, resize=27),
    Preprocessing(24, resize=27, filter="bicubic"),
    Preprocessing(24, filter="lanczos"),
    Preprocessing(24, fit="squash"),
    Preprocessing(24, fit="pad", filter="bicubic"),
    Preprocessing(25, "L", fit="pad"),
]


def named(preprocessing):
    return f"{preprocessing.fit}-{preprocessing.filter}-{preprocessing.mode}"


@pytest.mark.parametrize("preprocessing", WAYS, ids=named)
@pytest.mark.parametrize("size", [(1, 1), (40, 30), (24, 24), (27, 27), (97, 61), (60, 61), (500, 8), (9, 8)])
def test_the_graph_resizes_to_the_bit_as_pillow_does(preprocessing, size):
    picture = noise(*size, preprocessing.mode)
    pixels = torch.from_numpy(np.array(picture)).view(1, size[1], size[0], preprocessing.channels)
    assert torch.equal(resizing.Square(preprocessing)(pixels)[0], preprocessing.prepare(picture).double())


@pytest.mark.parametrize("preprocessing", WAYS, ids=named)
def test_tall_pictures_differ_by_a_few_levels_at_most(preprocessing):
    # Where Pillow goes along the columns first, what lies between is rounded elsewhere.
    picture = noise(8, 8, preprocessing.mode).resize((31, 90), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture)).view(1, 90, 31, preprocessing.channels)
    difference = resizing.Square(preprocessing)(pixels)[0] - preprocessing.prepare(picture)
    assert difference.abs().max() <= 4 and difference.abs().mean() < 0.5


@pytest.mark.parametrize("preprocessing", WAYS[1:5:2] + WAYS[2:3], ids=named)
def test_onnx_runtime_resizes_to_the_bit_as_pillow_does(preprocessing, tmp_path):
    if preprocessing.filter != "bicubic" and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("where CONVARIUM_ALL=1 is set")
    net = create("linear", classes=2, in_channels=preprocessing.channels, size=preprocessing.size)
    answer = export.Answer(net, preprocessing, 1.0, whole=True)
    answer.forward = lambda pictures: answer.square(pictures)
    write = export.graph(answer, "onnx", preprocessing, False, {"architecture": {}})
    write(tmp_path / "square.onnx", "{}")
    session = onnxruntime.InferenceSession(tmp_path / "square.onnx")
    for size in ((1, 1), (40, 30), (97, 61), (500, 8)):
        picture = noise(*size, preprocessing.mode)
        pixels = np.array(picture).reshape(1, size[1], size[0], preprocessing.channels)
        (got,) = session.run(None, {"pictures": pixels})
        assert np.array_equal(got[0], preprocessing.prepare(picture).numpy())


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize("family", sorted(TINY.keys() - {"clip"}))  # which scores texts, not classes
def test_every_family_is_exported_with_its_preprocessing(family, to, tmp_path):
    if (family, to) != ("mobilenet_v3", "openvino") and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("test_models_onnx.py runs its graph; all of it where CONVARIUM_ALL=1 is set")
    name, size, options = TINY[family]
    with patch.dict(TINY, {family: (name, 64 if family == "inception_v2" else size, options)}):
        done = exported(classifier(tiny(family)), to, tmp_path / "out", whole=False)
    assert done.parity.flips == 0 and done.parity.largest < 1e-5


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_model_answers_without_torch_and_without_this_package(to, tmp_path):
    clf = classifier(tiny("mobilenet_v2"), resize=40, **IMAGENET)
    clf.temperature, clf.threshold = 2.0, 0.9
    done = exported(clf, to, tmp_path / "вывод")
    assert done.about["whole"] is (to == "onnx") and done.parity.flips == 0
    photo, turned, broken = (tmp_path / name for name in ("фото.jpg", "turned.png", "broken.jpg"))
    noise(300, 260).save(photo)
    exif = Image.Exif()
    exif[274] = 6
    noise(230, 310, seed=1).convert("RGBA").save(turned, exif=exif)
    broken.write_bytes(photo.read_bytes()[:2000])
    status, rows, error = by_program(done.folder, photo, turned, broken)
    assert status == 3 and error == ""
    for row, said in zip(rows, clf.predict([photo, turned, broken]), strict=True):
        assert row["path"] == said.path and bool(row["error"]) == bool(said.error)
        assert [guess["class"] for guess in row["predictions"]] == [guess.name for guess in said]
        given = [guess["probability"] for guess in row["predictions"]]
        assert given == pytest.approx([guess.probability for guess in said], abs=1e-4)
        assert row["unsure"] == said.unsure


def test_the_program_prints_names_that_are_no_text(tmp_path):
    done = exported(classifier(create("lenet5")), "onnx", tmp_path / "out")
    odd = os.fsencode(tmp_path) + b"/\xff.png"
    noise(30, 30).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(os.fsdecode(odd))
    command = [sys.executable, str(done.folder / "predict.py"), odd, odd]
    ended = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    )
    assert ended.returncode == 0 and ended.stdout.count(b"\\udcff.png: \\u") == 2, ended.stderr


def test_the_program_prints_lines_for_people(tmp_path):
    done = exported(classifier(create("lenet5")), "onnx", tmp_path / "out", whole=False)
    noise(40, 40).save(tmp_path / "a.png")
    program = [sys.executable, "-I", "-c", WITHOUT, done.folder / "predict.py", tmp_path / "a.png"]
    ended = subprocess.run(program, capture_output=True, encoding="utf-8", timeout=120)
    assert ended.returncode == 0 and ended.stdout.startswith(f"{tmp_path / 'a.png'}: класс ")
    assert ended.stdout.count("%") == 5


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("preprocessing", [*WAYS, Preprocessing(24, orient=False)], ids=named)
def test_the_program_is_short_and_can_be_read(kind, whole, preprocessing, tmp_path):
    text = script.write(tmp_path, kind, "model.x", preprocessing, whole).read_text("utf-8")
    compile(text, "predict.py", "exec", dont_inherit=True)
    lines = text.splitlines()
    assert len(lines) < 60 and max(map(len, lines)) <= 110 and "{%" not in text
    assert ("torch" in text) == (kind == "torch-export")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_the_program_prepares_difficult_files_as_the_classifier_does(shared, tmp_path, mode, fit):
    with tarfile.open(shared / "nasty" / "nasty_dev.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    preprocessing = Preprocessing(32, mode, fit)
    program = script.write(tmp_path, "torch-export", "model.pt2", preprocessing, False)
    prepare = runpy.run_path(str(program))["prepare"]
    equal, other = 0, []
    for file in sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".csv"):
        try:
            ours = preprocessing.prepare(preprocessing.open(file)).permute(1, 2, 0).numpy()
        except PictureError:
            ours = None
        try:
            theirs = prepare(file)[0]
        except Exception:
            theirs = None
        same = ours is theirs is None or (
            ours is not None and theirs is not None and np.array_equal(ours, theirs)
        )
        equal += same
        if not same:
            other.append(file.name)
    assert equal > 60 and other == ["hopper.Lab.tif"]


def test_the_file_tells_what_it_is(tmp_path):
    clf = classifier(create("lenet5"), fit="pad")
    done = exported(clf, "onnx", tmp_path / "out", dynamic=True, whole=False)
    model = onnx.load(done.folder / "model.onnx")
    told = json.loads({entry.key: entry.value for entry in model.metadata_props}["convarium"])
    assert told == json.loads((done.folder / "model.json").read_text("utf-8")) == done.about
    assert told["classes"] == list(clf.classes) and told["architecture"]["name"] == "lenet5"
    assert Preprocessing.from_dict(told["preprocessing"]) == clf.preprocessing
    assert told["parity"]["pictures"] == 6 and told["parity"]["made"]
    assert told["input"]["shape"] == ["batch", 28, 28, 1]
    assert sorted(path.name for path in done.folder.iterdir()) == ["model.json", "model.onnx", "predict.py"]


def test_openvino_s_file_tells_what_it_is_and_keeps_its_weights_whole(tmp_path):
    clf = classifier(create("lenet5"), fit="pad")
    done = exported(clf, "openvino", tmp_path / "out", dynamic=True)
    model = silent.core().read_model(done.folder / "model.xml")
    told = json.loads(model.get_rt_info(["convarium"]).astype(str))
    assert told == json.loads((done.folder / "model.json").read_text("utf-8")) == done.about
    assert told["classes"] == list(clf.classes) and told["file"] == "model.xml"
    assert done.files == ("model.xml", "model.bin", "predict.py", "model.json")
    stored = [node.data for node in model.get_ops() if node.get_type_name() == "Constant"]
    weight = clf.net.get_parameter("stages.1.blocks.0.conv.weight").detach().numpy()
    assert any(values.shape == weight.shape and np.array_equal(values, weight) for values in stored)
    assert "stages.0.blocks.0.conv/Conv" in {node.get_friendly_name() for node in model.get_ops()}


def test_openvino_leaves_resizing_to_the_program(tmp_path):
    with pytest.raises(ArgumentError, match="OpenVINO computes in float32.*leave out --whole"):
        exported(classifier(create("lenet5")), "openvino", tmp_path / "out", whole=True)


def test_what_openvino_cannot_read_is_told():
    window = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True))  # of 3 x 3 on a picture of 2 x 2
    with pytest.raises(ArgumentError, match="OpenVINO cannot read the graph .*larger than the data"):
        openvino_file.traced(window, torch.zeros(1, 1, 2, 2), {})


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
def test_pictures_of_more_than_8_bits_are_refused(to, tmp_path):
    net = create("lenet5", in_channels=2)
    clf = Classifier(net, list("abcdefghij"), Preprocessing(28, "F", bands=2), device="cpu")
    with pytest.raises(ArgumentError, match="mode 'F' keep more than 8 bits.*--to safetensors"):
        exported(clf, to, tmp_path / "out")


def test_nothing_of_this_machine_is_in_the_file(tmp_path):
    for to, name in (("onnx", "model.onnx"), ("openvino", "model.xml"), ("torch-export", "model.pt2")):
        done = exported(classifier(create("lenet5")), to, tmp_path / to, whole=False)
        content = (done.folder / name).read_bytes()
        assert str(Path(__file__).parents[1]).encode() not in content
        assert str(Path(torch.__file__).parent).encode() not in content


@pytest.mark.parametrize("to", ["onnx", "openvino", "torch-export"])
def test_a_batch_gives_what_single_pictures_give(to, tmp_path):
    done = exported(classifier(create("lenet5")), to, tmp_path / "out", dynamic=True, whole=False)
    _, run = script.load(done.folder / "predict.py", done.folder / done.files[0])
    program = runpy.run_path(str(done.folder / "predict.py"))
    _, graph = program["load"](done.folder / done.files[0])
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        noise(80, 70, seed=number).save(path)
    together = graph(np.concatenate([program["prepare"](path) for path in paths]))
    np.testing.assert_allclose(together, np.stack([run(path) for path in paths]), atol=1e-6)


@pytest.mark.parametrize("whole", [None, True])
def test_torch_s_file_agrees_and_holds_no_pickle(tmp_path, whole):
    clf = classifier(create("lenet5"))
    noise(50, 40).save(tmp_path / "a.png")
    done = exported(clf, "torch-export", tmp_path / "out", whole=whole, pictures=[tmp_path / "a.png"])
    assert done.about["whole"] is bool(whole) and done.parity.flips == 0 and done.parity.largest < 1e-5
    with zipfile.ZipFile(done.folder / "model.pt2") as archive:
        for name in archive.namelist():
            # A pickle begins with its protocol, torch's own container of one is a ZIP archive.
            assert not archive.read(name).startswith((b"\x80\x02", b"\x80\x04", b"\x80\x05", b"PK")), name


def test_safetensors_is_the_model_s_own_file(tmp_path):
    clf = classifier(create("lenet5"))
    clf.save(tmp_path / "model.safetensors")
    done = exported(clf, "safetensors", tmp_path / "out", source=tmp_path / "model.safetensors")
    assert (done.folder / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
    assert json.loads((done.folder / "model.json").read_text("utf-8"))["classes"] == list(clf.classes)
    assert load(done.folder / "model.safetensors").classes == clf.classes


def test_real_weights_on_real_photographs(shared, tmp_path):
    with tarfile.open(shared / "imagenet300" / "imagenet300.tar") as archive:
        some = [member for member in archive.getmembers() if member.name.lower().endswith((".jpg", ".jpeg"))][
            ::20
        ]
        archive.extractall(tmp_path, some, filter="data")
    clf = pack(
        shared / "weights" / "mobilenet_v2_imagenet.safetensors",
        "mobilenet_v2",
        preprocessing={"size": 224, "resize": 256, **IMAGENET},
    )
    photos = [tmp_path / member.name for member in some]
    done = exported(clf, "onnx", tmp_path / "out", pictures=photos)
    assert done.parity.pictures == len(photos) > 10 and done.parity.flips == 0
    assert done.about["whole"] and done.parity.largest < 1e-4


def answers(tmp_path, said):
    paths = [tmp_path / str(number) for number in range(len(said))]
    return paths, lambda path: said[int(path.name)]


def test_parity_counts_flips_and_their_margin(tmp_path):
    truth = [np.array([0.5, 0.495, 0.005]), np.array([0.9, 0.1, 0.0])]
    paths, run = answers(tmp_path, [np.array([0.497, 0.498, 0.005]), np.array([0.9, 0.1, 0.0])])
    found = parity.measure(truth, run, paths)
    assert (found.pictures, found.flips) == (2, 1) and found.margin == pytest.approx(0.005)
    assert found.agrees and str(found) == "2 pictures: 1 flip, largest difference 0.003"


@pytest.mark.parametrize("said", [(0.1, 0.9), (0.85, 0.15), (float("nan"), 0.1)])
def test_parity_sees_disagreement(tmp_path, said):
    paths, run = answers(tmp_path, [np.array(said)])
    assert not parity.measure([np.array([0.9, 0.1])], run, paths).agrees


def test_pictures_that_only_one_can_read_are_named(tmp_path):
    paths, run = answers(tmp_path, [np.array([1.0, 0.0])] * 2)
    found = parity.measure([np.array([1.0, 0.0]), None], run, paths)
    assert found.pictures == 1 and found.unequal == ((str(paths[1]), "the classifier refuses it"),)
    with pytest.raises(DataError, match="none of the 1 pictures could be compared.*--pictures"):
        parity.measure([None], run, paths[:1])


def test_a_model_that_disagrees_is_not_written(tmp_path):
    clf = classifier(create("lenet5"))
    with pytest.raises(CheckpointError, match="disagrees with the classifier"):
        export.export(
            clf.net,
            clf.classes,
            clf.preprocessing,
            {},
            "onnx",
            tmp_path / "out",
            whole=False,
            reference=lambda files: [np.eye(10)[number % 10] for number in range(len(files))],
        )
    assert not (tmp_path / "out").exists()


def test_resizing_is_left_to_the_program_where_the_graph_s_disagrees(tmp_path, monkeypatch):
    clf = classifier(create("lenet5"))
    clf.temperature = 0.01
    monkeypatch.setattr(
        resizing.Square, "forward", lambda self, x: x.permute(0, 3, 1, 2)[:, :, :28, :28].double()
    )
    noise(60, 60).save(tmp_path / "a.png")
    done = exported(clf, "onnx", tmp_path / "out", pictures=[tmp_path / "a.png"])
    assert done.about["whole"] is False and "predict.py resizes, with Pillow" in done.notes[0]
