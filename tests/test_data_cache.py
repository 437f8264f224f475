"""Prepared pictures kept in a file: found again, never wrong, never half."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

from convarium.data import cache
from convarium.data.checking import Checked, check, size_on_disk, wider
from convarium.data.folders import Picture, PictureSet, read_data
from convarium.data.preprocessing import Preprocessing
from convarium.errors import RunError

HOW = Preprocessing(16, resize=21)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    """37 small pictures in 2 classes, as files."""
    random = np.random.default_rng(0)
    for number in range(37):
        folder = tmp_path / "data" / f"класс {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 256, (20 + number, 31, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return read_data(tmp_path / "data").parts["all"]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The sources that were decoded since the test began."""
    opened: list[object] = []
    whole = Preprocessing.open
    monkeypatch.setattr(
        Preprocessing, "open", lambda self, source: opened.append(source) or whole(self, source)
    )
    return opened


def same(first: Checked, second: Checked) -> bool:
    assert first.prepared is not None and second.prepared is not None
    return torch.equal(first.prepared, second.prepared) and replace(first, prepared=None) == replace(
        second, prepared=None
    )


def only(folder: Path) -> Path:
    (path,) = folder.glob("*.prepared")
    return path


@pytest.mark.parametrize("margin", [False, True])
def test_the_second_time_nothing_is_decoded(
    pictures: PictureSet, tmp_path: Path, decoded: list[object], margin: bool
) -> None:
    folder = tmp_path / "кэш"
    first = check(pictures, HOW, cache=folder, margin=margin)
    assert len(decoded) == 37
    told: list[tuple[int, int]] = []
    second = check(
        pictures, HOW, cache=folder, margin=margin, progress=lambda done, every: told.append((done, every))
    )
    assert len(decoded) == 37
    assert told[-1] == (37, 37)
    plain = check(pictures, HOW, margin=margin)
    assert same(first, second) and same(first, plain)
    assert second.prepared is not None and plain.prepared is not None
    assert second.prepared.stride() == plain.prepared.stride()
    assert only(folder).stat().st_size <= size_on_disk(pictures, HOW, margin)


@pytest.mark.parametrize("resize", [None, 16, 17, 19, 20, 21, 22, 23, 24, 26, 33])
@pytest.mark.parametrize(("height", "width"), [(50, 71), (71, 50), (33, 33), (40, 41), (7, 90), (25, 24)])
def test_the_middle_of_the_wider_square_is_the_usual_one(resize: int | None, height: int, width: int) -> None:
    how = Preprocessing(16, resize=resize)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    wide = wider(how)
    margin = (wide.size - 16) // 2
    assert wide.size <= (resize or 16) < wide.size + 4
    inner = slice(margin, margin + 16)
    assert torch.equal(wide.prepare(image)[:, inner, inner], how.prepare(image))


def test_a_copy_of_the_data_finds_the_file(
    pictures: PictureSet, tmp_path: Path, decoded: list[object]
) -> None:
    first = check(pictures, HOW, cache=tmp_path / "cache")
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")  # with other dates
    decoded.clear()
    second = check(read_data(tmp_path / "elsewhere").parts["all"], HOW, cache=tmp_path / "cache")
    assert decoded == []
    assert same(first, second)


def test_labels_do_not_matter(pictures: PictureSet, tmp_path: Path, decoded: list[object]) -> None:
    check(pictures, HOW, cache=tmp_path / "cache")
    decoded.clear()
    others = PictureSet(("x",), tuple(Picture(p.key, p.source, 0) for p in pictures.pictures))
    assert check(others, HOW, cache=tmp_path / "cache").good == others
    assert decoded == []


