"""Pictures of any number of bands and of more than 8 bits: every value arrives, and what does not fit is named."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium.data.augment import SETS, Augment
from convarium.data.batched import WORDS
from convarium.data.checking import check
from convarium.data.decode import decode
from convarium.data.deep import decode_bands
from convarium.data.folders import Picture, PictureSet, list_pictures, read_data
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, MissingExtra, PictureError
from convarium.judge.thumbnails import stretched, thumbnail


def drawn(shape: tuple[int, ...], kind: type = np.uint16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, shape).astype(kind)


def encoded(values: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, form, **options)
    return file.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    if values.ndim == 3 and "photometric" not in options:
        options = {"photometric": "minisblack", "planarconfig": "contig", **options}
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def numpy_file(values: np.ndarray, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=pickled)
    return file.getvalue()


def png16(values: np.ndarray) -> bytes:
    """A PNG of 16-bit colours, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_neighbouring_values_of_16_bits_stay_apart(form: str) -> None:
    values = np.array([[65535, 65534], [257, 0]], np.uint16)
    found = decode_bands(encoded(values, form), 1)
    assert found.dtype == np.float32 and found.shape == (2, 2, 1)
    assert np.array_equal(np.rint(found[..., 0].astype(np.float64) * 257), values)
    assert found[0, 0, 0] == 255 and found[1, 0, 0] == 1
    prepared = Preprocessing(2, "F", bands=1).prepare(found)
    assert prepared[0, 0, 0] == 255 > prepared[0, 0, 1]


def test_eight_bits_are_as_they_are() -> None:
    values = drawn((5, 7, 3), np.uint8)
    assert np.array_equal(decode_bands(encoded(values), 3), values)
    four = drawn((5, 7, 4), np.uint8)
    assert np.array_equal(decode_bands(encoded(four), 4), four)  # transparency is a band like others


@pytest.mark.parametrize("values", [-3.5, 1e30, 0.25])
def test_floats_keep_their_range(values: float) -> None:
    made = np.full((3, 4), values, np.float32)
    assert np.array_equal(decode_bands(encoded(made, "TIFF"), 1)[..., 0], made)


def test_what_is_not_finite_becomes_zero_unless_nothing_else_is_there() -> None:
    values = np.array([[np.nan, np.inf], [-np.inf, 7.5]])
    assert np.array_equal(decode_bands(values, 1)[..., 0], [[0, 0], [0, 7.5]])
    with pytest.raises(PictureError, match="not one of its values is a finite number"):
        decode_bands(np.full((2, 2), np.nan), 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile": (16, 16)},
        {"compression": "zlib", "predictor": True},
        {"rowsperstrip": 3},
        {"bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int16, np.uint32, np.float64])
def test_bands_of_a_tiff_arrive(options: dict[str, object], kind: type) -> None:
    if kind is np.float64:
        options = {k: v for k, v in options.items() if k != "predictor"}
    values = drawn((20, 24, 5), kind)
    expected = values / 257 if kind is np.uint16 else values
    assert np.array_equal(decode_bands(tiff(values, **options), 5), expected.astype(np.float32))


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.float32, np.float64])
def test_one_band_of_a_tiff_arrives(kind: type) -> None:
    values = drawn((9, 5), kind)
    expected = values / 257 if kind is np.uint16 else values
    assert np.array_equal(decode_bands(tiff(values), 1)[..., 0], expected.astype(np.float32))


def test_bands_may_lie_plane_by_plane_or_page_by_page() -> None:
    values = drawn((20, 24, 5))
    planes = np.moveaxis(values, 2, 0)
    separate = tiff(planes, photometric="minisblack", planarconfig="separate")
    pages = tiff(planes, photometric="minisblack")
    for data in (separate, pages):
        assert np.array_equal(decode_bands(data, 5), values.astype(np.float32) / np.float32(257))
    assert decode_bands(pages, 1).shape == (20, 24, 1)
    with pytest.raises(PictureError, match=r"5 bands \(pages of one band\), want 4"):
        decode_bands(pages, 4)


