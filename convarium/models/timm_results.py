"""Accuracy of timm's trained weights on ImageNet-1k, as timm measured it; its package does not carry the figures.

`timm_imagenet.csv` holds them: model (network and tag), side of the input and share of the picture that the crop
takes, top-1 and top-5 in per cent on the 50,000 validation pictures. Source: huggingface/pytorch-image-models,
results/results-imagenet.csv of 2025-10-30 (commit 4e5207c7), under Apache-2.0.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

SOURCE = "timm, results-imagenet.csv of 2025-10-30"


@cache
def _table() -> dict[tuple[str, int], tuple[float, float]]:
    with (Path(__file__).parent / "timm_imagenet.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["model"], int(row["size"])): (float(row["top1"]), float(row["top5"]))
            for row in csv.DictReader(file)
        }


def accuracy(model: str, size: int) -> tuple[float, float] | None:
    """Top-1 and top-5 in per cent.

    Args:
        model: network and tag, as "resnet50.a1_in1k".
        size: side of the input in pixels.

    Returns:
        Both, or None where timm has published none for this side.
    """
    return _table().get((model, size))
