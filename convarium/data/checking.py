"""Every pixel of every picture decoded once, before training begins."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convarium.data.pictures import PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import PictureError


@dataclass
class Checked:
    """What `check` found.

    `good` has the pictures that can be decoded, in their order; `damaged` the key and the reason of each
    other. `prepared` is uint8 (N, C, size, size), aligned with `good.pictures`, or None where it would not
    fit. `mean` and `std` are per channel, of the prepared pictures in 0..1; std is at least 1/255, so that
    it can be divided by.
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
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Decode every pixel of every picture, and keep the prepared pictures where they fit.

    Args:
        pictures: the set to look through.
        preprocessing: its size, mode and filter are used; not its mean and std.
        memory: most bytes that the prepared pictures may take.
        threads: None is one for each processor, 16 at most.
        progress: called in this thread with the number done and the number of all.

    Returns:
        Good and damaged pictures, and the statistics of the good ones.
    """
    every = pictures.pictures
    shape = (len(every), preprocessing.channels, preprocessing.size, preprocessing.size)
    prepared = torch.empty(shape, dtype=torch.uint8) if math.prod(shape) <= memory else None
    reasons: dict[int, str] = {}
    histogram = np.zeros((preprocessing.channels, 256), np.int64)
    halt = threading.Event()

    def look(positions: range) -> tuple[int, dict[int, str], np.ndarray, float]:
        bad, seen, began = {}, np.zeros_like(histogram), time.thread_time()
        for position in positions:
            if halt.is_set():
                break
            try:
                tensor = preprocessing.prepare(preprocessing.open(every[position].source))
            except PictureError as error:
                bad[position] = str(error)
                continue
            for counts, plane in zip(seen, tensor.numpy(), strict=True):
                counts += Image.fromarray(plane).histogram()
            if prepared is not None:
                prepared[position] = tensor
        return len(positions), bad, seen, time.thread_time() - began

    chunks = (range(first, min(first + 16, len(every))) for first in range(0, len(every), 16))
    workers = threads or min(16, os.cpu_count() or 1)
    lanes, done = 1, 0
    pool = ThreadPoolExecutor(workers)
    try:
        running = {pool.submit(look, chunk) for chunk in islice(chunks, lanes)}
        while running:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ready:
                number, bad, seen, seconds = future.result()
                # Below a millisecond a picture is mostly Python, and threads only wait for each other.
                lanes = 2 * workers if threads or seconds > 1e-3 * number else 1
                reasons |= bad
                histogram += seen
                done += number
                if progress is not None:
                    progress(done, len(every))
            running |= {pool.submit(look, chunk) for chunk in islice(chunks, max(0, lanes - len(running)))}
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)
    good = [position for position in range(len(every)) if position not in reasons]
    if prepared is not None and reasons:
        for place, position in enumerate(good):  # in place: a copy would need the memory twice
            prepared[place] = prepared[position]
        prepared = prepared[: len(good)]
    mean, std = _moments(histogram)
    return Checked(
        PictureSet(pictures.classes, tuple(every[position] for position in good)),
        [(every[position].key, reasons[position]) for position in sorted(reasons)],
        prepared,
        mean,
        std,
    )


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
