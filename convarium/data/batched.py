"""A whole batch of prepared pictures changed at once, each as if it were alone.

The rule for the numbers: number k of a picture is the k-th 32-bit little-endian word of two 64-byte BLAKE2b
digests of "seed NUL epoch NUL key" in UTF-8, without salt and with salt 1, divided by 2^32. `NAMES` says which k
is for what; a number keeps its place whether the others are used or not. So they depend on no generator,
library version or neighbour.

A picture comes out the same to the bit in any batch. That holds because each pixel is computed by single
additions and multiplications, which IEEE 754 rounds alike in vector loops and in their remainders; sums over
a picture are sums of whole numbers, which are exact in any order; sine and cosine are taken one at a time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

NAMES = (
    *("down", "right", "mirror", "turn", "across", "along", "grow"),
    *("brightness", "contrast", "saturation"),
    *("share", "shape", "top", "left"),
    *("erased", "noise", "erased_share", "erased_shape", "erased_top", "erased_left"),
    *("change0", "sense0", "change1", "sense1", "change2", "sense2", "change3", "sense3"),
)
WORDS = 32

_RATIO = (3 / 4, 4 / 3)
_ERASED, _LONG = (0.02, 1 / 3), (0.3, 10 / 3)
_GREY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue
_PIECE = 1 << 20  # values changed at a time: their float32 copies stay in the cache


def fractions(seed: int, epoch: int, keys: Iterable[str]) -> np.ndarray:
    """Uniform numbers of each picture in one epoch, from 0 to below 1.

    Args:
        seed: of the run.
        epoch: any whole number.
        keys: one a picture.

    Returns:
        float64 (N, 32); column k is for `NAMES[k]`, the last ones are spare.
    """
    texts = (f"{seed}\0{epoch}\0{key}".encode("utf-8", "backslashreplace") for key in keys)
    words = b"".join(hashlib.blake2b(text, salt=salt).digest() for text in texts for salt in (b"", b"\1"))
    return np.frombuffer(words, "<u4").reshape(-1, WORDS) / 2.0**32


def columns(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of `fractions` by name, each (N,)."""
    return dict(zip(NAMES, numbers.T, strict=False))


def rectangle(
    area: tuple[float, float],
    height: int,
    width: int,
    numbers: Mapping[str, float],
    ratios: tuple[float, float] = _RATIO,
    prefix: str = "",
) -> tuple[int, int, int, int]:
    """A part of a picture: its share is uniform, then its proportions are among those that fit.

    Proportions are uniform on a logarithmic scale. Nothing is drawn twice; where no proportions fit (a panorama),
    the part is the largest with the nearest ones.

    Args:
        area: least and greatest share of the picture.
        height: of the picture, in pixels.
        width: likewise.
        numbers: "share", "shape", "top" and "left" from 0 to below 1.
        ratios: least and greatest width divided by height.
        prefix: stands before the names of the numbers.

    Returns:
        Top, left, height and width in pixels.

    Source:
        Szegedy et al. 2015, section 6: "evenly between 8% and 100% of the image area".
    """
    drawn, shape, down, right = (numbers[prefix + name] for name in ("share", "shape", "top", "left"))
    share = area[0] + (area[1] - area[0]) * drawn
    least = min(max(ratios[0], share * width / height), ratios[1])
    most = max(min(ratios[1], width / (share * height)), ratios[0])
    ratio = least * (max(most, least) / least) ** shape
    across = math.sqrt(share * height * width * ratio)
    shrink = min(1.0, width / across, height * ratio / across)
    wide = min(width, max(1, round(across * shrink)))
    high = min(height, max(1, round(across * shrink / ratio)))
    return int(down * (height - high + 1)), int(right * (width - wide + 1)), high, wide


