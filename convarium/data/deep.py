"""Pictures of any number of bands, decoded to float32 on the scale 0..255, fractions kept.

Values, by how they are stored:

- 8 bits: as they are. True is 255.
- 16 bits without sign: divided by 257, so that 65535 becomes 255, and no two values become one (in a TIFF that
  states fewer bits, such as 12, its own largest value becomes 255).
- Floats, and integers with sign or of 32 bits: as they are, whatever their range. A scale guessed from the values
  would be another one for each picture. What is not finite becomes 0.

Nothing is mixed: transparency is a band, grey stays one band, and a file with another number of bands than asked
is refused. Only palettes and inks (CMYK, LAB, YCbCr) become colours first, as in `decode`. Where more than one band
is asked, the pages of a TIFF that are alike and of one band each are its bands.

The reader is chosen by content, not by name: NumPy for its own files; Pillow for all that it gives whole; tifffile
(the extra `bands`) for other TIFFs. What Pillow alone can read and would cut to 8 bits is refused.
"""

from __future__ import annotations

import importlib
import io
import logging
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from convarium.data.decode import (
    PIXEL_LIMIT,
    Source,
    formats,
    in_mode,
    quiet,
    read,
    reason,
    too_large,
    turned,
    upright,
    white_of,
)
from convarium.errors import MissingExtra, PictureError

NUMPY = b"\x93NUMPY"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_AS_STORED = ("L", "LA", "RGB", "RGBA", "I", "F")


def decode_bands(source: Source, bands: int, *, orient: bool = True) -> np.ndarray:
    """Decode one picture whole, with all its bits; safe to call from many threads.

    Args:
        source: a file's path, a file's bytes, an array (height, width) or (height, width, bands), or a picture that
            Pillow opened.
        bands: that it must have.
        orient: apply the EXIF orientation.

    Returns:
        float32 (height, width, bands), in memory of its own.

    Raises:
        PictureError: it cannot be read, or has another number of bands; the message is only the reason.
        MissingExtra: it is a TIFF for tifffile, which is not installed.
    """
    if isinstance(source, np.ndarray):
        return _on_scale(source, bands)
    data = None
    if not isinstance(source, Image.Image):
        data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else read(source)
        if not data:
            raise PictureError("empty file (0 bytes)")
    try:
        if data is not None and data.startswith(NUMPY):
            return _on_scale(np.load(io.BytesIO(data), allow_pickle=False), bands)
        with quiet():
            image = source if isinstance(source, Image.Image) else _by_pillow(data or b"", bands)
            if image is None:
                return _by_tifffile(data or b"", bands, orient)
            if image.width * image.height > PIXEL_LIMIT:
                raise PictureError(too_large(image.size))
            if not _kept_whole(image):
                raise PictureError(_cut(image))
            image.load()
            white = white_of(image)
            return _on_scale(_stored(upright(image) if orient else image), bands, white)
    except (PictureError, MissingExtra):
        raise
    except Exception as error:  # plugins and tifffile raise nearly everything on broken files
        raise PictureError(reason(error, data)) from error


def _by_pillow(data: bytes, bands: int) -> Image.Image | None:
    """The picture, opened; None where it is for tifffile."""
    tiff = data.startswith(_TIFF)
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
    except UnidentifiedImageError:
        if tiff:
            return None
        raise
    if tiff and (not _kept_whole(image) or (_one_band(image) and bands > 1 and _pages(image) > 1)):
        return None
    return image


def _one_band(image: Image.Image) -> bool:
    return len(image.getbands()) == 1 and image.mode != "P"


