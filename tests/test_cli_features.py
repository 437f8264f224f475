"""convarium features: what a network makes of pictures, in a file that NumPy reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import convarium
from convarium.answering import Features
from convarium.classifier import Classifier
from convarium.data.preprocessing import Preprocessing
from convarium.errors import DataError
from convarium.models import create
from convarium.net import last_part
from tests.pictures import squares
from tests.reference import randomise


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier's file beside pictures, of which one is damaged and one has an odd name."""
    folder = tmp_path_factory.mktemp("features")
    net = randomise(create("resnet20", depth=8, classes=2))
    Classifier(net, ("a", "b"), Preprocessing(16), device="cpu").save(folder / "m.safetensors")
    squares(folder / "pictures", ("a", "кот"), each=5)
    (folder / "pictures" / "a" / "003.png").write_text("no picture")
    return folder


def test_features_are_those_before_the_classifier_in_the_order_asked(made, convarium, tmp_path):
    status, said, told = convarium(
        "features", made / "m.safetensors", made / "pictures", "-o", tmp_path / "f.npz"
    )
    assert status == 3 and said == ""
    assert (
        "003.png: cannot be read" in told and "9 pictures, 64 features each; 1 more could not be read" in told
    )
    with np.load(tmp_path / "f.npz", allow_pickle=False) as file:
        paths, values = file["paths"], file["features"]
    assert [path.rsplit("/", 2)[1] for path in paths] == ["a"] * 4 + ["кот"] * 5
    assert values.dtype == np.float32 and values.shape == (9, 64)
    clf = load(made)
    with torch.inference_mode():
        scores = last_part(clf.net)(torch.from_numpy(values))
    assert torch.equal(scores.argmax(1), torch.tensor([one[0].index for one in clf.predict(list(paths))]))
    assert convarium("features", made / "m.safetensors", made / "pictures", "-o", tmp_path / "f.npz")[0] == 3
    clf.mirror = True
    assert np.array_equal(
        clf.features(made / "pictures" / "a" / "000.png").paths, [str(made / "pictures" / "a" / "000.png")]
    )
    assert clf.mirror
    single = np.concatenate([clf.features(path).values for path in paths])
    assert np.abs(single - values).max() <= 1e-5 * np.abs(values).max()


def load(made):
    return convarium.load(made / "m.safetensors")


def test_pixels_have_no_path(made):
    found = load(made).features([np.zeros((9, 9, 3), np.uint8), np.zeros((1, 1, 4, 4), np.uint8)])
    assert isinstance(found, Features) and found.paths == ("",) and len(found.values) == 1
    assert len(found.damaged) == 1


def test_where_none_can_be_read_it_is_said(made):
    with pytest.raises(DataError, match="no picture can be read"):
        load(made).features(made / "pictures" / "a" / "003.png")


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("f.npy", "does not end in .npz"),
        ("d.npz", "is a folder"),
        ("missing/f.npz", "there is no folder"),
        ("other.npz", "holds no features"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_computed(
    made, convarium, tmp_path, monkeypatch, out, words
):
    (tmp_path / "d.npz").mkdir()
    np.savez(tmp_path / "other.npz", mine=np.zeros(3))
    monkeypatch.setattr(Classifier, "features", lambda *asked: pytest.fail("computed"))
    status, _, told = convarium("features", made / "m.safetensors", made / "pictures", "-o", tmp_path / out)
    assert status == 2 and words in told


def test_an_export_has_no_features(made, convarium, tmp_path):
    pytest.importorskip("onnxruntime")
    assert convarium("export", made / "m.safetensors", "--to", "onnx", "-o", tmp_path / "e")[0] == 0
    status, _, told = convarium("features", tmp_path / "e", made / "pictures", "-o", tmp_path / "f.npz")
    assert (
        status == 2 and "give the classifier it was made from" in told and not (tmp_path / "f.npz").exists()
    )
