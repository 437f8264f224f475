"""Checking pictures, and batches that depend on nothing but seed, epoch and keys."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from convarium.data.augment import Augment
from convarium.data.folders import Picture, PictureSet, read_data
from convarium.data.loader import Batch, Checked, Loader, check
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError

PREPROCESSING = Preprocessing(16)
AUGMENT = Augment(crop=2, flip=True, rotate=10, color=0.3)


@pytest.fixture
def pictures(tmp_path: Path) -> PictureSet:
    """23 small pictures in 3 classes, as files."""
    random = np.random.default_rng(0)
    for number in range(23):
        folder = tmp_path / "data" / f"класс {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        values = random.integers(0, 256, (20 + number, 31, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return read_data(tmp_path / "data").parts["all"]


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, two in zip(first, second, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def by_key(pictures: PictureSet, batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {
        pictures.pictures[position].key: picture
        for batch in batches
        for picture, position in zip(batch.pictures, batch.index.tolist(), strict=True)
    }


def test_check_lists_the_damaged_and_keeps_the_rest_in_order(pictures: PictureSet) -> None:
    third, last = pictures.pictures[2], pictures.pictures[-1]
    third.source.write_bytes(b"")
    last.source.write_bytes(last.source.read_bytes()[:200])
    told: list[tuple[int, int]] = []
    checked = check(pictures, PREPROCESSING, progress=lambda done, every: told.append((done, every)))
    assert checked.damaged[0] == (third.key, "empty file (0 bytes)")
    assert checked.damaged[1][0] == last.key
    assert checked.damaged[1][1].startswith("cut short")
    assert list(checked.good.pictures) == [p for p in pictures.pictures if p not in (third, last)]
    assert checked.prepared is not None
    for picture, prepared in zip(checked.good.pictures, checked.prepared, strict=True):
        assert torch.equal(prepared, PREPROCESSING.prepare(PREPROCESSING.open(picture.source)))
    assert told[-1] == (23, 23)
    assert told == sorted(told)


def test_mean_and_std_are_those_of_the_prepared_pictures(pictures: PictureSet) -> None:
    checked = check(pictures, PREPROCESSING)
    assert checked.prepared is not None
    values = checked.prepared.double() / 255
    assert checked.mean == pytest.approx(values.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert checked.std == pytest.approx(values.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_check_does_not_depend_on_threads_or_memory(pictures: PictureSet) -> None:
    def figures(checked: Checked) -> tuple[object, ...]:
        return checked.good, checked.damaged, checked.mean, checked.std

    one, four = check(pictures, PREPROCESSING, threads=1), check(pictures, PREPROCESSING, threads=4)
    none = check(pictures, PREPROCESSING, memory=23 * 3 * 16 * 16 - 1)
    assert figures(one) == figures(four) == figures(none)
    assert none.prepared is None
    assert torch.equal(one.prepared, four.prepared)


def test_pictures_of_one_colour_have_a_std_to_divide_by() -> None:
    flat = PictureSet(("a",), (Picture("a/1", np.full((4, 4), 51, np.uint8), 0),))
    checked = check(flat, Preprocessing(4, "L"))
    assert checked.mean == (0.2,)
    assert checked.std == (1 / 255,)


def test_all_damaged_is_an_answer_not_a_crash(pictures: PictureSet) -> None:
    for picture in pictures.pictures:
        picture.source.unlink()
    checked = check(pictures, PREPROCESSING)
    assert len(checked.good) == 0
    assert {reason for _, reason in checked.damaged} == {"no such file"}


def test_an_interrupt_ends_the_check(pictures: PictureSet) -> None:
    def interrupt(done: int, every: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        check(pictures, PREPROCESSING, progress=interrupt)
    assert threading.active_count() == before


def test_every_picture_comes_once_an_epoch_with_its_label(pictures: PictureSet) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=5, seed=0, shuffle=True)
    batches = list(loader.batches(0))
    assert len(loader) == len(batches) == 5
    assert [len(batch.labels) for batch in batches] == [5, 5, 5, 5, 3]
    assert batches[0].pictures.dtype == torch.uint8
    assert batches[0].pictures.shape == (5, 3, 16, 16)
    index = torch.cat([batch.index for batch in batches])
    assert sorted(index.tolist()) == list(range(23))
    labels = torch.tensor([picture.label for picture in pictures.pictures])
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels[index])


def test_drop_last_leaves_out_the_rest(pictures: PictureSet) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=5, seed=0, drop_last=True)
    assert [len(batch.labels) for batch in loader.batches(0)] == [5] * len(loader) == [5] * 4


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_workers_make_no_difference(pictures: PictureSet, kept: bool, augment: Augment | None) -> None:
    prepared = check(pictures, PREPROCESSING).prepared if kept else None
    alone, together = (
        list(
            Loader(
                pictures,
                PREPROCESSING,
                batch=4,
                seed=3,
                augment=augment,
                shuffle=True,
                workers=n,
                prepared=prepared,
            ).batches(1)
        )
        for n in (0, 2)
    )
    assert same(alone, together)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", [0, 3, 6, 7])
def test_starting_later_is_the_same_as_skipping(pictures: PictureSet, workers: int, start: int) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=4, seed=0, augment=AUGMENT, shuffle=True, workers=workers)
    alone = Loader(pictures, PREPROCESSING, batch=4, seed=0, augment=AUGMENT, shuffle=True)
    assert same(list(loader.batches(2, start)), list(alone.batches(2))[start:])


def test_skipped_pictures_are_not_decoded(pictures: PictureSet) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=4, seed=0)
    for picture in pictures.pictures[:8]:
        picture.source.unlink()
    assert len(list(loader.batches(0, 2))) == 4


def test_augmentation_depends_on_seed_epoch_and_key_only(pictures: PictureSet) -> None:
    def made(
        batch: int = 4, seed: int = 0, epoch: int = 0, shuffle: bool = True, some: PictureSet = pictures
    ):
        loader = Loader(some, PREPROCESSING, batch=batch, seed=seed, augment=AUGMENT, shuffle=shuffle)
        return by_key(some, list(loader.batches(epoch)))

    first = made()
    other = PictureSet(pictures.classes, tuple(reversed(pictures.pictures[3:])))
    for again in (made(batch=7), made(shuffle=False), made(some=other)):
        assert all(torch.equal(first[key], picture) for key, picture in again.items())
    for changed in (made(seed=1), made(epoch=1)):
        assert not any(torch.equal(first[key], picture) for key, picture in changed.items())


def test_order_depends_on_seed_epoch_and_the_set_of_keys(pictures: PictureSet) -> None:
    def order(some: PictureSet = pictures, seed: int = 0, epoch: int = 0) -> list[str]:
        loader = Loader(some, PREPROCESSING, batch=4, seed=seed, shuffle=True)
        return [some.pictures[position].key for position in loader.order(epoch).tolist()]

    backwards = PictureSet(pictures.classes, tuple(reversed(pictures.pictures)))
    assert order() == order(backwards)
    assert len({tuple(order()), tuple(order(seed=1)), tuple(order(epoch=1))}) == 3


def test_order_is_pinned_so_that_old_runs_can_be_resumed() -> None:
    some = PictureSet(("a",), tuple(Picture(f"a/{n}", np.zeros((4, 4), np.uint8), 0) for n in range(6)))
    loader = Loader(some, Preprocessing(4, "L"), batch=2, seed=5, shuffle=True)
    assert [loader.order(epoch).tolist() for epoch in (0, 1)] == [[4, 5, 0, 3, 2, 1], [0, 5, 2, 4, 1, 3]]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_callers_generator_and_threads_are_untouched(pictures: PictureSet, workers: int) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=4, seed=0, augment=AUGMENT, shuffle=True, workers=workers)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for _ in loader.batches(0):
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_the_generator_is_given_back_after_an_error(pictures: PictureSet) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=4, seed=0, augment=AUGMENT)
    pictures.pictures[1].source.unlink()
    state = torch.get_rng_state()
    with pytest.raises(DataError):
        list(loader.batches(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_prepared_pictures_need_no_file_and_no_worker(pictures: PictureSet) -> None:
    checked = check(pictures, PREPROCESSING)
    for picture in pictures.pictures:
        picture.source.unlink()
    loader = Loader(checked.good, PREPROCESSING, batch=4, seed=0, workers=8, prepared=checked.prepared)
    assert loader.workers == 0
    assert torch.equal(torch.cat([batch.pictures for batch in loader.batches(0)]), checked.prepared)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_vanished_is_named_without_a_traceback(pictures: PictureSet, workers: int) -> None:
    loader = Loader(pictures, PREPROCESSING, batch=4, seed=0, workers=workers)
    gone = pictures.pictures[9]
    gone.source.unlink()
    with pytest.raises(DataError) as caught:
        list(loader.batches(0))
    assert str(caught.value).startswith(f"{gone.key} can no longer be read: no such file; ")
    assert "Traceback" not in str(caught.value)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_what_its_threads_take_is_counted(pictures: PictureSet) -> None:
    loader = Loader(pictures, Preprocessing(16), batch=4, seed=0, workers=2)
    assert loader.spent == 0
    list(loader.batches(0))
    once = loader.spent
    list(loader.batches(1))
    assert 0 < once < loader.spent


def test_closing_early_ends_the_workers(pictures: PictureSet) -> None:
    before = threading.active_count()
    batches = Loader(pictures, PREPROCESSING, batch=2, seed=0, augment=AUGMENT, workers=2).batches(0)
    next(batches)
    assert threading.active_count() == before + 2
    batches.close()
    assert threading.active_count() == before


def test_batches_are_made_ahead_but_not_all(pictures: PictureSet, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    whole = Preprocessing.open
    monkeypatch.setattr(
        Preprocessing, "open", lambda self, source: opened.append(source) or whole(self, source)
    )
    many = PictureSet(("a",), tuple(Picture(f"{n:03}", np.zeros((4, 4), np.uint8), 0) for n in range(400)))
    batches = Loader(many, Preprocessing(4, "L"), batch=40, seed=0, workers=2).batches(0)
    next(batches)
    deadline = time.monotonic() + 20
    while len(opened) < 120 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    batches.close()
    assert 120 <= len(opened) <= 160


def test_workers_leave_torchs_threads_to_the_network(pictures: PictureSet) -> None:
    before = torch.get_num_threads()
    later: list[int] = []
    torch.set_num_threads(3)
    try:
        loader = Loader(pictures, PREPROCESSING, batch=2, seed=0, augment=AUGMENT, workers=2)
        for _ in loader.batches(0):
            assert torch.get_num_threads() == 3
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
    finally:
        torch.set_num_threads(before)
    assert later == [3]


@pytest.mark.parametrize(
    "fields",
    [
        {"batch": 0},
        {"workers": -1},
        {"prepared": torch.zeros(1, 3, 16, 16, dtype=torch.uint8)},
        {"prepared": torch.zeros(23, 3, 15, 15, dtype=torch.uint8)},
        {"prepared": torch.zeros(23, 3, 17, 17, dtype=torch.uint8)},
        {"prepared": torch.zeros(23, 1, 16, 16, dtype=torch.uint8)},
        {"prepared": torch.zeros(23, 3, 16, 16)},
    ],
)
def test_loader_refuses_what_it_cannot_do(pictures: PictureSet, fields: dict[str, object]) -> None:
    with pytest.raises(ArgumentError):
        Loader(pictures, PREPROCESSING, **{"batch": 2, "seed": 0, **fields})
