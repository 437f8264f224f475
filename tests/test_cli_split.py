"""convarium split: shares of every class, groups and copies in one part, and the file that training reads."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from convarium.cli import split
from convarium.data.folders import Data, read_data
from convarium.data.grouped import divide, groups_by_name
from convarium.data.inspection import inspect_data
from convarium.data.pictures import Picture, PictureSet
from convarium.data.splits import stratified
from convarium.errors import ArgumentError, DataError
from tests.pictures import squares


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data set "снимки" of two classes in it."""
    monkeypatch.chdir(tmp_path)
    squares(tmp_path / "снимки", classes=("тьма", "свет"), each=20)
    return tmp_path


def call(*words: str) -> str:
    app = typer.Typer()
    app.command()(split.run)
    result = CliRunner().invoke(app, ("снимки", *words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def some(*counts: int) -> PictureSet:
    pictures = [
        Picture(f"{label}/{number}.png", Path(f"/data/{label}/{number}.png"), label)
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return PictureSet(tuple(map(str, range(len(counts)))), tuple(pictures))


def part_of(data: Data) -> dict[str, str]:
    return {picture.key: part for part, held in data.parts.items() for picture in held.pictures}


def test_the_table_is_printed_and_the_file_is_read_back_with_all_names(here: Path) -> None:
    said = call("--val", "0.2", "--test", "0.1", "-o", "split.csv").splitlines()
    assert said == [
        "class   train  val  test",
        "свет       14    4     2",
        "тьма       14    4     2",
        "in all     28    8     4",
        "",
        "split  split.csv",
    ]
    data = read_data("split.csv")
    assert data.classes == ("свет", "тьма") and data.notes == []
    assert set(part_of(data)) == {
        picture.key for picture in read_data("снимки").parts["all"].pictures
    }  # keys are those of the folder, so that augmentation draws the same


def test_file_and_pictures_can_be_moved_together(here: Path) -> None:
    call()
    assert str(here) not in (here / "split.csv").read_text(encoding="utf-8")
    (here / "moved").mkdir()
    for name in ("снимки", "split.csv"):
        (here / name).rename(here / "moved" / name)
    assert all(
        p.source.exists()
        for held in read_data(here / "moved/split.csv").parts.values()
        for p in held.pictures
    )


def test_the_same_seed_gives_the_same_file_and_another_another(here: Path) -> None:
    files = []
    for seed in ("3", "3", "4"):
        call("--seed", seed, "--force")
        files.append((here / "split.csv").read_bytes())
    assert files[0] == files[1] != files[2]


def test_a_file_is_not_overwritten_without_force(here: Path) -> None:
    (here / "split.csv").write_text("mine")
    with pytest.raises(ArgumentError, match="--force"):
        call()
    assert (here / "split.csv").read_text() == "mine"
    call("--force")
    assert (here / "split.csv").read_text(encoding="utf-8").startswith("path,label,part,key")


def test_copies_and_near_copies_are_in_one_part_and_inspect_agrees(here: Path) -> None:
    for number in range(12):
        source = here / f"снимки/тьма/{number:03}.png"
        shutil.copy(source, here / f"снимки/тьма/copy{number}.png")
        Image.open(source).resize((48, 48), Image.Resampling.NEAREST).save(
            here / f"снимки/тьма/z{number}.bmp"
        )
    said = call("--val", "0.3")
    assert "  identical: 24 pictures in 12 groups" in said
    assert "  nearly the same: 36 pictures in 12 groups" in said
    parts = part_of(read_data("split.csv"))
    for number in range(12):
        names = (f"тьма/{number:03}.png", f"тьма/copy{number}.png", f"тьма/z{number}.bmp")
        assert len({parts[name] for name in names}) == 1
    assert not {f.code for f in inspect_data("split.csv").findings} & {"leak-identical", "leak-near"}


def test_groups_named_by_a_pattern_stay_whole(here: Path) -> None:
    for path in list((here / "снимки").rglob("*.png")):
        patient = int(path.stem) % 5
        path.rename(path.with_name(f"пациент{patient}_{path.name}"))
    said = call("--by-group", r"пациент(\d+)_", "--val", "0.2")
    assert "  by name: 40 pictures in 5 groups" in said
    where: dict[str, set[str]] = {}
    for key, part in part_of(read_data("split.csv")).items():
        where.setdefault(key.split("_")[0].split("/")[1], set()).add(part)
    assert len(where) == 5 and all(len(parts) == 1 for parts in where.values())
    assert Counter(part for parts in where.values() for part in parts) == {"train": 4, "val": 1}


def test_damaged_pictures_are_left_out_and_named(here: Path) -> None:
    (here / "снимки/тьма/000.png").write_bytes(b"")
    told = json.loads(call("--json"))
    assert told["damaged"] == [{"picture": "тьма/000.png", "reason": "empty file (0 bytes)"}]
    assert sum(told["parts"].values()) == 39
    assert "тьма/000.png" not in (here / "split.csv").read_text(encoding="utf-8")


def test_parts_that_there_are_stay_unless_divided_anew(here: Path) -> None:
    (here / "flat").mkdir()
    (here / "снимки").rename(here / "train")
    squares(here / "снимки/test", classes=("тьма", "свет"), each=5, seed=1)
    (here / "train").rename(here / "снимки/train")
    told = json.loads(call("--json"))
    assert told["parts"] == {"train": 32, "val": 8, "test": 10}
    with pytest.raises(ArgumentError, match="--anew"):
        call("--test", "0.1", "--force")
    told = json.loads(call("--json", "--anew", "--val", "0.2", "--test", "0.2", "--force"))
    assert told["parts"] == {"train": 30, "val": 10, "test": 10}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--val", "1.2"), "between 0 and 1"),
        (("--val", "0"), "the shares are nothing"),
        (("--val", "0.6", "--test", "0.5"), "together less than 1"),
        (("--by-group", "("), "no regular expression"),
        (("--by-group", "zebra"), "fits no picture's name"),
        (("-o", "no/such.csv"), "no folder no"),
        (("-o", "снимки"), "is a folder"),
        (("-o", "split.json"), "must end in .csv"),
    ],
)
def test_what_cannot_be_is_refused_in_words(here: Path, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(ArgumentError, match=why):
        call(*words)
    assert not (here / "split.csv").exists()


def test_without_groups_it_holds_out_what_training_itself_would() -> None:
    pictures = some(40, 13, 2, 1)
    parts, _ = divide(pictures, {"val": 0.2}, seed=5)
    rest, held = stratified(pictures, 0.2, seed=5)
    assert (parts["train"], parts["val"]) == (rest, held)


def test_a_class_with_one_picture_is_for_training_and_that_is_said() -> None:
    parts, notes = divide(some(10, 1), {"val": 0.2, "test": 0.2})
    assert [held.counts for held in parts.values()] == [[6, 1], [2, 0], [2, 0]]
    assert any("val has no picture of 1" in note for note in notes)


def test_a_group_larger_than_the_held_out_part_stays_in_training_and_that_is_said() -> None:
    parts, notes = divide(some(50, 50), {"val": 0.1}, together=[range(20), range(50, 53)])
    keys = {picture.key for picture in parts["train"].pictures}
    assert {f"0/{number}.png" for number in range(20)} <= keys
    assert parts["val"].counts == [5, 5]
    assert any("the largest, 20 with 0/0.png, is in train" in note for note in notes)


def test_shares_are_kept_as_well_as_large_groups_allow() -> None:
    pictures = some(120, 80)
    films = [range(first, first + 10) for first in range(0, 200, 10)]
    parts, notes = divide(pictures, {"val": 0.2, "test": 0.1}, together=films)
    assert [len(held) for held in parts.values()] == [140, 40, 20]
    wanted = ([84, 56], [24, 16], [12, 8])
    for held, want in zip(parts.values(), wanted, strict=True):
        assert all(abs(count - number) < 10 for count, number in zip(held.counts, want, strict=True))
    assert notes == []


def test_a_class_of_two_groups_is_in_both_parts_even_against_the_shares() -> None:
    parts, notes = divide(some(100, 12), {"val": 0.1}, together=[range(100, 110), range(110, 112)])
    assert parts["train"].counts[1] == 10 and parts["val"].counts[1] == 2
    parts, notes = divide(some(100, 20), {"val": 0.1}, together=[range(100, 110), range(110, 120)])
    assert parts["train"].counts[1] == parts["val"].counts[1] == 10
    assert any("instead of" in note for note in notes) or parts["val"].counts[0] < 10


def test_one_group_of_everything_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="must stay whole"):
        divide(some(5, 5), {"val": 0.2}, together=[range(10)])


def test_groups_that_share_a_picture_are_one() -> None:
    parts, _ = divide(some(30, 30), {"val": 0.3}, together=[(0, 1), (1, 31), (31, 40)])
    held = [
        {p.key for p in part.pictures} & {"0/0.png", "0/1.png", "1/1.png", "1/10.png"}
        for part in parts.values()
    ]
    assert sorted(map(len, held)) == [0, 4]


def test_a_name_without_a_match_is_in_no_group() -> None:
    assert groups_by_name(["a/p1_x.png", "a/p1_y.png", "b/z.png"], r"(p\d)_") == {"p1": [0, 1]}
    assert groups_by_name(["a/p1_x.png", "b/p1_y.png"], r"p\d") == {"p1": [0, 1]}


@settings(max_examples=150, deadline=None)
@given(
    counts=st.lists(st.integers(1, 25), min_size=2, max_size=5),
    groups=st.lists(st.lists(st.integers(0, 200), min_size=2, max_size=8), max_size=8),
    shares=st.sampled_from([{"val": 0.2}, {"val": 0.5}, {"test": 0.1}, {"val": 0.15, "test": 0.25}]),
    seed=st.integers(0, 3),
)
def test_every_picture_is_in_one_part_and_every_group_in_one(counts, groups, shares, seed) -> None:
    pictures = some(*counts)
    groups = [[index % len(pictures) for index in group] for group in groups]
    try:
        parts, _ = divide(pictures, shares, seed, groups)
    except DataError as error:
        assert "nothing is left" in str(error)
        return
    keys = [picture.key for held in parts.values() for picture in held.pictures]
    assert sorted(keys) == sorted(picture.key for picture in pictures.pictures)
    place = {picture.key: part for part, held in parts.items() for picture in held.pictures}
    for group in groups:
        assert len({place[pictures.pictures[index].key] for index in group}) == 1
