"""Random changes of training pictures, drawn from torch's own generator and from nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop, v2
from torchvision.transforms.v2 import functional as F

from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.errors import ArgumentError

_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Augment:
    """What is changed at random, in this order: area, crop, flip, affine, colour.

    Args:
        crop: pad by this many pixels on each side and cut the old size at a random place
            (He et al. 2016, section 4.2, uses 4 for CIFAR).
        flip: mirror left and right, every second time.
        area: cut a rectangle of this share of the picture (least, greatest) and of proportions from 3:4 to
            4:3, and resize it to the network's input (Szegedy et al. 2015). Where the decoded picture is
            given, it stands in for the resize and crop of the preprocessing; it cuts into a prepared one.
        rotate: turn by up to this many degrees, both ways.
        shift: move by up to this share of the side, on both axes.
        scale: resize by a factor from 1 - scale to 1 + scale.
        color: change brightness, contrast and saturation by a factor from 1 - color to 1 + color.
        fill: value 0..255 of what comes in from outside; 0 is black.
    """

    crop: int = 0
    flip: bool = False
    area: tuple[float, float] | None = None
    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    color: float = 0.0
    fill: int = 0

    def __post_init__(self) -> None:
        if self.area is not None:
            area = tuple(self.area)
            if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
                raise ArgumentError(f"area is {self.area!r}; want two shares with 0 < least <= greatest <= 1")
            object.__setattr__(self, "area", area)
        if not isinstance(self.crop, int):
            raise ArgumentError(f"crop is {self.crop!r}; want a whole number of pixels")
        limits = {"crop": 16384, "rotate": 180, "shift": 1, "scale": 0.99, "color": 1, "fill": 255}
        for name, most in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ArgumentError(f"{name} is {value!r}; want a number from 0 to {most}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Augment:
        """The value that `to_dict` was called on.

        Raises:
            ArgumentError: a field is unknown or not allowed.
        """
        return from_fields(cls, fields)

    def __call__(self, image: Image.Image | Tensor, preprocessing: Preprocessing) -> Tensor:
        """One random version of a picture.

        Args:
            image: the decoded picture, or the prepared one as uint8 (channels, size, size).
            preprocessing: gives size and filter.

        Returns:
            uint8 (channels, size, size); never the tensor that was given, unless nothing is changed.
        """
        if self.area is not None:
            picture = self._part(image, preprocessing, self.area)
        else:
            picture = image if isinstance(image, Tensor) else preprocessing.prepare(image)
        # One draw serves all the plain decisions: calls to the generator cost more than the numbers.
        down, right, mirror, turn, across, along, grow = torch.rand(7, dtype=torch.float64).tolist()
        if self.crop:
            size, room = picture.shape[-1], 2 * self.crop + 1
            wide = torch.nn.functional.pad(picture, [self.crop] * 4, value=self.fill)
            top, left = int(down * room), int(right * room)
            picture = wide[:, top : top + size, left : left + size]
        if self.flip and mirror < 0.5:
            picture = picture.flip(-1)
        if self.rotate or self.shift or self.scale:
            reach = self.shift * picture.shape[-1]
            # Outside is 0 for torchvision; its own `fill` darkens the seam with bilinear interpolation.
            moved = F.affine(
                picture.to(torch.float32) - self.fill,
                angle=self.rotate * (2 * turn - 1),
                translate=[reach * (2 * across - 1), reach * (2 * along - 1)],
                scale=1 + self.scale * (2 * grow - 1),
                shear=[0.0, 0.0],
                interpolation=v2.InterpolationMode.BILINEAR,
            )
            picture = (moved + self.fill).round().clamp(0, 255).to(torch.uint8)
        if self.color:
            picture = _jitter(self.color)(picture)
        return picture

    def _part(
        self, image: Image.Image | Tensor, preprocessing: Preprocessing, area: tuple[float, float]
    ) -> Tensor:
        """A random rectangle of the picture, resized to the network's input."""
        place = RandomResizedCrop.get_params(image, list(area), list(_RATIO))
        size = [preprocessing.size] * 2
        part = F.resized_crop(image, *place, size, interpolation=_kernel(image, preprocessing))
        return part if isinstance(part, Tensor) else F.pil_to_tensor(part)


def _kernel(image: Image.Image | Tensor, preprocessing: Preprocessing) -> v2.InterpolationMode:
    """The preprocessing's filter; torchvision has no Lanczos for tensors, bicubic is next to it."""
    wanted = preprocessing.interpolation()
    if isinstance(image, Tensor) and wanted is v2.InterpolationMode.LANCZOS:
        return v2.InterpolationMode.BICUBIC
    return wanted


@cache
def _jitter(amount: float) -> v2.ColorJitter:
    return v2.ColorJitter(brightness=amount, contrast=amount, saturation=amount)
