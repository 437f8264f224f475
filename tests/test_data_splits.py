"""Dividing pictures, the file that keeps the division, and the digits that come along."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convarium.data.builtin import write_digits
from convarium.data.folders import Picture, PictureSet, read_data
from convarium.data.splits import lonely, stratified, write_split
from convarium.errors import ArgumentError, DataError, RunError


def some(*counts: int) -> PictureSet:
    pictures = [
        Picture(f"{label}/{number}.png", Path(f"/data/{label}/{number}.png"), label)
        for label, count in enumerate(counts)
        for number in range(count)
    ]
    return PictureSet(tuple(map(str, range(len(counts)))), tuple(pictures))


def test_each_class_gives_its_share() -> None:
    rest, held = stratified(some(100, 10, 2, 1), 0.2, seed=0)
    assert held.counts == [20, 2, 1, 0]
    assert rest.counts == [80, 8, 1, 1]
    assert {p.key for p in rest.pictures} | {p.key for p in held.pictures} == {
        p.key for p in some(100, 10, 2, 1).pictures
    }


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_both_sides_have_every_class_of_two_pictures(fraction: float) -> None:
    for part in stratified(some(2, 50), fraction, seed=3):
        assert min(part.counts) >= 1


def test_the_draw_depends_on_seed_and_keys_but_not_on_order() -> None:
    pictures = some(40, 40)
    mixed = list(pictures.pictures)
    random.Random(1).shuffle(mixed)
    held = {p.key for p in stratified(pictures, 0.25, seed=7)[1].pictures}
    assert {
        p.key for p in stratified(PictureSet(pictures.classes, tuple(mixed)), 0.25, seed=7)[1].pictures
    } == held
    assert {p.key for p in stratified(pictures, 0.25, seed=8)[1].pictures} != held


def test_single_pictures_are_noted_and_nothing_to_hold_out_is_an_error() -> None:
    assert lonely(some(3, 1)) == [
        "The class '1' has a single picture, which is used for training; nothing of it is held out."
    ]
    with pytest.raises(DataError, match="nothing can be held out"):
        stratified(some(1, 1), 0.5, seed=0)
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        stratified(some(5, 5), 20, seed=0)


def test_a_written_division_is_read_back_with_keys_and_labels(tmp_path: Path) -> None:
    names = ['кошка "A"/1, два.png', "b c/ x.png", "b c/new\nline.png", 'кошка "A"/cr\r.png', "b c/2.png"]
    for name in names:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (Path(os.fsdecode(os.fsencode(tmp_path / "data/b c") + b"/\xff.png"))).touch()
    pictures = read_data(tmp_path / "data").parts["all"]
    train, val = stratified(pictures, 0.4, seed=0)
    write_split(tmp_path / "split.csv", {"train": train, "val": val})
    again = read_data(tmp_path / "split.csv")
    assert again.parts == {"train": train, "val": val}
    assert again.notes == []
    assert {p.key: p.source for p in again.parts["val"].pictures} == {p.key: p.source for p in val.pictures}


def test_pictures_that_are_not_divided_are_read_back_as_all(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    pictures = read_data(tmp_path).parts["all"]
    write_split(tmp_path / "split.csv", {"all": pictures})
    assert read_data(tmp_path / "split.csv").parts == {"all": pictures}


def test_pictures_in_memory_cannot_be_listed(tmp_path: Path) -> None:
    held = PictureSet(("a",), (Picture("train/0", np.zeros((2, 2), np.uint8), 0),))
    with pytest.raises(DataError, match="train/0 is no labelled file"):
        write_split(tmp_path / "split.csv", {"train": held})
    assert not (tmp_path / "split.csv").exists()


def test_digits_are_written_once_and_the_same(tmp_path: Path) -> None:
    folder = write_digits(tmp_path / "digits")
    data = read_data(folder)
    assert (len(data.parts["train"]), len(data.parts["val"])) == (1438, 359)
    assert data.classes == tuple("0123456789")
    assert [a + b for a, b in zip(data.parts["train"].counts, data.parts["val"].counts, strict=True)] == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    write_digits(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == times


def test_digits_keep_their_values(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    folder = write_digits(tmp_path)
    first = next(folder.glob("*/0/digit_0001.png"))
    with Image.open(first) as image:
        assert (image.mode, image.size) == ("L", (8, 8))
        assert np.array_equal(np.asarray(image), np.rint(load_digits().images[0] * 255 / 16))


def test_another_seed_leaves_no_digit_in_both_parts(tmp_path: Path) -> None:
    write_digits(tmp_path, seed=0)
    write_digits(tmp_path, seed=1, fraction=0.5)
    names = [path.name for path in tmp_path.rglob("*.png")]
    assert len(names) == len(set(names)) == 1797


def test_digits_that_cannot_be_written_say_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file"):
        write_digits(tmp_path / "file" / "digits")
