"""Pictures given out in batches that any machine would make alike.

The order depends only on (seed, epoch, the set of keys); each augmentation only on (seed, epoch, key).
Neither depends on the number of workers, the size of a batch, or where in the epoch one begins.

Workers are threads: decoders and resizers leave Python's lock, nothing has to be copied from one process to
another, and a few batches are made ahead while the network works on the one before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from convarium.data import crops
from convarium.data.augment import REFUSAL, Augment
from convarium.data.batched import NAMES, fractions, rectangle
from convarium.data.checking import Checked, check
from convarium.data.decode import read
from convarium.data.folders import Picture, PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, PictureError

__all__ = ["Batch", "Checked", "Loader", "check"]

_CHUNK = 16  # pictures that one worker makes at a time
_AHEAD = 2  # batches made while one is in use, at least


class Batch(NamedTuple):
    """uint8 (N, C, H, W), float32 for mode "F"; int64 (N,); int64 (N,): positions in the `PictureSet`.

    Where parts are cut at random and no more is changed than left and right, the channels of a pixel lie side by
    side (torch.channels_last), as the resizer gives them; otherwise the pictures are contiguous.
    """

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
        workers: threads that decode and augment; 0 does it in this one. Not used where `prepared` is given and
            nothing is augmented, which is only picking rows.
        prepared: (N, C, size, size) from `check`, aligned with `pictures`; or larger squares, which random
            parts are cut from, and otherwise their middles.
        drop_last: leave out a last batch that is not full.
        balance: give every class equally often in each epoch, which is as long as before. A class's pictures all
            come before one of them comes again, and then it is changed in another way.
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
        balance: bool = False,
    ) -> None:
        if not isinstance(batch, int) or batch < 1:
            raise ArgumentError(f"batch is {batch!r}; want a whole number of at least 1")
        if not isinstance(workers, int) or workers < 0:
            raise ArgumentError(f"workers is {workers!r}; want a whole number of at least 0")
        if augment is not None and augment.of_bytes and preprocessing.deep:
            raise ArgumentError(REFUSAL)
        if prepared is not None:
            _fits(prepared, len(pictures), preprocessing)
        if augment is not None and augment.needs_torchvision:
            import torchvision.transforms.v2  # noqa: F401  # its seconds are not those of the first pictures
        labels = [-1 if picture.label is None else picture.label for picture in pictures.pictures]
        if balance and not shuffle:
            raise ArgumentError(
                "balance is True and shuffle is False; balanced pictures come in random order"
            )
        if balance and -1 in labels:
            raise ArgumentError("balance is True, but there are pictures without a class; leave them out")
        self.pictures = pictures
        self.batch = batch
        self.seed = seed
        self.shuffle = shuffle
        self.workers = workers if prepared is None or augment is not None else 0
        self.drop_last = drop_last
        self.balance = balance
        self._labels = torch.tensor(labels, dtype=torch.int64)
        self._source = _Source(pictures.pictures, preprocessing, augment, prepared, seed)
        # Shuffling starts from the sorted keys, so that it does not depend on how the set was listed.
        keys = [picture.key for picture in pictures.pictures]
        self._sorted = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__), dtype=torch.int64)

    @property
    def spent(self) -> float:
        """Processor seconds that threads have taken for pictures so far."""
        return self._source.spent

    def __len__(self) -> int:
        number = len(self.pictures) / self.batch
        return math.floor(number) if self.drop_last else math.ceil(number)

    def order(self, epoch: int) -> Tensor:
        """Positions of the pictures in the order of this epoch: int64 (N,)."""
        if not self.shuffle:
            return torch.arange(len(self.pictures))
        generator = torch.Generator().manual_seed(_number(self.seed, epoch))
        drawn = self._balanced(generator) if self.balance else self._sorted
        return drawn[torch.randperm(len(drawn), generator=generator)]

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """The batches of one epoch.

        Args:
            epoch: any whole number; each has its own order and augmentation.
            start: the first batches that are skipped, without being decoded.

        Raises:
            DataError: a picture can no longer be read; names it.
        """
        order = self.order(epoch)
        names = self._names(order)
        first, last = start * self.batch, min(len(self) * self.batch, len(order))
        pieces = [slice(at, min(at + self.batch, last)) for at in range(first, last, self.batch)]
        works = [_Work(order[piece], names[piece], epoch) for piece in pieces]
        many = self.workers > 0 and len(works) > 0
        with closing(self._by_workers(works) if many else self._by_itself(works)) as made:
            for work, pictures in zip(works, made, strict=True):
                yield Batch(pictures, self._labels[work.index], work.index)

    def _balanced(self, generator: torch.Generator) -> Tensor:
        """As many positions as there are pictures, of each class alike; what is left over goes to some at random."""
        labels = self._labels[self._sorted]
        classes = labels.unique()
        often = torch.full((len(classes),), len(labels) // max(1, len(classes)))
        often[torch.randperm(len(classes), generator=generator)[: len(labels) - int(often.sum())]] += 1
        drawn = [self._sorted[:0]]
        for label, number in zip(classes, often.tolist(), strict=True):
            own = self._sorted[labels == label]
            rounds = range(math.ceil(number / len(own)))
            drawn.append(
                torch.cat([own[torch.randperm(len(own), generator=generator)] for _ in rounds])[:number]
            )
        return torch.cat(drawn)

    def _names(self, order: Tensor) -> list[str]:
        """What rules each picture's augmentation: its key, and how often it came before in this epoch."""
        keys = [self.pictures.pictures[position].key for position in order.tolist()]
        if not self.balance:
            return keys
        seen: dict[str, int] = {}
        names = []
        for key in keys:
            count = seen[key] = seen.get(key, -1) + 1
            names.append(f"{key}\0{count}" if count else key)
        return names

    def _by_itself(self, works: list[_Work]) -> Generator[Tensor]:
        """The pictures of each batch, made by this thread."""
        for work in works:
            yield self._source.whole(work)

    def _by_workers(self, works: list[_Work]) -> Generator[Tensor]:
        """The pictures of each batch, made by threads ahead of time."""
        ahead = 1 + max(_AHEAD, math.ceil(2 * self.workers * _CHUNK / self.batch))
        rest = iter(works)
        with _crew(self.workers) as crew:
            begun = deque(self._begin(crew, work) for work in islice(rest, ahead))
            while begun:
                pictures, parts = begun.popleft()
                for part in parts:
                    part.result()
                begun.extend(self._begin(crew, work) for work in islice(rest, 1))
                yield pictures

    def _begin(self, crew: ThreadPoolExecutor, work: _Work) -> tuple[Tensor, list[Future[None]]]:
        """Have one batch made, chunk by chunk; it is whole when all are done."""
        out = self._source.empty(len(work.names))
        chunks = (slice(first, first + _CHUNK) for first in range(0, len(out), _CHUNK))
        return out, [
            crew.submit(
                self._source.timed, out[chunk], _Work(work.index[chunk], work.names[chunk], work.epoch)
            )
            for chunk in chunks
        ]


