"""Ways of running a classifier agree with the plain one, are refused where they do not, and are tried where it pays."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from convarium.classifier import Classifier
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import agreement, job, measuring, remembered, runtimes, ways
from convarium.deploy.job import choose
from convarium.deploy.measuring import Row, measure
from convarium.deploy.runtimes import Ready
from convarium.deploy.ways import PLAIN, Way
from convarium.errors import ArgumentError, UnknownName
from convarium.judge.scoring import given
from convarium.models import create
from convarium.net import last_part
from tests.tiny import tiny

DEPLOY = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime", "openvino"))


def classifier(net):
    mode = {1: "L", 3: "RGB"}[net.in_channels]
    level = {"mean": (0.4,) * net.in_channels, "std": (0.2,) * net.in_channels}
    names = [str(i) for i in range(net.classes)]
    return Classifier(net, names, Preprocessing(size=net.size, mode=mode, **level), device="cpu")


def pictures(clf, count=5):
    shape = (count, clf.preprocessing.channels, clf.preprocessing.size, clf.preprocessing.size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def lenet():
    return classifier(create("lenet5", classes=4))


def fake(name, scale=1.0, slow=0.0, setup=0.01, numbers="float32", made=None):
    """A way that does what the plain one does, its scores multiplied, slower by some seconds a call."""

    def make(work, batch, threads):
        if made is not None:
            made.append(name)
        plain = ways._plain(work, batch, threads)

        def run(some):
            time.sleep(slow)
            scores, features = plain.run(some)
            return scores * scale, features

        return Ready(name, batch, threads, run)

    return Way(name, numbers, "torch", setup, make)


def quick(name, made=None, **changes):
    """A way that answers at once, from what the plain one said of the same pictures."""
    way = fake(name, made=made, **changes)

    def make(work, batch, threads):
        ready, known = way.make(work, batch, threads), {}

        def run(some):
            key = some.tobytes()
            if key not in known:
                known[key] = ready.run(some)
            return known[key]

        return Ready(name, batch, threads, run)

    return replace(way, make=make)


@pytest.fixture
def only(monkeypatch):
    """The plain way and those given are all there are; the plain one takes some time."""

    def use(*some, plain=0.02):
        slow = replace(fake(PLAIN, slow=plain), setup=0.0)
        for module in (measuring, job):
            monkeypatch.setattr(module, "ways", lambda subject: [slow, *some])

    return use


@pytest.mark.skipif(not DEPLOY, reason="the extra `deploy` is not installed")
@pytest.mark.parametrize("family", ["mobilenet_v2", "vit"])
def test_every_way_agrees_with_the_plain_one(family):
    clf = classifier(tiny(family))
    names = [way.name for way in ways.ways(clf) if not way.name.startswith("compile")]
    table = measure(clf, pictures(clf), 2, seconds=0.1, only=names)
    assert [row.name for row in table.rows] == names
    for row in table.rows:
        if row.verdict.startswith("this processor"):
            continue
        assert row.agrees and row.images_per_second, f"{row.name}: {row.verdict}"
        if row.numbers == "float32":
            assert row.agreement.scores < 1e-5 and row.agreement.features < 1e-5 and not row.agreement.flips
    assert sum(row.verdict.startswith("taken") for row in table.rows) == 1


@pytest.mark.skipif(bool(ways._compiler_missing()), reason="no C++ compiler")
def test_the_compiled_network_agrees_and_takes_fewer_pictures_than_it_was_made_for():
    clf = classifier(create("linear", classes=4))
    table = measure(clf, pictures(clf, 3), 2, seconds=0.1, only=["compile-fp32"])
    assert table["compile-fp32"].agrees, table["compile-fp32"].verdict


def test_the_plain_way_is_that_of_predictions(lenet):
    some = pictures(lenet)
    scores, features = choose(lenet, some, 1).ready(some[:1])
    batch = [torch.from_numpy(some[:1])]
    normalise = lenet.preprocessing.normalise
    (truth,) = given(lenet.net, last_part(lenet.net), batch, normalise, lenet.device)
    assert np.array_equal(scores, truth.scores.astype(np.float32))
    assert np.array_equal(features, truth.features)


def test_pictures_of_more_than_8_bits_go_through_the_ways_of_torch():
    net = create("resnet20", classes=3, in_channels=5)
    clf = Classifier(net, list("abc"), Preprocessing(size=32, mode="F", bands=5), device="cpu")
    some = np.random.default_rng(0).uniform(0, 255, (3, 5, 32, 32)).astype(np.float32)
    before = some.copy()
    table = measure(clf, some, 3, seconds=0.1, only=["onednn-fp32"])
    assert table["onednn-fp32"].agrees and np.array_equal(some, before)


def scores(*rows):
    return np.array(rows, np.float32), np.ones((len(rows), 2), np.float32)


def test_equal_answers_agree():
    found = agreement.compare(scores([3, 1], [0, 2]), scores([3, 1], [0, 2]), "float32")
    assert (found.refused, found.flips, found.probability, found.scores) == ("", 0, 0.0, 0.0)


def test_float32_that_computes_in_fewer_bits_is_refused():
    found = agreement.compare(scores([3, 1]), scores([3.001, 1]), "float32")
    assert found.refused == "refused: scores differ by 3.2e-04, allowed is 1e-05"
    assert not agreement.compare(scores([3, 1]), scores([3.001, 1]), "bfloat16").refused


def test_float32_whose_features_differ_is_refused():
    expected, found = scores([3, 1]), scores([3, 1])
    assert "features differ" in agreement.compare(expected, (found[0], found[1] * 1.01), "float32").refused


def test_short_numbers_may_differ_so_much_and_no_more():
    assert not agreement.compare(scores([0.0, 0.0]), scores([0.19, 0.0]), "bfloat16").refused
    refused = agreement.compare(scores([0.0, 0.0]), scores([0.21, 0.0]), "bfloat16").refused
    assert refused == "refused: probabilities differ by 0.052, allowed is 0.05 of 95% of the pictures"


def test_one_picture_in_many_may_differ_by_more_and_none_may_flip_from_a_clear_lead():
    alike = [[0.0, 0.0, 9.0]] * 39
    near, far = [9.0, 8.7, 0.0], [9.0, 8.0, 0.0]  # leads of 0.15 and of 0.46
    expected, found = scores(*alike, near), scores(*alike, [8.7, 9.0, 0.0])
    said = agreement.compare(expected, found, "bfloat16")
    assert (
        (said.flips, said.refused) == (1, "") and said.usual < 0.05 < said.probability and said.margin < 0.2
    )
    assert agreement.compare(expected, found, "float32").refused
    clear = agreement.compare(scores(*alike, far), scores(*alike, [8.0, 9.0, 0.0]), "bfloat16")
    assert clear.refused == "refused: 1 flips at margins above 0.2"


def test_a_flip_between_classes_that_were_near_is_counted_and_allowed():
    found = agreement.compare(scores([0.05, 0.0], [9, 0]), scores([0.0, 0.05], [9, 0]), "bfloat16")
    assert (found.flips, found.refused) == (1, "") and 0.02 < found.margin < 0.03


def test_the_temperature_counts():
    assert agreement.compare(scores([0.0, 0.0]), scores([0.3, 0.0]), "bfloat16").refused
    assert not agreement.compare(scores([0.0, 0.0]), scores([0.3, 0.0]), "bfloat16", 3.0).refused


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_refused(wrong):
    assert "not a number" in agreement.compare(scores([3, 1]), scores([wrong, 1]), "bfloat16").refused
    row = Row(
        "x", "float32", "torch", 1, 1, None, 0, agreement.compare(scores([3, 1]), scores([wrong, 1]), "b"), ""
    )
    assert row.to_dict()["probability"] is None and row.to_dict()["agrees"] is False


def test_another_number_of_classes_is_refused():
    assert "shapes differ" in agreement.compare(scores([3, 1]), scores([3, 1, 0]), "bfloat16").refused


def test_a_way_that_flips_is_refused_however_fast(lenet, only):
    only(quick("flipping", scale=-1.0, numbers="bfloat16"), quick("right"))
    table = measure(lenet, pictures(lenet), 2, seconds=0.2)
    assert table["flipping"].verdict.startswith("refused: probabilities differ")
    assert table["flipping"].agreement.flips and table["flipping"].images_per_second
    assert table.best == "right" and table["right"].verdict == "taken"
    assert table[PLAIN].verdict == "the reference, slower"


def test_where_nothing_is_faster_the_plain_way_stays(lenet, only):
    only(fake("slow", slow=0.03), plain=0.0)
    table = measure(lenet, pictures(lenet), 2, seconds=0.2)
    assert table.best == PLAIN and table["slow"].verdict == "agrees, slower"


def test_a_way_that_fails_is_said_and_the_others_go_on(lenet, only):
    def fail(work, batch, threads):
        raise RuntimeError("no such operator\nand more")

    only(replace(fake("failing"), make=fail), quick("right"))
    table = measure(lenet, pictures(lenet), 2, seconds=0.2)
    assert table["failing"].verdict == "failed: no such operator" and table.best == "right"


def test_a_library_that_is_not_installed_is_said(lenet, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    table = measure(lenet, pictures(lenet), 2, seconds=0.1, only=["openvino-fp32"])
    assert table["openvino-fp32"].verdict == "not installed: pip install 'convarium[deploy]'"
    with pytest.raises(ArgumentError, match="not installed: pip install"):
        choose(lenet, pictures(lenet), 100, "openvino-fp32")


def test_short_numbers_need_a_processor_that_has_them(lenet, monkeypatch):
    monkeypatch.setattr(ways.processor, "short_numbers", lambda: False)
    table = measure(lenet, pictures(lenet), 2, seconds=0.1, only=["eager-bf16"])
    assert "no instructions for bfloat16" in table["eager-bf16"].verdict


def test_exact_mode_looks_at_float32_only(lenet, only):
    only(quick("short", numbers="bfloat16"), quick("exact"))
    table = measure(lenet, pictures(lenet), 2, mode="exact", seconds=0.1)
    assert [row.name for row in table.rows] == [PLAIN, "exact"]
    assert choose(lenet, pictures(lenet), 10**6, "exact").name == "exact"


@pytest.mark.parametrize(("kind", "changes"), [("mode", {"mode": "fast"}), ("engine", {"only": ["fast"]})])
def test_an_unknown_mode_or_way_is_refused(lenet, kind, changes):
    with pytest.raises(UnknownName, match=f"no {kind} is called 'fast'"):
        measure(lenet, pictures(lenet), 2, **changes)


def test_a_small_job_builds_nothing(lenet, only):
    made = []
    only(quick("other", made=made, setup=1.0))
    assert [choose(lenet, pictures(lenet), count).name for count in (1, 8, 20)] == [PLAIN] * 3
    assert not made


def test_a_large_job_takes_the_fastest_that_agrees(lenet, only):
    only(quick("wrong", scale=-1.0, numbers="bfloat16"), fake("slower", slow=0.01), quick("right"))
    found = choose(lenet, pictures(lenet), 10**6)
    assert found.name == "right" and found.ratio > 2
    assert str(found).startswith("right, ") and str(found).endswith("times as fast as plain")


def test_a_job_that_an_early_way_makes_small_builds_nothing_more(lenet, only):
    made = []
    only(quick("early", made=made, setup=0.01), quick("late", made=made, setup=100.0))
    assert choose(lenet, pictures(lenet), 2000).name == "early" and made == ["early"]


def test_what_short_numbers_outdo_is_not_built_and_torch_comes_first(lenet, only):
    made = []
    onnx = replace(quick("file-bf16", made, numbers="bfloat16"), library="openvino")
    only(onnx, quick("exact", made), quick("short", made, numbers="bfloat16"))
    assert job.choose(lenet, pictures(lenet, 32), count=10**9).name in ("short", "file-bf16")
    assert made == ["short", "file-bf16"]
    made.clear()
    job.choose(lenet, pictures(lenet, 32), count=10**9, mode="exact")
    assert made == ["exact"]


def test_writing_an_onnx_file_is_thought_to_take_longer_the_more_parts_there_are():
    small, large = (
        job._Job(classifier(create(n, size=32)), np.empty(0), 9, "auto", 1, None, print)
        for n in ("lenet5", "resnet50")
    )
    assert small._writing() < 5.5 and 13 < large._writing() < 16


def test_what_is_slower_than_the_plain_way_is_not_taken(lenet, only):
    only(fake("slow", slow=0.05), plain=0.0)
    assert choose(lenet, pictures(lenet), 10**6).name == PLAIN


def test_batches_are_as_large_as_the_job_and_at_most_32(lenet, only):
    only()
    assert [choose(lenet, pictures(lenet), count).ready.batch for count in (1, 7, 10**6)] == [1, 7, 32]


def test_a_job_may_be_done_picture_by_picture(lenet, only):
    only(quick("right"))
    assert choose(lenet, pictures(lenet), 10**6, batch=1).ready.batch == 1


def test_a_named_way_is_taken_and_a_wrong_one_is_not(lenet, only):
    only(quick("right"), quick("wrong", scale=-1.0, numbers="bfloat16"))
    assert choose(lenet, pictures(lenet), 1, "right").name == "right"
    with pytest.raises(ArgumentError, match="wrong cannot be taken: refused"):
        choose(lenet, pictures(lenet), 1, "wrong")
    with pytest.raises(UnknownName, match="no engine is called"):
        choose(lenet, pictures(lenet), 1, "wron")


@pytest.fixture
def file(lenet, tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    return lenet.save(tmp_path / "model.safetensors")


def test_what_was_measured_is_taken_the_next_time_without_measuring(lenet, only, file, monkeypatch):
    only(quick("right"), quick("wrong", scale=-1.0, numbers="bfloat16"))
    assert choose(lenet, pictures(lenet), 10**5, file=file).name == "right"
    monkeypatch.setattr(job, "tried", lambda *a: pytest.fail("measured again"))
    assert choose(lenet, pictures(lenet), 10**5, file=file).name == "right"
    assert choose(lenet, pictures(lenet), 10**5, "right", file=file).name == "right"
    found = remembered.find(file, "auto", 10**5)
    assert found.name == "right" and found.needs_torch and found.row["images_per_second"] > 0


def test_a_way_that_does_not_set_up_any_more_is_told_where_named_and_passed_over_where_not(lenet, only, file):
    def broken(work, batch, threads):
        raise OSError("libright.so is not there")

    only(quick("right"))
    choose(lenet, pictures(lenet), 10**5, file=file)
    only(replace(quick("right"), make=broken))
    with pytest.raises(
        ArgumentError, match="right cannot be set up any more: libright.so is not there; --engine"
    ):
        choose(lenet, pictures(lenet), 10**5, "right", file=file)
    found = choose(lenet, pictures(lenet), 10**5, file=file)
    assert found.name == PLAIN and "libright.so" in found.notes[0]


def test_set_ups_that_were_measured_decide_the_next_time(lenet, only, file):
    made = []
    remembered.note_setups({"other": 10.0**6})
    only(quick("other", made=made, setup=0.01))
    assert choose(lenet, pictures(lenet), 10**5, file=file).name == PLAIN and not made


def test_a_folder_that_cannot_be_written_costs_a_note_only(lenet, only, tmp_path, monkeypatch):
    file = lenet.save(tmp_path / "model.safetensors")
    (tmp_path / "blocked").touch()
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "blocked"))
    only(quick("right"))
    found = choose(lenet, pictures(lenet), 10**5, file=file)
    assert found.name == "right" and "not kept for the next time" in " ".join(found.notes)


@pytest.mark.skipif(not DEPLOY, reason="the extra `deploy` is not installed")
def test_a_chosen_runtime_opens_the_next_time_without_torch(lenet, file, monkeypatch):
    found = [way for way in ways.ways(lenet) if way.name in (PLAIN, "openvino-fp32")]
    slow = replace(fake(PLAIN, slow=0.05), setup=0.0)
    monkeypatch.setattr(job, "ways", lambda subject: [slow, found[1]])
    chosen = choose(lenet, pictures(lenet), 10**6, file=file)
    assert chosen.name == "openvino-fp32" and not chosen.notes
    again = remembered.find(file, "auto", 10**6)
    assert again.compiled is not None and not again.needs_torch
    expected, given = chosen.ready(pictures(lenet)), again.open()(pictures(lenet))
    assert all(np.allclose(a, b, rtol=1e-5) for a, b in zip(expected, given, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_ways_on_a_device_agree():
    clf = classifier(tiny("resnet"))
    clf = Classifier(clf.net, clf.classes, clf.preprocessing, device="cuda")
    table = measure(clf, pictures(clf), 2, seconds=1.0)
    assert all(row.agrees for row in table.rows), [row.verdict for row in table.rows]


def test_more_pictures_than_a_batch_are_refused():
    ready = Ready("x", 2, 1, lambda some: (some, some))
    with pytest.raises(ArgumentError, match="3 pictures at once; x takes 1 to 2"):
        ready(np.zeros((3, 1)))
    assert runtimes.Ready is Ready
