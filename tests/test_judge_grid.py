"""The grid of pictures: what it says, what it survives, and that chance draws it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convarium.errors import ArgumentError
from convarium.judge.grid import RIGHT, WRONG, drawn, grid, title, write_grid


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_right_and_wrong_are_told_without_colour():
    pictures = [Image.new("RGB", (40, 30), "blue")] * 2
    figure = grid(pictures, [title("cat", "cat"), title("cat", "dog")], [True, False])
    assert texts(figure) == ["✓ cat", "✗ said dog\nwas cat"]
    lines = [axes.spines["top"].get_linestyle() for axes in figure.axes]
    assert lines[0] == "-" and lines[1] != "-"
    assert [text.get_color() for text in figure.texts] == [RIGHT, WRONG]


@pytest.mark.parametrize(("count", "across", "down"), [(1, 1, 1), (6, 6, 1), (7, 6, 2), (24, 6, 4)])
def test_pictures_stand_in_rows_and_do_not_overlap(count, across, down):
    figure = grid([Image.new("L", (8, 8))] * count, ["a"] * count, [True] * count)
    boxes = [axes.get_position() for axes in figure.axes]
    assert len({round(b.x0, 6) for b in boxes}) == across
    assert len({round(b.y0, 6) for b in boxes}) == down
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(b.x0 >= 0 and b.x1 <= 1 and b.y0 >= 0 and b.y1 <= 1 for b in boxes)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_and_script_makes_a_file(tmp_path: Path, mode: str):
    names = ["одуванчик", "وردة", "玫瑰", "กุหลาบ", "$x^2$", "tab\there", "no\udcffutf", "long " * 40]
    figure = grid([Image.new(mode, (300, 20))] * len(names), names, [True] * len(names))
    path = tmp_path / "кошки.png"
    write_grid(path, figure)
    with Image.open(path) as made:
        made.load()
        assert made.format == "PNG"
    assert texts(figure)[-1].endswith("…")


def test_the_same_grid_gives_the_same_bytes(tmp_path: Path):
    for name in ("a.png", "b.png"):
        write_grid(tmp_path / name, grid([Image.new("L", (8, 8), 99)], ["cat"], [True]))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_small_pictures_keep_their_pixels():
    small, large = Image.new("L", (28, 28)), Image.new("L", (280, 280))
    images = [axes.images[0] for axes in grid([small, large], ["a", "b"], [True, True]).axes]
    assert images[0].get_interpolation() == "nearest"
    assert images[1].get_interpolation() != "nearest"


def test_a_picture_keeps_its_proportions():
    axes = grid([Image.new("RGB", (200, 100), "red")], ["a"], [True]).axes[0]
    assert axes.get_aspect() == 1


def test_the_draw_is_fixed_by_seed_and_names():
    keys = [f"{i}.png" for i in range(100)]
    first = drawn(keys, 10)
    assert first == drawn(keys, 10)
    assert first != drawn(keys, 10, seed=1)
    assert len(set(first)) == 10
    assert len(drawn(keys[:4], 10)) == 4
    # Another order of the same pictures shows the same ones.
    assert [keys[::-1][i] for i in drawn(keys[::-1], 10)] == [keys[i] for i in first]


def test_the_draw_favours_nobody():
    keys = [f"{i}.png" for i in range(50)]
    times = np.bincount(np.concatenate([drawn(keys, 10, seed) for seed in range(300)]), minlength=50)
    assert times.min() > 30 and times.max() < 95  # 60 each on average, within 5 standard deviations


def test_as_many_titles_as_pictures():
    with pytest.raises(ArgumentError, match="1 pictures, 0 titles"):
        grid([Image.new("L", (2, 2))], [], [True])
    with pytest.raises(ArgumentError, match="at least one"):
        grid([], [], [])


def test_pictures_are_left_alone():
    picture = Image.new("RGB", (900, 600))
    before = io.BytesIO()
    picture.save(before, "PNG")
    grid([picture], ["a"], [True])
    after = io.BytesIO()
    picture.save(after, "PNG")
    assert before.getvalue() == after.getvalue()
