"""convarium inspect: what it prints, what it writes and where not, and its exit status."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import inspect
from convarium.errors import ArgumentError
from tests.pictures import squares


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data set "data" of two classes in it."""
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "data", classes=("тьма", "свет"), each=12)
    return tmp_path


def call(*words: str, status: int = 0) -> str:
    app = typer.Typer()
    app.command()(inspect.run)
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.stdout


def test_a_good_set_is_told_in_a_few_lines(here: Path) -> None:
    assert call("data", "--no-html").splitlines() == [
        f"data: 24 pictures of 2 classes, {sum(p.stat().st_size for p in here.rglob('*.png')) / 1e6:,.1f} MB",
        "",
        "class   pictures",
        "свет          12",
        "тьма          12",
        "in all        24",
        "",
        "formats   PNG 24",
        "modes     RGB 24",
        "size      16x16, all of them",
        "balance   largest class 1 times the smallest",
        "",
        "verdict: ready",
    ]


def test_the_page_goes_beside_the_current_folder_and_never_into_the_data(here: Path, monkeypatch) -> None:
    assert call("data").splitlines()[-1] == "page  inspect.html"
    assert (here / "inspect.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    call("data", "--html", "other.html")
    assert (here / "other.html").exists()
    with pytest.raises(ArgumentError, match="lies in the data"):
        call("data", "--html", "data/тьма/x.html")
    monkeypatch.chdir(here / "data")
    assert "page" not in call(".")
    assert not list((here / "data").rglob("*.html"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--html", "data2"), "is a folder"),
        (("--html", "no/x.html"), "no folder no"),
        (("--html", "x.html", "--no-html"), "exclude each other"),
    ],
)
def test_a_page_that_cannot_be_is_refused_before_the_work(
    here: Path, words: tuple[str, ...], why: str
) -> None:
    (here / "data2").mkdir()
    with pytest.raises(ArgumentError, match=why):
        call("data", *words)


def test_json_is_one_object_and_writes_no_page_unless_asked(here: Path) -> None:
    told = json.loads(call("data", "--json"))
    assert (told["verdict"], told["html"], told["pictures"]) == ("ready", None, 24)
    assert not (here / "inspect.html").exists()
    assert json.loads(call("data", "--json", "--html", "x.html"))["html"] == "x.html"


def test_warnings_leave_the_status_at_0_and_unusable_data_gives_2(here: Path) -> None:
    shutil.copy(here / "data/тьма/000.png", here / "data/свет/copy.png")
    (here / "data/тьма/001.png").write_bytes(b"")
    said = call("data", "--no-html")
    assert "verdict: ready with warnings" in said
    assert "  тьма/001.png: empty file (0 bytes)" in said
    assert "  warn  Of different classes, but byte for byte the same: 2 pictures in 1 group." in said
    assert "        свет/copy.png, тьма/000.png" in said
    shutil.rmtree(here / "data/тьма")
    assert "  stop  Training refuses this data: data has only one class" in call(
        "data", "--no-html", status=2
    )
    assert json.loads(call("data", "--json", status=2))["verdict"] == "not usable"


def test_of_many_classes_the_largest_and_smallest_are_shown(capsys) -> None:
    inspect.table({f"c{number:03}": {"all": number} for number in range(1, 101)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the 20 largest and the 20 smallest of 100 classes"
    assert lines[2].split() == ["c100", "100"] and lines[-2].split() == ["c001", "1"]
    assert lines[-1].split() == ["in", "all", "5,050"]


def test_columns_stay_straight_beside_wide_letters(capsys) -> None:
    inspect.table({"猫": {"train": 3, "val": 1}, "dogs": {"train": 10, "val": 2}})
    assert capsys.readouterr().out.splitlines()[1:3] == ["猫          3    1", "dogs       10    2"]


def test_what_libraries_write_to_the_standard_error_is_held_back_and_then_let_through(capfd) -> None:
    with inspect.looking("looking") as progress:
        os.write(2, b"a remark of a library\n")
    os.write(2, b"afterwards\n")
    assert progress is None  # no terminal, no bar
    assert capfd.readouterr().err == "afterwards\n"
