"""Prepared pictures in a file that is mapped into memory, so that they are decoded once and not in each run.

A file is named by a hash of what its bytes depend on: the contents of the pictures (SHA-256 of each file, so that
a copy of the data elsewhere finds it, and a picture edited without a new date does not), their names and order,
the preprocessing up to normalisation, and Pillow's version. Labels are not among it.

The file: rows of uint8 or, for mode "F", float32 (channels innermost where there is a margin), one for each
picture that can be decoded; JSON with the damaged ones, their reasons, the statistics and a CRC-32 of each 64 MiB
of the rows; then the length of the JSON (8 bytes, little-endian), its CRC-32 (4 bytes) and 12 bytes of mark. It is
written to a temporary name and renamed when whole. All checksums are verified when it is opened: a file that fails
is made anew.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from convarium import storage
from convarium.data.pictures import Picture, PictureSet, contents
from convarium.data.preprocessing import Preprocessing
from convarium.errors import DataError, RunError
from convarium.limits import cores

_MARK = b"convarium 1\n"
_BLOCK = 1 << 26
_SLICE = 1024
_PIXELS = 1  # raised when the same picture is prepared to other pixels


@dataclass
class Found:
    """What was found besides the pixels.

    Args:
        damaged: position and reason of each picture that cannot be decoded, in order.
        mean: per channel, 0..1.
        std: likewise.
    """

    damaged: list[tuple[int, str]]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def size(number: int, wide: Preprocessing) -> int:
    """Bytes of a file for this many pictures, if none is damaged."""
    rows = number * wide.channels * wide.size**2 * wide.dtype.itemsize
    return rows + 256 + 12 * math.ceil(rows / _BLOCK)


def kept(
    folder: Path,
    pictures: PictureSet,
    preprocessing: Preprocessing,
    wide: Preprocessing,
    make: Callable[[Callable[[Tensor], None]], Found],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, Found]:
    """The prepared pictures from the file that has them, which is made where there is none.

    Args:
        folder: where the files are; made.
        pictures: the set.
        preprocessing: of what the network gets.
        wide: of what is stored.
        make: is given a function that takes the rows in order, uint8 (n, C, side, side), and tells what it found.
        progress: called with 0 and the number of all while contents are hashed, or another process makes the file.

    Returns:
        uint8 or float32 (N, C, side, side) over the file; what is written to it stays in memory. What was found.

    Raises:
        RunError: the disk is too small, or the folder cannot be written.
    """
    path = folder / f"{_key(pictures.pictures, preprocessing, wide, progress)}.prepared"
    shape = (len(pictures), wide.channels, wide.size, wide.size)
    inside = wide != preprocessing
    found = _read(path, shape, inside, wide.dtype)
    if found is not None:
        _told(progress, len(pictures), len(pictures))
        return found
    storage.make_folder(folder)
    lock = FileLock(path.with_suffix(".lock"))
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:  # another process makes this file; the caller may want to stop meanwhile
            _told(progress, 0, len(pictures))
        except OSError as error:
            raise RunError(f"cannot write in {folder}: {error.strerror}; choose another folder") from error
    try:
        found = _read(path, shape, inside, wide.dtype)
        if found is None:
            # We hold the lock: whoever began these was killed.
            for left in folder.glob(f".{path.name}.*.tmp"):
                left.unlink(missing_ok=True)
            _room(folder, size(len(pictures), wide))
            storage.write(path, lambda temporary: _written(temporary, shape, inside, make))
            found = _read(path, shape, inside, wide.dtype)
        if found is None:
            raise RunError(f"{path} does not hold what was just written to it; is the disk failing?")
        _told(progress, len(pictures), len(pictures))
        return found
    finally:
        lock.release()


def _told(progress: Callable[[int, int], None] | None, done: int, every: int) -> None:
    if progress is not None:
        progress(done, every)


def _key(
    pictures: tuple[Picture, ...],
    preprocessing: Preprocessing,
    wide: Preprocessing,
    progress: Callable[[int, int], None] | None,
) -> str:
    """32 hexadecimal digits of everything that the bytes of a file depend on."""
    fields = {name: value for name, value in preprocessing.to_dict().items() if name not in ("mean", "std")}
    makers = [PIL.__version__, *([torch.__version__] if wide.deep else [])]  # floats are resized by torch
    total = hashlib.sha256(json.dumps([_PIXELS, *makers, wide.size, fields]).encode())
    for first in range(0, len(pictures), _SLICE):
        _told(progress, 0, len(pictures))
        some = pictures[first : first + _SLICE]
        for picture, digest in zip(some, _digests(some), strict=True):
            total.update(f"{picture.key}\0{digest}\n".encode("utf-8", "backslashreplace"))
    return total.hexdigest()[:32]


def _digests(pictures: tuple[Picture, ...]) -> list[Any]:
    """What tells the contents of pictures apart; those that cannot be read are alike."""
    try:
        return list(contents(pictures))
    except DataError:
        if len(pictures) == 1:
            return [None]
        half = len(pictures) // 2
        return _digests(pictures[:half]) + _digests(pictures[half:])


def _room(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            f"the prepared pictures need {needed / 1e9:,.2f} GB, and {folder} has {free / 1e9:,.2f} GB free; "
            "make room, choose a folder on another disk, or go without the cache"
        )


def _written(
    path: Path, shape: tuple[int, ...], inside: bool, make: Callable[[Callable[[Tensor], None]], Found]
) -> None:
    """Write a whole file, row by row: a full disk is an error then, where a mapped file would end the process."""
    with path.open("wb") as file:
        sums = _Sums(file)

        def keep(rows: Tensor) -> None:
            values = rows.permute(0, 2, 3, 1) if inside else rows
            sums.write(np.ascontiguousarray(values.numpy()))

        found = make(keep)
        content = {
            "shape": shape,
            "crc32": [*sums.blocks, sums.crc] if sums.inside else sums.blocks,
            "damaged": found.damaged,
            "mean": found.mean,
            "std": found.std,
        }
        text = json.dumps(content).encode()
        file.write(text + len(text).to_bytes(8, "little") + zlib.crc32(text).to_bytes(4, "little") + _MARK)


class _Sums:
    """Writes to a file and keeps the CRC-32 of each block."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.blocks, self.crc, self.inside = file, list[int](), 0, 0

    def write(self, values: np.ndarray) -> None:
        left = values.reshape(-1).view(np.uint8).data
        while left:
            part, left = left[: _BLOCK - self.inside], left[_BLOCK - self.inside :]
            self.file.write(part)
            self.crc = zlib.crc32(part, self.crc)
            self.inside += len(part)
            if self.inside == _BLOCK:
                self.blocks.append(self.crc)
                self.crc = self.inside = 0


