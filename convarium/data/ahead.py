"""Pictures from sources of any kind and number: decoded ahead by threads, put together as they are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from convarium.errors import ArgumentError
from convarium.limits import cores

Source = str | Path | Image.Image | np.ndarray
WANTED = "give paths, PIL pictures or uint8 arrays, one or several"

AHEAD = 2
"""Batches that are decoded at most while one is computed."""

UNREADABLE = 16
"""Sources in a batch, as a multiple of its pictures, after which it is computed although it is not full."""


class Group(NamedTuple):
    """Some sources in their order: path of each, and why it cannot be read or None; pixels of those that can."""

    entries: list[tuple[str, str | None]]
    pictures: np.ndarray | None


def grouped(
    sources: Iterable[Source],
    prepare: Callable[[Source], tuple[str, np.ndarray | None, str | None]],
    batch: int,
) -> Iterator[Group]:
    """Decode pictures ahead of whoever takes them, a few batches far, and put them together.

    Args:
        sources: of any number; taken as they are needed.
        prepare: path, pixels of one shape and None; or path, None and why it cannot be read. Called by threads.
        batch: pictures in a group but the last; those that cannot be read are not counted.

    Yields:
        Groups in the order of the sources.
    """
    if not isinstance(sources, Iterable) or isinstance(sources, bytes):
        raise ArgumentError(f"pictures = {sources!r}; {WANTED}")
    entries: list[tuple[str, str | None]] = []
    ready: list[np.ndarray] = []
    for path, pixels, error in _decoded(sources, prepare, AHEAD * batch):
        entries.append((path, error))
        if pixels is not None:
            ready.append(pixels)
        if _full(len(ready), len(entries), batch):
            yield Group(entries, np.stack(ready) if ready else None)
            entries, ready = [], []
    if entries:
        yield Group(entries, np.stack(ready) if ready else None)


def begun(readable: Iterable[bool], batch: int) -> int:
    """How many of the first sources fill whole groups; with the next one a group begins.

    Args:
        readable: of each source whether it could be read.
        batch: as for `grouped`.
    """
    whole = entries = ready = 0
    for good in readable:
        entries, ready = entries + 1, ready + good
        if _full(ready, entries, batch):
            whole, entries, ready = whole + entries, 0, 0
    return whole


def _full(ready: int, entries: int, batch: int) -> bool:
    return ready == batch or entries == UNREADABLE * batch


def _decoded(
    sources: Iterable[Source],
    prepare: Callable[[Source], tuple[str, np.ndarray | None, str | None]],
    ahead: int,
) -> Iterator[tuple[str, np.ndarray | None, str | None]]:
    """What `prepare` gives for each source, in order; while one is looked at, the next ones are worked on."""
    workers = cores() + 1  # one more, for the time in which one waits for the disk
    ahead = max(ahead, workers)
    coming: deque[Future[tuple[str, np.ndarray | None, str | None]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for source in sources:
                coming.append(pool.submit(prepare, source))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for one in coming:
                one.cancel()
