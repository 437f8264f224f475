"""Pictures given out in batches that any machine would make alike.

The order depends only on (seed, epoch, the set of keys); each augmentation only on (seed, epoch, key).
Neither depends on the number of workers, the size of a batch, or where in the epoch one begins.
"""

from __future__ import annotations

import hashlib
import math
import os
import signal
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from convarium.data.augment import Augment
from convarium.data.batched import fractions
from convarium.data.checking import Checked, check
from convarium.data.folders import Picture, PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, PictureError

__all__ = ["Batch", "Checked", "Loader", "check"]

_STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


class Batch(NamedTuple):
    """uint8 (N, C, H, W); int64 (N,); int64 (N,): positions in the `PictureSet`."""

    pictures: Tensor
    labels: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class Loader:
    """Batches of one picture set, epoch after epoch.

    Args:
        pictures: with labels; a picture without one gets label -1.
        preprocessing: brings each picture to size.
        batch: pictures in a batch.
        seed: of order and augmentation.
        augment: None gives every picture as it is prepared.
        shuffle: False gives the order of the set.
        workers: processes that decode and augment; 0 does it in this one. Not used where `prepared` is
            given and nothing is augmented, which is only picking rows.
        prepared: uint8 (N, C, size, size) from `check`, aligned with `pictures`.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(
        self,
        pictures: PictureSet,
        preprocessing: Preprocessing,
        *,
        batch: int,
        seed: int,
        augment: Augment | None = None,
        shuffle: bool = False,
        workers: int = 0,
        prepared: Tensor | None = None,
        drop_last: bool = False,
    ) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise ArgumentError(f"batch is {batch!r}; want a whole number of at least 1")
        if not isinstance(workers, int) or workers < 0:
            raise ArgumentError(f"workers is {workers!r}; want a whole number of at least 0")
        if prepared is not None and len(prepared) != len(pictures):
            raise ArgumentError(
                f"{len(prepared)} prepared pictures for a set of {len(pictures)}; want as many"
            )
        self.pictures = pictures
        self.batch = batch
        self.seed = seed
        self.shuffle = shuffle
        self.workers = workers if prepared is None or augment is not None else 0
        self.drop_last = drop_last
        labels = [-1 if picture.label is None else picture.label for picture in pictures.pictures]
        self._labels = torch.tensor(labels, dtype=torch.int64)
        self._source = _Source(pictures.pictures, preprocessing, augment, prepared, seed)
        # Shuffling starts from the sorted keys, so that it does not depend on how the set was listed.
        keys = [picture.key for picture in pictures.pictures]
        self._sorted = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)

    def __len__(self) -> int:
        number = len(self.pictures) / self.batch
        return math.floor(number) if self.drop_last else math.ceil(number)

    def order(self, epoch: int) -> Tensor:
        """Positions of the pictures in the order of this epoch: int64 (N,)."""
        if not self.shuffle:
            return torch.arange(len(self.pictures))
        generator = torch.Generator().manual_seed(_number(self.seed, epoch))
        return self._sorted[torch.randperm(len(self.pictures), generator=generator)]

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """The batches of one epoch.

        Args:
            epoch: any whole number; each has its own order and augmentation.
            start: the first batches that are skipped, without being decoded.

        Raises:
            DataError: a picture can no longer be read; names it.
        """
        chosen = list(self.order(epoch).split(self.batch))[start : len(self)]
        many = self.workers > 0 and len(chosen) > 0
        made = self._by_workers(chosen, epoch) if many else self._by_itself(chosen, epoch)
        with closing(made):
            for index, pictures in zip(chosen, made, strict=True):
                yield Batch(pictures, self._labels[index], index)

    def _by_itself(self, chosen: list[Tensor], epoch: int) -> Generator[Tensor]:
        """The pictures of each batch, made by this process."""
        for index in chosen:
            yield self._source.batch(index, epoch)

    def _by_workers(self, chosen: list[Tensor], epoch: int) -> Generator[Tensor]:
        """The pictures of each batch, made by other processes in the same order."""
        loader = DataLoader(
            _Work(self._source, chosen, epoch),
            batch_size=None,
            num_workers=min(self.workers, len(chosen)),
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(0),  # or the caller's generator would be drawn from
        )
        with _signals_held(), warnings.catch_warnings():
            # Python warns of forking beside threads; torch's workers touch none of the parent's.
            warnings.simplefilter("ignore", DeprecationWarning)
            running = iter(loader)
        try:
            for made in running:
                if isinstance(made, str):
                    raise DataError(made)
                yield made
        finally:
            running._shutdown_workers()  # type: ignore[attr-defined]


class _Source:
    """Makes the pictures of a batch, in whichever process."""

    def __init__(
        self,
        pictures: tuple[Picture, ...],
        preprocessing: Preprocessing,
        augment: Augment | None,
        prepared: Tensor | None,
        seed: int,
    ) -> None:
        self.pictures, self.preprocessing, self.augment = pictures, preprocessing, augment
        self.prepared, self.seed = prepared, seed

    def batch(self, index: Tensor, epoch: int) -> Tensor:
        """uint8 (N, C, size, size) of the pictures at these positions."""
        chosen = [self.pictures[position] for position in index.tolist()]
        if self.augment is None:
            return self._whole(chosen) if self.prepared is None else self.prepared[index]
        numbers = fractions(self.seed, epoch, (picture.key for picture in chosen))
        if self.prepared is not None:
            return self.augment.prepared(self.prepared[index], numbers)
        out = self._empty(len(chosen))
        for place, picture in enumerate(chosen):
            out[place] = self.augment.decoded(self._open(picture), self.preprocessing, numbers[place])
        return self.augment.after_area(out, numbers)

    def _whole(self, chosen: list[Picture]) -> Tensor:
        out = self._empty(len(chosen))
        for place, picture in enumerate(chosen):
            out[place] = self.preprocessing.prepare(self._open(picture))
        return out

    def _empty(self, number: int) -> Tensor:
        size = self.preprocessing.size
        return torch.empty(number, self.preprocessing.channels, size, size, dtype=torch.uint8)

    def _open(self, picture: Picture) -> Image.Image:
        try:
            return self.preprocessing.open(picture.source)
        except PictureError as error:
            raise DataError(
                f"{picture.key} can no longer be read: {error}; put it back, or start anew without it"
            ) from error


class _Work(Dataset[Tensor | str]):
    """One item is one batch. A mistake travels as text: torch would wrap it in a traceback."""

    def __init__(self, source: _Source, chosen: list[Tensor], epoch: int) -> None:
        self.source, self.chosen, self.epoch = source, chosen, epoch

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, number: int) -> Tensor | str:
        try:
            return self.source.batch(self.chosen[number], self.epoch)
        except DataError as error:
            return str(error)


def _number(seed: int, epoch: int) -> int:
    """A seed of 64 bits for the order of one epoch."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{epoch}\0".encode(), digest_size=8).digest(), "little")


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals wait while workers are born, so that none finds a worker with its parent's handlers."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_: int) -> None:
    """A worker computes on one thread, leaves signals to its parent, and dies with it."""
    torch.set_num_threads(1)
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    _die_with_parent()


def _die_with_parent() -> None:
    """Ask Linux for SIGKILL when the parent dies (PR_SET_PDEATHSIG = 1); elsewhere torch looks every 5 s."""
    import ctypes
    import sys

    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
