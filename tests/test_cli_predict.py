"""convarium predict with a file of answers: in order, whole, gone on with, never mixed up."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convarium.classifier import Classifier, load
from convarium.cli import answer_file, asked
from convarium.data.ahead import begun
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError
from convarium.models import create
from tests.reference import randomise

COUNT = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("predict"))


def filled(folder):
    """A classifier's file beside a list of pictures, of which some cannot be read and some have odd names."""
    net = randomise(create("resnet20", depth=8, classes=3))
    clf = Classifier(net, ("кот", 'dog "big", old', "hen"), Preprocessing(16), device="cpu")
    clf.save(folder / "m.safetensors")
    net = randomise(create("resnet20", depth=14, classes=3))
    clf = Classifier(net, clf.classes, clf.preprocessing, device="cpu")
    clf.save(folder / "other.safetensors")
    draw = np.random.default_rng(0)
    names = []
    for number in range(COUNT):
        name = f"{number:03}"
        name = {3: 'a "quoted", one', 4: "кот", 5: "two\nlines", 70: "ends\r\n", 71: "\r"}.get(
            number % 80, name
        )
        path = folder / f"{number:03} {name}.png"
        if number % 7:
            Image.fromarray(draw.integers(0, 256, (9, 11, 3), np.uint8)).save(path)
        elif number % 2:
            path.write_text("no picture")
        names.append(str(path))
    (folder / "names").write_bytes(b"".join(os.fsencode(name) + b"\0" for name in names))
    return folder, names


@pytest.fixture
def run(made, capfd, monkeypatch, tmp_path):
    """`convarium predict` of all pictures to a file: status and what was said."""
    from convarium.cli import main

    def once(out, *arguments, model="m.safetensors", names=None, hasten=lambda *asked: []):
        content = made[0] / "names" if names is None else names
        with Path(content).open("rb") as stdin, monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", type("In", (), {"buffer": stdin}))
            patch.setattr(
                sys, "argv", ["convarium", "predict", str(made[0] / model), "-", "-o", str(out), *arguments]
            )
            patch.setattr(Classifier, "hasten", hasten)
            with pytest.raises(SystemExit) as end:
                main()
        return int(end.value.code or 0), capfd.readouterr().err

    return once


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """The files of runs that were not stopped, by their ends."""

    clf = load(made[0] / "m.safetensors")
    said = clf.predict(made[1])
    assert [one.path for one in said] == made[1]
    lines = b"".join(json.dumps(one.to_dict()).encode() + b"\n" for one in said)
    table = answer_file.to_csv([answer_file.HEADER, *(row for one in said for row in answer_file.table(one))])
    return {".jsonl": lines, ".csv": table}


ENDS = pytest.mark.parametrize("end", [".jsonl", ".csv"])


@ENDS
def test_answers_are_those_of_the_library_in_the_order_asked(run, whole, tmp_path, end):
    status, said = run(tmp_path / f"a{end}")
    assert status == asked.UNREADABLE
    assert said == f"{tmp_path}/a{end}: 150 pictures, of which 22 could not be read\n"
    assert (tmp_path / f"a{end}").read_bytes() == whole[end]
    about = json.loads((tmp_path / f"a{end}.about.json").read_text("utf-8"))
    assert (about["engine"], about["pictures"], about["finished"]) == ("plain", 150, True)


def test_a_table_holds_odd_names_whole(made, whole):
    import io

    rows = list(csv.DictReader(io.StringIO(whole[".csv"].decode(), newline="")))
    assert list(dict.fromkeys(row["path"] for row in rows)) == made[1]


def stop_after(monkeypatch, batches, number=signal.SIGINT):
    """Have a signal come while a batch is computed."""
    real, seen = Classifier._said, []

    def computed(self, pictures):
        seen.append(1)
        if len(seen) == batches:
            signal.raise_signal(number)
        return real(self, pictures)

    monkeypatch.setattr(Classifier, "_said", computed)


@ENDS
def test_ctrl_c_leaves_what_was_done_and_resume_gives_the_same_file(run, whole, tmp_path, monkeypatch, end):
    out = tmp_path / f"ответы{end}"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        status, said = run(out)
    assert status == 130
    assert said == (
        f"stopped after 75 of 150 pictures; their answers are in {out}, and the same command with --resume goes on\n"
    )
    assert whole[end].startswith(out.read_bytes()) and 0 < out.stat().st_size < len(whole[end])
    status, said = run(out)
    assert status == 2 and "go on with --resume, or remove it" in said
    assert run(out, "--resume")[0] == asked.UNREADABLE
    assert out.read_bytes() == whole[end]


def test_a_termination_is_told_by_the_exit_status(run, tmp_path, monkeypatch):
    stop_after(monkeypatch, 1, signal.SIGTERM)
    assert run(tmp_path / "a.jsonl")[0] == 128 + signal.SIGTERM


