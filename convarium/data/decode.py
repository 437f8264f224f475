"""The one place where a picture is decoded, so that training, evaluation and prediction see the same pixels.

What is done, in this order:

1. Every pixel of the first frame is decoded (animated and many-page files; the first picture of an MPO).
   A file that is cut short is refused, even where Pillow was told to accept it.
2. The EXIF orientation is applied; EXIF data that cannot be read are ignored.
3. The picture is brought to 8 bits. 16-bit grey is divided by 257, which takes 65535 to 255 (in a TIFF that
   states fewer bits, such as 12, its own largest value becomes 255). Other data: see `_to_eight_bits`.
   16-bit RGB keeps its high byte.
4. Transparency, in whichever form, is composited on white.
5. CMYK becomes RGB by (255 - C)(255 - K) / 255, after undoing Adobe's inversion; LAB through Little CMS.
   Embedded ICC profiles are not applied, so that every machine gives the same pixels.
6. Grey from colour is ITU-R 601 luma, as Pillow computes it.

libtiff writes remarks on broken TIFF files straight to the standard error; they are not ours to stop.
"""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from convarium.errors import ArgumentError, PictureError

MODES = ("RGB", "L")

# Twice Image.MAX_IMAGE_PIXELS as Pillow ships it, where it stops warning and refuses.
PIXEL_LIMIT = 178_956_970
_BYTE_LIMIT = 1 << 31

# In the order in which they are tried. Not here: formats that start another program (EPS),
# that are not pictures (PDF, video, HDF5), or whose only reader is a stub.
_FORMATS = """
    JPEG PNG GIF BMP DIB WEBP AVIF TIFF JPEG2000 MPO PPM QOI ICO ICNS CUR DDS PSD SGI SUN XBM XPM PCX TGA
"""

_EXTENSIONS = """
    .jpg .jpeg .jpe .jfif .mpo .png .apng .gif .bmp .dib .webp .avif .avifs .tif .tiff .jp2 .j2k .jpc .jpf
    .jpx .j2c .pbm .pgm .ppm .pnm .pfm .qoi .ico .icns .cur .dds .psd .sgi .rgb .rgba .bw .ras .xbm .xpm
    .pcx .tga .icb .vda .vst
"""

EXTENSIONS = frozenset(_EXTENSIONS.split())
"""Extensions of the files that count as pictures, in lower case."""

DEEP_EXTENSIONS = EXTENSIONS | {".npy"}
"""Likewise where bands are kept as they are."""

Source = Path | bytes | np.ndarray | Image.Image


