"""Random parts of pictures for training: a JPEG is decoded no larger and no further than its part needs.

Only training reads pictures this way; what is judged or predicted goes through `Preprocessing.prepare`.
Three savings, none of which moves the part, which is drawn on the whole upright picture:

- The largest reduction by 2, 4 or 8 while decoding (by the discrete cosine transform) that leaves the part's
  sides at least as long as the network's input. So nothing is enlarged that the whole picture would not need
  enlarged; the part's edges are rounded to reduced pixels.
- Rows below the part are not decoded, where the file is one pass from top to bottom.
- One resize, by torch's kernel for bytes, an integer form of Pillow's that differs by a level at most.

simplejpeg decodes where it is installed, and Pillow elsewhere; both are libjpeg-turbo and give the same pixels.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from convarium.data.decode import PIXEL_LIMIT, decode, formats, orientation, quiet, turned
from convarium.data.preprocessing import Preprocessing

simplejpeg: Any = None
with suppress(ImportError):
    simplejpeg = importlib.import_module("simplejpeg")

Place = Callable[[int, int], tuple[int, int, int, int]]
"""From a picture's height and width to top, left, height and width of a part, in pixels."""

_REDUCTIONS = (8, 4, 2)
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive, with Huffman coding
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))
_END = b"\xff\xd9"


class Header(NamedTuple):
    """What the head of a JPEG file says.

    Args:
        height: of the stored picture, in pixels.
        width: likewise.
        channels: 1, 3 or 4.
        place: where the two bytes of the height are.
        step: rows that are coded together; 0 where they are not coded in one pass from top to bottom.
        turned: there may be an EXIF orientation.
    """

    height: int
    width: int
    channels: int
    place: int
    step: int
    turned: bool


def header(data: bytes) -> Header | None:
    """Read the head of a JPEG file; None where the file is none, is cut short, or is of a rare kind."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, frame, turned = 2, None, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind = data[at + 1]
        if kind == 0xFF or kind in _WITHOUT_LENGTH:  # a filling byte; a marker alone
            at += 1 if kind == 0xFF else 2
            continue
        start, length = at + 4, int.from_bytes(data[at + 2 : at + 4], "big")
        if kind in _FRAMES and length >= 8 and data[start] == 8 and frame is None:
            frame = (kind, start)
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xCC):  # lossless, arithmetic, 12 bits, a second one
            return None
        elif kind == 0xE1:
            turned = (
                turned or b"rientation" in data[start : at + length] or data[start : start + 4] == b"Exif"
            )
        elif kind == 0xDA:
            # In coded data FF is followed by 00, so that this can only be the end itself.
            if frame is None or data.rfind(_END) < at:
                return None
            return _frame(data, *frame, data[start], turned)
        at += 2 + length
    return None


def _frame(data: bytes, kind: int, start: int, in_scan: int, turned: bool) -> Header | None:
    height, width = (int.from_bytes(data[start + k : start + k + 2], "big") for k in (1, 3))
    channels = data[start + 5]
    if channels not in (1, 3, 4) or not 0 < height * width <= PIXEL_LIMIT:
        return None
    once = kind != 0xC2 and in_scan == channels
    factors = [data[start + 7 + 3 * channel] & 15 for channel in range(channels)]
    return Header(height, width, channels, start + 1, 8 * max(factors) if once else 0, turned)


def from_jpeg(data: bytes, preprocessing: Preprocessing, place: Place) -> np.ndarray | None:
    """The pixels of a part of a JPEG file.

    Args:
        data: the file's bytes.
        preprocessing: its mode, size and orientation are used.
        place: chooses the part of the whole upright picture.

    Returns:
        uint8 (height, width, channels), reduced or not; None where the file needs the decoder for all kinds, or
        fractions are kept.

    Raises:
        PictureError: it cannot be read.
    """
    head = None if preprocessing.deep else header(data)
    if head is None:
        return None
    turn = _turn(data) if head.turned and preprocessing.orient else 1
    sides = (head.height, head.width) if turn < 5 else (head.width, head.height)
    part = place(*sides)
    reduce = next((k for k in _REDUCTIONS if min(part[2:]) // k >= preprocessing.size), 1)
    (top, high), (left, wide) = (_reduced(part[axis], part[axis + 2], sides[axis], reduce) for axis in (0, 1))
    height = head.height
    if head.step and turn < 3:
        # Below the last row wanted one more step is decoded: colours are interpolated with it.
        height = min(height, ((top + high) * reduce + 2 * head.step - 1) // head.step * head.step)
    if height < head.height:
        data = b"".join((data[: head.place], height.to_bytes(2, "big"), data[head.place + 2 :]))
    pixels = None
    # Grey from colour is Pillow's, not the file's own lightness.
    if simplejpeg is not None and head.channels == (1 if preprocessing.mode == "L" else 3):
        pixels = _fast(data, preprocessing.mode, height, head.width, reduce)
    if pixels is None:
        pixels = np.asarray(decode(data, preprocessing.mode, orient=False, reduce=reduce))
    pixels = turned(pixels.reshape(*pixels.shape[:2], -1), turn)
    return pixels[top : top + high, left : left + wide]


def _turn(data: bytes) -> int:
    """EXIF orientation; 1 also where Pillow cannot open the file, which the decoder will tell."""
    with quiet(), suppress(Exception):
        return orientation(Image.open(io.BytesIO(data), formats=formats()))
    return 1


def _reduced(start: int, length: int, side: int, reduce: int) -> tuple[int, int]:
    """Start and length of a part on a side that is reduced."""
    length = round(length / reduce)
    return min(round(start / reduce), -(-side // reduce) - length), length


def _fast(data: bytes, mode: str, height: int, width: int, reduce: int) -> np.ndarray | None:
    """What simplejpeg decodes of a file with these sides; None where it does not."""
    shape = (-(-height // reduce), -(-width // reduce))
    try:
        # Not strict: rows left over are a remark to it. Cut files do not come here.
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY" if mode == "L" else "RGB", min_height=shape[0], min_width=shape[1], strict=False
        )
    except ValueError:
        return None
    return pixels if pixels.shape[:2] == shape else None


def resize(part: Tensor, out: Tensor, filter: str, mirror: bool = False) -> None:
    """Resize a part into its place in a batch.

    Args:
        part: uint8 or float32 (C, h, w); fastest where the channels of a pixel lie side by side.
        out: likewise (C, height, width), written to.
        filter: as in `Preprocessing`.
        mirror: exchange left and right.
    """
    if part.is_floating_point() and filter == "nearest":
        made = F.interpolate(part[None], size=out.shape[1:], mode="nearest-exact")[0]
    elif filter in ("bilinear", "bicubic"):
        # Made so that the stride of the first axis fits, too; else torch takes it for planes, at twice the time.
        part = part.permute(1, 2, 0).contiguous()[None].permute(0, 3, 1, 2)
        made = F.interpolate(part, size=out.shape[1:], mode=filter, antialias=True)[0]
    else:
        pixels = part.permute(1, 2, 0).contiguous().numpy()
        image = Image.fromarray(pixels if len(part) > 1 else pixels[:, :, 0])
        image = image.resize((out.shape[2], out.shape[1]), Image.Resampling[filter.upper()])
        made = torch.from_numpy(np.array(image).reshape(*out.shape[1:], -1)).permute(2, 0, 1)
    out.copy_(made.flip(-1) if mirror else made)
