"""Random changes of training pictures, each ruled by numbers that belong to the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convarium.data import batched, policies
from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.errors import ArgumentError


@dataclass(frozen=True)
class Augment:
    """What is changed at random, in this order: area, crop, flip, affine, colour, drawn operations, erasing.

    Args:
        crop: pad by this many pixels on each side and cut the old size at a random place
            (He et al. 2016, section 4.2, uses 4 for CIFAR).
        flip: mirror left and right, every second time.
        area: cut a rectangle of this share of the picture (least, greatest) and of proportions from 3:4 to
            4:3, and resize it to the network's input (Szegedy et al. 2015). Where the decoded picture is
            given, it stands in for the resize and crop of the preprocessing, with its filter; it cuts into
            a prepared one, always with bilinear interpolation.
        rotate: turn by up to this many degrees, both ways.
        shift: move by up to this share of the side, on both axes.
        scale: resize by a factor from 1 - scale to 1 + scale.
        color: change brightness, contrast and saturation by a factor from 1 - color to 1 + color, in
            this order.
        randaugment: number of operations drawn for each picture, up to 4, and their magnitude from 0 to 10
            (Cubuk et al. 2020; see `policies` for the scale, which is the paper's).
        autoaugment: change by the policy that was found for ImageNet (Cubuk et al. 2019).
        erasing: probability of overwriting a rectangle with noise, uniform from 0 to 255 for each value (Zhong
            et al. 2017, "random values"; before normalisation, so not the normal noise of Liu et al. 2022).
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
    randaugment: tuple[int, float] = (0, 0)
    autoaugment: bool = False
    erasing: float = 0.0

    def __post_init__(self) -> None:
        if self.area is not None:
            area = tuple(self.area)
            if len(area) != 2 or not 0 < area[0] <= area[1] <= 1:
                raise ArgumentError(f"area is {self.area!r}; want two shares with 0 < least <= greatest <= 1")
            object.__setattr__(self, "area", area)
        if not isinstance(self.crop, int):
            raise ArgumentError(f"crop is {self.crop!r}; want a whole number of pixels")
        drawn = tuple(self.randaugment) if isinstance(self.randaugment, tuple | list) else ()
        if (
            len(drawn) != 2
            or type(drawn[0]) is not int
            or not (
                0 <= drawn[0] <= 4 and isinstance(drawn[1], int | float) and 0 <= drawn[1] <= policies.MOST
            )
        ):
            raise ArgumentError(
                f"randaugment is {self.randaugment!r}; want a number of operations from 0 to 4 and a magnitude "
                f"from 0 to {policies.MOST}"
            )
        object.__setattr__(self, "randaugment", drawn)
        if not isinstance(self.autoaugment, bool):
            raise ArgumentError(f"autoaugment is {self.autoaugment!r}; allowed are True and False")
        if self.autoaugment and drawn[0]:
            raise ArgumentError("autoaugment and randaugment together; want one of them")
        limits = {
            "crop": 16384,
            "rotate": 180,
            "shift": 1,
            "scale": 0.99,
            "color": 1,
            "erasing": 1,
            "fill": 255,
        }
        for name, most in limits.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ArgumentError(f"{name} is {value!r}; want a number from 0 to {most}")

    @property
    def needs_torchvision(self) -> bool:
        """Whether a change is torchvision's, which takes seconds to import."""
        return bool(self.area is not None or self.randaugment[0] or self.autoaugment)

    @property
    def of_bytes(self) -> bool:
        """Whether it changes values, and not only places; such changes are made for grey and colours of 8 bits."""
        return bool(self.color or self.randaugment[0] or self.autoaugment or self.erasing)

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

    def __call__(
        self,
        image: Image.Image | np.ndarray | Tensor,
        preprocessing: Preprocessing,
        numbers: np.ndarray | None = None,
    ) -> Tensor:
        """One random version of a picture; the same as in any batch.

        Args:
            image: the decoded picture, or the prepared one as a tensor (channels, size, size).
            preprocessing: gives size and filter.
            numbers: a row of `batched.fractions`; None draws one from torch's generator.

        Returns:
            (channels, size, size); never the tensor that was given, unless nothing is changed.
        """
        if numbers is None:
            numbers = torch.rand(batched.WORDS, dtype=torch.float64).numpy()
        rows = numbers[None]
        if isinstance(image, Tensor):
            return self.prepared(image[None], rows)[0]
        return self.after_area(self.decoded(image, preprocessing, numbers)[None], rows)[0]

    def decoded(
        self, image: Image.Image | np.ndarray, preprocessing: Preprocessing, numbers: np.ndarray
    ) -> Tensor:
        """A decoded picture brought to size: the whole, or its random part where there is an `area`.

        Args:
            image: the decoded picture.
            preprocessing: gives size and filter.
            numbers: a row of `batched.fractions`.

        Returns:
            uint8 (channels, size, size).
        """
        if self.area is None:
            return preprocessing.prepare(image)
        from torchvision.transforms.v2 import functional as F  # seconds to import, so only where it is needed

        row = dict(zip(batched.NAMES, numbers.tolist(), strict=False))
        whole = preprocessing.resizable(image)
        height, width = F.get_size(whole)
        place = batched.rectangle(self.area, height, width, row)
        size = [preprocessing.size] * 2
        part = F.resized_crop(whole, *place, size, interpolation=preprocessing.interpolation())
        return part if isinstance(part, Tensor) else F.pil_to_tensor(part)

    def prepared(self, pictures: Tensor, numbers: np.ndarray) -> Tensor:
        """Random versions of prepared pictures.

        Args:
            pictures: uint8 or float32 (N, channels, size, size); not changed.
            numbers: from `batched.fractions`, (N, 32).

        Returns:
            Likewise.
        """
        if self.area is not None:
            rows = (dict(zip(batched.NAMES, row, strict=False)) for row in numbers.tolist())
            height, width = pictures.shape[-2:]
            places = [batched.rectangle(self.area, height, width, row) for row in rows]
            parts = [batched.cut(pictures[piece], places[piece]) for piece in batched.pieces(pictures)]
            pictures = torch.cat(parts) if parts else pictures
        return self.after_area(pictures, numbers)

    def after_area(self, pictures: Tensor, numbers: np.ndarray) -> Tensor:
        """`prepared` without `area`, for pictures that were cut already."""
        made = [self._changed(pictures[piece], numbers[piece]) for piece in batched.pieces(pictures)]
        return made[0] if len(made) == 1 else torch.cat([pictures[:0], *made])

    def _changed(self, pictures: Tensor, numbers: np.ndarray) -> Tensor:
        if self.of_bytes and pictures.dtype != torch.uint8:
            raise ArgumentError(REFUSAL)
        drawn = batched.columns(numbers)
        if self.crop:
            down, right = ((drawn[k] * (2 * self.crop + 1)).astype(np.int64) for k in ("down", "right"))
            pictures = batched.crop(pictures, down, right, self.crop, self.fill)
        if self.flip:
            pictures = batched.mirror(pictures, drawn["mirror"] < 0.5)
        # Both ways alike: from -1 to 1.
        drawn = batched.columns(2 * numbers - 1)
        if self.rotate or self.shift or self.scale:
            height, width = pictures.shape[-2:]
            shifts = self.shift * width * drawn["across"], self.shift * height * drawn["along"]
            angles, scales = self.rotate * drawn["turn"], 1 + self.scale * drawn["grow"]
            pictures = batched.move(pictures, angles, shifts, scales, self.fill)
        if self.color:
            factors = (1 + self.color * drawn[k] for k in ("brightness", "contrast", "saturation"))
            pictures = batched.colour(pictures, *factors)
        if self.randaugment[0]:
            pictures = policies.randaugment(pictures, numbers, *self.randaugment, self.fill)
        if self.autoaugment:
            pictures = policies.autoaugment(pictures, numbers, self.fill)
        if self.erasing:
            chosen = batched.columns(numbers)["erased"] < self.erasing
            pictures = batched.erase(pictures, chosen, numbers)
        return pictures


REFUSAL = (
    "colours, drawn operations and erasing are for pictures of 8 bits in grey or colour; for others (--deep, or "
    "another number of channels than 1 or 3) give --augment light or none"
)
"""Why an augmentation of values is not done to pictures of mode "F"."""

_PHOTO = Augment(area=(0.35, 1.0), flip=True, color=0.2)

SETS: Mapping[str, Augment | None] = {
    "none": None,
    "light": Augment(rotate=10, shift=0.08, scale=0.1),
    "photo": _PHOTO,
    # As Liu et al. 2022, table 5, but for the spread of magnitudes (0.5 there, none here).
    "randaugment": dataclasses.replace(_PHOTO, color=0.0, randaugment=(2, 9), erasing=0.25, fill=128),
    # As Tan & Le 2019, section 5.2.
    "autoaugment": dataclasses.replace(_PHOTO, color=0.0, autoaugment=True, fill=128),
}
"""What training pictures are changed by, by name."""