def decode(source: Source, mode: str = "RGB", *, orient: bool = True, reduce: int = 1) -> Image.Image:
    """Decode one picture whole; safe to call from many threads.

    Args:
        source: a file's path, a file's bytes, an array (height, width) or (height, width, 1 to 4 channels),
            or a picture that Pillow opened.
        mode: "RGB" or "L".
        orient: apply the EXIF orientation.
        reduce: 2, 4 or 8 decodes a JPEG at that part of its sides, rounded up, which is faster; other files
            are not reduced. Only for training: the pixels are not those of the whole picture resized.

    Returns:
        The picture in this mode, with all its pixels in memory.

    Raises:
        PictureError: it cannot be read. The message is only the reason, without the file's name.
    """
    if mode not in MODES:
        raise ArgumentError(f"mode is {mode!r}; allowed are {', '.join(map(repr, MODES))}")
    if isinstance(source, np.ndarray):
        return _from_array(source).convert(mode)
    data = None
    if not isinstance(source, Image.Image):
        data = bytes(source) if isinstance(source, bytes | bytearray | memoryview) else read(Path(source))
        if not data:
            raise PictureError("empty file (0 bytes)")
    try:
        with quiet():
            if isinstance(source, Image.Image):
                image = source
            else:
                image = Image.open(io.BytesIO(data or b""), formats=formats())
            if image.width * image.height > PIXEL_LIMIT:
                raise PictureError(too_large(image.size))
            if reduce > 1 and image.format in ("JPEG", "MPO"):
                image.draft(None, (max(1, image.width // reduce), max(1, image.height // reduce)))
            image.load()
            picture = in_mode(upright(image) if orient else image, mode)
            return picture.copy() if picture is source else picture
    except PictureError:
        raise
    except Exception as error:  # Pillow's plugins raise nearly everything on broken files
        raise PictureError(reason(error, data)) from error


def read(path: Path) -> bytes:
    """The bytes of a file; read whole, because a file mapped into memory can be cut while it is read."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise PictureError("a folder, not a picture")
        if not stat.S_ISREG(status.st_mode):
            raise PictureError("not a regular file")
        if status.st_size > _BYTE_LIMIT:
            raise PictureError(f"too large: {status.st_size} bytes (limit {_BYTE_LIMIT})")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PictureError("broken link" if path.is_symlink() else "no such file") from error
    except PermissionError as error:
        raise PictureError("no permission to read it") from error
    except MemoryError as error:
        raise PictureError("not enough memory to read it") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise PictureError(f"cannot be read: {reason.lower()}") from error


@cache
def formats() -> tuple[str, ...]:
    """The formats of our list that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS.split() if name in Image.OPEN)


def orientation(image: Image.Image) -> int:
    """What EXIF tag 274 says, 2 to 8; 1 where it says nothing that can be read."""
    with suppress(Exception):  # broken EXIF is no reason to refuse the pixels
        value = image.getexif().get(274, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    return 1


def upright(image: Image.Image) -> Image.Image:
    """The picture as the photographer saw it."""
    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    method = turns.get(orientation(image))
    return image if method is None else image.transpose(method)


def turned(pixels: np.ndarray, turn: int) -> np.ndarray:
    """A view of the pixels (height, width, channels) that undoes EXIF orientation 2 to 8."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """Bring any of Pillow's modes to RGB or L, as the head of this module says."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = _to_eight_bits(np.asarray(image), white_of(image))
    elif image.mode == "LAB":
        image = _from_lab(image)
    elif image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.new("RGB", layers.size, "white")
        image.paste(layers, mask=layers.getchannel("A"))
    if image.mode == mode:
        return image
    if mode == "L" and image.mode not in ("1", "RGB"):
        image = image.convert("RGB")  # by way of RGB, so that grey is the luma of what RGB would show
    return image.convert(mode)


def white_of(image: Image.Image) -> int | None:
    """The value that means white, where the file's format says it; None where only the data can tell."""
    if image.mode.startswith("I;16"):
        bits = getattr(image, "tag_v2", {}).get(258, (16,))
        return (1 << bits[0]) - 1 if isinstance(bits, tuple) and 8 < bits[0] <= 16 else 65535
    # Pillow stretches what a PNG or a portable grey map says to 0..65535.
    return 65535 if image.mode == "I" and image.format in ("PPM", "PNG") else None


def _to_eight_bits(values: np.ndarray, white: int | None = None) -> Image.Image:
    """round(255 value / white), where white is given or the first of these that holds all the values:

    floats within 0..1 (white 1), values within 0..255 (white 255), within 0..65535 (white 65535);
    anything else is stretched from its least to its greatest value. What is not finite becomes 0.
    """
    real = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    least, most = float(real.min()), float(real.max())
    if white is None and least >= 0:
        fractions = most <= 1 and bool(np.any(real != np.rint(real)))
        white = 1 if fractions else 255 if most <= 255 else 65535 if most <= 65535 else None
    if white is None:
        real, span = real - least, max(most - least, 1e-300)
    else:
        span = float(white)
    return Image.fromarray(np.rint(real * (255 / span)).clip(0, 255).astype(np.uint8))


def _from_lab(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (D50) as sRGB, through Little CMS."""
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    turned = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    if turned is None:
        raise ValueError("LAB could not be converted")
    return turned


def _from_array(values: np.ndarray) -> Image.Image:
    """An array as a picture: 8-bit values as they are, True as white, others as `_to_eight_bits` says."""
    shape = "x".join(map(str, values.shape))
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 2, 3, 4)):
        raise PictureError(f"an array of {shape}; want height x width, or height x width x 1 to 4 channels")
    if values.size == 0:
        raise PictureError(f"an array of {shape} has no pixels")
    if values.shape[0] * values.shape[1] > PIXEL_LIMIT:
        raise PictureError(too_large((values.shape[1], values.shape[0])))
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    elif values.dtype == np.uint16:
        values = np.asarray(_to_eight_bits(values, 65535))
    elif values.dtype != np.uint8:
        if values.dtype.kind not in "iuf":
            raise PictureError(f"an array of {values.dtype}; want integers, floats or booleans")
        values = np.asarray(_to_eight_bits(values))
    image = Image.fromarray(np.ascontiguousarray(values))
    return in_mode(image, "RGB") if image.mode in ("LA", "RGBA") else image


def reason(error: Exception, data: bytes | None) -> str:
    """What is wrong with the file, in plain words."""
    if isinstance(error, Image.DecompressionBombError):
        return too_large(_refused_size(error), str(error))
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())
    if data is not None and isinstance(error, UnidentifiedImageError):
        return _kind_of(data)
    if re.search(r"truncated|not processed|unexpected end|broken data stream|end of file|eof", text.lower()):
        return f"cut short: {text}"
    return f"damaged: {text or type(error).__name__}"


def _kind_of(data: bytes) -> str:
    """What a file that is no picture is instead, from how it begins."""
    head = data[:1024]
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the picture: run `git lfs pull`"
    if head.startswith((b"\x00\x05\x16\x07", b"\x00\x05\x16\x00")):
        return "a macOS resource fork, not the picture"
    if head[4:8] == b"ftyp":
        brand = head[8:12].decode("latin-1")
        if brand in ("heic", "heix", "mif1", "msf1", "hevc"):
            return "a HEIF picture, which Pillow does not read: convert it to JPEG or PNG"
        return "a video or another MP4 file, not a picture"
    others = ((b"%PDF", "a PDF document"), (b"PK\x03\x04", "a ZIP archive"), (b"\x1f\x8b", "gzip data"))
    if head.startswith(b"\x93NUMPY"):
        return "an array of NumPy, which only networks trained with --deep read"
    for magic, name in others:
        if head.startswith(magic):
            return f"{name}, not a picture"
    if not any(data):
        return "only zero bytes, not a picture"
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"BM", b"RIFF", b"II*", b"MM\0*")):
        return f"damaged, or cut short after its first bytes ({len(data)} bytes)"
    start = head.decode("latin-1").lstrip().lower()
    if start.startswith(("<!doctype html", "<html")):
        return "a web page (HTML), not a picture"
    if "<svg" in start:
        return "an SVG drawing: convert it to PNG"
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head):
        return "text, not a picture"
    return "not a picture of a known format"


def _refused_size(error: Exception) -> tuple[int, int] | None:
    """Width and height that Pillow refused; its message has only their product, its frame has both."""
    trace = error.__traceback__
    size = None
    while trace is not None:
        size = trace.tb_frame.f_locals.get("size", size)
        trace = trace.tb_next
    return size if isinstance(size, tuple) and len(size) == 2 else None


def too_large(size: tuple[int, int] | None, otherwise: str = "") -> str:
    if size is None:
        return f"too large: {otherwise}"
    return f"too large: {size[0]}x{size[1]} pixels (limit {PIXEL_LIMIT} pixels)"


_lock = threading.Lock()
_inside = 0
_before = False


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Pillow's warnings, and have it refuse cut pictures, while any thread is inside.

    `warnings.catch_warnings` swaps the list of all filters and so is not safe with threads; one filter
    put in by the first thread and taken out by the last one is.
    """
    global _inside, _before
    with _lock:
        _inside += 1
        if _inside == 1:
            warnings.filterwarnings("ignore", module=r"PIL\.")
            _before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _before
                _drop_filter()


def _drop_filter() -> None:
    for entry in warnings.filters:
        if entry[0] == "ignore" and getattr(entry[3], "pattern", None) == r"PIL\.":
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
            return
