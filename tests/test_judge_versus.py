"""Two runs side by side: the file of answers, the pairing, the verdict, the verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from convarium.cli import compare_runs as verb
from convarium.errors import ArgumentError, DataError, RunError
from convarium.judge.answers import COLUMNS, Answer, answers, read_answers, write_answers
from convarium.judge.versus import compare_runs


def said(right: list[bool], start: int = 0, sha256: str = "", **given: str) -> list[Answer]:
    """Answers on the pictures start.png, ...: "a" each, right or not."""
    truths = [("a" if r else "b") for r in right]
    return [
        Answer(
            f"{start + i}.png", f"{sha256}{start + i}" if sha256 else "", given.get("truth", t), "a", 0.9, 0.5
        )
        for i, t in enumerate(truths)
    ]


def pair(both: int, first: int, second: int, neither: int) -> tuple[list[Answer], list[Answer]]:
    """Two runs with these numbers of pictures that both, only the first, only the second, and neither got right."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    rows = [
        [Answer(str(i), "", "x", "x" if right else "y", 0.9, 0.1) for i, right in enumerate(run)]
        for run in (a, b)
    ]
    return rows[0], rows[1]


NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
UNDECODED = st.binary(max_size=12).map(lambda b: b.replace(b"\0", b"").decode("utf-8", "surrogateescape"))


@given(st.lists(st.tuples(NAMES | UNDECODED, NAMES), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_answers_in_any_script_survive_the_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("answers") / "answers.csv"
    written = [Answer(key, "ab", name, name + "\r\n,\"'", 0.1 + 0.2, 1 / 3) for key, name in rows]
    write_answers(path, written)
    assert read_answers(path) == written


def test_answers_come_from_probabilities():
    p = np.array([[0.2, 0.8], [0.5, 0.5]])
    found = answers(["a.png", "b.png"], p, np.array([0, 1]), ["cat", "кошка"], ["11", "22"])
    assert found[0] == Answer("a.png", "11", "cat", "кошка", 0.8, 0.2)
    assert found[1].answer == "cat" and not found[1].right
    with pytest.raises(ArgumentError, match="1 keys"):
        answers(["a.png"], p, np.array([0, 1]), ["cat", "dog"])


def test_a_spreadsheet_may_have_saved_the_file(tmp_path):
    path = tmp_path / "answers.csv"
    write_answers(path, said([True]))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_answers(path) == said([True])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the columns picture"),
        (",".join(COLUMNS) + "\n", "holds no answers"),
        (",".join(COLUMNS) + "\na,b\n", "line 2: 2 fields for 6 columns"),
        (",".join(COLUMNS) + "\na,,x,y,sure,0\n", "line 2: could not convert"),
        (",".join(COLUMNS) + '\n"a,,x,y,1,0\n', "damaged"),
        (",".join(COLUMNS) + "\na,,x,y,1,0\na,,x,y,1,0\n", "line 3: the picture 'a' comes twice"),
    ],
)
def test_a_damaged_file_says_where(tmp_path, text, words):
    path = tmp_path / "answers.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(RunError, match=words):
        read_answers(path)


def test_a_difference_is_told_with_its_interval():
    found = compare_runs(*pair(430, 25, 8, 37), names=("probe", "scratch"))
    assert found.sentence == (
        f"probe is better by 3.4 points (95 %: {100 * found.low:.1f} to {100 * found.high:.1f}; p = 0.0046): "
        "probe 91.0 %, scratch 87.6 % of 500 pictures."
    )
    assert 0 < found.low < 0.034 < found.high


def test_the_better_is_named_whichever_comes_first():
    there, back = compare_runs(*pair(430, 25, 8, 37)), compare_runs(*reversed(pair(430, 25, 8, 37)))
    assert back.sentence.startswith("B is better by 3.4 points (95 %: 1.")
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_chance_is_not_called_a_difference():
    found = compare_runs(*pair(430, 14, 12, 44))
    assert found.sentence.startswith(
        "No difference is shown: A 88.8 %, B 88.4 % of 500 pictures (+0.4 points, 95 %: -"
    )
    assert found.low < 0 < found.high


def test_the_interval_is_that_of_resampled_pictures():
    a, b = pair(60, 12, 5, 23)
    found = compare_runs(a, b)
    gaps = np.array([x.right - y.right for x, y in zip(a, b, strict=True)])
    draw = np.random.default_rng(1)
    drawn = [draw.choice(gaps, len(gaps)).mean() for _ in range(4000)]
    assert np.quantile(drawn, (0.025, 0.975)) == pytest.approx((found.low, found.high), abs=0.0101)