@ENDS
@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.37, 0.6, 0.99, -1])
def test_a_file_cut_anywhere_is_completed(run, whole, tmp_path, end, part):
    out = tmp_path / f"a{end}"
    run(out)
    about = json.loads((tmp_path / f"a{end}.about.json").read_text("utf-8"))
    (tmp_path / f"a{end}.about.json").write_text(json.dumps({**about, "finished": False}), "utf-8")
    cut = len(whole[end]) - 1 if part < 0 else int(part * len(whole[end]))
    out.write_bytes(whole[end][:cut])
    assert run(out, "--resume")[0] == asked.UNREADABLE
    assert out.read_bytes() == whole[end]


def test_whole_answers_stay_and_only_the_begun_batch_is_computed_again(
    run, whole, made, tmp_path, monkeypatch
):
    out = tmp_path / "a.jsonl"
    run(out)
    lines = whole[".jsonl"].splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:100]) + lines[100][:9])
    readable = [json.loads(line)["error"] is None for line in lines]
    asked = []
    real = Classifier._prepare
    monkeypatch.setattr(
        Classifier, "_prepare", lambda self, source: asked.append(source) or real(self, source)
    )
    run(out, "--resume")
    assert sorted(asked) == sorted(made[1][begun(readable[:100], 64) :])
    assert out.read_bytes() == whole[".jsonl"]


def test_a_finished_file_is_not_computed_again_where_resume_is_asked(run, whole, tmp_path, monkeypatch):
    out = tmp_path / "a.jsonl"
    run(out)
    monkeypatch.setattr(asked, "answering", None)
    assert run(out, "--resume")[0] == asked.UNREADABLE
    assert out.read_bytes() == whole[".jsonl"]


def test_a_mistake_that_shows_with_the_first_batch_costs_no_answers(run, tmp_path, monkeypatch):
    def refused(clf, pictures):
        raise ArgumentError("not so")

    out = tmp_path / "a.jsonl"
    run(out)
    before = out.read_bytes(), out.with_name("a.jsonl.about.json").read_bytes()
    monkeypatch.setattr(Classifier, "_said", refused)
    status, said = run(out)
    assert status == 2 and "not so" in said
    assert (out.read_bytes(), out.with_name("a.jsonl.about.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("key", "value", "words"), [("convarium", "0.0.1", "Convarium 0.0.1"), ("batch", 8, "8 at once")]
)
def test_answers_of_another_version_or_batch_are_not_gone_on_with(
    run, tmp_path, monkeypatch, key, value, words
):
    out = tmp_path / "a.jsonl"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        run(out)
    about = out.with_name("a.jsonl.about.json")
    about.write_text(json.dumps({**json.loads(about.read_text("utf-8")), key: value}), "utf-8")
    before = out.read_bytes()
    status, said = run(out, "--resume")
    assert status == 2 and words in said and out.read_bytes() == before


def test_a_name_that_is_too_long_is_told_and_leaves_no_file(run, tmp_path):
    status, said = run(tmp_path / ("я" * 121 + ".jsonl"))
    assert status == 2 and "file name too long" in said and not list(tmp_path.iterdir())


def test_a_closed_standard_input_is_told(convarium, made, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    status, _, said = convarium("predict", made[0] / "m.safetensors", "-")
    assert status == 2 and "standard input is closed" in said


def test_a_finished_file_is_replaced_where_it_is_not(run, whole, tmp_path):
    out = tmp_path / "a.jsonl"
    run(out, "--top", "1")
    assert out.read_bytes() != whole[".jsonl"]
    run(out)
    assert out.read_bytes() == whole[".jsonl"]


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        (["--resume"], {"model": "other.safetensors"}, "has answers for another model"),
        (["--resume", "--top", "2"], {}, "has answers for another number of guesses (--top)"),
        (["--resume", "--mirror"], {}, "has answers for another choice of --mirror"),
        (["--resume", "--csv"], {}, "has answers for another format"),
        (["--resume", "--engine", "exact"], {}, "were computed by plain; leave out --engine exact"),
    ],
)
def test_answers_of_something_else_are_not_gone_on_with(run, tmp_path, arguments, changes, words):
    out = tmp_path / "a.jsonl"
    run(out)
    before = out.read_bytes()
    status, said = run(out, *arguments, **changes)
    assert status == 2 and words in said and "Traceback" not in said
    assert out.read_bytes() == before


def test_answers_whose_way_is_gone_are_not_gone_on_with_by_another(run, tmp_path, monkeypatch):
    def gone(clf, sources, engine, file, batch):
        raise ArgumentError(
            f"{engine} cannot be taken here: openvino is not installed; --engine auto takes what can"
        )

    out = tmp_path / "a.jsonl"
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        run(out)
    about = out.with_name("a.jsonl.about.json")
    about.write_text(json.dumps({**json.loads(about.read_text("utf-8")), "engine": "openvino-bf16"}), "utf-8")
    before = out.read_bytes()
    status, said = run(out, "--resume", hasten=gone)
    assert status == 2 and "computed by openvino-bf16" in said and "openvino is not installed" in said
    assert "auto" not in said and out.read_bytes() == before