def test_colours_of_16_bits_are_read_whole_from_tiff_and_refused_from_png() -> None:
    values = drawn((8, 6, 3))
    found = decode_bands(tiff(values, photometric="rgb"), 3)
    assert np.array_equal(np.rint(found * 257), values)
    with pytest.raises(PictureError, match="PNG with 16 bits a channel.*save it as TIFF"):
        decode_bands(png16(values), 3)
    opened = Image.open(io.BytesIO(tiff(values, photometric="rgb")))
    with pytest.raises(PictureError, match="give its path"):
        decode_bands(opened, 3)


@pytest.mark.parametrize(("bands", "more"), [(2, [0]), (5, [0, 0])])
def test_bands_that_pillow_would_drop_are_kept(bands: int, more: list[int]) -> None:
    values = drawn((8, 6, bands), np.uint8)
    photometric = "rgb" if bands == 5 else "minisblack"
    data = tiff(values, photometric=photometric, planarconfig="contig", extrasamples=more)
    with Image.open(io.BytesIO(data)) as opened:
        assert len(opened.getbands()) < bands
    assert np.array_equal(decode_bands(data, bands), values)


@pytest.mark.parametrize(
    ("data", "asked", "words"),
    [
        (encoded(drawn((4, 4))), 3, "1 band, want 3"),
        (encoded(drawn((4, 4, 4), np.uint8)), 3, "4 bands, want 3"),
        (numpy_file(drawn((4, 6, 2))), 5, "2 bands, want 5"),
        (numpy_file(drawn((5, 7, 6))), 5, r"6 bands, want 5 \(an array of 5x7x6; bands come last\)"),
    ],
)
def test_another_number_of_bands_is_named_with_both(data: bytes, asked: int, words: str) -> None:
    with pytest.raises(PictureError, match=f"^{words}$"):
        decode_bands(data, asked)


def test_a_tiff_with_another_number_of_bands_is_named_with_both() -> None:
    with pytest.raises(PictureError, match="^4 bands, want 5$"):
        decode_bands(tiff(drawn((6, 8, 4))), 5)


@pytest.mark.parametrize(
    "options", [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"rowsperstrip": 3}], ids=str
)
@pytest.mark.parametrize("lost", [1, 50, 2500])
def test_a_cut_tiff_is_refused(options: dict[str, object], lost: int) -> None:
    data = tiff(drawn((20, 24, 5)), **options)
    with pytest.raises(PictureError, match="cut short"):
        decode_bands(data[:-lost], 5)


def test_a_damaged_tiff_is_refused_whatever_is_wrong() -> None:
    data = tiff(drawn((20, 24, 5)), compression="zlib")
    draw = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        spoiled = np.frombuffer(data, np.uint8).copy()
        spoiled[draw.integers(len(spoiled), size=8)] ^= 0xFF
        try:
            decode_bands(spoiled.tobytes(), 5)
        except PictureError:
            refused += 1
    assert refused >= 55  # what is left hit a tag that nothing depends on