def test_runs_that_never_differ_may_still_differ_elsewhere():
    found = compare_runs(*pair(50, 0, 0, 10))
    assert "right on the same 50 of 60 pictures" in found.sentence
    assert found.high == -found.low == pytest.approx(1 - 0.05 ** (1 / 60))


def test_few_disagreements_are_said_to_show_nothing():
    found = compare_runs(*pair(50, 5, 0, 10))
    assert not found.paired.shown
    assert any("Only 5 of the pictures" in note for note in found.notes)


def test_pictures_are_matched_by_name_in_any_order():
    a, b = pair(20, 9, 1, 5)
    assert compare_runs(a, b[::-1]).to_dict() == compare_runs(a, b).to_dict()
    assert "matched by name" in compare_runs(a, b).notes[0]


def test_pictures_are_matched_by_content_where_names_differ():
    a = said([True, True, False], sha256="s")
    b = [Answer(f"other/{x.picture}", x.sha256, x.truth, x.answer, 0.9, 0.5) for x in a]
    assert compare_runs(a, b).paired.count == 3
    assert compare_runs(a, b).notes == ()


def test_copies_are_matched_one_to_one():
    a = [Answer(name, "same", "a", "a", 0.9, 0.9) for name in ("1", "2", "3")]
    b = [Answer(name, "same", "a", "a", 0.9, 0.9) for name in ("2", "x", "y")]
    assert compare_runs(a, b).paired.count == 3


def test_a_picture_that_changed_is_another_picture():
    a, b = said([True] * 4, sha256="s"), said([True] * 4, sha256="s")
    b[0] = Answer("0.png", "changed", "a", "a", 0.9, 0.9)
    with pytest.raises(DataError, match="of which 3 are the same"):
        compare_runs(a, b)


def test_other_pictures_are_refused_or_left_out():
    a, b = said([True] * 10), said([True] * 10, start=4)
    with pytest.raises(
        DataError, match="10 pictures and B on 10, of which 6 are the same; compare .* --common"
    ):
        compare_runs(a, b)
    found = compare_runs(a, b, common=True)
    assert found.paired.count == 6
    assert found.left_out == (4, 4)
    assert "Left out: 4 pictures" in found.notes[0]


def test_no_picture_in_common_is_said():
    with pytest.raises(DataError, match="no picture in common"):
        compare_runs(said([True]), said([True], start=1), common=True)


def test_other_classes_and_other_labels_are_told_apart():
    with pytest.raises(DataError, match="class names differ: only A has 'a', only B has 'cat'"):
        compare_runs(said([True] * 3), said([True] * 3, truth="cat"))
    with pytest.raises(
        DataError, match=r"2 of 3 pictures have another true class in B than in A, as 0.png \(a, b\)"
    ):
        compare_runs(said([True, False, True]), said([False, True, True]))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two run folders with their answers."""
    folders = tmp_path / "кошки 1", tmp_path / "кошки 2"
    for folder, rows in zip(folders, pair(430, 25, 8, 37), strict=True):
        folder.mkdir()
        write_answers(folder / "answers.csv", rows)
    return folders


def invoke(*arguments: object):
    app = typer.Typer()
    app.command()(verb.run)
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_verb_compares_two_folders(runs):
    done = invoke(*runs)
    assert done.exit_code == 0
    assert "кошки 1  91.0 % (88.2 to 93.2, 455 of 500)" in done.stdout
    assert "кошки 1 is better by 3.4 points" in done.stdout
    assert "note: Pictures were matched by name" in done.stderr


def test_the_verb_writes_json(runs):
    told = json.loads(invoke(*runs, "--json").stdout)
    assert told["difference"] == pytest.approx(0.034)
    assert (told["only_first_right"], told["only_second_right"], told["shown"]) == (25, 8, True)
    assert told["sentence"].startswith("кошки 1 is better")


def test_a_file_does_as_well_as_its_folder(runs):
    assert invoke(runs[0] / "answers.csv", runs[1]).stdout == invoke(*runs).stdout


def test_the_same_run_twice_is_noted(runs):
    assert "Both are the same file" in invoke(runs[0], runs[0]).stderr


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "is no run"),
        (("config.toml",), "is not finished; finish it with: convarium resume"),
        (("config.toml", "evaluation.json"), "before answers were kept"),
    ],
)
def test_a_folder_without_answers_says_why(tmp_path, runs, files, words):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in files:
        (folder / name).touch()
    with pytest.raises(RunError, match=words):
        verb.answers_file(folder)
    with pytest.raises(RunError, match="no file or folder"):
        verb.answers_file(tmp_path / "absent")