def _pages(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def _kept_whole(image: Image.Image) -> bool:
    """Whether Pillow gives all bands and all bits of a file; to be asked before it is loaded."""
    several = len(image.getbands()) > 1
    if several and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        return False
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return True
    bits, form = (_all(tags.get(tag, 1)) for tag in (258, 339))
    if tags.get(277, 1) != len(image.getbands()):
        return False
    if max(bits) <= 8:
        return set(form) == {1}
    # Pillow reads 32 bits without sign as if they had one.
    return not several and (image.mode.startswith("I;16") or image.mode == "F" or form == (2,))


def _all(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _cut(image: Image.Image) -> str:
    """Why a picture that Pillow does not keep whole is refused."""
    if image.format == "TIFF":
        return "a TIFF of which Pillow keeps only a part; give its path instead of the opened picture"
    return (
        f"a {image.format} with 16 bits a channel, of which only 8 could be read; save it as TIFF, or read it "
        "without --deep"
    )


def _stored(image: Image.Image) -> np.ndarray:
    """The values (height, width) or (height, width, bands)."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in _AS_STORED and not image.mode.startswith("I;16"):
        image = in_mode(image, "RGB")
    return np.asarray(image)


def _by_tifffile(data: bytes, bands: int, orient: bool) -> np.ndarray:
    """A TIFF's bands: the samples of its first page, or its pages where each has one sample."""
    with _tifffile().TiffFile(io.BytesIO(data)) as file:
        first = file.pages[0]
        if first.imagelength * first.imagewidth > PIXEL_LIMIT:
            raise PictureError(too_large((first.imagewidth, first.imagelength)))
        if first.dtype is None or not set("YX") <= set(first.axes) <= set("YXS"):
            raise PictureError(f"a TIFF with {first.bitspersample} bits a value and the axes {first.axes}")
        pages = [first]
        if first.samplesperpixel == 1 and bands > 1:
            # Masks, and smaller copies, have another type or size.
            pages = [page for page in file.pages if (page.shape, page.dtype) == (first.shape, first.dtype)]
        found = len(pages) * first.samplesperpixel
        if found != bands:
            raise PictureError(_other_number(found, bands, "pages" if len(pages) > 1 else ""))
        for page in pages:
            _must_be_whole(page, len(data))
        try:
            planes = [np.moveaxis(page.asarray(maxworkers=1), *_last(page.axes)) for page in pages]
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            name = getattr(first.compression, "name", first.compression)
            raise PictureError(
                f"compressed as {name}, which tifffile reads only with the package imagecodecs: "
                "`pip install imagecodecs`"
            ) from error
        values = planes[0] if len(pages) == 1 else np.stack(planes, axis=-1)
        bits = first.bitspersample
        white = (1 << bits) - 1 if values.dtype.kind == "u" and 8 < bits <= 16 else None
        turn = first.tags.get(274)
        turn = turn.value if orient and turn is not None else 1
    return _on_scale(turned(values, int(turn)), bands, white)


def _last(axes: str) -> tuple[int, int]:
    """Where the samples are, and where they must be."""
    return (axes.index("S") if "S" in axes else -1), -1


def _must_be_whole(page: Any, length: int) -> None:
    """Refuse a page some of whose data are not in the file; tifffile would fill what is missing with zeros."""
    for start, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        if not start or not count:
            raise PictureError("damaged: a part of its pixels is not stored")
        if start + count > length:
            raise PictureError(f"cut short: its pixels end at byte {start + count:,}, the file at {length:,}")
    if page.compression == 1 and sum(page.databytecounts) < page.nbytes:
        raise PictureError(f"cut short: {sum(page.databytecounts):,} bytes of {page.nbytes:,}")


def _tifffile() -> ModuleType:
    try:
        module = importlib.import_module("tifffile")
    except ImportError as error:
        raise MissingExtra(
            "tifffile, which reads TIFFs of many bands or of 16-bit colours, is not installed; `pip install "
            "convarium[bands]` brings it"
        ) from error
    logger = logging.getLogger("tifffile")
    if not logger.handlers:  # its remarks on odd tags would go to the standard error
        logger.addHandler(logging.NullHandler())
    return module


def _on_scale(values: np.ndarray, bands: int, white: int | None = None) -> np.ndarray:
    """The values as the head of this module says: float32 (height, width, bands).

    Args:
        values: (height, width) or (height, width, bands).
        bands: that there must be.
        white: the value that becomes 255; None where the type alone decides.
    """
    shape = "x".join(map(str, values.shape))
    if values.dtype.kind not in "buif":
        raise PictureError(f"an array of {values.dtype}; want integers, floats or booleans")
    if values.ndim not in (2, 3) or not values.size:
        raise PictureError(f"an array of {shape}; want height x width x {bands}")
    if values.shape[0] * values.shape[1] > PIXEL_LIMIT:
        raise PictureError(too_large((values.shape[1], values.shape[0])))
    values = values if values.ndim == 3 else values[:, :, None]
    if values.shape[2] != bands:
        swapped = f" (an array of {shape}; bands come last)" if values.shape[0] == bands else ""
        raise PictureError(_other_number(values.shape[2], bands) + swapped)
    kind, width = values.dtype.kind, values.dtype.itemsize
    if white is None:
        white = 1 if kind == "b" else 65535 if (kind, width) == ("u", 2) else None
    with np.errstate(over="ignore"):
        made = np.array(values, np.float32, order="C")
    if kind == "f":
        finite = np.isfinite(made)
        if not finite.any():
            raise PictureError("not one of its values is a finite number")
        made[~finite] = 0
    if white is not None:  # the product is exact, so that there is one rounding
        made *= np.float32(255)
        made /= np.float32(white)
    return made


def _other_number(found: int, wanted: int, noun: str = "") -> str:
    of_pages = f" ({noun} of one band)" if noun else ""
    return f"{found} band{'s' if found != 1 else ''}{of_pages}, want {wanted}"
