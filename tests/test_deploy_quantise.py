"""A classifier in 8 bits: judged against itself, its harmful parts left in float32, or nothing written."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from convarium.cli import quantise as verb
from convarium.data.pictures import Picture, PictureSet
from convarium.deploy import export, int8, onnx_file, openvino_file, quantise
from convarium.errors import ArgumentError, DataError, MissingExtra, RunError, UnknownName
from convarium.models import create
from tests.reference import randomise
from tests.test_deploy_export import by_program, classifier, noise
from tests.test_models_onnx import operators_are_listed_once  # noqa: F401 (a fixture, for this file too)
from tests.tiny import tiny

try:
    int8.library()
except MissingExtra as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def clf():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return classifier(randomise(create("lenet5")))


@pytest.fixture(scope="module")
def pictures(clf, tmp_path_factory):
    """30 files, each labelled with what the classifier says of it, and one that is no picture."""
    folder = tmp_path_factory.mktemp("снимки")
    paths = [folder / f"{number}.png" for number in range(30)]
    for number, path in enumerate(paths):
        noise(5, 5, seed=number).resize((40, 40)).save(path)
    (folder / "broken.png").write_bytes(b"no picture")
    labels = [said[0].index for said in clf.predict(paths)]
    found = [Picture(path.name, path, label) for path, label in zip(paths, labels, strict=True)]
    return PictureSet(clf.classes, (*found, Picture("broken.png", folder / "broken.png", 0)))


def asked(clf, pictures, folder, **options):
    given = {"max_drop": 100.0, **options}
    known = {"temperature": 1.0, "threshold": 0.25}
    return quantise.quantise(
        clf.net, clf.classes, clf.preprocessing, known, pictures, pictures, folder, **given
    )


@pytest.fixture(scope="module")
def proto(clf):
    """Its graph, with float32 answers on some squares."""
    return graph_of(clf)


@pytest.fixture(scope="module")
def squares():
    return np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)


@pytest.fixture(scope="module")
def parts(proto, squares):
    return int8.harm(proto, squares, squares[:8])


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_what_is_written_is_in_8_bits_judged_and_runs_without_torch(to, clf, pictures, tmp_path):
    done = asked(clf, pictures, tmp_path / "вывод", to=to, unseen=pictures)
    assert done.folder == tmp_path / "вывод" and done.files[-1] == "model.json"
    told = json.loads((done.folder / "model.json").read_text("utf-8"))
    assert told == done.about and told["int8"]["calibrated_on"] == done.calibrated == 30
    judged = told["int8"]["judged"]
    assert judged["pictures"] == 30 and judged["first"]["correct"] == 30  # the labels are its own answers
    assert 30 - judged["second"]["correct"] == told["int8"]["parity_with_float32"]["flips"]
    assert judged["sentence"] == told["int8"]["unseen"]["sentence"] == done.versus.sentence
    assert [speed["batch"] for speed in told["int8"]["speed"]] == [1, 32]
    assert all(speed["int8_per_second"] > 0 for speed in told["int8"]["speed"])
    assert [note for note in done.notes if "broken" in note] == ["left out: broken.png: text, not a picture"]
    weights = done.folder / done.files[-3 if to == "openvino" else 0]
    assert weights.stat().st_size < 0.5 * sum(p.numel() for p in clf.net.parameters()) * 4
    files = [p.source for p in pictures.pictures[:3]]
    status, rows, error = by_program(done.folder, *files)
    assert (status, error) == (0, "") and [row["path"] for row in rows] == list(map(str, files))
    assert told["threshold"] == 0.25 and all(len(row["predictions"]) == 5 for row in rows)


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_a_kept_part_stays_in_float32_and_brings_the_answers_nearer(to, proto, parts, squares):
    maker = int8.MAKERS[to](proto)
    expected = maker.run(maker.plain)(squares)
    kept = [name for path in list(parts)[:-1] for name in parts[path][1]]
    models = [maker.rounded(squares, names) for names in ((), kept)]
    errors = [np.abs(maker.run(model)(squares) - expected).max() for model in models]
    assert 0 < errors[1] < errors[0]

    def floats(model):
        if to == "onnx":
            stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
            return {name for name, kind in stored.items() if kind == 1 and name.endswith(".weight")}
        return {
            int8.path_of(node.get_friendly_name()) + ".weight"
            for node in model.get_ops()
            if node.get_type_name() in ("Convolution", "MatMul")
            and node.input_value(1).get_node().get_type_name() == "Constant"
        }

    weights = {tensor.name for tensor in proto.graph.initializer}
    layers = {path + ".weight" for path in parts} & weights
    assert floats(models[0]) == set()
    assert floats(models[1]) == layers - {list(parts)[-1] + ".weight"}


def graph_of(clf):
    answer = export.Answer(clf.net, clf.preprocessing, 1.0, False)
    return export.traced(onnx_file.model, answer, clf.preprocessing, True, {"architecture": {}}, "onnx")


def drawn(clf, count):
    shape = (count, clf.preprocessing.size, clf.preprocessing.size, clf.preprocessing.channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_tokens_are_rounded_but_not_their_attention():
    clf = classifier(tiny("vit"))
    model = int8.OpenVINO(graph_of(clf)).rounded(drawn(clf, 3), simulated=True)
    rounded = int8._parts(model)
    assert sum("blocks.0" in path for path in rounded) >= 4
    for node in model.get_ops():
        if node.get_type_name() in ("Softmax", "MVN"):
            assert node.input_value(0).get_node().get_type_name() != "FakeQuantize"


@pytest.mark.parametrize("family", ["vit", "mobilenet_v3", "efficientnet"])  # known to lose by rounding
@pytest.mark.skipif(not os.environ.get("CONVARIUM_ALL"), reason="where CONVARIUM_ALL=1 is set")
def test_networks_known_to_lose_come_nearer_by_half_of_their_parts(family):
    clf = classifier(tiny(family))
    made, squares = graph_of(clf), drawn(clf, 12)
    parts = int8.harm(made, squares, squares[:4])
    paths = dict(clf.net.named_modules())  # of larger ones, of blocks
    assert len(parts.keys() & paths.keys()) > 0.8 * len(parts)
    kept = [name for path in list(parts)[: len(parts) // 2] for name in parts[path][1]]
    for to in ("openvino", "onnx"):
        maker = int8.MAKERS[to](made)
        expected = maker.run(maker.plain)(squares)
        every, half = (
            np.abs(maker.run(maker.rounded(squares, n))(squares) - expected).sum() for n in ((), kept)
        )
        assert half < every


def test_the_part_that_hurts_is_found(squares):
    net = randomise(create("lenet5", classes=4))
    first, second = (net.get_submodule(f"stages.{i}.blocks.0.conv") for i in (0, 1))
    with torch.no_grad():
        # One plane a thousand times as large as the others: a range for all of them leaves nothing of the others.
        first.weight[0] *= 1000
        first.bias[0] *= 1000
        second.weight[:, 0] /= 1000
    spoilt = classifier(net)
    parts = int8.harm(graph_of(spoilt), squares, squares)
    assert next(iter(parts)) == "stages.1.blocks.0.conv"
    errors = [error for error, _ in parts.values()]
    assert errors == sorted(errors, reverse=True) and errors[0] > 2 * errors[1]


def tries(drops):
    """`tried` as `_fewest` calls it: so many names kept give such a drop in points; what was asked is noted."""
    seen = []

    class Of:
        def __init__(self, points):
            self.paired = type("Paired", (), {"difference": points / 100})

    def tried(names):
        seen.append(len(names))
        return len(names), None, Of(drops(len(names)))

    return tried, seen


@pytest.mark.parametrize("needed", range(1, 20))
def test_as_few_parts_stay_as_keep_the_bound(needed):
    tried, seen = tries(lambda count: 0.5 if count >= needed else 3.0)
    harm = {f"part{i}": (1 / (i + 1), [f"part{i}/Conv"]) for i in range(20)}
    best, paths = quantise._fewest(tried, harm, 0.5, tried(()), lambda line: None)
    assert best[0] == needed and paths == list(harm)[:needed] and len(seen) <= 11


def test_where_nothing_suffices_the_best_try_is_told():
    tried, seen = tries(lambda count: 9.0 - (count == 4))
    harm = {f"part{i}": (1.0, [f"part{i}/Conv"]) for i in range(7)}
    best, paths = quantise._fewest(tried, harm, 0.5, tried(()), lambda line: None)
    assert best[0] == 4 and len(paths) == 4 and seen == [0, 1, 2, 4, 6]  # never all: that would be float32


def test_ranges_are_taken_from_every_class_in_turn():
    many = [Picture(f"a{i}", Path("x"), 0) for i in range(50)]
    few = [Picture(f"b{i}", Path("x"), i) for i in (1, 2, 3)]  # one picture a class
    chosen = quantise._spread(PictureSet(("p", "q", "r", "s"), (*many, *few)), 6)
    assert [picture.label for picture in chosen.pictures].count(0) == 3 and len(chosen) == 6
    assert quantise._spread(PictureSet(("p", "q"), tuple(many[:2])), 300).counts == [2, 0]


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"to": "opnvino"}, UnknownName, "did you mean openvino"),
        ({"max_drop": -1}, ArgumentError, "allowed is 0 to 100"),
        ({"count": 0}, ArgumentError, "give at least 1"),
    ],
)
def test_values_that_are_not_allowed(clf, pictures, tmp_path, options, kind, said):
    with pytest.raises(kind, match=said):
        asked(clf, pictures, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_left_alone_and_unreadable_pictures_are_told(clf, pictures, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="holds other files"):
        asked(clf, pictures, tmp_path)
    with pytest.raises(DataError, match="none of the 1 pictures .calibration. can be read, as broken.png"):
        asked(clf, PictureSet(clf.classes, pictures.pictures[-1:]), tmp_path / "out")


def test_a_missing_library_is_named(clf, pictures, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingExtra, match="8 bits need nncf.*pip install convarium.deploy"):
        asked(clf, pictures, tmp_path / "out")


def test_the_tools_are_held_back_and_what_they_changed_is_put_back(capfd):
    level = logging.root.manager.disable
    with pytest.raises(KeyError), int8.quiet():
        print("a bar")
        logging.getLogger("x").warning("advice")
        raise KeyError
    assert capfd.readouterr() == ("", "") and logging.root.manager.disable == level


def test_nothing_is_reported_to_anyone(tmp_path):
    program = (
        "import sys; from convarium.deploy import int8; int8.library(); "
        "print([name for name in sys.modules if name.startswith(('openvino_telemetry', 'openvino.tools.ovc'))])"
    )
    env = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, encoding="utf-8")
    assert ended.stdout.strip() == "[]", ended.stderr
    assert not (tmp_path / "intel").exists()


@pytest.fixture
def data(clf, pictures, tmp_path):
    """The model's file, and a table of the pictures without parts."""
    clf.save(tmp_path / "model.safetensors")
    rows = [f"{p.source},{clf.classes[p.label]}" for p in pictures.pictures[:-1]]
    (tmp_path / "all.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    return tmp_path


def run(*arguments):
    app = typer.Typer()
    app.command()(verb.run)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_verb_says_what_8_bits_cost(data):
    ended = run(data / "model.safetensors", data / "all.csv", "--max-drop", "100")
    assert ended.exit_code == 0, ended.output
    assert "note: no part was held out, so a fifth was" in ended.stderr
    for words in ("float32  100.0 %", "int8", "largest difference", "Ranges from ", "ratio", "predict.py"):
        assert words in ended.stdout
    assert (data / "int8-openvino" / "model.xml").is_file()


def test_where_the_bound_cannot_be_held_nothing_is_written(data, monkeypatch):
    other = onnx_file.model(
        Constant(), torch.zeros(2, 28, 28, 1, dtype=torch.uint8), {0: torch.export.Dim("batch")}
    )
    wrong = openvino_file.read(other.SerializeToString())
    monkeypatch.setattr(int8.OpenVINO, "rounded", lambda self, squares, kept=(), simulated=False: wrong)
    ended = run(data / "model.safetensors", data / "all.csv", "--json", "-o", data / "out")
    assert ended.exit_code == 1 and "points of top-1, allowed are 0.5; nothing was written" in ended.stderr
    told = json.loads(ended.stdout)
    assert told["folder"] is None and told["files"] == [] and told["int8"]["drop"] > 0.5
    assert not (data / "out").exists()


class Constant(torch.nn.Module):
    """Says the last class of everything."""

    def forward(self, pictures):
        given = pictures.float().mean((1, 2, 3))[:, None] * 0
        return (given + torch.arange(10.0)).softmax(1)


def test_parts_are_chosen_by_what_there_is(clf, pictures):
    train, val, test = (PictureSet(clf.classes, pictures.pictures[i : i + 5]) for i in (0, 5, 10))
    every = {"train": train, "val": val, "test": test}
    assert verb._parts(every, None, "x") == (train, val, test, [])
    assert verb._parts(every, "test", "x") == (train, test, None, [])
    used, judged, unseen, notes = verb._parts({"test": test}, None, "x")
    assert (used, judged, unseen) == (test, test, None) and "itself" in notes[0]
    with pytest.raises(DataError, match="no part 'dev'; it has train, val, test"):
        verb._parts(every, "dev", "x")
