"""Looking a data set through: classes, damage, kinds of files, copies, strays, and the verdict."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convarium.data.inspection import Finding, Inspection, inspect_data
from convarium.errors import DataError
from convarium.judge.inspection_page import render
from tests.pictures import squares


def codes(seen: Inspection, weight: str | None = None) -> set[str]:
    return {finding.code for finding in seen.findings if weight in (None, finding.weight)}


def finding(seen: Inspection, code: str) -> Finding:
    return next(found for found in seen.findings if found.code == code)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Two classes of 12 pictures to train on and 4 to validate on."""
    root = tmp_path / "good"
    squares(root / "train", each=12)
    squares(root / "val", each=4, seed=1)
    return root


def picture(path: Path, seed: int = 99, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def test_a_good_set_is_ready_and_nothing_is_said(good: Path) -> None:
    seen = inspect_data(good)
    assert (seen.verdict, seen.usable, seen.findings) == ("ready", True, [])
    assert seen.parts == {"train": 24, "val": 8}
    assert seen.counts == {"dark": {"train": 12, "val": 4}, "light": {"train": 12, "val": 4}}
    assert seen.imbalance == 1


def test_nothing_is_written_into_the_data(good: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.is_dir()) for path in [good, *good.rglob("*")]}
    render(inspect_data(good))
    assert {path: (path.stat().st_mtime_ns, path.is_dir()) for path in [good, *good.rglob("*")]} == before


def test_damaged_files_are_named_with_reasons(good: Path) -> None:
    (good / "train/dark/000.png").write_bytes(b"")
    (good / "train/light/001.png").write_bytes((good / "train/light/001.png").read_bytes()[:200])
    seen = inspect_data(good)
    assert [seen.entries[index].key for index in seen.damaged] == [
        "train/dark/000.png",
        "train/light/001.png",
    ]
    assert "0 bytes" in seen.damaged[0]
    assert codes(seen) == {"damaged"}
    assert seen.counts["dark"]["train"] == 11


def test_a_leak_is_counted_once_and_an_identical_one_not_again_as_near(good: Path) -> None:
    for name in ("x.png", "y.png"):
        shutil.copy(good / "train/dark/003.png", good / "val/dark" / name)
    seen = inspect_data(good)
    assert codes(seen, "warning") == {"leak-identical"}
    assert "2 of 10 in val (20 %) are also in train" in finding(seen, "leak-identical").text


def test_a_near_leak_is_seen_through_another_format_and_size(good: Path) -> None:
    photo = Image.open(picture(good / "train/dark/photo.png")).resize((64, 64), Image.Resampling.BICUBIC)
    photo.save(good / "train/dark/photo.png")
    photo.resize((40, 40), Image.Resampling.BILINEAR).save(good / "val/dark/small.webp", quality=80)
    seen = inspect_data(good)
    assert "1 of 9 in val (11 %)" in finding(seen, "leak-near").text
    assert finding(seen, "leak-near").pictures == ("train/dark/photo.png", "val/dark/small.webp")


def test_one_picture_under_two_classes_is_a_conflict_and_the_weightiest_warning(good: Path) -> None:
    shutil.copy(good / "train/dark/003.png", good / "train/light/again.png")
    (good / "train/dark/005.png").write_bytes(b"")
    seen = inspect_data(good)
    assert seen.findings[0].code == "conflict-identical"
    assert seen.findings[0].pictures == ("train/dark/003.png", "train/light/again.png")


def test_copies_within_a_part_are_a_note_until_they_are_many(good: Path) -> None:
    shutil.copy(good / "train/dark/003.png", good / "train/dark/again.png")
    assert finding(inspect_data(good), "duplicates-identical").weight == "warning"  # 1 of 33 is above 1 %
    for number in range(200):
        picture(good / f"train/{('dark', 'light')[number % 2]}/n{number}.png", seed=1000 + number)
    assert finding(inspect_data(good), "duplicates-identical").weight == "note"


def test_classes_are_compared_by_name_across_parts(good: Path) -> None:
    picture(good / "val/Лиса/1.png")
    picture(good / "train/solo/1.png", 98)
    (good / "train/empty").mkdir()
    seen = inspect_data(good)
    assert {"class-only-held-out", "class-not-held-out", "empty-class", "few-pictures"} <= codes(
        seen, "warning"
    )
    assert "Лиса (1 picture, to be left out)" in finding(seen, "class-only-held-out").text
    assert "solo" in finding(seen, "class-not-held-out").text
    assert "train/empty" in finding(seen, "empty-class").text
    assert seen.counts["Лиса"] == {"train": 0, "val": 1}