def test_answers_for_other_pictures_are_not_gone_on_with(run, made, tmp_path):
    out = tmp_path / "a.jsonl"
    run(out)
    (tmp_path / "names").write_bytes(b"".join(os.fsencode(name) + b"\0" for name in made[1][::-1]))
    status, said = run(out, "--resume", names=tmp_path / "names")
    assert status == 2 and "other pictures, or another order of them" in said


def test_answers_that_were_changed_are_not_gone_on_with(run, whole, tmp_path):
    out = tmp_path / "a.jsonl"
    run(out)
    lines = whole[".jsonl"].splitlines(keepends=True)
    out.write_bytes(b"".join([lines[1], lines[0], *lines[2:9]]))
    status, said = run(out, "--resume")
    assert status == 2 and "answer 1 in" in said and "was not asked there" in said
    out.write_bytes(lines[0] + b"{}\n" + lines[1])
    status, said = run(out, "--resume")
    assert status == 2 and "line 2 of" in said and "is no answer of predict" in said


@pytest.mark.parametrize("arguments", [[], ["--resume"]])
def test_a_file_of_something_else_is_left_alone(run, tmp_path, arguments):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    status, said = run(out, *arguments)
    assert status == 2 and "no notes.txt.about.json beside it says that predict wrote it" in said
    assert out.read_text() == "mine"


def test_two_runs_do_not_write_one_file(run, made, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    out = tmp_path / "a.jsonl"
    with out.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        status, said = run(out)
        assert status == 2 and f"another run is writing {out}" in said
    assert run(out)[0] == asked.UNREADABLE


def test_a_place_that_cannot_be_written_is_told(run, tmp_path):
    status, said = run(tmp_path / "none" / "a.jsonl")
    assert status == 2 and said.startswith("error: cannot write") and "choose another place with -o" in said
    status, said = run("/dev/null")
    assert status == 2 and "is no regular file" in said
    (tmp_path / "folder").mkdir()
    assert run(tmp_path / "folder")[0] == 2


def test_a_model_that_cannot_be_loaded_leaves_no_file(run, made, tmp_path, monkeypatch):
    def broken(*args):
        raise answer_file.RunError("not today")

    monkeypatch.setattr(asked, "answering", broken)
    assert run(tmp_path / "a.jsonl")[0] == 2
    assert not list(tmp_path.iterdir())


def test_resume_needs_a_file(convarium, made):
    status, _, said = convarium("predict", made[0] / "m.safetensors", made[1][1], "--resume")
    assert status == 2 and "name it with -o" in said


def test_one_picture(convarium, made, tmp_path):
    out = tmp_path / "a.jsonl"
    status, _, said = convarium("predict", made[0] / "m.safetensors", made[1][1], "-o", out)
    assert (status, said) == (0, f"{out}: 1 pictures\n")
    assert json.loads(out.read_text())["path"] == made[1][1]


def test_stopped_without_a_file_says_how_far_it_came(convarium, made, monkeypatch):
    stop_after(monkeypatch, 1)
    monkeypatch.setattr(Classifier, "hasten", lambda *args: [])
    status, answers, said = convarium("predict", made[0] / "m.safetensors", *made[1], "--json")
    assert status == 130 and said == "stopped after 75 of 150 pictures\n"
    assert [json.loads(line)["path"] for line in answers.splitlines()] == made[1][:75]


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\nbroken\0", b"a.png\nb\x01.png"])
def test_rubbish_on_standard_input_is_no_list_of_names(run, tmp_path, content):
    (tmp_path / "in").write_bytes(content)
    status, said = run(tmp_path / "a.jsonl", names=tmp_path / "in")
    assert status == 2 and "neither a picture" in said


def test_an_empty_name_is_not_the_current_folder(convarium, made):
    status, _, said = convarium("predict", made[0] / "m.safetensors", "")
    assert status == 2 and "is empty" in said


def test_a_second_run_that_is_refused_leaves_the_first_ones_file(tmp_path):
    job = answer_file.Job(
        model="m", model_sha256="1", pictures=1, pictures_sha256="2", format="jsonl", top=1, guesses=1, mirror=False,
        asked="auto",
    )  # fmt: skip
    with answer_file.AnswerFile(tmp_path / "a", job, lambda: iter(()), False):
        with pytest.raises(answer_file.RunError, match="another run"):
            answer_file.AnswerFile(tmp_path / "a", job, lambda: iter(()), False)
        assert (tmp_path / "a").exists()
    assert not (tmp_path / "a").exists()  # nothing was begun in it
    (tmp_path / "a").touch()
    answer_file.AnswerFile(tmp_path / "a", job, lambda: iter(()), False).close()
    assert (tmp_path / "a").exists()  # it was there before


def test_a_table_whose_lines_end_otherwise_is_not_thrown_away(run, whole, tmp_path):
    out = tmp_path / "a.csv"
    run(out)
    changed = out.read_bytes().replace(b"\r\n", b"\n")
    out.write_bytes(changed)
    status, said = run(out, "--resume")
    assert status == 2 and "no answer of predict" in said and out.read_bytes() == changed
