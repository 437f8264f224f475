"""From sources of any number to answers in their order, without torch."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium import answering
from convarium.answering import Answering
from convarium.classifier import Classifier
from convarium.data import ahead
from convarium.data.ahead import begun, grouped
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, PictureError
from convarium.judge.given import Given
from convarium.judge.outliers import Outlier, fit_energy
from convarium.judge.scoring import given
from convarium.models import create
from convarium.net import last_part
from tests.reference import randomise


def pixels_of(source):
    """As a classifier prepares them: a number for a number, and an error for what is no number."""
    if isinstance(source, str):
        return source, None, "no number"
    return str(source), np.full((1, 2, 2), source % 256, np.uint8), None


def test_groups_are_full_whatever_lies_between_and_keep_the_order():
    sources = [0, "x", 1, 2, "y", "z", 3, 4, "end"]
    groups = list(grouped(sources, pixels_of, 2))
    assert [[path for path, _ in group.entries] for group in groups] == [
        ["0", "x", "1"], ["2", "y", "z", "3"], ["4", "end"],
    ]  # fmt: skip
    assert [group.pictures[:, 0, 0, 0].tolist() for group in groups] == [[0, 1], [2, 3], [4]]
    assert [error for _, error in groups[1].entries] == [None, "no number", "no number", None]


def test_slow_pictures_do_not_change_the_order():
    def slowly(source):
        time.sleep(0.002 * (7 - source % 8))
        return pixels_of(source)

    groups = grouped(range(60), slowly, 7)
    assert [int(path) for group in groups for path, _ in group.entries] == list(range(60))


def test_no_more_is_taken_than_a_few_batches_ahead():
    taken = itertools.count()
    endless = (next(taken) for _ in itertools.repeat(None))
    groups = grouped(endless, pixels_of, 10)
    for number in range(1, 6):
        next(groups)
        assert next(taken) - number <= 10 * (number + ahead.AHEAD) + 2 * 70  # threads of a large machine
    groups.close()


def test_the_next_pictures_are_decoded_while_a_batch_is_computed():
    decoded = threading.Semaphore(0)

    def noted(source):
        decoded.release()
        return pixels_of(source)

    groups = grouped(range(100), noted, 10)
    next(groups)
    # Whoever computes takes nothing meanwhile; pictures come nevertheless.
    for _ in range(10 * (1 + ahead.AHEAD)):
        assert decoded.acquire(timeout=10)
    groups.close()


def test_a_stream_that_is_left_stops_its_threads():
    groups = grouped(range(10_000), pixels_of, 4)
    next(groups)
    before = threading.active_count()
    groups.close()
    assert threading.active_count() < before or before == 1


def test_a_wall_of_unreadable_files_is_not_kept_until_it_ends():
    groups = grouped(itertools.chain([0], itertools.repeat("x", 10_000)), pixels_of, 4)
    assert len(next(groups).entries) == 4 * ahead.UNREADABLE
    assert next(groups).pictures is None


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_run_that_goes_on_begins_where_a_batch_begins(batch):
    sources = [0, "x", 1, 2, "y", "z", 3, 4, *["bad"] * 200, 5, 6, "end"]
    ends = list(itertools.accumulate(len(group.entries) for group in grouped(sources, pixels_of, batch)))
    for done in range(len(sources)):
        last = max((end for end in ends if end <= done), default=0)
        assert begun((not isinstance(source, str) for source in sources[:done]), batch) == last


def test_an_error_that_is_not_the_pictures_comes_through():
    def broken(source):
        raise ArgumentError("not so")

    with pytest.raises(ArgumentError, match="not so"):
        list(grouped([1, 2], broken, 2))


class Stub(Answering):
    """Answers by the brightness of a picture: two classes."""

    def __init__(self, batch=4, outlier=None, threshold=0.0):
        self.classes, self.preprocessing = ("dark", "light"), Preprocessing(4, "L")
        self.threshold, self.outlier, self.mirror = threshold, outlier, False
        self._batch, self.calls = batch, []

    @property
    def batch(self):
        return self._batch

    def _said(self, pictures):
        self.calls.append(len(pictures))
        return answering.run(self, pictures, 1.0, self.mirror)

    def __call__(self, pictures):
        light = pictures.reshape(len(pictures), -1).mean(1, dtype=np.float64) / 255
        left = pictures[..., 0].reshape(len(pictures), -1).mean(1, dtype=np.float64) / 255
        scores = np.stack([1 - light, left], axis=1).astype(np.float32)
        return scores, scores


def shade(value, side=6):
    return np.full((side, side), value, np.uint8)


def test_answers_are_in_order_in_full_batches_and_errors_in_their_place(tmp_path):
    Image.fromarray(shade(200)).save(tmp_path / "свет\nлый.png")
    stub = Stub(batch=2)
    asked = [shade(0), tmp_path / "none.png", str(tmp_path / "свет\nлый.png"), shade(90), shade(255)]
    said = list(stub.in_batches(asked))
    assert [len(some) for some in said] == [3, 2] and stub.calls == [2, 2]
    told = [one for some in said for one in some]
    assert [one[0].name if one else one.error for one in told] == [
        "dark",
        "no such file",
        "light",
        "dark",
        "light",
    ]
    assert [one.path for one in told] == [
        "",
        str(tmp_path / "none.png"),
        str(tmp_path / "свет\nлый.png"),
        "",
        "",
    ]


def test_doubts_are_told():
    low = Outlier.from_dict(fit_energy(np.array([[5.0, 5.0]] * 3)).to_dict())
    (one,) = Stub(outlier=low, threshold=1.0).predict(shade(0))
    assert one.unsure and one.strange
    (one,) = Stub().predict(shade(0))
    assert not one.unsure and not one.strange


def test_both_sides_of_a_picture_are_averaged():
    half = np.hstack([shade(0), shade(255)])
    stub, both = Stub(), Stub()
    stub.preprocessing = both.preprocessing = Preprocessing(4, "L", fit="squash")
    both.mirror = True
    sides = [stub.predict(side)[0] for side in (half, half[:, ::-1])]
    light = [next(g.probability for g in side if g.name == "light") for side in sides]
    found = next(g.probability for g in both.predict(half)[0] if g.name == "light")
    assert light[0] != light[1] and found == pytest.approx(np.mean(light), abs=1e-12)


def test_softmax_is_that_of_torch_also_of_large_scores():
    scores = np.random.default_rng(0).normal(0, 300, (5, 7)).astype(np.float32)
    expected = (torch.from_numpy(scores).double() / 1.7).softmax(1).numpy()
    assert np.allclose(answering.softmax(scores, 1.7), expected, rtol=1e-12, atol=0)


@pytest.fixture(scope="module")
def clf():
    net = randomise(create("resnet20", depth=8, classes=3))
    told = {"temperature": {"value": 2.0}, "threshold": {"value": 0.5}}
    return Classifier(net, ("a", "b", "c"), Preprocessing(16), told, device="cpu")


class Way:
    """The plain way, as an engine."""

    name = "mine"

    def __init__(self, clf, batch):
        self.clf, self.batch, self.sizes = clf, batch, []

    def __call__(self, pictures):
        assert pictures.dtype == np.uint8 and pictures.flags.c_contiguous
        self.sizes.append(len(pictures))
        c = self.clf
        batches = [torch.from_numpy(pictures)]
        (found,) = given(c.net, last_part(c.net), batches, c.preprocessing.normalise, c.device)
        return found.scores.astype(np.float32), found.features


@pytest.mark.parametrize("mirror", [False, True])
def test_an_engine_answers_as_the_classifier_does(clf, mirror):
    pictures = list(np.random.default_rng(0).integers(0, 256, (11, 20, 24, 3), np.uint8))
    try:
        clf.mirror = mirror
        plain = clf.predict(pictures, top=3)
        assert clf.way == "plain"
        clf.engine = way = Way(clf, 4)
        fast = clf.predict(pictures, top=3)
        assert clf.way == "mine" and way.sizes == [4] * (2 + 2 * mirror) + [3] * (1 + mirror)
    finally:
        clf.engine, clf.mirror = None, False
    for one, other in zip(plain, fast, strict=True):
        assert [g.name for g in one] == [g.name for g in other]
        assert [g.probability for g in one] == pytest.approx([g.probability for g in other], abs=1e-6)


def test_what_is_in_memory_is_scored_by_the_engine_too(clf):
    from convarium.data.folders import Picture, PictureSet

    arrays = list(np.random.default_rng(1).integers(0, 256, (9, 20, 24, 3), np.uint8))
    pictures = PictureSet(clf.classes, tuple(Picture(str(i), a, 0) for i, a in enumerate(arrays)))
    prepared = torch.stack([clf.preprocessing.prepare(clf.preprocessing.open(a)) for a in arrays])
    plain = clf.score(pictures, prepared)
    assert np.array_equal(plain.probabilities, clf.score(pictures).probabilities)
    try:
        clf.engine = Way(clf, 4)
        found = [clf.score(pictures, prepared).probabilities, clf.score(pictures).probabilities]
    finally:
        clf.engine = None
    assert np.array_equal(*found) and np.allclose(found[0], plain.probabilities, atol=1e-6)


def test_a_picture_that_cannot_be_read_is_left_out_of_the_score(clf, tmp_path):
    from convarium.data.folders import Picture, PictureSet

    arrays = list(np.random.default_rng(1).integers(0, 256, (3, 20, 24, 3), np.uint8))
    sources = [tmp_path / "a.png", arrays[0], tmp_path / "b.png", *arrays[1:], tmp_path / "c.png"]
    pictures = PictureSet(clf.classes, tuple(Picture(str(i), s, 0) for i, s in enumerate(sources)))
    scored = clf.score(pictures)
    assert [picture.key for picture in scored.pictures.pictures] == ["1", "3", "4"]
    assert scored.damaged == [(key, "no such file") for key in "025"]


def test_nothing_heavy_is_imported():
    heavy = ("torch", "torchvision", "scipy", "sklearn", "rich", "jinja2", "huggingface_hub", "matplotlib")
    script = (
        "import sys; from convarium import answering, storage; from convarium.data import decode, folders; "
        "from convarium.data.preprocessing import Preprocessing as P; import numpy as np; "
        "assert P(4).square(P(4).open(np.zeros((9, 5), np.uint8))).shape == (3, 4, 4); "
        f"sys.exit(', '.join({set(heavy)} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_group_of_errors_only_needs_no_network():
    class Never(Stub):
        def _said(self, pictures) -> Given:
            raise AssertionError("nothing to compute")

    assert [one.error for one in Never().predict(["nowhere/a.png", "nowhere/b.png"])] == ["no such file"] * 2


def test_an_unknown_kind_of_picture_error_is_told_as_it_is(monkeypatch):
    stub = Stub()
    monkeypatch.setattr(
        Preprocessing, "open", lambda self, source: (_ for _ in ()).throw(PictureError("so and so"))
    )
    assert stub.predict("a.png")[0].error == "so and so"