class _Work(NamedTuple):
    """Positions of pictures, int64 (N,), their names for `fractions`, and the epoch."""

    index: Tensor  # type: ignore[assignment]
    names: list[str]
    epoch: int


class _Source:
    """Makes pictures, in whichever thread."""

    def __init__(
        self,
        pictures: tuple[Picture, ...],
        preprocessing: Preprocessing,
        augment: Augment | None,
        prepared: Tensor | None,
        seed: int,
    ) -> None:
        self.pictures, self.preprocessing, self.augment = pictures, preprocessing, augment
        self.seed = seed
        self.spent = 0.0
        self._adding = threading.Lock()
        self.squares = self.middles = prepared
        spare = 0
        if prepared is not None:
            spare = (prepared.shape[-1] - preprocessing.size) // 2
            inner = slice(spare, spare + preprocessing.size)
            self.middles = prepared[..., inner, inner]
        # A random part is mirrored on its way, which is faster than in the batch, and the rest is done there.
        self.area = augment.area if augment is not None and (prepared is None or spare) else None
        self.rest = augment
        self.mirrors = False
        if augment is not None and self.area is not None:
            self.mirrors = augment.flip and not augment.crop
            self.rest = dataclasses.replace(augment, area=None, flip=augment.flip and not self.mirrors)
            self.rest = None if self.rest == Augment(fill=augment.fill) else self.rest

    def empty(self, number: int) -> Tensor:
        """Where a batch is written: (N, C, size, size)."""
        shape = (number, self.preprocessing.channels, self.preprocessing.size, self.preprocessing.size)
        side_by_side = self.area is not None and self.rest is None
        layout = torch.channels_last if side_by_side else torch.contiguous_format
        return torch.empty(shape, dtype=self.preprocessing.dtype, memory_format=layout)

    def whole(self, work: _Work) -> Tensor:
        """One batch, made by this thread."""
        if self.middles is not None and self.augment is None:
            # Indexing with brackets takes eight times as long.
            return self.middles.index_select(0, work.index).contiguous()
        out = self.empty(len(work.names))
        self.write(out, work)
        return out

    def timed(self, out: Tensor, work: _Work) -> None:
        """As `write`, and what it took is added up."""
        began = time.thread_time()
        self.write(out, work)
        with self._adding:
            self.spent += time.thread_time() - began

    def write(self, out: Tensor, work: _Work) -> None:
        """Make pictures in their place in a batch: (N, C, size, size)."""
        places = list(enumerate(work.index.tolist()))
        if self.augment is None:
            for place, position in places:
                out[place] = self._prepared(self.pictures[position])
            return
        numbers = fractions(self.seed, work.epoch, work.names)
        if self.area is not None:
            for place, position in places:
                self._part(out[place], position, numbers[place])
        elif self.middles is not None:
            out.copy_(self.augment.prepared(self.middles.index_select(0, work.index).contiguous(), numbers))
            return
        else:
            for place, position in places:
                out[place] = self._prepared(self.pictures[position])
        if self.rest is not None:
            out.copy_(self.rest.after_area(out, numbers))

    def _part(self, out: Tensor, position: int, numbers: np.ndarray) -> None:
        """A random part of a picture, perhaps mirrored."""
        assert self.augment is not None
        drawn = dict(zip(NAMES, numbers.tolist(), strict=False))
        mirror = self.mirrors and drawn["mirror"] < 0.5

        def place(height: int, width: int) -> tuple[int, int, int, int]:
            return rectangle(self.area or (1, 1), height, width, drawn)

        picture = self.pictures[position]
        if self.squares is not None:
            top, left, high, wide = place(*self.squares.shape[-2:])
            part = self.squares[position, :, top : top + high, left : left + wide]
        else:
            with _naming(picture):
                source = picture.source if isinstance(picture.source, np.ndarray) else read(picture.source)
                found = None
                if isinstance(source, bytes):
                    found = crops.from_jpeg(source, self.preprocessing, place)
                if found is None:
                    image = self.preprocessing.open(source)
                    made = self.augment.decoded(image, self.preprocessing, numbers)
                    out.copy_(made.flip(-1) if mirror else made)
                    return
            # Pillow's arrays are read-only, which torch warns of.
            part = torch.from_numpy(np.require(found, requirements=["C", "W"])).permute(2, 0, 1)
        crops.resize(part, out, self.preprocessing.filter, mirror)

    def _prepared(self, picture: Picture) -> Tensor:
        with _naming(picture):
            return self.preprocessing.prepare(self.preprocessing.open(picture.source))