def test_an_edited_picture_is_seen_though_its_size_and_date_stay(
    pictures: PictureSet, tmp_path: Path
) -> None:
    source = pictures.pictures[5].source
    assert isinstance(source, Path)
    values = np.asarray(Image.open(source)).copy()
    Image.fromarray(values).save(source.with_suffix(".bmp"))
    some = PictureSet(("a",), (Picture("one.bmp", source.with_suffix(".bmp"), 0),))
    first = check(some, HOW, cache=tmp_path / "cache")
    data, before = bytearray(some.pictures[0].source.read_bytes()), some.pictures[0].source.stat()
    data[len(data) // 2] ^= 255
    some.pictures[0].source.write_bytes(data)
    os.utime(some.pictures[0].source, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = check(some, HOW, cache=tmp_path / "cache")
    assert not torch.equal(first.prepared, second.prepared)
    assert same(second, check(some, HOW))


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing(17, resize=21),
        Preprocessing(16, resize=22),
        Preprocessing(16),
        Preprocessing(16, resize=21, filter="bicubic"),
        Preprocessing(16, fit="squash"),
        Preprocessing(16, fit="pad"),
        Preprocessing(16, "L", resize=21),
        Preprocessing(16, resize=21, orient=False),
    ],
)
def test_another_preprocessing_has_another_file(
    pictures: PictureSet, tmp_path: Path, how: Preprocessing
) -> None:
    check(pictures, HOW, cache=tmp_path / "cache")
    assert same(check(pictures, how, cache=tmp_path / "cache"), check(pictures, how))
    assert len(list((tmp_path / "cache").glob("*.prepared"))) == 2


def test_normalisation_and_workers_do_not_matter(
    pictures: PictureSet, tmp_path: Path, decoded: list[object]
) -> None:
    check(pictures, HOW, cache=tmp_path / "cache", threads=1)
    decoded.clear()
    check(pictures, replace(HOW, mean=(0.5, 0.5, 0.5)), cache=tmp_path / "cache", threads=2)
    assert decoded == []


def test_another_order_has_another_file(pictures: PictureSet, tmp_path: Path) -> None:
    backwards = PictureSet(pictures.classes, tuple(reversed(pictures.pictures)))
    for some in (pictures, backwards):
        assert same(check(some, HOW, cache=tmp_path / "cache"), check(some, HOW))


def test_damaged_pictures_are_remembered_until_they_are_mended(
    pictures: PictureSet, tmp_path: Path, decoded: list[object]
) -> None:
    cut, gone = pictures.pictures[3].source, pictures.pictures[20].source
    kept = cut.read_bytes()
    cut.write_bytes(kept[:99])
    gone.unlink()
    first = check(pictures, HOW, cache=tmp_path / "cache")
    decoded.clear()
    second = check(pictures, HOW, cache=tmp_path / "cache")
    assert decoded == []
    assert same(first, second) and same(first, check(pictures, HOW))
    assert [key for key, _ in second.damaged] == [pictures.pictures[3].key, pictures.pictures[20].key]
    cut.write_bytes(kept)
    assert len(check(pictures, HOW, cache=tmp_path / "cache").damaged) == 1


def test_a_set_without_a_good_picture_is_remembered(tmp_path: Path, decoded: list[object]) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    some = PictureSet(("a",), (Picture("x.png", tmp_path / "x.png", 0),))
    for _ in range(2):
        checked = check(some, HOW, cache=tmp_path / "cache")
        assert checked.prepared is not None and checked.prepared.shape == (0, 3, 16, 16)
        assert len(checked.damaged) == 1
    assert len(decoded) == 1


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def cut_inside_the_tail(data: bytes) -> bytes:
    return data[:-3]


def one_bit_of_a_row(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]


def one_bit_of_the_text(data: bytes) -> bytes:
    return data[:-100] + bytes([data[-100] ^ 1]) + data[-99:]


def foreign(data: bytes) -> bytes:
    return b"PK\x03\x04" * 5000


def empty(data: bytes) -> bytes:
    return b""


def longer(data: bytes) -> bytes:
    return b"\0" + data


@pytest.mark.parametrize(
    "harm", [cut, cut_inside_the_tail, one_bit_of_a_row, one_bit_of_the_text, foreign, empty, longer]
)
def test_a_damaged_or_foreign_file_is_made_anew(
    pictures: PictureSet, tmp_path: Path, harm, decoded: list[object]
) -> None:
    first = check(pictures, HOW, cache=tmp_path / "cache")
    path = only(tmp_path / "cache")
    whole = path.read_bytes()
    path.unlink()  # first.prepared still shows the old file
    path.write_bytes(harm(whole))
    decoded.clear()
    assert same(first, check(pictures, HOW, cache=tmp_path / "cache"))
    assert len(decoded) == 37
    assert path.read_bytes() == whole


def test_checksums_are_kept_for_every_block(
    pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[object]
) -> None:
    monkeypatch.setattr(cache, "_BLOCK", 1000)
    first = check(pictures, HOW, cache=tmp_path / "cache")
    assert same(first, check(pictures, HOW, cache=tmp_path / "cache"))
    assert len(decoded) == 37


