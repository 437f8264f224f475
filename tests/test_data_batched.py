"""Batches changed at once: each picture as if alone, and as torchvision would change it."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from convarium.data import batched
from convarium.data.augment import Augment
from convarium.data.folders import Picture, PictureSet
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing

KEYS = [f"цифра/{number}" for number in range(150)]
EVERYTHING = Augment(area=(0.3, 1.0), crop=3, flip=True, rotate=20, shift=0.1, scale=0.2, color=0.4, fill=90)
LIGHT = Augment(rotate=10, shift=0.08, scale=0.1)
AUGMENTS = [
    *(LIGHT, Augment(crop=4, flip=True), Augment(area=(0.2, 0.9)), Augment(color=0.5), EVERYTHING),
    *(Augment(randaugment=(3, 7.5), erasing=0.6, fill=128), Augment(autoaugment=True)),
]


@pytest.fixture(params=["digit", "checkerboard"])
def picture(request: pytest.FixtureRequest) -> torch.Tensor:
    """A handwritten digit or black and white squares: uint8 (1, 28, 28)."""
    if request.param == "checkerboard":
        rows, columns = torch.meshgrid(torch.arange(28), torch.arange(28), indexing="ij")
        return (255 * ((rows // 4 + columns // 4) % 2)).to(torch.uint8)[None]
    datasets = pytest.importorskip("sklearn.datasets")
    digit = torch.from_numpy(datasets.load_digits().images[3] * 15.9).to(torch.uint8)
    return F.pad(F.resize(digit[None], [20, 20]), [4])


def furthest(first: torch.Tensor, second: torch.Tensor) -> float:
    assert first.shape == second.shape
    return (first.double() - second.double()).abs().max().item()


def loader(prepared: torch.Tensor, augment: Augment, **options: int) -> Loader:
    blank = np.zeros((1, 1), np.uint8)
    pictures = PictureSet(("a",), tuple(Picture(key, blank, 0) for key in KEYS))
    mode = "RGB" if prepared.shape[1] == 3 else "L"
    how = Preprocessing(prepared.shape[-1], mode)
    return Loader(pictures, how, seed=4, augment=augment, shuffle=True, prepared=prepared, **options)


def made(prepared: torch.Tensor, augment: Augment, **options: int) -> torch.Tensor:
    """What one epoch gives, in the order of the set."""
    out = torch.zeros_like(prepared)
    for batch in loader(prepared, augment, **options).batches(2):
        out[batch.index] = batch.pictures
    return out


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 31, 31)])
def test_a_picture_is_the_same_to_the_bit_in_any_company(augment: Augment, shape: tuple[int, ...]) -> None:
    prepared = torch.randint(0, 256, (len(KEYS), *shape), dtype=torch.uint8)
    alone = made(prepared, augment, batch=1)
    assert not torch.equal(alone, prepared)
    assert torch.equal(made(prepared, augment, batch=7), alone)
    assert torch.equal(made(prepared, augment, batch=128), alone)
    # One row of the numbers serves the single picture too.
    numbers = batched.fractions(4, 2, KEYS)
    how = Preprocessing(shape[-1], "RGB" if shape[0] == 3 else "L")
    assert torch.equal(augment(prepared[5], how, numbers[5]), alone[5])
    # Neither its place nor its neighbours count.
    backwards = augment.prepared(prepared.flip(0)[:60], numbers[::-1][:60].copy())
    assert torch.equal(backwards.flip(0), alone[-60:])


def test_workers_and_threads_do_not_count() -> None:
    prepared = torch.randint(0, 256, (len(KEYS), 3, 32, 32), dtype=torch.uint8)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = made(prepared, EVERYTHING, batch=1)
        torch.set_num_threads(3)
        assert torch.equal(made(prepared, EVERYTHING, batch=128), alone)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(made(prepared, EVERYTHING, batch=64, workers=2), alone)


def test_large_batches_are_changed_in_pieces_and_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = torch.randint(0, 256, (len(KEYS), 3, 16, 16), dtype=torch.uint8)
    numbers = batched.fractions(0, 0, KEYS)
    whole = EVERYTHING.prepared(prepared, numbers)
    monkeypatch.setattr(batched, "_PIECE", 7 * 3 * 16 * 16)
    assert [piece.stop for piece in batched.pieces(prepared)][:2] == [7, 14]
    assert torch.equal(EVERYTHING.prepared(prepared, numbers), whole)


def test_no_picture_is_a_batch_too() -> None:
    none = torch.zeros(0, 3, 16, 16, dtype=torch.uint8)
    assert EVERYTHING.prepared(none, batched.fractions(0, 0, [])).shape == none.shape


def test_the_prepared_pictures_are_not_changed() -> None:
    prepared = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    before = prepared.clone()
    for augment in AUGMENTS:
        augment.prepared(prepared, batched.fractions(0, 0, KEYS[:9]))
    assert torch.equal(prepared, before)


def test_the_numbers_follow_the_stated_rule() -> None:
    text = "7\x003\x00цифра/1".encode()
    digest = hashlib.blake2b(text).digest() + hashlib.blake2b(text, salt=b"\1").digest()
    words = [int.from_bytes(digest[at : at + 4], "little") / 2**32 for at in range(0, 128, 4)]
    assert batched.fractions(7, 3, KEYS)[1].tolist() == words


def test_the_numbers_are_pinned_so_that_old_runs_can_be_resumed() -> None:
    assert batched.NAMES.index("turn") == 3
    assert batched.NAMES.index("left") == 13
    assert batched.NAMES.index("change0") == 20
    row = batched.fractions(0, 0, ["a/1.png"])[0]
    assert row[3:5].tolist() == [0.39185845223255455, 0.8089042140636593]
    assert row[[13, 20]].tolist() == [0.1877998961135745, 0.9017444842029363]


def test_the_numbers_are_uniform_and_unrelated() -> None:
    numbers = batched.fractions(0, 0, [str(key) for key in range(20_000)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.01
    assert np.abs(numbers.var(0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(numbers.T) - np.eye(batched.WORDS)).max() < 0.04


@pytest.mark.parametrize("fill", [0, 200])
@pytest.mark.parametrize(
    ("angle", "right", "down", "scale"),
    [(0, 0, 0, 1), (10, 0, 0, 1), (-33.3, 0, 0, 1), (0, 2.25, -1.5, 1), (0, 0, 0, 0.8), (170, -3, 4.4, 1.3)],
)
def test_moving_agrees_with_torchvision(
    picture: torch.Tensor, angle: float, right: float, down: float, scale: float, fill: int
) -> None:
    one = (np.array([value], float) for value in (angle, right, down, scale))
    angles, rights, downs, scales = one
    got = batched.move(picture[None], angles, (rights, downs), scales, fill)[0]
    moved = F.affine(
        picture.float() - fill,
        angle=angle,
        translate=[right, down],
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    assert furthest(got, moved + fill) < 0.51
    if (angle, right, down, scale) == (0, 0, 0, 1):
        assert torch.equal(got, picture)


@pytest.mark.parametrize("place", [(0, 0, 28, 28), (3, 5, 20, 11), (27, 0, 1, 28), (10, 9, 14, 14)])
def test_cutting_agrees_with_torchvision(picture: torch.Tensor, place: tuple[int, int, int, int]) -> None:
    got = batched.cut(picture[None], [place])[0]
    assert furthest(got, F.resized_crop(picture.float(), *place, [28, 28])) < 0.51


def test_windows_and_mirrors_agree_with_torchvision(picture: torch.Tensor) -> None:
    batch = torch.stack([picture, 255 - picture, picture // 2])
    down, right = np.array([0, 4, 8]), np.array([8, 4, 1])
    got = batched.crop(batch, down, right, 4, 33)
    for one, source, top, left in zip(got, batch, down.tolist(), right.tolist(), strict=True):
        assert torch.equal(one, F.crop(F.pad(source, [4], fill=33), top, left, 28, 28))
    got = batched.mirror(batch, np.array([True, False, True]))
    assert torch.equal(got, torch.stack([F.hflip(batch[0]), batch[1], F.hflip(batch[2])]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factors", [(1.4, 1, 1), (1, 0.5, 1), (1, 1.5, 1), (1, 1, 0.3), (0.7, 1.3, 1.6)])
def test_colour_agrees_with_torchvision(channels: int, factors: tuple[float, float, float]) -> None:
    batch = torch.randint(0, 256, (4, channels, 13, 13), dtype=torch.uint8)
    got = batched.colour(batch, *(np.full(4, factor) for factor in factors))
    want = batch.double() / 255
    for change, factor in zip(
        (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation), factors, strict=True
    ):
        want = change(want, factor)
    assert furthest(got, want * 255) < 1.51  # a half of rounding, and the mean in whole levels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.9])
def test_sharpness_agrees_with_torchvision(channels: int, factor: float) -> None:
    batch = torch.randint(0, 256, (4, channels, 13, 11), dtype=torch.uint8)
    got = batched.sharpness(batch, np.full(4, factor))
    assert furthest(got, F.adjust_sharpness(batch, factor)) <= 1
    if factor == 1:
        assert torch.equal(got, batch)


def test_a_picture_of_two_rows_is_neither_blurred_nor_sharpened() -> None:
    flat = torch.randint(0, 256, (2, 3, 2, 9), dtype=torch.uint8)
    assert torch.equal(batched.sharpness(flat, np.zeros(2)), flat)


def test_warping_agrees_with_torchvision_on_shears(picture: torch.Tensor) -> None:
    one, nought = np.ones(1), np.zeros(1)
    got = batched.warp(picture[None], ((one, 0.2 * one), (nought, one)), (nought, nought), 0)[0]
    want = F.affine(
        picture.float(),
        angle=0.0,
        translate=[0, 0],
        scale=1.0,
        shear=[math.degrees(math.atan(0.2)), 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    assert furthest(got, want) < 0.51


def test_erasing_covers_the_stated_share_with_uniform_noise() -> None:
    grey = torch.full((len(KEYS), 3, 60, 60), 7, dtype=torch.uint8)
    numbers = batched.fractions(1, 0, KEYS)
    chosen = batched.columns(numbers)["erased"] < 0.5
    got = batched.erase(grey, chosen, numbers)
    assert torch.equal(got[~chosen], grey[~chosen])
    assert (grey == 7).all()
    seen = []
    for picture in got[chosen]:
        changed = (picture != 7).any(0)
        rows, columns = changed.any(1).nonzero().flatten(), changed.any(0).nonzero().flatten()
        high, wide = len(rows), len(columns)
        assert rows[-1] - rows[0] + 1 == high
        assert 0.018 < high * wide / 3600 < 0.35
        assert 0.25 < wide / high < 4
        seen.append(picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].flatten())
    values = torch.cat(seen).double()
    assert values.mean().item() == pytest.approx(127.5, abs=1)
    assert values.std().item() == pytest.approx(256 / math.sqrt(12), abs=1)
    assert not torch.equal(seen[0][:9], seen[1][:9])


def test_factors_of_one_and_a_plain_fill_change_nothing() -> None:
    batch = torch.randint(0, 256, (4, 3, 13, 13), dtype=torch.uint8)
    assert torch.equal(batched.colour(batch, np.ones(4), np.ones(4), np.ones(4)), batch)
    plain = torch.full((1, 3, 13, 13), 77, dtype=torch.uint8)
    got = Augment(crop=2, rotate=90, shift=0.5, scale=0.5, fill=77).prepared(
        plain, batched.fractions(0, 0, "a")
    )
    assert torch.equal(got, plain)


def test_parts_have_the_share_and_the_proportions_that_were_asked() -> None:
    shares = []
    for row in batched.fractions(0, 0, KEYS * 4).tolist():
        drawn = dict(zip(batched.NAMES, row, strict=False))
        top, left, high, wide = batched.rectangle((0.1, 1.0), 900, 1000, drawn)
        assert 0 <= top <= 900 - high
        assert 0 <= left <= 1000 - wide
        assert 0.745 < wide / high < 1.34
        shares.append(high * wide / 900_000)
        assert shares[-1] == pytest.approx(0.1 + 0.9 * drawn["share"], rel=0.01)
    assert min(shares) < 0.13
    assert max(shares) > 0.97


def test_a_part_of_a_panorama_is_the_largest_that_fits() -> None:
    drawn = {"share": 0.5, "shape": 0.5, "top": 0.0, "left": 0.99}
    assert batched.rectangle((1.0, 1.0), 90, 2000, drawn) == (0, math.floor(0.99 * 1881), 90, 120)
    assert batched.rectangle((1.0, 1.0), 2000, 90, drawn) == (0, 0, 120, 90)
    assert batched.rectangle((0.001, 0.001), 1, 1, drawn) == (0, 0, 1, 1)


def test_decoded_and_prepared_pictures_are_changed_alike() -> None:
    source = np.random.default_rng(0).integers(0, 256, (len(KEYS), 20, 26, 3), dtype=np.uint8)
    pictures = PictureSet(("a",), tuple(map(Picture, KEYS, source, [0] * len(KEYS))))
    how = Preprocessing(16)
    prepared = torch.stack([how.prepare(how.open(picture.source)) for picture in pictures.pictures])
    augment = Augment(crop=2, flip=True, rotate=20, color=0.3)
    decoded, kept = (
        Loader(pictures, how, batch=50, seed=4, augment=augment, prepared=known).batches(0)
        for known in (None, prepared)
    )
    for one, other in zip(decoded, kept, strict=True):
        assert torch.equal(one.pictures, other.pictures)
