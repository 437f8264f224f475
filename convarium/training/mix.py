"""Batches in which two pictures, and their labels, share a place.

All numbers are drawn from torch's generator of the CPU, whatever the device: the loop seeds it for each step, so that a
resumed run mixes alike, and no device has to be waited for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mixed(pictures: Tensor, labels: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Tensor, float]:
    """A batch in which each picture is mixed with another, all with one share.

    Args:
        pictures: (N, C, H, W), normalised; not changed.
        labels: (N,), class indices.
        mixup: alpha of Mixup, 0 for none; where both are on, one is drawn with equal chance.
        cutmix: likewise of CutMix.

    Returns:
        Pictures (N, C, H, W); the partners' labels, (N,); the pictures' own share, from 0 to 1.
    """
    cut = cutmix > 0 and (not mixup or _uniform() < 0.5)
    share = _beta(cutmix if cut else mixup)
    partner = torch.randperm(len(pictures), device="cpu").to(labels.device)
    made, share = (cut_mix if cut else mix_up)(pictures, partner, share)
    return made, labels[partner], share


def shares(labels: Tensor, others: Tensor, share: float, classes: int) -> Tensor:
    """Shares of the classes: of each picture's own label, the rest of its partner's.

    Args:
        labels: (N,), class indices.
        others: likewise of the partners.
        share: of the picture, from 0 to 1.
        classes: number of classes.

    Returns:
        float32 (N, classes); each row adds up to 1.
    """
    places = torch.arange(classes, device=labels.device)
    return share * (labels[:, None] == places).float() + (1 - share) * (others[:, None] == places).float()


def mix_up(pictures: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """share * picture + (1 - share) * partner.

    Args:
        pictures: (N, C, H, W), normalised.
        partner: position of each picture's partner, (N,).
        share: of the picture, from 0 to 1.

    Returns:
        The pictures, and the share.

    Source:
        Zhang et al. 2017, mixup: Beyond Empirical Risk Minimization, section 2; one share a batch, as in their code.
    """
    return pictures * share + pictures[partner] * (1 - share), share


def cut_mix(pictures: Tensor, partner: Tensor, share: float) -> tuple[Tensor, float]:
    """The picture, with a rectangle of its partner in the same place.

    The rectangle has the picture's proportions and its middle anywhere; what lies outside is cut off.

    Args:
        pictures: (N, C, H, W), normalised.
        partner: position of each picture's partner, (N,).
        share: of the picture, from 0 to 1.

    Returns:
        The pictures, and the share that was left of them after rounding and cutting off.

    Source:
        Yun et al. 2019, CutMix, section 3.1 and algorithm 1.
    """
    height, width = pictures.shape[-2:]
    side = math.sqrt(1 - share)
    y, x = int(_uniform() * height), int(_uniform() * width)
    high, wide = int(height * side), int(width * side)
    top, left = max(0, y - high // 2), max(0, x - wide // 2)
    bottom, right = min(height, y + high // 2), min(width, x + wide // 2)
    made = pictures.clone()
    made[:, :, top:bottom, left:right] = pictures[partner, :, top:bottom, left:right]
    return made, 1 - (bottom - top) * (right - left) / (height * width)


def _beta(alpha: float) -> float:
    """A number from 0 to 1: near both ends for a small alpha, uniform for 1."""
    both = torch.full((), alpha, dtype=torch.float64, device="cpu")
    return torch.distributions.Beta(both, both).sample().item()


def _uniform() -> float:
    return torch.rand((), dtype=torch.float64, device="cpu").item()
