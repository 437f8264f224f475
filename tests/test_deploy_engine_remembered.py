"""What was measured is found again by the model's content, and only where it still holds."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from types import SimpleNamespace

import pytest

from convarium.deploy import processor, remembered
from convarium.deploy.job import decided_for, remembered_rows
from convarium.deploy.measuring import Row
from convarium.errors import RunError


def row(name="openvino-bf16", rate=100.0, **changes):
    library = "torch" if name in ("plain", "onednn-bf16", "compile-bf16") else name.split("-")[0]
    numbers = "bfloat16" if name.endswith("bf16") else "float32"
    fields = {"name": name, "library": library, "numbers": numbers, "batch": 32, "setup": 1.0, "agrees": True}
    return {**fields, "threads": processor.threads(), "images_per_second": rate, **changes}


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def folder(model):
    """With a sealed ONNX file, as every way outside torch needs it."""
    folder = remembered.folder_of(model)
    folder.mkdir(parents=True)
    (folder / remembered.MODEL).write_bytes(b"graph")
    remembered.seal(folder / remembered.MODEL)
    return folder


def test_nothing_is_known_at_first(model):
    assert remembered.find(model) is None and remembered.known(model, 32) == {}
    assert remembered.find(model.with_name("none.safetensors")) is None


def test_the_way_is_found_by_content_also_for_a_run_and_a_copy(model, folder, tmp_path):
    assert remembered.remember(model, "auto", [row()]) == ""
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model.read_bytes())
    assert [remembered.find(path).name for path in (model, copy, tmp_path)] == ["openvino-bf16"] * 3
    copy.write_bytes(b"other weights")
    assert remembered.find(copy) is None


def test_the_soonest_done_is_found(model, folder):
    rows = [row("plain", 50.0), row("openvino-bf16", 600.0), row("onednn-bf16", 900.0)]
    remembered.remember(model, "auto", rows)
    assert remembered.find(model, count=1).name == "openvino-bf16"
    assert remembered.find(model, count=10**6).name == "onednn-bf16"
    assert remembered.find(model, "plain").name == "plain"
    assert remembered.find(model, "onednn-bf16").needs_torch


def test_one_picture_is_not_computed_as_32_where_it_need_not(model, folder):
    remembered.remember(model, "auto", [row(rate=10.0), row(rate=8.0, batch=1)])
    assert remembered.find(model, count=1).row["batch"] == 1
    assert remembered.find(model, count=320).row["batch"] == 32


def test_exact_mode_finds_float32_only(model, folder):
    remembered.remember(model, "auto", [row(), row("onnxruntime-fp32", 50.0)])
    assert remembered.find(model, "exact").name == "onnxruntime-fp32"


def test_what_was_refused_is_known_and_not_found(model, folder):
    remembered.remember(model, "auto", [row(agrees=False), row("plain")])
    assert remembered.find(model).name == "plain"
    assert remembered.known(model, 32)["openvino-bf16"]["agrees"] is False


def test_a_much_larger_job_is_measured_anew(model, folder):
    remembered.remember(model, "auto", [row()], count=1000)
    assert remembered.find(model, count=4000) and remembered.find(model, count=4001) is None
    remembered.remember(model, "exact", [row("onnxruntime-fp32")])
    assert remembered.find(model, "exact", count=10**9)


def test_what_was_decided_with_other_threads_says_nothing_of_a_large_job(model, folder, monkeypatch):
    monkeypatch.setattr(remembered.processor, "threads", lambda: 2)
    remembered.remember(model, "auto", [row()])
    monkeypatch.setattr(remembered.processor, "threads", lambda: 1)
    remembered.remember(model, "auto", [row("onnxruntime-fp32")], count=100)
    assert remembered.find(model, count=400).name == "onnxruntime-fp32"
    assert remembered.find(model, count=401) is None


def test_a_decision_for_small_batches_is_none_for_large_jobs():
    assert [decided_for(1e12, batch) for batch in (1, 32, 64)] == [1, 1e12, 1e12]


def test_the_batch_that_is_asked_for_is_found_or_none(model, folder):
    remembered.remember(model, "auto", [row(), row(batch=8, rate=10**6)])
    assert remembered.find(model, "openvino-bf16", 100).row["batch"] == 8
    assert remembered.find(model, "openvino-bf16", 100, batch=32).row["batch"] == 32
    assert remembered.find(model, "openvino-bf16", 100, batch=16) is None


def test_what_was_measured_on_another_device_is_kept_apart(model):
    remembered.remember(model, "auto", [row("plain", 10.0)])
    remembered.remember(model, "auto", [row("plain", 900.0), row("eager-bf16")], device="cuda")
    assert remembered.known(model, 32)["plain"]["images_per_second"] == 10.0
    assert remembered.known(model, 32, "cuda").keys() == {"plain", "eager-bf16"}
    assert remembered.known(model, 32).keys() == {"plain"}


def test_16_bits_that_were_compared_on_few_pictures_are_not_remembered():
    rows = [Row(name, numbers, "torch", 8, 1, None, 0.0, None, "") for name, numbers in
            (("plain", "float32"), ("eager-bf16", "bfloat16"))]  # fmt: skip
    assert remembered_rows(rows, 40) == []  # none was compared
    good, bad = (SimpleNamespace(refused=refused) for refused in ("", "flips"))
    agreed = [replace(one, agreement=good) for one in rows]
    assert remembered_rows(agreed, 32) == agreed and remembered_rows(agreed, 31) == agreed[:1]
    others = [replace(one, agreement=bad) for one in rows]
    assert remembered_rows(others, 1) == others


def test_a_cache_that_cannot_be_removed_is_told(model, folder, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *asked, **how: None)
    with pytest.raises(RunError, match="cannot be removed; set CONVARIUM_CACHE"):
        remembered.forget(model)


def test_new_rows_replace_old_ones_of_the_same_way_only(model, folder):
    remembered.remember(model, "auto", [row(rate=100.0), row("plain", 10.0)])
    remembered.remember(model, "auto", [row(rate=200.0)])
    known = remembered.known(model, 32)
    assert {name: one["images_per_second"] for name, one in known.items()} == {
        "openvino-bf16": 200.0,
        "plain": 10.0,
    }


@pytest.mark.parametrize("what", ["versions", "fingerprint", "threads"])
def test_what_was_measured_elsewhere_does_not_count(model, folder, monkeypatch, what):
    remembered.remember(model, "auto", [row()])
    assert remembered.find(model)
    other = {"versions": {**processor.versions(), "openvino": "1.0"}, "fingerprint": "other", "threads": 99}
    monkeypatch.setattr(processor, what, lambda: other[what])
    assert remembered.find(model) is None and remembered.known(model, 32) == {}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"format": 1}', "\0", '{"format": 1, "content": 3, "sha256": ""}']
)
def test_a_damaged_file_is_as_if_it_were_absent(model, folder, text):
    remembered.remember(model, "auto", [row()])
    (folder / "verdicts.json").write_text(text)
    assert remembered.find(model) is None
    assert remembered.remember(model, "auto", [row()]) == "" and remembered.find(model)


def test_a_figure_that_changed_on_the_disk_is_as_if_it_were_absent(model, folder):
    remembered.remember(model, "auto", [row(rate=123.0)])
    file = folder / "verdicts.json"
    file.write_text(file.read_text().replace("123.0", "923.0"))
    assert remembered.find(model) is None


def test_a_row_of_another_form_is_as_if_it_were_absent(model, folder):
    remembered.remember(model, "auto", [row()])
    file = folder / "verdicts.json"
    content = json.loads(file.read_text())["content"]
    del content["rows"][0]["batch"]
    remembered._write(file, content)
    assert remembered.find(model) is None


@pytest.mark.parametrize("part", ["model.onnx", "model.onnx.sha256"])
def test_where_the_model_is_damaged_the_next_way_is_found(model, folder, part):
    remembered.remember(model, "auto", [row(), row("plain")])
    (folder / part).write_bytes(b"graqh")
    assert remembered.find(model).name == "plain"


def test_what_needs_torch_says_so(model, folder):
    remembered.remember(model, "auto", [row("plain")])
    with pytest.raises(remembered.CheckpointError, match="plain runs in torch"):
        remembered.find(model).open()


def test_where_nothing_can_be_written_it_is_said(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVARIUM_CACHE", str(tmp_path / "file"))
    said = remembered.remember(model, "auto", [row()])
    assert said.startswith("what was measured is not kept for the next time: cannot make the folder")
    remembered.note_setups({"x": 1.0})
    assert remembered.find(model) is None and remembered.expected("x", 2.0) == 2.0
    assert "cannot be read" in remembered.remember(tmp_path / "none", "auto", [])


def test_set_ups_are_kept_for_this_machine(model, monkeypatch):
    remembered.note_setups({"a": 3.0, "b": 1.0})
    remembered.note_setups({"b": 2.0})
    assert [remembered.expected(name, 9.0) for name in "abc"] == [3.0, 2.0, 9.0]
    monkeypatch.setattr(processor, "fingerprint", lambda: "other")
    assert remembered.expected("a", 9.0) == 9.0


def test_forgetting_leaves_nothing(model, folder):
    remembered.remember(model, "auto", [row()])
    assert remembered.forget(model) and not folder.exists()
    assert not remembered.forget(model) and remembered.find(model) is None


def _add(model, name):
    for batch in range(1, 6):
        assert remembered.remember(model, "auto", [row(name, batch=batch)]) == ""


def test_two_processes_lose_nothing_of_each_other(model, folder):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_add, args=(model, name)) for name in ("plain", "openvino-bf16")]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert [one.exitcode for one in both] == [0, 0]
    assert [len(remembered.known(model, batch)) for batch in range(1, 6)] == [2] * 5


def test_threads_are_those_that_are_allowed(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processor, "cores", lambda: 4)
    assert processor.threads() == 4
    for told, expected in (("2", 2), ("2,1", 2), ("64", 4), ("0", 4), ("x", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert processor.threads() == expected, told