@contextmanager
def _naming(picture: Picture) -> Iterator[None]:
    """An error inside says which picture it is about."""
    try:
        yield
    except PictureError as error:
        raise DataError(
            f"{picture.key} can no longer be read: {error}; put it back, or start anew without it"
        ) from error


@contextmanager
def _crew(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute on one core each; when left, what they have not begun is dropped."""
    ready = threading.Barrier(number + 1)
    before = torch.get_num_threads()

    def alone() -> None:
        torch.set_num_threads(1)
        ready.wait()

    crew = ThreadPoolExecutor(number, "reading", alone)
    try:
        for _ in range(number):
            crew.submit(int)  # has one more thread born
        ready.wait()
        # torch keeps a number for each thread, and the last one set for threads that are born later.
        torch.set_num_threads(before)
        yield crew
    except BaseException:
        ready.abort()  # or threads would wait for those that could not be born
        raise
    finally:
        crew.shutdown(wait=True, cancel_futures=True)


def _fits(prepared: Tensor, number: int, preprocessing: Preprocessing) -> None:
    """Refuse prepared pictures that are not those of this set and preprocessing."""
    if len(prepared) != number:
        raise ArgumentError(f"{len(prepared)} prepared pictures for a set of {number}; want as many")
    channels, size = preprocessing.channels, preprocessing.size
    side = prepared.shape[-1]
    if (
        prepared.dtype != preprocessing.dtype
        or prepared.shape[1:] != (channels, side, side)
        or side < size
        or (side - size) % 2
    ):
        raise ArgumentError(
            f"prepared pictures of {prepared.dtype} {tuple(prepared.shape[1:])}; want {preprocessing.dtype} "
            f"({channels}, side, side) with a side of {size}, or larger by an even number"
        )


def _number(seed: int, epoch: int) -> int:
    """A seed of 64 bits for the order of one epoch."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{epoch}\0".encode(), digest_size=8).digest(), "little")
