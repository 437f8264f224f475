"""Batches of random parts, from JPEG files and from larger prepared squares, and of classes equally often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium.data.augment import Augment
from convarium.data.batched import fractions
from convarium.data.folders import Picture, PictureSet, read_data
from convarium.data.loader import Loader, check
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError
from tests.test_data_loader import by_key, same

PREPROCESSING = Preprocessing(16)
JPEGS = Augment(area=(0.1, 1.0), flip=True)


@pytest.fixture
def photos(tmp_path: Path) -> PictureSet:
    """12 JPEG files in 2 classes, 8 of the one and 4 of the other."""
    random = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "photos" / ("most" if number < 8 else "few")
        folder.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        Image.fromarray(values).resize((120 + 8 * number, 90), 2).save(folder / f"{number}.jpg")
    return read_data(tmp_path / "photos").parts["all"]


@pytest.mark.parametrize("augment", [JPEGS, Augment(area=(0.1, 1.0), flip=True, crop=2, color=0.2)])
def test_parts_of_jpegs_depend_on_seed_epoch_and_key_only(photos: PictureSet, augment: Augment) -> None:
    def made(batch: int, workers: int, some: PictureSet = photos) -> dict[str, torch.Tensor]:
        loader = Loader(
            some, PREPROCESSING, batch=batch, seed=3, augment=augment, shuffle=True, workers=workers
        )
        return by_key(some, list(loader.batches(1)))

    first = made(1, 0)
    other = PictureSet(photos.classes, tuple(reversed(photos.pictures[3:])))
    for again in (made(5, 0), made(5, 2), made(12, 1), made(4, 2, other)):
        assert all(torch.equal(first[key], picture) for key, picture in again.items())


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize(("size", "nearly"), [(64, 1), (32, 12)])  # at 32 some are reduced while decoded
def test_a_part_of_a_jpeg_is_the_part_that_augment_cuts(
    photos: PictureSet, mirror: bool, size: int, nearly: float
) -> None:
    how = Preprocessing(size)
    augment = Augment(area=(0.3, 1.0), flip=mirror)
    for batch in Loader(photos, how, batch=3, seed=0, augment=augment).batches(0):
        for got, position in zip(batch.pictures, batch.index.tolist(), strict=True):
            picture = photos.pictures[position]
            numbers = fractions(0, 0, [picture.key])[0]
            wanted = augment(how.open(picture.source), how, numbers)
            assert (got.float() - wanted.float()).abs().mean() < nearly
            assert (got.float() - wanted.flip(-1).float()).abs().mean() > 2 * nearly


def test_the_part_may_be_the_whole(photos: PictureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convarium.data.crops.simplejpeg", None)  # Pillow's arrays may not be written to
    how = Preprocessing(90, fit="squash")
    first = PictureSet(photos.classes, tuple(p for p in photos.pictures if p.key == "most/0.jpg"))
    (batch,) = Loader(first, how, batch=1, seed=0, augment=Augment(area=(1.0, 1.0))).batches(0)
    assert (batch.pictures[0].int() - how.prepare(how.open(first.pictures[0].source)).int()).abs().max() <= 1


def test_a_cut_jpeg_is_named_by_workers_too(photos: PictureSet) -> None:
    path = photos.pictures[4].source
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="can no longer be read: cut short"):
        list(Loader(photos, PREPROCESSING, batch=4, seed=0, augment=JPEGS, workers=2).batches(0))


def test_larger_prepared_squares_are_cut_from_or_give_their_middles(photos: PictureSet) -> None:
    how = Preprocessing(16, resize=24)
    wide, usual = check(photos, how, margin=True), check(photos, how)
    assert wide.prepared is not None and usual.prepared is not None
    assert wide.prepared.shape[-2:] == (24, 24)
    assert (wide.mean, wide.std) == (usual.mean, usual.std)

    def given(prepared: torch.Tensor, augment: Augment | None, workers: int = 0) -> torch.Tensor:
        loader = Loader(photos, how, batch=5, seed=0, augment=augment, prepared=prepared, workers=workers)
        return torch.cat([batch.pictures for batch in loader.batches(0)])

    plain = given(wide.prepared, None)
    assert torch.equal(plain, usual.prepared)
    assert plain.is_contiguous()
    changed = Augment(crop=2, flip=True, color=0.2)
    assert torch.equal(given(wide.prepared, changed), given(usual.prepared, changed))
    parts = given(wide.prepared, JPEGS)
    assert parts.shape == (12, 3, 16, 16)
    assert torch.equal(parts, given(wide.prepared, JPEGS, workers=2))
    whole = given(wide.prepared, Augment(area=(1.0, 1.0)))
    squashed = torch.nn.functional.interpolate(wide.prepared, (16, 16), mode="bilinear", antialias=True)
    assert torch.equal(whole, squashed)


def test_balance_gives_every_class_equally_often(photos: PictureSet) -> None:
    loader = Loader(photos, PREPROCESSING, batch=5, seed=0, shuffle=True, balance=True)
    labels = torch.tensor([picture.label for picture in photos.pictures])
    for epoch in range(3):
        order = loader.order(epoch)
        assert len(order) == 12 and len(loader) == 3
        assert labels[order].bincount().tolist() == [6, 6]
        often = order.bincount(minlength=12)
        few = labels == photos.classes.index("few")
        assert sorted(often[few].tolist()) == [1, 1, 2, 2]  # all before any comes again
        assert often[~few].max() == 1
    assert not torch.equal(loader.order(0), loader.order(1))
    assert torch.equal(loader.order(0), loader.order(0))


def test_balance_does_not_depend_on_how_the_set_is_listed(photos: PictureSet) -> None:
    backwards = PictureSet(photos.classes, tuple(reversed(photos.pictures)))
    first, second = (
        [
            some.pictures[position].key
            for position in Loader(some, PREPROCESSING, batch=5, seed=0, shuffle=True, balance=True)
            .order(0)
            .tolist()
        ]
        for some in (photos, backwards)
    )
    assert first == second


def test_what_cannot_be_shared_out_goes_to_some_class_at_random() -> None:
    blank = np.zeros((4, 4), np.uint8)
    some = PictureSet(("a", "b", "c"), tuple(Picture(str(n), blank, min(n, 2)) for n in range(8)))
    loader = Loader(some, Preprocessing(4, "L"), batch=2, seed=0, shuffle=True, balance=True)
    labels = torch.tensor([picture.label for picture in some.pictures])
    counts = [tuple(labels[loader.order(epoch)].bincount().tolist()) for epoch in range(30)]
    assert set(counts) == {(2, 3, 3), (3, 2, 3), (3, 3, 2)}


def test_a_picture_that_comes_again_is_changed_in_another_way(photos: PictureSet) -> None:
    loader = Loader(
        photos, PREPROCESSING, batch=5, seed=0, augment=JPEGS, shuffle=True, balance=True, workers=2
    )
    versions: dict[int, list[torch.Tensor]] = {}
    for batch in loader.batches(0):
        for picture, position in zip(batch.pictures, batch.index.tolist(), strict=True):
            versions.setdefault(position, []).append(picture)
    twice = [found for found in versions.values() if len(found) > 1]
    assert twice and not any(torch.equal(first, second) for first, second in twice)
    later = list(loader.batches(0, 1))
    assert same(later, list(loader.batches(0))[1:])


@pytest.mark.parametrize("fields", [{"shuffle": False}, {"shuffle": True}])
def test_balance_needs_shuffling_and_labels(photos: PictureSet, fields: dict[str, bool]) -> None:
    unknown = (Picture("x", np.zeros((4, 4), np.uint8), None),) if fields["shuffle"] else ()
    some = PictureSet(photos.classes, photos.pictures + unknown)
    with pytest.raises(ArgumentError, match="balance is True"):
        Loader(some, PREPROCESSING, batch=2, seed=0, balance=True, **fields)
