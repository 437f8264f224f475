"""What is kept of every picture of a data set after one look at it: facts, a content hash and a thumbnail.

Every pixel is decoded by the project's own decoder, in parallel threads, and then let go: a picture costs
about a kilobyte of memory whatever its size, so that hundreds of thousands can be compared with each other.
"""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from convarium.data.decode import decode, formats, quiet, read
from convarium.errors import PictureError
from convarium.limits import cores

SIDE = 16
"""Side of the thumbnails that pictures are compared by, in pixels."""

BLANK = 8
"""A picture whose channels each span at most this many of 255 levels counts as blank."""

_CHUNK = 16
_DEPTHS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I;16N": 16, "I": 32, "F": 32}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a picture file is, apart from what it shows.

    Args:
        digest: BLAKE2b of the file's bytes, 16 bytes.
        bytes: size of the file.
        format: Pillow's name of the format, such as "JPEG"; "array" for a picture in memory.
        mode: Pillow's mode as stored, such as "RGB", "L", "P" or "CMYK".
        bits: per channel as stored, where the file says so (PNG, TIFF); else those of the mode.
        width: in pixels, upright.
        height: in pixels, upright.
        orientation: EXIF orientation 1 to 8; 0 where the file states none.
        clear: it has transparency.
        frames: it has more than one frame, of which the first is used.
        blank: it shows a single colour, or nearly.
    """

    digest: bytes
    bytes: int
    format: str
    mode: str
    bits: int
    width: int
    height: int
    orientation: int
    clear: bool
    frames: bool
    blank: bool

    @property
    def aspect(self) -> float:
        """The longer side over the shorter one, at least 1."""
        return max(self.width, self.height) / min(self.width, self.height)


@dataclass
class Looked:
    """Facts on many pictures, in their order.

    Args:
        facts: of each picture; None where it is damaged.
        thumbs: uint8 (N, SIDE, SIDE), grey; zeros where it is damaged.
        damaged: index to reason.
    """

    facts: list[Facts | None]
    thumbs: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)


def look(source: Path | np.ndarray) -> tuple[Facts, np.ndarray]:
    """Decode one picture whole and keep little of it.

    Args:
        source: a file, or an array as `decode` takes it.

    Returns:
        Its facts and its thumbnail (uint8, SIDE x SIDE, grey).

    Raises:
        PictureError: it cannot be read; the message is the reason.
    """
    if isinstance(source, np.ndarray):
        picture = decode(source)
        data = np.ascontiguousarray(source).tobytes()
        stored = ("array", "L" if source.ndim == 2 else "RGB", 8 * source.itemsize, 0, False, False)
    else:
        data = read(source)
        picture = decode(data)
        stored = _header(data)
    small = picture.resize((SIDE, SIDE), Image.Resampling.BOX)
    spans = [high - low for low, high in picture.getextrema()]  # type: ignore[misc]
    kind, mode, bits, orientation, clear, frames = stored
    facts = Facts(
        digest=hashlib.blake2b(data, digest_size=16).digest(),
        bytes=len(data),
        format=sys.intern(kind),
        mode=sys.intern(mode),
        bits=bits,
        width=picture.width,
        height=picture.height,
        orientation=orientation,
        clear=clear,
        frames=frames,
        blank=max(spans) <= BLANK,
    )
    return facts, np.asarray(small.convert("L"))


def look_at_all(
    sources: Sequence[Path | np.ndarray],
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Looked:
    """Look at many pictures in parallel; what is found does not depend on the number of threads.

    Args:
        sources: files or arrays.
        threads: None is one for each processor, 16 at most.
        progress: called in this thread with the number done and the number of all.

    Returns:
        What was found, in the order of `sources`.
    """
    count = len(sources)
    looked = Looked([None] * count, np.zeros((count, SIDE, SIDE), np.uint8))
    halt = threading.Event()

    def some(positions: range) -> int:
        for position in positions:
            if halt.is_set():
                break
            try:
                found = look(sources[position])
            except PictureError as error:
                looked.damaged[position] = str(error)
            else:
                looked.facts[position], looked.thumbs[position] = found
        return len(positions)

    workers = threads or min(16, cores())
    chunks = (range(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK))
    pool, done = ThreadPoolExecutor(workers), 0
    try:
        running = {pool.submit(some, chunk) for chunk in islice(chunks, 2 * workers)}
        while running:
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            done += sum(future.result() for future in ready)
            if progress is not None:
                progress(done, count)
            running |= {pool.submit(some, chunk) for chunk in islice(chunks, len(ready))}
    finally:
        halt.set()
        pool.shutdown(wait=True, cancel_futures=True)
    looked.damaged = dict(sorted(looked.damaged.items()))
    return looked


def _header(data: bytes) -> tuple[str, str, int, int, bool, bool]:
    """Format, mode, bits, orientation, transparency and whether there are frames, of a file that was decoded."""
    with quiet():
        image = Image.open(io.BytesIO(data), formats=formats())
        orientation, clear, frames = 0, False, False
        with suppress(Exception):  # as the decoder: broken EXIF is no reason to refuse the pixels
            orientation = int(image.getexif().get(274, 0))
        with suppress(Exception):
            clear = image.has_transparency_data
        with suppress(Exception):
            frames = bool(getattr(image, "is_animated", False))
        kind = image.format or "unknown"
        bits = _DEPTHS.get(image.mode, 8)
        if kind == "PNG" and data[12:16] == b"IHDR":
            bits = data[24]
        with suppress(Exception):
            if kind == "TIFF":
                bits = int(image.tag_v2[258][0])  # type: ignore[attr-defined]
        return kind, image.mode, bits, orientation if 1 <= orientation <= 8 else 0, clear, frames
