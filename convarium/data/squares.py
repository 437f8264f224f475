"""Decoded pictures brought to the network's square: by Pillow and NumPy alone, so that torch need not be loaded.

The pixels are those of torchvision's Resize and CenterCrop on Pillow's pictures.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

# A picture longer than this many times its width is cut before it is resized, or a strip
# of 3 x 9000 pixels would become 224 x 672,000.
_LONGEST = 16


class Steps(NamedTuple):
    """What is done to a picture of given sides, in pixels.

    cut (left, top, width, height) is taken of it first; resized (height, width) is what that becomes; of this
    the square begins at corner (left, top). What of the square lies outside is black.
    """

    cut: tuple[int, int, int, int]
    resized: tuple[int, int]
    corner: tuple[int, int]


def steps(height: int, width: int, size: int, fit: str, resize: int | None = None) -> Steps:
    """How a picture becomes a square.

    Args:
        height: of the picture, in pixels.
        width: likewise.
        size: side of the square, in pixels.
        fit: "crop", "squash" or "pad", as in `Preprocessing`.
        resize: shorter side before the crop, in pixels; None is `size`.

    Returns:
        The steps.
    """
    if fit == "squash":
        return Steps((0, 0, width, height), (size, size), (0, 0))
    if fit == "pad":
        longer = max(height, width)
        high, wide = (max(1, round(size * side / longer)) for side in (height, width))
        return Steps((0, 0, width, height), (high, wide), (-((size - wide) // 2), -((size - high) // 2)))
    # The centre crop would drop the far ends anyway.
    longest = min(height, width) * _LONGEST
    cut_width, cut_height = min(width, longest), min(height, longest)
    shorter = resize or size
    high, wide = (int(shorter * side / min(cut_height, cut_width)) for side in (cut_height, cut_width))
    cut = (_middle(width, cut_width), _middle(height, cut_height), cut_width, cut_height)
    return Steps(cut, (high, wide), (_middle(wide, size), _middle(high, size)))


def square(image: Image.Image, size: int, fit: str, resize: int | None, filter: str) -> np.ndarray:
    """A decoded picture as the network's square.

    Args:
        image: of the mode "RGB" or "L".
        size: side of the square, in pixels.
        fit: as for `steps`.
        resize: likewise.
        filter: Pillow's, as in `Preprocessing`.

    Returns:
        uint8 (channels, size, size), in memory of its own in which the channels of a pixel lie side by side.
    """
    (left, top, width, height), resized, corner = steps(image.height, image.width, size, fit, resize)
    if (width, height) != image.size:
        image = image.crop((left, top, left + width, top + height))
    if resized != (image.height, image.width):
        image = image.resize(resized[::-1], Image.Resampling[filter.upper()])
    if image.size != (size, size):
        image = image.crop((*corner, corner[0] + size, corner[1] + size))
    return np.array(image).reshape(size, size, -1).transpose(2, 0, 1)


def _middle(side: int, part: int) -> int:
    """Where a part in the middle of a side begins; halves are rounded as torchvision rounds them, to even."""
    return round((side - part) / 2)
