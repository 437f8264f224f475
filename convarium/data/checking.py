"""Every pixel of every picture decoded once, before training begins."""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convarium.data import cache as files
from convarium.data.pictures import PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import PictureError
from convarium.limits import cores

_CHUNK = 16

Progress = Callable[[int, int], None]


@dataclass
class Checked:
    """What `check` found.

    `good` has the pictures that can be decoded, in their order; `damaged` the key and the reason of each
    other. `prepared` is uint8 (float32 for mode "F") (N, C, size, size), aligned with `good.pictures`, or None
    where it would not fit; with a margin its squares may be larger. `mean` and `std` are per channel, of the
    prepared pictures without margin in 0..1; std is at least 1/255, so that it can be divided by; for mode "F" only
    where all values are alike.
    """

    good: PictureSet
    damaged: list[tuple[str, str]]
    prepared: Tensor | None
    mean: tuple[float, ...]
    std: tuple[float, ...]


def check(
    pictures: PictureSet,
    preprocessing: Preprocessing,
    memory: int = 1 << 30,
    threads: int | None = None,
    progress: Progress | None = None,
    cache: Path | None = None,
    margin: bool = False,
) -> Checked:
    """Decode every pixel of every picture, and keep the prepared pictures where they fit.

    Args:
        pictures: the set to look through.
        preprocessing: its size, mode and filter are used; not its mean and std.
        memory: most bytes that the prepared pictures may take; not asked for where there is a cache.
        threads: None is one for each processor, 16 at most.
        progress: called in this thread with the number done and the number of all.
        cache: folder in which the prepared pictures are kept as a file, which `prepared` then shows; where this
            was done before for the same contents, nothing is decoded.
        margin: prepare squares of `wider`'s size, for training to cut from.

    Returns:
        Good and damaged pictures, and the statistics of the good ones.

    Raises:
        RunError: the cache's disk is too small, or its folder cannot be written.
    """
    wide = wider(preprocessing) if margin else preprocessing
    every = pictures.pictures
    if cache is None:
        shape = (len(every), wide.channels, wide.size, wide.size)
        prepared = None
        if math.prod(shape) * wide.dtype.itemsize <= memory:
            layout = torch.channels_last if wide != preprocessing else torch.contiguous_format
            prepared = torch.empty(shape, dtype=wide.dtype, memory_format=layout)
        filled = 0

        def keep(rows: Tensor) -> None:
            nonlocal filled
            if prepared is not None:
                prepared[filled : filled + len(rows)] = rows
            filled += len(rows)

        found = _look(pictures, preprocessing, wide, threads, progress, keep)
        prepared = None if prepared is None else prepared[:filled]
    else:

        def make(keep: Callable[[Tensor], None]) -> files.Found:
            return _look(pictures, preprocessing, wide, threads, progress, keep)

        prepared, found = files.kept(cache, pictures, preprocessing, wide, make, progress)
    damaged = dict(found.damaged)
    good = tuple(picture for position, picture in enumerate(every) if position not in damaged)
    return Checked(
        PictureSet(pictures.classes, good),
        [(every[position].key, reason) for position, reason in found.damaged],
        prepared,
        found.mean,
        found.std,
    )


def wider(preprocessing: Preprocessing) -> Preprocessing:
    """Preprocessing to a larger square, as far as `resize` leaves one, whose middle is the usual one to the bit.

    The margin on each side is even, because torchvision rounds halves to even numbers where it cuts the middle.
    """
    spare = ((preprocessing.resize or preprocessing.size) - preprocessing.size) // 4 * 4
    return dataclasses.replace(preprocessing, size=preprocessing.size + spare)


def size_on_disk(pictures: PictureSet, preprocessing: Preprocessing, margin: bool = False) -> int:
    """Bytes that the cache of `check` will take, at most, but for what is said of damaged pictures."""
    return files.size(len(pictures), wider(preprocessing) if margin else preprocessing)


def _look(
    pictures: PictureSet,
    preprocessing: Preprocessing,
    wide: Preprocessing,
    threads: int | None,
    progress: Progress | None,
    keep: Callable[[Tensor], None],
) -> files.Found:
    """Decode everything in threads; give the prepared rows, in their order and without the damaged, to `keep`."""
    every = pictures.pictures
    count, moments = (_sums, _moments_of_sums) if wide.deep else (_histogram, _moments)
    total: np.ndarray | int = 0
    margin = (wide.size - preprocessing.size) // 2
    inner = slice(margin, margin + preprocessing.size)
    reasons: list[tuple[int, str]] = []
    halt = threading.Event()

    def look(positions: range) -> tuple[int, Tensor, list[tuple[int, str]], np.ndarray | int, float]:
        bad, rows, began = [], [], time.thread_time()
        seen: np.ndarray | int = 0
        for position in positions:
            if halt.is_set():
                break
            try:
                row = wide.prepare(wide.open(every[position].source))
            except PictureError as error:
                bad.append((position, str(error)))
                continue
            seen = seen + count(row[:, inner, inner].numpy())
            rows.append(row)
        none = torch.empty((0, wide.channels, wide.size, wide.size), dtype=wide.dtype)
        made = torch.stack(rows) if rows else none
        return len(positions), made, bad, seen, time.thread_time() - began

    chunks = (range(first, min(first + _CHUNK, len(every))) for first in range(0, len(every), _CHUNK))
    workers = threads or min(16, cores())
    lanes, done = 1, 0
    pool = ThreadPoolExecutor(workers)
    try:
        running = deque(pool.submit(look, chunk) for chunk in islice(chunks, lanes))
        while running:
            number, rows, bad, seen, seconds = running.popleft().result()
            # Below a millisecond a picture is mostly Python, and threads only wait for each other.
            lanes = 4 * workers if threads or seconds > 1e-3 * number else 1
            running.extend(pool.submit(look, chunk) for chunk in islice(chunks, max(0, lanes - len(running))))
            keep(rows)
            reasons += bad
            total = total + seen  # in the order of the pictures, so that the sums are the same in any threads
            done += number
            if progress is not None:
                progress(done, len(every))
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return files.Found(reasons, *moments(np.broadcast_to(total, (wide.channels, 3 if wide.deep else 256))))


def _histogram(row: np.ndarray) -> np.ndarray:
    """How often each of the 256 values occurs, by channel."""
    return np.array([Image.fromarray(np.ascontiguousarray(plane)).histogram() for plane in row], np.int64)


def _sums(row: np.ndarray) -> np.ndarray:
    """Number of values, sum and sum of squares, by band."""
    values = row.reshape(len(row), -1).astype(np.float64)
    return np.stack(
        [np.full(len(row), float(values.shape[1])), values.sum(1), np.square(values).sum(1)], axis=1
    )


def _moments_of_sums(sums: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in 0..1 of floats; 1/255 where all are alike, as far as float32 tells."""
    means, stds = [], []
    for number, total, squares in sums.tolist():
        mean = total / max(1.0, number)
        std = math.sqrt(max(0.0, squares / max(1.0, number) - mean * mean))
        means.append(mean / 255)
        stds.append((std if std > 1e-6 * abs(mean) else 1.0) / 255)
    return tuple(means), tuple(stds)


def _moments(histogram: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation in 0..1 from how often each value occurs; sums of integers, so exact."""
    means, stds = [], []
    for counts in histogram.tolist():
        number = max(1, sum(counts))
        total = sum(value * count for value, count in enumerate(counts))
        squares = sum(value * value * count for value, count in enumerate(counts))
        means.append(total / number / 255)
        stds.append(max(1.0, math.sqrt(number * squares - total * total) / number) / 255)
    return tuple(means), tuple(stds)