@pytest.mark.parametrize(("more", "weight"), [(10, None), (30, "note"), (130, "warning")])
def test_imbalance_grows_from_nothing_to_a_warning(tmp_path: Path, more: int, weight: str | None) -> None:
    root = squares(tmp_path / "d", each=12)
    for number in range(more):
        picture(root / f"dark/more{number}.png", seed=number)
    found = [f.weight for f in inspect_data(root).findings if f.code == "imbalance"]
    assert found == ([weight] if weight else [])


def test_class_names_that_differ_in_capitals_or_blanks_are_pointed_at(tmp_path: Path) -> None:
    seen = inspect_data(squares(tmp_path / "d", classes=("Red fox", "red_fox", "cat"), each=10))
    assert finding(seen, "names-alike").text.endswith("'Red fox', 'red_fox'.")


def test_strays_are_named_each_by_its_kind(good: Path) -> None:
    for name in (".DS_Store", "Thumbs.db", "._000.png", ".cache/x.png"):
        (good / "train/dark" / name).parent.mkdir(exist_ok=True)
        (good / "train/dark" / name).write_bytes(b"x")
    (good / "train/dark/notes.txt").write_text("x")
    (good / "train/dark/IMG_1.HEIC").write_bytes(b"x")
    picture(good / "train/dark/deep/er.png", 1)
    picture(good / "train/loose.png", 2)
    picture(good / "other/loose.png", 3)
    (good / "train/dark/gone.png").symlink_to(good / "nowhere.png")
    (good / "train/light/linked.png").symlink_to(picture(good.parent / "outside.png", 4))
    strays = inspect_data(good).strays
    assert strays.system == [
        f"train/dark/{name}" for name in (".DS_Store", "._000.png", ".cache/", "Thumbs.db")
    ]
    assert strays.others == ["train/dark/notes.txt"]
    assert strays.unread == ["train/dark/IMG_1.HEIC"]
    assert strays.nested == ["train/dark/deep/er.png"]
    assert strays.loose == ["other/loose.png", "train/loose.png"]
    assert strays.broken == ["train/dark/gone.png"]
    assert strays.links == ["train/light/linked.png"]


def test_the_census_tells_what_the_files_are(good: Path) -> None:
    photo = Image.open(picture(good / "train/dark/a.png", size=32))
    exif = photo.getexif()
    exif[274] = 8
    photo.save(good / "train/dark/a.jpg", exif=exif)
    (good / "train/dark/a.png").unlink()
    photo.convert("L").resize((96, 24)).save(good / "train/light/wide.png")
    Image.fromarray(np.random.default_rng(5).integers(0, 65536, (20, 20), dtype=np.uint16)).save(
        good / "train/light/deep.png"
    )
    photo.convert("RGBA").resize((8, 8)).save(good / "train/light/clear.png")
    photo.rotate(90).save(good / "val/light/truly.png", "BMP")
    Image.new("RGB", (16, 16), "white").save(good / "val/light/white.png")
    census = inspect_data(good).census
    assert census.formats == {"PNG": 36, "BMP": 1, "JPEG": 1}
    assert census.modes["L"] == 1 and census.modes["RGBA"] == 1
    assert census.bits == {8: 37, 16: 1}
    assert census.orientations == {8: 1}
    assert census.clear == 1
    assert census.sizes["width"] == (8, 16, 96)
    assert census.sizes["aspect"] == (1, 1, 4)
    assert census.extreme == ["train/light/wide.png"]
    assert census.tiny == ["train/light/clear.png"]
    assert census.blank == ["val/light/white.png"]
    assert census.endings == {(".png", "BMP"): ["val/light/truly.png"]}


def test_a_class_that_its_file_format_gives_away_is_a_warning(good: Path) -> None:
    for path in (good / "train/dark").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    texts = [found.text for found in inspect_data(good).findings if found.code == "shortcut"]
    assert len(texts) == 1
    assert (
        "format" in texts[0]
        and "dark (100 % JPEG, elsewhere 0 %), light (100 % PNG, elsewhere 0 %)" in texts[0]
    )


