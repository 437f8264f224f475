"""Pillow's resizing as a graph: pictures of any size become the squares that `Preprocessing.prepare` makes of them.

Each output pixel is a weighted mean of input pixels, first along the rows, then along the columns. As Pillow does
(libImaging/Resample.c): the filter is stretched where the picture shrinks, its weights are rounded to 2^-22, and each
of the two results is rounded to 8 bits. With float64, in which all these sums are exact, both agree to the bit.

Pillow 13 goes along the columns first where that is less work, for tall pictures above all. What lies between the two
is then rounded elsewhere, and some pixels differ, mostly by one level.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError

_ONE = 2.0**22
_LONGEST = 16  # as in data/preprocessing.py: what is longer is cut first
_REACH = {"bilinear": 1, "bicubic": 2, "lanczos": 3}

FILTERS = tuple(_REACH)
"""Filters that can be put into a graph."""


class Square(nn.Module):
    """uint8 (N, H, W, channels) of any size to whole numbers 0..255, (N, channels, size, size), float64.

    Args:
        preprocessing: whose `prepare` this repeats.
    """

    pi: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        if preprocessing.filter not in _REACH:
            raise ArgumentError(
                f"the filter {preprocessing.filter!r} cannot be put into a graph; allowed are {', '.join(FILTERS)}"
            )
        self.preprocessing = preprocessing
        # A tensor: a number would be rounded to float32 on its way into ONNX.
        self.register_buffer("pi", torch.tensor(math.pi, dtype=torch.float64), persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        planes = pictures.permute(0, 3, 1, 2).double()
        rows = torch.arange(planes.shape[2], dtype=torch.float64)
        columns = torch.arange(planes.shape[3], dtype=torch.float64)
        height, width = (torch.scalar_tensor(side, dtype=torch.float64) for side in planes.shape[2:])
        planes = _rounded(planes @ self.weights(columns, width, height).T)
        return _rounded(self.weights(rows, height, width) @ planes)

    def weights(self, at: Tensor, side: Tensor, other: Tensor) -> Tensor:
        """What each pixel of the input gives to each of the output, along one side.

        Args:
            at: 0, 1, ..., (side,).
            side: pixels of the picture on this side.
            other: on the other one.

        Returns:
            (size, side), whole numbers; each row sums to about 2^22, or to 0 in a margin.
        """
        at, length, target, first = self.frame(at, side, other)
        reach = _REACH[self.preprocessing.filter]
        out = (torch.arange(self.preprocessing.size, dtype=torch.float64) + first)[:, None]
        scale = length / target
        wide = scale.clamp(min=1)
        centre = (out + 0.5) * scale
        low = torch.floor(centre - reach * wide + 0.5).clamp(min=0)
        high = torch.minimum(torch.floor(centre + reach * wide + 0.5), length)
        inside = (at >= low) & (at < high) & (out >= 0) & (out < target)
        found = self.filter((at - centre + 0.5) * (1 / wide))
        found = torch.where(inside, found, torch.zeros_like(found))
        total = found.sum(1, keepdim=True)
        found = found / torch.where(total == 0, torch.ones_like(total), total) * _ONE
        return torch.where(found < 0, torch.ceil(found - 0.5), torch.floor(found + 0.5))

    def frame(self, at: Tensor, side: Tensor, other: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Places, pixels that are resized, to how many, and which of those comes first in the square."""
        p = self.preprocessing
        size = torch.full_like(side, p.size)
        if p.fit == "squash":
            return at, side, size, torch.zeros_like(side)
        if p.fit == "pad":
            target = torch.round(size * side / torch.maximum(side, other)).clamp(min=1)
            return at, side, target, -torch.floor((size - target) / 2)
        shorter = torch.minimum(side, other)
        length = torch.minimum(side, _LONGEST * shorter)
        target = torch.floor((p.resize or p.size) * length / shorter)
        return at - torch.round((side - length) / 2), length, target, torch.round((target - size) / 2)

    def filter(self, x: Tensor) -> Tensor:
        """Weight at a distance in output pixels, as Pillow's filter of this name."""
        x = x.abs()
        if self.preprocessing.filter == "bilinear":
            return (1 - x).clamp(min=0)
        if self.preprocessing.filter == "bicubic":  # with a = -0.5
            far = torch.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, torch.zeros_like(x))
            return torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, far)
        return torch.where(x < 3, self.sinc(x) * self.sinc(x / 3), torch.zeros_like(x))

    def sinc(self, x: Tensor) -> Tensor:
        """sin(pi x) / (pi x), and 1 at 0."""
        angle = torch.where(x == 0, torch.ones_like(x), x * self.pi)
        return torch.where(x == 0, torch.ones_like(x), torch.sin(angle) / angle)


def _rounded(sums: Tensor) -> Tensor:
    return torch.floor((sums + _ONE / 2) / _ONE).clamp(0, 255)
