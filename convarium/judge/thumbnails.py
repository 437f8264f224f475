"""Pictures small enough for a page: reduced, in eight bits, without their metadata."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

THUMBNAIL = 256
"""Longest side of an embedded picture, in pixels; shown at half of it, so sharp on dense screens."""

PIXEL_ART = 96
"""Pictures up to this many pixels on their longest side are enlarged in squares, not blurred."""


def stretched(values: np.ndarray) -> Image.Image:
    """Something to look at of a picture with any bands and any range of values.

    Args:
        values: (height, width, bands), finite.

    Returns:
        The first three bands as red, green and blue, or the first one in grey where there are fewer, each stretched
        from its 1st to its 99th percentile over black to white.
    """
    shown = values[:, :, :3] if values.shape[2] >= 3 else values[:, :, 0]
    low, high = np.percentile(shown.astype(np.float64), (1, 99), axis=(0, 1))
    span = np.where(high > low, high - low, 1.0)
    return Image.fromarray((255 * np.clip((shown - low) / span, 0, 1)).astype(np.uint8))


def reduced(picture: Image.Image) -> Image.Image:
    """A picture in grey, colour or colour with alpha, at most `THUMBNAIL` pixels a side, without its metadata.

    Args:
        picture: any size and mode; it is left as it is.

    Returns:
        A new picture of mode L, RGB or RGBA.
    """
    if picture.mode.startswith(("I", "F")):
        # More than 8 bits: stretch what is there over black to white, as Pillow itself would clip it.
        values = np.asarray(picture, dtype=np.float64)
        values = np.nan_to_num(values - np.nanmin(values))
        picture = Image.fromarray((255 * values / (values.max() or 1)).astype(np.uint8))
    clear = "A" in picture.getbands() or "transparency" in picture.info
    small = picture.convert("RGBA" if clear else "L" if picture.mode in ("1", "L") else "RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    small.info = {}
    return small


def thumbnail(picture: Image.Image) -> str:
    """A picture as a data URI, at most `THUMBNAIL` pixels a side, without its metadata.

    Args:
        picture: any size and mode.

    Returns:
        PNG for small or transparent pictures, JPEG for the rest.
    """
    small = reduced(picture)
    lossless = small.mode == "RGBA" or max(small.size) <= PIXEL_ART
    target = io.BytesIO()
    small.save(target, "PNG" if lossless else "JPEG", **({"optimize": True} if lossless else {"quality": 85}))
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"