def _read(
    path: Path, shape: tuple[int, ...], inside: bool, dtype: torch.dtype
) -> tuple[Tensor, Found] | None:
    """The content of a file; None where there is none, or not this one, or not whole."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 24))
            tail = file.read()
            length = int.from_bytes(tail[:8], "little")
            start = end - 24 - length
            if tail[12:] != _MARK or start < 0:
                return None
            file.seek(start)
            text = file.read(length)
        if zlib.crc32(text) != int.from_bytes(tail[8:12], "little"):
            return None
        content = json.loads(text)
        damaged = [(int(position), str(reason)) for position, reason in content["damaged"]]
        number = shape[0] - len(damaged)
        if tuple(content["shape"]) != shape or start != number * math.prod(shape[1:]) * dtype.itemsize:
            return None
        found = Found(damaged, tuple(content["mean"]), tuple(content["std"]))
        if not start:
            return torch.empty((0, *shape[1:]), dtype=dtype), found
        # Copied on writing: torch has no tensors that cannot be written to, and the file must stay as it is.
        mapped = np.memmap(path, np.uint8, "c", shape=(start,))
        blocks = [mapped[at : at + _BLOCK] for at in range(0, start, _BLOCK)]
        with ThreadPoolExecutor(min(16, cores())) as pool:
            if list(pool.map(zlib.crc32, blocks)) != content["crc32"]:
                return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    rows = torch.from_numpy(mapped).view(dtype)
    if inside:
        return rows.view(number, *shape[2:], shape[1]).permute(0, 3, 1, 2), found
    return rows.view(number, *shape[1:]), found
