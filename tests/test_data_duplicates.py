"""Finding pictures that are the same, byte for byte or nearly."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from convarium.data import duplicates
from convarium.data.duplicates import Group, connected, find_duplicates, hashes, near_pairs
from convarium.data.fingerprints import SIDE, look, look_at_all


def scene(seed: int, size: tuple[int, int] = (160, 120)) -> Image.Image:
    """A smooth coloured picture, as unlike another seed's as two photographs are."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def thumb(picture: Image.Image) -> np.ndarray:
    return look(np.asarray(picture.convert("RGB")))[1]


def as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=quality)
    return Image.open(data)


def alike(one: Image.Image, other: Image.Image) -> bool:
    return len(near_pairs(np.stack([thumb(one), thumb(other)]))) == 1


CHANGES = {
    "quality": lambda p: as_jpeg(p, 20),
    "half the size": lambda p: p.resize((80, 60), Image.Resampling.BILINEAR),
    "twice the size": lambda p: p.resize((320, 240), Image.Resampling.BICUBIC),
    "squashed": lambda p: p.resize((224, 224), Image.Resampling.BILINEAR),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.2),
    "grey": lambda p: p.convert("L"),
    "edges cut off": lambda p: p.crop((1, 1, 159, 119)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(5))
def test_a_picture_saved_again_is_found(change: str, seed: int) -> None:
    assert alike(scene(seed), CHANGES[change](scene(seed)))


def test_different_pictures_are_not_near() -> None:
    assert len(near_pairs(np.stack([thumb(scene(seed)) for seed in range(300)]))) == 0


def test_of_pairs_with_close_hashes_those_that_do_not_correlate_are_left_out(monkeypatch) -> None:
    one = thumb(scene(0))
    other = one.copy()
    other[4:12, 4:12] = 255 - other[4:12, 4:12]
    monkeypatch.setattr(duplicates, "BITS", 64)
    monkeypatch.setattr(duplicates, "hashes", lambda thumbs: np.arange(len(thumbs), dtype=np.uint64))
    assert near_pairs(np.stack([one, one.copy() + (one < 255)])).tolist() == [[0, 1]]
    assert near_pairs(np.stack([one, other])).tolist() == []


