"""Parts of JPEG files: the same pixels as the whole picture's, whichever library decodes."""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium.data import crops
from convarium.data.decode import decode
from convarium.data.preprocessing import Preprocessing
from convarium.errors import PictureError
from tests.conftest import SHARED

LIBRARIES = ["Pillow", *(["simplejpeg"] if crops.simplejpeg is not None else [])]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Pillow":
        monkeypatch.setattr(crops, "simplejpeg", None)
    return request.param


def photo(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours with a little noise, so that neither reductions nor compression change them much."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.integers(-4, 5, smooth.shape), 0, 255).astype(np.uint8)
    return Image.fromarray(noisy).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, "JPEG", **{"quality": 95, **options})
    return memory.getvalue()


KINDS = {
    "4:2:0": {},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 7},
    "remark": {"comment": b"\xff\xd9\xff\xda" * 9},
    "stored as RGB": {"keep_rgb": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [(0, 0, 60, 70), (37, 41, 50, 63), (90, 100, 60, 60), (0, 0, 150, 200)])
def test_an_unreduced_part_is_that_of_the_whole_to_the_bit(
    library: str, kind: str, place: tuple[int, int, int, int]
) -> None:
    data = jpeg(photo(150, 200), **KINDS[kind])
    top, left, high, wide = place
    part = crops.from_jpeg(data, Preprocessing(128), lambda height, width: place)
    assert part is not None
    assert np.array_equal(part, np.asarray(decode(data))[top : top + high, left : left + wide])


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("stored", ["RGB", "L", "CMYK"])
def test_every_mode_is_what_the_decoder_gives(library: str, mode: str, stored: str) -> None:
    data = jpeg(photo(90, 70, stored))
    part = crops.from_jpeg(data, Preprocessing(64, mode), lambda height, width: (5, 6, 40, 50))
    assert part is not None
    assert np.array_equal(part.squeeze(), np.asarray(decode(data, mode))[5:45, 6:56])


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("size", "reduce"), [(64, 1), (30, 2)])
def test_the_part_is_drawn_on_the_upright_picture(library: str, turn: int, size: int, reduce: int) -> None:
    exif = Image.Exif()
    exif[274] = turn
    data = jpeg(photo(160, 240), exif=exif)
    upright = decode(data)
    seen: list[tuple[int, int]] = []

    def place(height: int, width: int) -> tuple[int, int, int, int]:
        seen.append((height, width))
        return 20, 30, 60, 80

    part = crops.from_jpeg(data, Preprocessing(size), place)
    assert part is not None
    assert seen == [(upright.height, upright.width)]
    wanted = np.asarray(upright)[20:80, 30:110].reshape(60 // reduce, reduce, 80 // reduce, reduce, 3)
    assert np.abs(part - wanted.mean((1, 3))).mean() < 2
    straight = crops.from_jpeg(data, Preprocessing(size, orient=False), lambda height, width: (0, 0, 60, 80))
    assert straight is not None
    if reduce == 1:
        assert np.array_equal(straight, np.asarray(decode(data, orient=False))[:60, :80])


@pytest.mark.parametrize(
    ("place", "size", "wanted"),
    [
        ((0, 0, 600, 801), 224, (300, 400)),
        ((0, 0, 448, 800), 224, (224, 400)),
        ((0, 0, 447, 800), 224, (447, 800)),
        ((0, 0, 896, 1000), 224, (224, 250)),
        ((104, 200, 896, 1001), 112, (112, 125)),
        ((0, 0, 1000, 1201), 1000, (1000, 1201)),
        ((3, 1, 997, 1200), 500, (997, 1200)),
    ],
)
def test_no_part_is_reduced_below_the_networks_input(
    library: str, place: tuple[int, int, int, int], size: int, wanted: tuple[int, int]
) -> None:
    data = jpeg(photo(1000, 1201))
    part = crops.from_jpeg(data, Preprocessing(size), lambda height, width: place)
    assert part is not None
    assert part.shape == (*wanted, 3)


@pytest.mark.skipif("simplejpeg" not in LIBRARIES, reason="simplejpeg is not installed")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [20, 50, 110])
def test_both_libraries_give_the_same_pixels(kind: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = jpeg(photo(403, 501), **KINDS[kind])
    how = Preprocessing(size)
    first = crops.from_jpeg(data, how, lambda height, width: (100, 201, 230, 300))
    monkeypatch.setattr(crops, "simplejpeg", None)
    second = crops.from_jpeg(data, how, lambda height, width: (100, 201, 230, 300))
    assert first is not None and second is not None
    assert np.array_equal(first, second)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_cut_file_is_left_to_the_decoder_which_refuses_it(library: str, share: float) -> None:
    thumbnail = Image.Exif()
    thumbnail[37500] = jpeg(photo(16, 16))  # an end of a JPEG inside the head
    data = jpeg(photo(150, 200), exif=thumbnail)
    cut = data[: int(len(data) * share)]
    assert crops.header(data) is not None
    assert crops.header(cut) is None
    with pytest.raises(PictureError):
        decode(cut)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0", b"\x89PNG\r\n" * 9]
)
def test_what_is_no_jpeg_is_left_to_the_decoder(data: bytes) -> None:
    assert crops.header(data) is None


def test_no_edit_of_the_head_crashes_or_goes_unseen(library: str) -> None:
    """Whatever a byte of the head becomes: the decoder's pixels, its refusal, or left to it."""
    data, random = jpeg(photo(64, 80)), np.random.default_rng(0)
    for at in random.integers(2, 640, 150).tolist():
        broken = bytearray(data)
        broken[at] = int(random.integers(0, 256))
        try:
            wanted = np.asarray(decode(bytes(broken)))
        except PictureError:
            wanted = None
        try:
            got = crops.from_jpeg(
                bytes(broken), Preprocessing(64), lambda height, width: (0, 0, height, width)
            )
        except PictureError:
            got = None
        if got is not None and wanted is not None:
            assert np.array_equal(got, wanted), at


def test_every_difficult_jpeg_is_what_the_decoder_gives(library: str, tmp_path: Path) -> None:
    archive = SHARED / "nasty/nasty_dev.tar"
    if not archive.exists():
        pytest.skip("the difficult pictures (shared/data/nasty) are not here")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    taken = 0
    with (tmp_path / "nasty/table.csv").open(encoding="utf-8", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    for name in names:
        data = (tmp_path / "nasty" / name).read_bytes()
        try:
            wanted = np.asarray(decode(data))
        except PictureError:
            wanted = None
        try:
            got = crops.from_jpeg(data, Preprocessing(16384), lambda height, width: (0, 0, height, width))
        except PictureError:
            got = None
            assert wanted is None, name
        if got is not None:
            assert wanted is not None, name
            assert np.array_equal(got, wanted), name
            taken += 1
    assert taken >= 20


@pytest.mark.parametrize("filter", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [20, 77])
def test_resizing_is_pillows_but_for_a_level(filter: str, channels: int, side: int) -> None:
    part = torch.from_numpy(np.asarray(photo(61, 47))[:, :, :channels].copy()).permute(2, 0, 1)
    out = torch.empty(channels, side, side, dtype=torch.uint8)
    crops.resize(part, out, filter)
    pixels = part.permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels if channels == 3 else pixels[:, :, 0])
    wanted = np.asarray(image.resize((side, side), Image.Resampling[filter.upper()]))
    assert np.abs(out.permute(1, 2, 0).numpy().squeeze().astype(int) - wanted).max() <= 1
    mirrored = torch.empty_like(out)
    crops.resize(part, mirrored, filter, mirror=True)
    assert torch.equal(mirrored, out.flip(-1))
