"""Operations drawn for each picture: RandAugment, and AutoAugment's policy for ImageNet.

Cubuk et al., "AutoAugment: Learning Augmentation Strategies from Data", 2019, found by search which two operations,
how often and how strong, help on ImageNet. Cubuk et al., "RandAugment: Practical Automated Data Augmentation with a
Reduced Search Space", 2020, draws them blindly, all with one magnitude, and is as good.

Operations and their ranges are torchvision's, which are the papers' but that strength always grows with the
magnitude. Magnitudes are on the papers' scale, where 10 is the most; torchvision's own RandAugment has 30 there, so
that its 9 is 3 here. Differs from the papers: each operation of RandAugment is left out every second time, as in the
code that Liu et al. 2022 trained ConvNeXt with; shears are about the middle, not the corner; geometry is bilinear.
Every number belongs to the picture (see `batched`), and so does the result, in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from convarium.data import batched

MOST = 10
"""Greatest magnitude."""

RANDOM = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast"),
    *("brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
"""What RandAugment draws from (section 3.1 of the paper)."""

# Two times operation, probability, and magnitude from 0 to 9 (AutoAugment, table 9).
IMAGENET: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


def randaugment(pictures: Tensor, numbers: np.ndarray, count: int, magnitude: float, fill: int) -> Tensor:
    """Each picture changed by operations drawn from `RANDOM`, one after the other, each left out every second time.

    Args:
        pictures: uint8 (N, C, H, W), of 1 or 3 channels.
        numbers: from `batched.fractions`, (N, 32).
        count: operations, from 0 to 4.
        magnitude: of all of them, from 0 to 10.
        fill: value 0..255 of what comes in from outside.

    Returns:
        uint8 (N, C, H, W).
    """
    drawn = batched.columns(numbers)
    for k in range(count):
        places = (2 * len(RANDOM) * drawn[f"change{k}"]).astype(np.int64).tolist()
        names = [RANDOM[place] if place < len(RANDOM) else "identity" for place in places]
        strength = np.where(drawn[f"sense{k}"] < 0.5, -1.0, 1.0) * magnitude / MOST
        pictures = change(pictures, names, strength, fill)
    return pictures


def autoaugment(pictures: Tensor, numbers: np.ndarray, fill: int) -> Tensor:
    """Each picture changed by one of the 25 pairs of operations of `IMAGENET`.

    Args:
        pictures: uint8 (N, C, H, W), of 1 or 3 channels.
        numbers: from `batched.fractions`, (N, 32).
        fill: value 0..255 of what comes in from outside.

    Returns:
        uint8 (N, C, H, W).
    """
    drawn = batched.columns(numbers)
    pairs = [IMAGENET[int(number * len(IMAGENET))] for number in drawn["change0"].tolist()]
    for k in (0, 1):
        chance, sense = drawn[f"change{k + 1}"].tolist(), np.where(drawn[f"sense{k + 1}"] < 0.5, -1.0, 1.0)
        steps = [pair[k] for pair in pairs]
        names = [
            step[0] if number < step[1] else "identity" for step, number in zip(steps, chance, strict=True)
        ]
        pictures = change(pictures, names, sense * [step[2] / 9 for step in steps], fill)
    return pictures


def change(pictures: Tensor, names: Sequence[str], strength: np.ndarray, fill: int = 0) -> Tensor:
    """Each picture changed by its own operation.

    Args:
        pictures: uint8 (N, C, H, W), of 1 or 3 channels.
        names: of the operations, N of them.
        strength: from -1 to 1, (N,); those that have no two senses take its magnitude.
        fill: value 0..255 of what comes in from outside.

    Returns:
        uint8 (N, C, H, W).
    """
    out = pictures.clone()
    for name in sorted(set(names) - {"identity"}):
        rows = torch.tensor([place for place, one in enumerate(names) if one == name])
        out[rows] = _OPERATIONS[name](pictures[rows], strength[rows.numpy()], fill)
    return out


def _turned(pictures: Tensor, strength: np.ndarray, fill: int) -> Tensor:
    still = np.zeros(len(pictures))
    return batched.move(pictures, 30 * strength, (still, still), still + 1, fill)


def _sheared(pictures: Tensor, x: np.ndarray, y: np.ndarray, fill: int) -> Tensor:
    still = np.zeros(len(pictures))
    return batched.warp(pictures, ((still + 1, 0.3 * x), (0.3 * y, still + 1)), (still, still), fill)


def _shifted(pictures: Tensor, x: np.ndarray, y: np.ndarray, fill: int) -> Tensor:
    height, width = pictures.shape[-2:]
    still = np.zeros(len(pictures))
    right, down = np.trunc(150 / 331 * width * x), np.trunc(150 / 331 * height * y)
    return batched.move(pictures, still, (right, down), still + 1, fill)


def _coloured(pictures: Tensor, *strengths: np.ndarray) -> Tensor:
    return batched.colour(pictures, *(1 + 0.9 * strength for strength in strengths))


def _posterized(pictures: Tensor, strength: np.ndarray) -> Tensor:
    lost = 8 - np.round(8 - 4 * np.abs(strength)).astype(np.int64)
    masks = torch.from_numpy((0xFF << lost & 0xFF).astype(np.uint8))
    return pictures & masks.view(-1, 1, 1, 1)


def _solarized(pictures: Tensor, strength: np.ndarray) -> Tensor:
    least = torch.from_numpy(np.ceil(np.round(255 * (1 - np.abs(strength)), 6))).view(-1, 1, 1, 1)
    return torch.where(pictures >= least, 255 - pictures, pictures)


def _theirs() -> ModuleType:
    """torchvision's functions; seconds to import, so only where they are called for."""
    from torchvision.transforms.v2 import functional

    return functional


_OPERATIONS: Mapping[str, Callable[[Tensor, np.ndarray, int], Tensor]] = {
    "shear_x": lambda p, s, fill: _sheared(p, s, 0 * s, fill),
    "shear_y": lambda p, s, fill: _sheared(p, 0 * s, s, fill),
    "translate_x": lambda p, s, fill: _shifted(p, s, 0 * s, fill),
    "translate_y": lambda p, s, fill: _shifted(p, 0 * s, s, fill),
    "rotate": _turned,
    "brightness": lambda p, s, fill: _coloured(p, s, 0 * s, 0 * s),
    "contrast": lambda p, s, fill: _coloured(p, 0 * s, s, 0 * s),
    "color": lambda p, s, fill: _coloured(p, 0 * s, 0 * s, s),
    "sharpness": lambda p, s, fill: batched.sharpness(p, 1 + 0.9 * s),
    "posterize": lambda p, s, fill: _posterized(p, s),
    "solarize": lambda p, s, fill: _solarized(p, s),
    "autocontrast": lambda p, s, fill: _theirs().autocontrast(p),
    "equalize": lambda p, s, fill: _theirs().equalize(p),
    "invert": lambda p, s, fill: 255 - p,
}