def pieces(pictures: Tensor) -> Iterator[slice]:
    """Rows of a batch in pieces that fit in the cache."""
    step = max(1, _PIECE // max(1, pictures[:1].numel()))
    return (slice(start, start + step) for start in range(0, len(pictures), step))


def cut(pictures: Tensor, places: list[tuple[int, int, int, int]]) -> Tensor:
    """Each picture's part, resized to the whole with bilinear interpolation.

    Args:
        pictures: uint8 (N, C, H, W).
        places: top, left, height and width of each part, in pixels.

    Returns:
        uint8 (N, C, H, W).
    """
    height, width = pictures.shape[-2:]
    top, left, high, wide = np.array(places, np.float64).reshape(-1, 4).T[..., None]

    def centres(start: np.ndarray, part: np.ndarray, side: int) -> np.ndarray:
        # Kept inside the part: it is resized as if nothing lay around it.
        at = start - 0.5 + (np.arange(side) + 0.5) * part / side
        return np.clip(at, start, start + part - 1) - (side - 1) / 2

    across, along = centres(left, wide, width), centres(top, high, height)
    return _sampled(pictures, (across, 0 * along), (0 * across, along), 0)


def move(
    pictures: Tensor, angles: np.ndarray, shifts: tuple[np.ndarray, np.ndarray], scales: np.ndarray, fill: int
) -> Tensor:
    """Each picture turned, resized and moved about its middle, with bilinear interpolation.

    Args:
        pictures: uint8 (N, C, H, W).
        angles: clockwise, in degrees, (N,).
        shifts: to the right and down, in pixels, (N,) each.
        scales: factors, (N,).
        fill: value 0..255 of what comes in from outside.

    Returns:
        uint8 (N, C, H, W).
    """
    turns = [math.radians(angle) for angle in angles.tolist()]
    cos = np.array([math.cos(turn) for turn in turns]) / scales
    sin = np.array([math.sin(turn) for turn in turns]) / scales
    return warp(pictures, ((cos, sin), (-sin, cos)), shifts, fill)


def warp(
    pictures: Tensor,
    matrix: tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    shifts: tuple[np.ndarray, np.ndarray],
    fill: int,
) -> Tensor:
    """Each picture's linear image about its middle, moved, with bilinear interpolation.

    Args:
        pictures: uint8 (N, C, H, W).
        matrix: from places (x, y) in the new picture to those in the old, four times (N,).
        shifts: to the right and down, in pixels, (N,) each.
        fill: value 0..255 of what comes in from outside.

    Returns:
        uint8 (N, C, H, W).
    """
    height, width = pictures.shape[-2:]
    x = np.arange(width) - (width - 1) / 2 - shifts[0][:, None]
    y = np.arange(height) - (height - 1) / 2 - shifts[1][:, None]
    across, along = (
        tuple(term[:, None] * places for term, places in zip(row, (x, y), strict=True)) for row in matrix
    )
    return _sampled(pictures, across, along, fill)


def _sampled(
    pictures: Tensor,
    across: tuple[np.ndarray, np.ndarray],
    along: tuple[np.ndarray, np.ndarray],
    fill: int,
) -> Tensor:
    """Bilinear values at places that are a term of the column plus a term of the row.

    Args:
        pictures: uint8 (N, C, H, W).
        across: terms (N, W) and (N, H) of the place in x, in pixels from the middle.
        along: likewise in y.
        fill: value 0..255 outside.
    """
    number, _, height, width = pictures.shape
    # Two planes instead of pairs: sums are written and read as whole vectors.
    grid = torch.empty(2, number, height, width)
    for plane, (columns, rows), side in zip(grid, (across, along), (width, height), strict=True):
        scaled = [torch.from_numpy((terms * (2 / side)).astype(np.float32)) for terms in (columns, rows)]
        torch.add(scaled[0][:, None, :], scaled[1][:, :, None], out=plane)
    values = pictures.to(torch.float32)
    if fill:  # outside is 0 for grid_sample
        values = values - fill
    values = torch.nn.functional.grid_sample(values, grid.permute(1, 2, 3, 0), align_corners=False)
    if pictures.is_floating_point():
        return values.add_(fill)
    # Adding a half before truncation rounds; means of values 0..255 leave that range by far less than it.
    return _whole(values.add_(fill + 0.5))


def _whole(values: Tensor) -> Tensor:
    """uint8, truncated; NumPy does it four times faster than torch 2.15."""
    return torch.from_numpy(values.numpy().astype(np.uint8))


def crop(pictures: Tensor, down: np.ndarray, right: np.ndarray, margin: int, fill: int) -> Tensor:
    """A window of the old size from each padded picture.

    Args:
        pictures: uint8 (N, C, H, W).
        down: row of the padded picture where the window begins, whole numbers (N,).
        right: likewise its column.
        margin: pixels added on each side.
        fill: their value 0..255.

    Returns:
        uint8 (N, C, H, W).
    """
    wide = torch.nn.functional.pad(pictures, [margin] * 4, value=fill).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(wide, pictures.shape[-2:], (2, 3))
    return torch.from_numpy(windows[np.arange(len(wide)), :, down, right])


def mirror(pictures: Tensor, chosen: np.ndarray) -> Tensor:
    """The chosen pictures with left and right exchanged.

    Args:
        pictures: uint8 (N, C, H, W).
        chosen: truth values (N,).

    Returns:
        uint8 (N, C, H, W).
    """
    # Both versions of all and a choice of rows: several times faster than writing rows by a mask.
    both = torch.cat([pictures, pictures.flip(-1)])
    rows = np.arange(len(pictures)) + len(pictures) * chosen
    return both.index_select(0, torch.from_numpy(rows))


def colour(pictures: Tensor, brightness: np.ndarray, contrast: np.ndarray, saturation: np.ndarray) -> Tensor:
    """Brightness, contrast and saturation changed in this order, as torchvision defines each.

    Each is factor * picture + (1 - factor) * other, kept to 0..255, where other is black, the mean of the
    grey picture in whole levels, and the grey picture. One channel has no saturation.

    Args:
        pictures: uint8 (N, C, H, W), of 1 or 3 channels.
        brightness: factors (N,).
        contrast: likewise.
        saturation: likewise.

    Returns:
        uint8 (N, C, H, W); rounded once, at the end.
    """
    bright, strong, vivid = (
        torch.from_numpy(factors.astype(np.float32)).view(-1, 1, 1, 1)
        for factors in (brightness, contrast, saturation)
    )
    values = pictures.to(torch.float32).mul_(bright).clamp_(0, 255)
    total = _grey(values).floor_().sum((1, 2, 3), keepdim=True, dtype=torch.float64)
    mean = (total / pictures[0, 0].numel()).to(torch.float32)
    values.mul_(strong).add_(mean * (1 - strong)).clamp_(0, 255)
    if values.shape[1] > 1:
        grey = _grey(values).mul_(1 - vivid)
        values.mul_(vivid).add_(grey).clamp_(0, 255)
    return _whole(values.add_(0.5))


def sharpness(pictures: Tensor, factors: np.ndarray) -> Tensor:
    """Blurred below a factor of 1, sharpened above it, as torchvision and Pillow define it.

    It is factor * picture + (1 - factor) * other, kept to 0..255, where other is the mean of 3 x 3 pixels, the
    middle one counted five times, in whole levels. The outermost pixels stay.

    Args:
        pictures: uint8 (N, C, H, W).
        factors: (N,).

    Returns:
        uint8 (N, C, H, W).
    """
    values = pictures.to(torch.float32)
    inner = values[..., 1:-1, 1:-1]
    if not inner.numel():
        return pictures
    three = values[..., :-2] + values[..., 1:-1] + values[..., 2:]
    soft = three[..., :-2, :] + three[..., 1:-1, :] + three[..., 2:, :] + 4 * inner
    soft = soft.div_(13).add_(0.5).floor_()
    sharp = torch.from_numpy(factors.astype(np.float32)).view(-1, 1, 1, 1)
    inner.mul_(sharp).add_(soft.mul_(1 - sharp)).clamp_(0, 255)
    return _whole(values.add_(0.5))


def erase(pictures: Tensor, chosen: np.ndarray, numbers: np.ndarray) -> Tensor:
    """A rectangle of each chosen picture overwritten with noise: each value is 0..255, all alike likely.

    The rectangle has 2 % to 33 % of the picture's area and proportions from 3:10 to 10:3; its bytes are those of
    SHAKE-128 of the picture's number "noise".

    Args:
        pictures: uint8 (N, C, H, W).
        chosen: truth values (N,).
        numbers: from `fractions`, (N, 32).

    Returns:
        uint8 (N, C, H, W).

    Source:
        Zhong et al. 2017, section 3.2 and table 4 (random values); areas as in Liu et al. 2022's code.
    """
    if not chosen.any():
        return pictures
    out = pictures.clone()
    channels, height, width = pictures.shape[1:]
    for place in np.flatnonzero(chosen).tolist():
        drawn = dict(zip(NAMES, numbers[place].tolist(), strict=False))
        top, left, high, wide = rectangle(_ERASED, height, width, drawn, _LONG, "erased_")
        word = int(drawn["noise"] * 2**32).to_bytes(4, "little")
        noise = np.frombuffer(hashlib.shake_128(word).digest(channels * high * wide), np.uint8)
        out[place, :, top : top + high, left : left + wide] = torch.tensor(noise).view(channels, high, wide)
    return out


def _grey(values: Tensor) -> Tensor:
    """Lightness (N, 1, H, W), in a new tensor."""
    if values.shape[1] == 1:
        return values.clone()
    # Not add(alpha=...): it is one rounding in vector loops and two in their remainders.
    red, green, blue = (values[:, k : k + 1] * weight for k, weight in enumerate(_GREY))
    return red.add_(green).add_(blue)
