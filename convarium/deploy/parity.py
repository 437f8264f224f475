"""Whether an exported model says what the classifier says: its own program is run on pictures, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convarium.errors import DataError

BOUND = 0.01
"""Difference of a probability from which on an export is refused, and margin below which two classes are a tie."""


@dataclass(frozen=True)
class Parity:
    """How two ways of answering agree.

    Args:
        pictures: that both could read.
        flips: of these, answered with another likeliest class.
        largest: difference of any probability of any class.
        margin: of the flips, the largest lead that the likeliest class had over the second.
        unequal: pictures that only one of the two could read, with the reason.
        made: whether the pictures were made for want of real ones.
    """

    pictures: int
    flips: int
    largest: float
    margin: float = 0.0
    unequal: tuple[tuple[str, str], ...] = ()
    made: bool = False

    @property
    def agrees(self) -> bool:
        """No flip but of ties, and no difference above `BOUND`."""
        return self.margin <= BOUND and self.largest <= BOUND

    def __str__(self) -> str:
        """As in "500 pictures: 0 flips, largest difference 0.0004"."""
        kind = "made pictures" if self.made else "pictures"
        flips = "1 flip" if self.flips == 1 else f"{self.flips} flips"
        return f"{self.pictures} {kind}: {flips}, largest difference {self.largest:.1g}"

    def to_dict(self) -> dict[str, Any]:
        """{"pictures", "flips", "largest_difference", "largest_margin_of_flips", "bound", "made", "unequal"}."""
        return {
            "pictures": self.pictures,
            "flips": self.flips,
            "largest_difference": self.largest,
            "largest_margin_of_flips": self.margin,
            "bound": BOUND,
            "made": self.made,
            "unequal": [{"path": path, "reason": reason} for path, reason in self.unequal],
        }


def measure(
    expected: Iterable[np.ndarray | None],
    run: Callable[[Path], np.ndarray],
    pictures: Sequence[Path],
    *,
    made: bool = False,
) -> Parity:
    """Compare the exported program with the classifier.

    Args:
        expected: the classifier's probabilities for each picture, (classes,); None where it cannot be read.
        run: the program's way from a file to probabilities.
        pictures: the files.
        made: whether they were made by `make`.

    Returns:
        The comparison.

    Raises:
        DataError: not one picture could be compared.
    """
    count, flips, largest, margin = 0, 0, 0.0, 0.0
    unequal: list[tuple[str, str]] = []
    for picture, truth in zip(pictures, expected, strict=True):
        try:
            said, reason = run(picture), ""
        except Exception as error:  # whatever Pillow's readers raise on broken files
            said, reason = None, str(error)
        if truth is None or said is None:
            if (truth is None) != (said is None):
                unequal.append((str(picture), reason or "the classifier refuses it"))
            continue
        count += 1
        difference = np.abs(said.astype(np.float64) - truth)
        # What is not a number must not pass for equal.
        largest = max(largest, float(difference.max()) if np.isfinite(difference).all() else float("inf"))
        if said.argmax() != truth.argmax():
            flips += 1
            second, first = np.sort(truth)[-2:]
            margin = max(margin, float(first - second))
    if not count:
        why = f", as {unequal[0][0]}: {unequal[0][1]}" if unequal else ""
        raise DataError(
            f"none of the {len(pictures)} pictures could be compared{why}; give others with --pictures"
        )
    return Parity(count, flips, largest, margin, tuple(unequal), made)


def make(folder: Path, mode: str, size: int) -> list[Path]:
    """Make pictures where there are no real ones: soft noise of several shapes, always the same.

    Args:
        folder: where to write them.
        mode: "RGB" or "L".
        size: side of the network's input in pixels.

    Returns:
        Their paths.
    """
    draw, paths = np.random.default_rng(0), []
    for number, (width, height) in enumerate([(1, 1), (2, 1.5), (1.5, 2), (3, 2), (0.5, 0.4), (1.2, 3.1)]):
        few = draw.integers(0, 256, (8, 8, 3), np.uint8)
        shape = (max(1, round(size * width)), max(1, round(size * height)))
        picture = Image.fromarray(few).resize(shape, Image.Resampling.BICUBIC).convert(mode)
        paths.append(folder / f"{number}.png")
        picture.save(paths[-1])
    return paths
