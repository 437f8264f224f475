"""Decoding: what each kind of file becomes, and why a file is refused."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tarfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from convarium.data.decode import EXTENSIONS, decode
from convarium.errors import ArgumentError, PictureError
from tests.conftest import SHARED


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    memory = io.BytesIO()
    image.save(memory, kind, **options)
    return memory.getvalue()


def noise(height: int = 24, width: int = 40, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def reason(source: object) -> str:
    with pytest.raises(PictureError) as caught:
        decode(source)  # type: ignore[arg-type]
    return str(caught.value)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = SHARED / "nasty/nasty_dev.tar"
    if not archive.exists():
        pytest.skip("the difficult pictures (shared/data/nasty) are not here")
    folder = tmp_path_factory.mktemp("nasty")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder / "nasty"


def test_every_difficult_file_is_decoded_or_refused_as_its_table_says(nasty: Path) -> None:
    wrong = []
    with (nasty / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        try:
            image = decode(nasty / row["name"])
            got, size = "decode", f"{image.width}x{image.height}"
        except PictureError as error:
            got, size = ("reject-bomb" if "too large" in str(error) else "reject"), ""
        expected = row["expect"]
        if expected == "decode" and (got, size) != ("decode", row["decoded_rgb_size"]):
            wrong.append((row["name"], got, size))
        if expected.startswith("reject") and not got.startswith("reject"):
            wrong.append((row["name"], got, size))
    assert len(rows) >= 70
    assert wrong == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero_byte.jpg", "empty file (0 bytes)"),
        ("100080576_f52e8ee070_n.jpg", "a Git LFS pointer, not the picture: run `git lfs pull`"),
        ("html_named_jpg.jpg", "a web page (HTML), not a picture"),
        ("table.csv", "text, not a picture"),
        ("._hidden_resource_fork.jpg", "a macOS resource fork, not the picture"),
        ("cut_half.jpg", "cut short: image file is truncated (10 bytes not processed)"),
        ("bomb_30000x30000_gray.png", "too large: 30000x30000 pixels (limit 178956970 pixels)"),
    ],
)
def test_the_reason_says_what_the_file_is(nasty: Path, name: str, words: str) -> None:
    assert reason(nasty / name) == words


def test_real_16_bit_photo_looks_like_its_8_bit_original(nasty: Path) -> None:
    deep = np.asarray(decode(nasty / "gray16.png", "L")).astype(int)
    plain = np.asarray(decode(nasty / "png_named_jpg.jpg", "L")).astype(int)
    assert np.abs(deep - plain).mean() < 1


def test_grey_of_16_bits_is_divided_by_257() -> None:
    values = np.array([[0, 257, 256 * 100, 65535]], np.uint16)
    assert np.asarray(decode(saved(Image.fromarray(values)), "L")).tolist() == [[0, 1, 100, 255]]


def test_wide_portable_grey_map_is_scaled_even_when_dark() -> None:
    data = b"P5 2 1 65535\n" + bytes([0, 200, 1, 1])
    assert np.asarray(decode(data, "L")).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-5.0, 0.0, 5.0]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, 0.25, 1.0]], np.float32), [0, 64, 255]),
        (np.array([[7.0, 7.0, 1e6]], np.float32), [0, 0, 255]),
    ],
)
def test_integers_and_floats_are_scaled_by_the_stated_rule(values: np.ndarray, expected: list[int]) -> None:
    assert np.asarray(decode(values, "L")).tolist() == [expected]
    assert np.asarray(decode(saved(Image.fromarray(values), "TIFF"), "L")).tolist() == [expected]


def test_true_is_white_in_arrays_and_1_bit_files() -> None:
    values = np.array([[True, False]])
    assert np.asarray(decode(values, "L")).tolist() == [[255, 0]]
    assert np.asarray(decode(saved(Image.fromarray(values)), "L")).tolist() == [[255, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    turn = Image.Transpose
    # The stored picture is what the camera saw; these bring the upright one into that form.
    inverse = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    inverse |= {6: turn.ROTATE_90, 7: turn.TRANSVERSE, 8: turn.ROTATE_270}
    upright = Image.fromarray(noise())
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[274] = orientation
    data = saved(stored, exif=exif)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(upright))
    assert np.array_equal(np.asarray(decode(data, orient=False)), np.asarray(stored))


def test_broken_exif_is_no_reason_to_refuse() -> None:
    assert decode(saved(Image.fromarray(noise()), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")).size == (
        40,
        24,
    )


def test_transparency_becomes_white() -> None:
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    for image in (Image.fromarray(clear), clear):
        picture = decode(image if isinstance(image, np.ndarray) else saved(image))
        assert picture.getpixel((0, 0)) == (10, 20, 30)
        assert picture.getpixel((1, 1)) == (255, 255, 255)


def test_half_transparent_grey_is_half_way_to_white() -> None:
    grey = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 128)])
    assert decode(saved(grey), "L").getpixel((0, 0)) == pytest.approx(177, abs=1)


def test_transparent_palette_entry_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    picture = decode(saved(image, transparency=0))
    assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


def test_cmyk_jpeg_with_adobe_inversion_keeps_its_colour() -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = decode(saved(image, "JPEG")).getpixel((8, 8))
    assert red > 250
    assert green < 5
    assert blue < 5


def test_animated_gif_gives_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    first, second = Image.new("RGB", (9, 5), "red"), Image.new("RGB", (9, 5), "blue")
    first.save(path, save_all=True, append_images=[second])
    assert decode(path).getpixel((4, 2)) == (255, 0, 0)


def test_one_pixel_is_a_picture() -> None:
    assert decode(np.full((1, 1, 3), 7, np.uint8)).getpixel((0, 0)) == (7, 7, 7)


def test_a_real_picture_of_12000_x_12000_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (12000, 12000), 9).save(path, compress_level=1)
    assert decode(path, "L").size == (12000, 12000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_cut_file_is_refused(kind: str, share: float) -> None:
    data = saved(Image.fromarray(noise(64, 64)), kind)
    assert decode(data).size == (64, 64)
    reason(data[: int(len(data) * share)])


def test_a_cut_file_is_refused_even_where_pillow_was_told_to_accept_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = saved(Image.fromarray(noise(64, 64)), "JPEG")
    assert reason(data[:-200]).startswith("cut short")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_bombs_are_refused_even_where_pillow_was_told_to_accept_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert (
        reason(b"P5 30000 30000 255\n" + b"\0" * 9)
        == "too large: 30000x30000 pixels (limit 178956970 pixels)"
    )


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "none.jpg") == "no such file"
    assert reason(tmp_path / "link.jpg") == "broken link"
    assert reason(tmp_path / "loop.jpg").startswith("cannot be read: too many levels of symbolic links")
    assert reason(tmp_path) == "a folder, not a picture"
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 500, "only zero bytes, not a picture"),
        (b"%PDF-1.7 ...", "a PDF document, not a picture"),
        (b"\0\0\0\x18ftypheic....", "a HEIF picture, which Pillow does not read: convert it to JPEG or PNG"),
        (b"<svg xmlns='...'>", "an SVG drawing: convert it to PNG"),
        ("просто текст".encode(), "text, not a picture"),
        (b"\x93\x01\x02\x03\xfe" * 20, "not a picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "text, not a picture"),
    ],
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    assert reason(data) == words


@pytest.mark.parametrize("shape", [(3,), (4, 4, 5), (2, 3, 4, 5), (0, 4), (3, 0, 3)])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    assert "array of" in reason(np.zeros(shape, np.uint8))


def test_whatever_pillow_raises_becomes_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (
        SyntaxError("x"),
        ValueError("x"),
        TypeError("x"),
        MemoryError(),
        KeyError("x"),
        RecursionError(),
    ):

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(Image, "open", fail)
        assert reason(b"anything")


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ArgumentError, match="allowed are 'RGB', 'L'"):
        decode(np.zeros((2, 2), np.uint8), "CMYK")


def test_pillows_picture_is_not_handed_back_itself() -> None:
    image = Image.new("RGB", (2, 2))
    assert decode(image) is not image


def test_no_warning_leaks_from_many_threads_and_the_filters_are_restored() -> None:
    data = b"P5 10000 9000 255\n" + b"\0" * 90_000_000  # above the size at which Pillow warns
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with ThreadPoolExecutor(2) as pool:
            sizes = {image.size for image in pool.map(lambda _: decode(data, "L"), range(3))}
        assert list(warnings.filters) == before
    assert sizes == {(10000, 9000)}
    assert caught == []


def test_extensions_are_lower_case_and_leave_out_documents() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".tif", ".gif", ".bmp"} <= EXTENSIONS
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt", ".svg"} & EXTENSIONS


def test_listing_and_decoding_do_not_import_torch() -> None:
    code = "import sys, convarium.data.folders, convarium.data.decode; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
