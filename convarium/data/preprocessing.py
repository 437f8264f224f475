"""How a picture becomes the input of a network: stated once, kept in the checkpoint, run everywhere."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from convarium.data import squares
from convarium.data.decode import MODES as EIGHT_BITS
from convarium.data.decode import Source, decode
from convarium.data.deep import decode_bands
from convarium.errors import ArgumentError

if TYPE_CHECKING:  # torch takes seconds to import, and a prediction may need none of it
    import torch
    from torch import Tensor
    from torchvision.transforms.v2 import InterpolationMode

MODES = (*EIGHT_BITS, "F")
FITS = ("crop", "squash", "pad")
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
MOST_BANDS = 4096


@dataclass(frozen=True)
class Preprocessing:
    """Decoding, size and normalisation of pictures, as one value that can be saved.

    Args:
        size: side of the square that the network gets, in pixels.
        mode: "RGB" or "L", of 8 bits; or "F", which keeps all bits of any number of bands (see `deep`).
        fit: "crop" brings the shorter side to `resize` and cuts the middle square; "squash" changes the
            proportions; "pad" brings the longer side to `size` and fills the rest with black, on both sides.
        resize: shorter side before the cut, in pixels; only for "crop"; None is `size`.
        filter: Pillow's filter for resizing: "nearest", "bilinear", "bicubic" or "lanczos"; for "F" torch's filters
            of these names, of which there is no "lanczos".
        mean: per channel, of values 0..1; subtracted. Empty: zeros.
        std: per channel, of values 0..1; divided by. Empty: ones.
        orient: apply the EXIF orientation.
        bands: that a picture must have; only for "F".
    """

    size: int
    mode: str = "RGB"
    fit: str = "crop"
    resize: int | None = None
    filter: str = "bilinear"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    orient: bool = True
    bands: int | None = None

    def __post_init__(self) -> None:
        _among("mode", self.mode, MODES)
        _among("fit", self.fit, FITS)
        _among("filter", self.filter, FILTERS[:-1] if self.deep else FILTERS)
        if not self.deep and self.bands is not None:
            raise ArgumentError(f"bands is {self.bands!r}, but mode {self.mode!r} has its own; leave it out")
        if self.deep and (type(self.bands) is not int or not 1 <= self.bands <= MOST_BANDS):
            raise ArgumentError(
                f"bands is {self.bands!r}; mode 'F' wants a whole number of them from 1 to {MOST_BANDS}"
            )
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
        """3 for "RGB", 1 for "L", as many as there are bands for "F"."""
        return self.bands or (3 if self.mode == "RGB" else 1)

    @property
    def deep(self) -> bool:
        """Whether pictures are kept as float32 on the scale 0..255, and not cut to 8 bits."""
        return self.mode == "F"

    @property
    def dtype(self) -> torch.dtype:
        """Of prepared pictures: uint8, or float32, which takes four times the memory."""
        import torch

        return torch.float32 if self.deep else torch.uint8

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold; those of "RGB" and "L" have no `bands`."""
        fields = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}
        return {k: v for k, v in fields.items() if k != "bands" or self.deep}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Preprocessing:
        """The value that `to_dict` was called on.

        Raises:
            ArgumentError: a field is unknown, missing or not allowed.
        """
        return from_fields(cls, fields)

    def open(self, source: Source) -> Image.Image | np.ndarray:
        """Decode a picture in the mode that the network wants.

        Returns:
            A picture; for "F" float32 (height, width, bands).

        Raises:
            PictureError: it cannot be read.
        """
        if self.deep:
            return decode_bands(source, self.channels, orient=self.orient)
        return decode(source, self.mode, orient=self.orient)

    def resizable(self, image: Image.Image | np.ndarray) -> Image.Image | Tensor:
        """A decoded picture as torchvision's functions take it.

        Args:
            image: from `open`; one in another mode is brought to ours first.

        Returns:
            The picture; for "F" float32 (bands, height, width).
        """
        decoded = self._in_our_mode(image)
        return _planes(decoded) if isinstance(decoded, np.ndarray) else decoded

    def square(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Bring a decoded picture to size, exactly as torchvision's Resize and CenterCrop do.

        Args:
            image: from `open`; one in another mode is brought to ours first.

        Returns:
            uint8 (channels, size, size), without the help of torch; float32 for "F".
        """
        decoded = self._in_our_mode(image)
        if isinstance(decoded, np.ndarray):
            return self._deep_square(_planes(decoded)).numpy()
        return squares.square(decoded, self.size, self.fit, self.resize, self.filter)

    def prepare(self, image: Image.Image | np.ndarray) -> Tensor:
        """As `square`, for torch.

        Args:
            image: from `open`; one in another mode is brought to ours first.

        Returns:
            uint8 (channels, size, size); float32 for "F".
        """
        import torch

        return torch.from_numpy(self.square(image))

    def normalise(self, batch: Tensor) -> Tensor:
        """(batch / 255 - mean) / std, on the batch's device.

        Args:
            batch: uint8 (N, channels, H, W); or float32, for "F".

        Returns:
            float32 (N, channels, H, W), in the batch's memory format.
        """
        import torch

        if batch.ndim != 4 or batch.shape[1] != self.channels or batch.dtype not in (torch.uint8, self.dtype):
            got = f"a batch of {batch.dtype} {tuple(batch.shape)}"
            raise ArgumentError(f"{got}; want {self.dtype} (N, {self.channels}, height, width)")
        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=batch.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        if batch.stride(1) == 1:  # or each pixel would be a loop of its own: twice the time
            mean, std = (
                values.expand(1, -1, 1, batch.shape[3]).contiguous(memory_format=torch.channels_last)
                for values in (mean, std)
            )
        return batch.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)

    def interpolation(self) -> InterpolationMode:
        """The filter by torchvision's name."""
        from torchvision.transforms.v2 import InterpolationMode

        # torch's "nearest" is another one than Pillow's.
        return InterpolationMode("nearest-exact" if self.deep and self.filter == "nearest" else self.filter)

    def _in_our_mode(self, image: Image.Image | np.ndarray) -> Image.Image | np.ndarray:
        if isinstance(image, np.ndarray):
            ours = image.dtype == np.float32 and image.shape[2:] == (self.channels,) and self.deep
        else:
            ours = not self.deep and image.mode == self.mode
        return image if ours else self.open(image)

    def _deep_square(self, planes: Tensor) -> Tensor:
        from torchvision.transforms.v2 import functional as F

        height, width = planes.shape[1:]
        cut, resized, corner = squares.steps(height, width, self.size, self.fit, self.resize)
        part = F.crop(planes, cut[1], cut[0], cut[3], cut[2])
        part = F.resize(part, list(resized), interpolation=self.interpolation(), antialias=True)
        return F.crop(part, corner[1], corner[0], self.size, self.size).contiguous()


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


def _planes(values: np.ndarray) -> Tensor:
    """float32 (height, width, bands) as (bands, height, width)."""
    import torch

    return torch.from_numpy(np.require(values.transpose(2, 0, 1), requirements=["C", "W"]))


def _among(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ArgumentError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")


def _size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 16384:
        raise ArgumentError(f"{name} is {value!r}; want a whole number of pixels from 1 to 16384")