def test_pictures_without_class_folders_are_looked_through_and_are_not_usable(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 1)
    (tmp_path / "b.jpg").write_bytes(b"text")
    seen = inspect_data(tmp_path)
    assert seen.verdict == "not usable"
    assert "no class folders" in seen.findings[0].text and seen.findings[0].weight == "stop"
    assert list(seen.damaged.values()) == ["text, not a picture"]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda root: shutil.rmtree(root / "train/dark"), "refused"),
        (lambda root: shutil.rmtree(root / "train"), "no-training-part"),
        (lambda root: [p.write_bytes(b"") for p in (root / "train/dark").iterdir()], "class-damaged"),
        (lambda root: [p.write_bytes(b"") for p in (root / "val").rglob("*.png")], "all-damaged"),
    ],
)
def test_what_training_would_refuse_is_not_usable(good: Path, spoil, code: str) -> None:
    spoil(good)
    seen = inspect_data(good)
    assert not seen.usable and seen.findings[0].code == code


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        inspect_data(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        inspect_data(tmp_path / "none")


def test_a_csv_file_is_inspected_by_its_own_parts(good: Path) -> None:
    rows = [("path", "label", "part")]
    rows += [(str(path), path.parent.name, path.parent.parent.name) for path in sorted(good.rglob("*.png"))]
    rows += [("no/such.png", "dark", "train"), (rows[1][0], "dark", "val")]
    with (good.parent / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    seen = inspect_data(good.parent / "list.csv")
    assert seen.parts == {"train": 25, "val": 9}
    assert list(seen.damaged.values()) == ["no such file"]
    assert "leak-identical" in codes(seen)


def test_the_mnist_files_are_inspected_too(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for prefix, number in (("train", 30), ("t10k", 10)):
        values = draw.integers(0, 256, (number, 28, 28), dtype=np.uint8)
        labels = (np.arange(number) % 2).astype(np.uint8)
        for kind, array in (("images", values), ("labels", labels)):
            head = struct.pack(f">{array.ndim + 1}I", 0x800 + array.ndim, *array.shape)
            path = tmp_path / f"{prefix}-{kind}-idx{array.ndim}-ubyte.gz"
            path.write_bytes(gzip.compress(head + array.tobytes()))
    seen = inspect_data(tmp_path)
    assert (seen.verdict, seen.census.formats) == ("ready", {"array": 40})


def test_the_whole_is_json_and_the_page_holds_every_name_escaped(good: Path) -> None:
    (good / "train/dark").rename(good / "train/<b>тьма")
    (good / "train/light/000.png").write_bytes(b"")
    shutil.copy(good / "train/light/002.png", good / "val/light/копия & 1.png")
    seen = inspect_data(good)
    told = json.loads(json.dumps(seen.to_dict()))
    assert told["verdict"] == "ready with warnings"
    assert told["damaged"] == [{"picture": "train/light/000.png", "reason": "empty file (0 bytes)"}]
    assert {row["picture"] for row in told["duplicates"][0]["pictures"]} == {
        "train/light/002.png",
        "val/light/копия & 1.png",
    }
    page = render(seen)
    assert "<b>тьма" not in page and "&lt;b&gt;тьма" in page
    assert "копия &amp; 1.png" in page
    assert "byte for byte the same, in different parts" in page
    assert "empty file (0 bytes)" in page
    assert page.count("data:image/png;base64,") >= 6


def test_progress_is_told_to_the_end(good: Path) -> None:
    steps: list[tuple[int, int]] = []
    inspect_data(good, threads=2, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1] == (32, 32) and [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_of_the_nasty_pictures_each_is_decoded_or_listed(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "nasty" / "nasty_dev.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    root = next(tmp_path.rglob("table.csv")).parent
    with (root / "table.csv").open(encoding="utf-8") as file:
        table = {row["name"]: row for row in csv.DictReader(file)}
    seen = inspect_data(root)
    page = render(seen)
    good = {e.key: f for e, f in zip(seen.entries, seen.facts, strict=True) if f is not None}
    bad = {seen.entries[index].key: reason for index, reason in seen.damaged.items()}
    strays = {name for names in vars(seen.strays).values() for name in names}
    assert set(table) <= set(good) | set(bad) | strays
    for name, row in table.items():
        if row["expect"] == "decode":
            assert f"{good[name].width}x{good[name].height}" == row["decoded_rgb_size"], name
        elif row["expect"].startswith("reject"):
            assert name in strays or (bad[name] and name in page), name
    assert seen.census.orientations.keys() >= {2, 3, 6}
    assert ("grüne Wiese (1).jpg", "jpeg_named_png.png", "猫の写真.jpg") in [
        tuple(sorted(seen.entries[i].key for i in group.members)) for group in seen.groups
    ]