def test_a_compression_that_needs_more_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import tifffile

    data = tiff(drawn((20, 24, 5)), compression="zlib")

    def lacking(*_: object, **__: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", lacking)
    with pytest.raises(PictureError, match="pip install imagecodecs"):
        decode_bands(data, 5)


def test_without_tifffile_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiff(drawn((20, 24, 5)))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(MissingExtra, match=r"convarium\[bands\]"):
        decode_bands(data, 5)
    assert decode_bands(encoded(drawn((4, 4)), "TIFF"), 1).shape == (4, 4, 1)  # needs no tifffile


def test_arrays_in_files_arrive_and_no_pickle_is_run() -> None:
    values = drawn((6, 8, 4)).astype(">u2")
    assert np.array_equal(np.rint(decode_bands(numpy_file(values), 4) * 257), values)
    assert np.array_equal(decode_bands(numpy_file(np.eye(3, dtype=bool)), 1)[..., 0], 255 * np.eye(3))
    for data in (numpy_file(np.array([[{}]], object), pickled=True), numpy_file(np.ones((2, 2), complex))):
        with pytest.raises(PictureError):
            decode_bands(data, 1)
    with pytest.raises(PictureError):
        decode_bands(numpy_file(values)[:-1], 4)
    with pytest.raises(PictureError, match="array of NumPy"):
        decode(numpy_file(values))


def test_orientation_is_applied_to_bands() -> None:
    values = drawn((6, 8, 5))
    data = tiff(values, extratags=[(274, "H", 1, 6, True)])
    turned = np.rot90(values, -1).astype(np.float32) / np.float32(257)
    assert np.array_equal(decode_bands(data, 5), turned)
    assert decode_bands(data, 5, orient=False).shape == (6, 8, 5)


def test_a_caller_s_array_is_left_alone() -> None:
    values = drawn((4, 4, 2)).astype(np.float32)
    before = values.copy()
    found = decode_bands(values, 2)
    found += 1
    assert np.array_equal(values, before)


def test_eight_bit_values_are_resized_nearly_as_pillow_does() -> None:
    values = drawn((50, 70, 3), np.uint8)
    for fit in ("crop", "squash", "pad"):
        for name in ("nearest", "bilinear", "bicubic"):
            usual = Preprocessing(24, fit=fit, filter=name).prepare(Image.fromarray(values))
            deep = Preprocessing(24, "F", fit=fit, filter=name, bands=3).prepare(values)
            assert deep.dtype == torch.float32 and deep.shape == usual.shape
            assert (deep.clamp(0, 255) - usual).abs().max() <= 1


def test_fields_are_checked_and_those_of_the_usual_modes_are_as_before() -> None:
    how = Preprocessing(8, "F", bands=5)
    assert how.channels == 5 and how.mean == (0.0,) * 5
    assert Preprocessing.from_dict(how.to_dict()) == how
    assert "bands" not in Preprocessing(8).to_dict()
    for fields in ({"mode": "F"}, {"mode": "F", "bands": 0}, {"bands": 3}, {"mode": "F", "bands": True}):
        with pytest.raises(ArgumentError, match="bands"):
            Preprocessing(8, **fields)
    with pytest.raises(ArgumentError, match="'bicubic'"):
        Preprocessing(8, "F", bands=1, filter="lanczos")


def test_normalising_leaves_the_prepared_pictures_alone() -> None:
    how = Preprocessing(4, "F", bands=2, mean=(0.5, 0.25), std=(0.5, 2.0))
    batch = torch.full((1, 2, 4, 4), 255.0)
    made = how.normalise(batch)
    assert made[0, 0, 0, 0] == 1 and made[0, 1, 0, 0] == 0.375
    assert bool((batch == 255).all())


def set_of(arrays: list[np.ndarray]) -> PictureSet:
    return PictureSet(("a", "b"), tuple(Picture(f"{i:03}", values, i % 2) for i, values in enumerate(arrays)))


def test_mean_and_deviation_are_those_of_all_values_whatever_the_threads() -> None:
    arrays = [drawn((8, 8, 3), seed=seed) for seed in range(40)]
    how = Preprocessing(8, "F", bands=3)
    one, many = (check(set_of(arrays), how, threads=threads) for threads in (1, 4))
    values = np.stack(arrays).reshape(-1, 3) / 257 / 255
    assert np.allclose(one.mean, values.mean(0)) and np.allclose(one.std, values.std(0), rtol=1e-5)
    assert (one.mean, one.std) == (many.mean, many.std)
    assert one.prepared is not None and one.prepared.dtype == torch.float32
    assert torch.equal(one.prepared[7], how.prepare(how.open(arrays[7])))


def test_small_values_have_their_small_deviation_and_alike_ones_that_of_a_level() -> None:
    arrays = [
        np.stack([values / 65535, np.full((8, 8), 3.0)], -1) for values in (drawn((8, 8)), drawn((8, 8)))
    ]
    checked = check(set_of(arrays), Preprocessing(8, "F", bands=2))
    assert checked.std[0] == pytest.approx(np.std(arrays[0][..., 0]) / 255, rel=1e-5)
    assert checked.std[1] == 1 / 255


def test_memory_is_counted_in_bytes() -> None:
    pictures, how = set_of([drawn((8, 8)) for _ in range(4)]), Preprocessing(8, "F", bands=1)
    assert check(pictures, how, memory=4 * 64 * 4).prepared is not None
    assert check(pictures, how, memory=4 * 64 * 4 - 1).prepared is None


def test_a_cache_gives_the_same_values(tmp_path: Path) -> None:
    pictures, how = set_of([drawn((8, 8, 5), seed=seed) for seed in range(5)]), Preprocessing(8, "F", bands=5)
    plain = check(pictures, how)
    first, second = (check(pictures, how, cache=tmp_path) for _ in range(2))
    assert plain.prepared is not None
    for kept in (first, second):
        assert kept.prepared is not None and torch.equal(kept.prepared, plain.prepared)
        assert (kept.mean, kept.std) == (plain.mean, plain.std)
    assert len(list(tmp_path.glob("*.prepared"))) == 1


@pytest.mark.parametrize(
    "augment", [None, SETS["light"], Augment(crop=2, flip=True), Augment(area=(0.5, 1.0))]
)
def test_batches_are_the_same_from_memory_and_files_with_any_workers(augment: Augment | None) -> None:
    pictures, how = (
        set_of([drawn((16, 16, 5), seed=seed) for seed in range(20)]),
        Preprocessing(16, "F", bands=5),
    )
    prepared = check(pictures, how).prepared
    assert prepared is not None
    before = prepared.clone()
    made = []
    for workers, ready in ((0, None), (2, None), (0, prepared), (2, prepared)):
        loader = Loader(
            pictures, how, batch=6, seed=3, augment=augment, shuffle=True, workers=workers, prepared=ready
        )
        made.append(torch.cat([batch.pictures for batch in loader.batches(1)]))
    assert made[0].dtype == torch.float32 and torch.equal(made[0], made[1])
    assert torch.equal(made[2], made[3]) and torch.equal(prepared, before)
    if augment is None or augment.area is None:  # otherwise the part is cut after or before resizing
        assert torch.equal(made[0], made[2])
    assert bool((made[0] != made[0].round()).any())


def test_geometry_moves_floats_as_it_moves_bytes() -> None:
    values = torch.from_numpy(drawn((4, 3, 20, 20), np.uint8))
    numbers = np.random.default_rng(0).random((4, WORDS))
    augment = Augment(crop=2, flip=True, rotate=10, shift=0.1, scale=0.1, fill=7)
    floats = values.float()
    before = floats.clone()
    made = augment.prepared(floats, numbers)
    assert torch.equal(floats, before)
    assert (made - augment.prepared(values, numbers)).abs().max() <= 0.5 + 1e-3


@pytest.mark.parametrize("name", ["photo", "randaugment", "autoaugment"])
def test_changes_of_colours_are_refused_with_what_to_do(name: str) -> None:
    pictures, how = set_of([drawn((8, 8, 5))] * 4), Preprocessing(8, "F", bands=5)
    with pytest.raises(ArgumentError, match="--augment light"):
        Loader(pictures, how, batch=2, seed=0, augment=SETS[name])
    with pytest.raises(ArgumentError, match="--augment light"):
        Augment(erasing=1.0)(torch.zeros(5, 8, 8), how)


def test_arrays_are_pictures_where_they_are_asked_for(tmp_path: Path) -> None:
    for name in ("a/1.npy", "a/2.tif", "b/3.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.key for p in read_data(tmp_path, deep=True).parts["all"].pictures] == [
        "a/1.npy",
        "a/2.tif",
        "b/3.npy",
    ]
    assert list_pictures([tmp_path]) == [tmp_path / "a/2.tif"]
    assert len(list_pictures([tmp_path], deep=True)) == 3
    (tmp_path / "a/2.tif").unlink()
    with pytest.raises(DataError, match="--deep reads"):
        read_data(tmp_path)


def test_bands_are_shown_stretched() -> None:
    values = drawn((20, 20, 5)).astype(np.float32) / 9 + 1000
    shown = stretched(values)
    assert shown.mode == "RGB" and np.asarray(shown).min() == 0 and np.asarray(shown).max() == 255
    grey = stretched(values[..., :2])
    assert grey.mode == "L" and thumbnail(grey).startswith("data:image/png")
    assert np.asarray(stretched(np.zeros((4, 4, 1), np.float32))).max() == 0