@pytest.mark.parametrize("count", [2, 50, 1500])
def test_the_index_finds_exactly_the_close_pairs_that_comparing_all_would(count: int) -> None:
    draw = np.random.default_rng(count)
    centres = draw.integers(0, 2**63, max(1, count // 10), dtype=np.uint64)
    codes = centres[draw.integers(0, len(centres), count)]
    for _ in range(6):  # up to six flipped bits each, so that distances are 0 to 12 and about 32
        codes ^= np.uint64(1) << draw.integers(0, 64, count).astype(np.uint64)
    codes = np.unique(codes)
    all_pairs = np.bitwise_count(codes[:, None] ^ codes[None]) <= duplicates.BITS
    want = {(i, j) for i, j in np.argwhere(all_pairs).tolist() if i < j}
    found = []
    for left, right in duplicates._candidates(codes):
        close = np.bitwise_count(codes[left] ^ codes[right]) <= duplicates.BITS
        found += [
            tuple(sorted(pair)) for pair in zip(left[close].tolist(), right[close].tolist(), strict=True)
        ]
    assert set(found) == want


def test_the_index_looks_at_a_small_part_of_all_pairs() -> None:
    codes = np.unique(np.random.default_rng(0).integers(0, 2**63, 4000, dtype=np.uint64))
    looked = sum(len(left) for left, _ in duplicates._candidates(codes))
    assert looked < len(codes) ** 2 / 2 / 100


def test_a_bucket_larger_than_a_chunk_is_still_taken_apart(monkeypatch) -> None:
    monkeypatch.setattr(duplicates, "_AT_ONCE", 10)
    codes = np.arange(40, dtype=np.uint64) << np.uint64(48)  # three bands are equal in all of them
    found = {
        tuple(sorted(pair))
        for left, right in duplicates._candidates(codes)
        for pair in zip(left.tolist(), right.tolist(), strict=True)
    }
    assert len(found) == 40 * 39 / 2


def test_a_hash_has_64_bits_of_which_brightness_changes_none() -> None:
    pictures = np.stack([thumb(scene(seed)) for seed in range(64)])
    codes = hashes(pictures)
    ones = np.array([[int(code) >> bit & 1 for bit in range(64)] for code in codes]).mean(0)
    assert (ones > 0.1).all() and (ones < 0.9).all()  # every bit says something
    assert np.array_equal(hashes(pictures // 2 // 2 * 2), hashes(pictures // 2 // 2 * 2 + 60))


def test_sets_are_joined_through_common_members() -> None:
    assert connected([(5, 1), (2, 3), (1, 4), (3, 2)]) == [[1, 4, 5], [2, 3]]
    assert connected([]) == []


def test_groups_say_how_alike_they_are() -> None:
    pictures = [scene(0), scene(1), scene(0), as_jpeg(scene(1), 30), scene(2)]
    thumbs = np.stack([thumb(picture) for picture in pictures])
    found = find_duplicates([b"a", b"b", b"a", b"c", b"d"], thumbs)
    assert found == [Group("identical", (0, 2)), Group("near", (1, 3))]


def test_identical_copies_of_a_near_duplicate_are_in_its_group() -> None:
    thumbs = np.stack([thumb(scene(0))] * 3)
    found = find_duplicates([b"a", b"b", b"a"], thumbs)
    assert found == [Group("identical", (0, 2)), Group("near", (0, 1, 2))]


def test_a_slow_film_is_a_chain() -> None:
    wide = scene(3, (900, 120))
    frames = np.stack([thumb(wide.crop((x, 0, x + 160, 120))) for x in range(0, 700, 2)])
    found = find_duplicates([bytes([i % 256, i // 256]) for i in range(len(frames))], frames)
    assert max(found, key=lambda group: len(group.members)).kind == "chain"


def test_blank_and_damaged_pictures_are_near_to_nothing() -> None:
    blank = np.full((3, SIDE, SIDE), 200, np.uint8)
    blank[1] += np.eye(SIDE, dtype=np.uint8)
    assert find_duplicates([b"a", b"b", b"c"], blank) == []
    assert find_duplicates([None, None], np.zeros((2, SIDE, SIDE), np.uint8)) == []
    assert find_duplicates([], np.zeros((0, SIDE, SIDE), np.uint8)) == []


def test_what_is_found_does_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    paths = []
    for seed in range(40):
        paths.append(tmp_path / f"{seed}.jpg")
        scene(seed, (40, 30)).save(paths[-1])
    paths[7].write_bytes(paths[7].read_bytes()[:300])
    one, four = look_at_all(paths, threads=1), look_at_all(paths, threads=4)
    assert one.facts == four.facts and list(one.damaged) == [7]
    assert np.array_equal(one.thumbs, four.thumbs)


def test_looking_keeps_facts_and_no_pixels(tmp_path: Path) -> None:
    photo = scene(1, (300, 200))
    exif = photo.getexif()
    exif[274] = 6
    photo.save(tmp_path / "a.jpg", exif=exif)
    facts, small = look(tmp_path / "a.jpg")
    assert (facts.format, facts.mode, facts.bits, facts.orientation) == ("JPEG", "RGB", 8, 6)
    assert (facts.width, facts.height) == (200, 300)
    assert small.shape == (SIDE, SIDE)
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 100)
    deep.save(tmp_path / "b.png")
    assert look(tmp_path / "b.png")[0].bits == 16


def test_real_photographs_have_the_copies_that_the_eye_sees(shared: Path, tmp_path: Path) -> None:
    """In flowers5, pairs that a person calls the same have correlations above 0.99, others below 0.951."""
    import tarfile

    with tarfile.open(shared / "flowers5" / "flowers5.tar") as tar:
        names = [m for m in tar.getmembers() if m.isfile() and "/tulip/" in m.name]
        tar.extractall(tmp_path, names, filter="data")
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    looked = look_at_all(paths, threads=1)
    groups = find_duplicates([fact.digest if fact else None for fact in looked.facts], looked.thumbs)
    assert [group.kind for group in groups] == ["near"] * 5
    assert all(len(group.members) == 2 for group in groups)