def test_writing_to_the_tensor_leaves_the_file(pictures: PictureSet, tmp_path: Path) -> None:
    first = check(pictures, HOW, cache=tmp_path / "cache")
    whole = only(tmp_path / "cache").read_bytes()
    first.prepared.zero_()
    assert only(tmp_path / "cache").read_bytes() == whole


def test_a_small_disk_is_refused_before_anything_is_decoded(
    pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[object]
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(RunError, match=r"need 0\.00 GB, and .* has 0\.00 GB free; make room"):
        check(pictures, HOW, cache=tmp_path / "cache")
    assert decoded == []
    assert list((tmp_path / "cache").glob("*.prepared")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_fills_up_is_an_error_and_leaves_nothing(
    pictures: PictureSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path.open

    def full(self: Path, mode: str = "r", *rest: object, **more: object):
        return usual(Path("/dev/full") if self.suffix == ".tmp" else self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunError, match="the disk is full"):
        check(pictures, HOW, cache=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that may not be written")
def test_a_folder_that_may_not_be_written_can_still_be_read(
    pictures: PictureSet, tmp_path: Path, decoded: list[object]
) -> None:
    check(pictures, HOW, cache=tmp_path / "cache")
    (tmp_path / "cache").chmod(0o500)
    decoded.clear()
    try:
        check(pictures, HOW, cache=tmp_path / "cache")
        assert decoded == []
        with pytest.raises(RunError, match="cannot write"):
            check(pictures, Preprocessing(8), cache=tmp_path / "cache")
    finally:
        (tmp_path / "cache").chmod(0o700)


def test_a_file_in_the_folders_place_is_an_error(pictures: PictureSet, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("x")
    with pytest.raises(RunError, match="cannot make the folder"):
        check(pictures, HOW, cache=tmp_path / "cache")


def test_an_interrupt_leaves_nothing_and_frees_the_lock(pictures: PictureSet, tmp_path: Path) -> None:
    def interrupt(done: int, every: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(pictures, HOW, cache=tmp_path / "cache", progress=interrupt)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]
    assert check(pictures, HOW, cache=tmp_path / "cache").prepared is not None


def test_who_waits_for_another_process_can_be_stopped(pictures: PictureSet, tmp_path: Path) -> None:
    check(pictures, HOW, cache=tmp_path / "cache")
    path = only(tmp_path / "cache")
    path.unlink()
    waits = 0

    def interrupt(done: int, every: int) -> None:
        nonlocal waits
        waits += 1
        if waits > 1:  # the first is before contents are hashed
            raise KeyboardInterrupt

    with FileLock(path.with_suffix(".lock")), pytest.raises(KeyboardInterrupt):
        check(pictures, HOW, cache=tmp_path / "cache", progress=interrupt)


PROGRAM = """
import sys, time
from pathlib import Path
from convarium.data.checking import check
from convarium.data.folders import read_data
from convarium.data.preprocessing import Preprocessing
count = 0
whole = Preprocessing.open
def opened(self, source):
    global count
    count += 1
    if count > 16:
        time.sleep(60)
    return whole(self, source)
Preprocessing.open = opened
def told(done, every):
    if done:
        print("begun", flush=True)
pictures = read_data(Path(sys.argv[1])).parts["all"]
check(pictures, Preprocessing(16, resize=21), threads=1, cache=Path(sys.argv[2]), progress=told)
"""


def test_killed_while_writing_leaves_no_file_and_the_next_one_clears_up(
    pictures: PictureSet, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "data"), str(tmp_path / "cache")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline() == "begun\n"
        killed.kill()
    folder = tmp_path / "cache"
    assert list(folder.glob("*.prepared")) == []
    assert len(list(folder.glob(".*.tmp"))) == 1
    assert same(check(pictures, HOW, cache=folder), check(pictures, HOW))
    assert list(folder.glob(".*.tmp")) == []
    assert len(list(folder.glob("*.prepared"))) == 1


def test_of_two_at_once_one_decodes_and_the_other_waits(
    pictures: PictureSet, tmp_path: Path, decoded: list[object]
) -> None:
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(check, pictures, HOW, cache=tmp_path / "cache") for _ in range(2)]
    assert same(both[0].result(), both[1].result())
    assert len(decoded) == 37
