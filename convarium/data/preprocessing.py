"""How a picture becomes the input of a network: stated once, kept in the checkpoint, run everywhere."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from convarium.data.decode import MODES, Source, decode
from convarium.errors import ArgumentError

FITS = ("crop", "squash", "pad")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")

# A picture longer than this many times its width is cut before it is resized, or a strip
# of 3 x 9000 pixels would become 224 x 672,000.
_LONGEST = 16


@dataclass(frozen=True)
class Preprocessing:
    """Decoding, size and normalisation of pictures, as one value that can be saved.

    Args:
        size: side of the square that the network gets, in pixels.
        mode: "RGB" or "L".
        fit: "crop" brings the shorter side to `resize` and cuts the middle square; "squash" changes the
            proportions; "pad" brings the longer side to `size` and fills the rest with black, on both sides.
        resize: shorter side before the cut, in pixels; only for "crop"; None is `size`.
        filter: Pillow's filter for resizing: "nearest", "bilinear", "bicubic" or "lanczos".
        mean: per channel, of values 0..1; subtracted. Empty: zeros.
        std: per channel, of values 0..1; divided by. Empty: ones.
        orient: apply the EXIF orientation.
    """

    size: int
    mode: str = "RGB"
    fit: str = "crop"
    resize: int | None = None
    filter: str = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    orient: bool = True

    def __post_init__(self) -> None:
        _among("mode", self.mode, MODES)
        _among("fit", self.fit, FITS)
        _among("filter", self.filter, FILTERS)
        _size("size", self.size)
        if self.resize is not None:
            _size("resize", self.resize)
            if self.fit != "crop":
                raise ArgumentError(
                    f"resize is {self.resize}, but fit {self.fit!r} has no use for it; leave it out"
                )
            if self.resize < self.size:
                raise ArgumentError(
                    f"resize is {self.resize}, smaller than the crop of {self.size}; want at least that"
                )
        if not isinstance(self.orient, bool):
            raise ArgumentError(f"orient is {self.orient!r}; allowed are True and False")
        object.__setattr__(self, "mean", self._per_channel("mean", 0.0))
        object.__setattr__(self, "std", self._per_channel("std", 1.0))
        if min(self.std) <= 0:
            raise ArgumentError(f"std is {self.std}; every value must be above 0")

    def _per_channel(self, name: str, default: float) -> tuple[float, ...]:
        try:
            values = tuple(float(value) for value in getattr(self, name)) or (default,) * self.channels
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"{name} is {getattr(self, name)!r}; want {self.channels} numbers") from error
        if len(values) != self.channels or not all(map(math.isfinite, values)):
            raise ArgumentError(
                f"{name} is {values}; want {self.channels} finite numbers for mode {self.mode!r}"
            )
        return values

    @property
    def channels(self) -> int:
        """3 for "RGB", 1 for "L"."""
        return 3 if self.mode == "RGB" else 1

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The value that `to_dict` was called on.

        Raises:
            ArgumentError: a field is unknown, missing or not allowed.
        """
        return from_fields(cls, fields)

    def open(self, source: Source) -> Image.Image:
        """Decode a picture in the mode that the network wants.

        Raises:
            PictureError: it cannot be read.
        """
        return decode(source, self.mode, orient=self.orient)

    def prepare(self, image: Image.Image) -> Tensor:
        """Bring a decoded picture to size, exactly as torchvision's Resize and CenterCrop do with Pillow.

        Args:
            image: from `open`; one in another mode is brought to ours first.

        Returns:
            uint8 (channels, size, size).
        """
        if image.mode != self.mode:
            image = self.open(image)
        if self.fit == "squash":
            image = self._resized(image, [self.size, self.size])
        elif self.fit == "crop":
            side = self.resize or self.size
            image = F.center_crop(self._resized(_without_far_ends(image), [side]), [self.size, self.size])
        else:
            longest = max(image.size)
            height, width = (
                max(1, round(self.size * side / longest)) for side in (image.height, image.width)
            )
            left, top = (self.size - width) // 2, (self.size - height) // 2
            margins = [left, top, self.size - width - left, self.size - height - top]
            image = F.pad(self._resized(image, [height, width]), margins, fill=0)
        return F.pil_to_tensor(image)

    def normalise(self, batch: Tensor) -> Tensor:
        """(batch / 255 - mean) / std, on the batch's device.

        Args:
            batch: uint8 (N, channels, H, W).

        Returns:
            float32 (N, channels, H, W), in the batch's memory format.
        """
        if batch.ndim != 4 or batch.shape[1] != self.channels or batch.dtype != torch.uint8:
            got = f"a batch of {batch.dtype} {tuple(batch.shape)}"
            raise ArgumentError(f"{got}; want torch.uint8 (N, {self.channels}, height, width)")
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        if batch.stride(1) == 1:  # or each pixel would be a loop of its own: twice the time
            mean, std = (
                values.expand(1, -1, 1, batch.shape[3]).contiguous(memory_format=torch.channels_last)
                for values in (mean, std)
            )
        return batch.to(torch.float32).div_(255).sub_(mean).div_(std)

    def interpolation(self) -> InterpolationMode:
        """The filter by torchvision's name."""
        return InterpolationMode(self.filter)

    def _resized(self, image: Image.Image, size: list[int]) -> Image.Image:
        return F.resize(image, size, interpolation=self.interpolation())


def from_fields(cls: type, fields: dict[str, Any]) -> Any:
    """A dataclass from a dictionary of its fields; lists become tuples.

    Raises:
        ArgumentError: a field is unknown, missing or not allowed.
    """
    known = [field.name for field in dataclasses.fields(cls)]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ArgumentError(f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()})
    except TypeError as error:
        raise ArgumentError(f"{cls.__name__}: {error}") from error


def _without_far_ends(image: Image.Image) -> Image.Image:
    """The middle of a very long picture; the centre crop would drop the rest anyway."""
    longest = min(image.size) * _LONGEST
    if max(image.size) <= longest:
        return image
    return F.center_crop(image, [min(image.height, longest), min(image.width, longest)])


def _among(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ArgumentError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")


def _size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16384:
        raise ArgumentError(f"{name} is {value!r}; want a whole number of pixels from 1 to 16384")
