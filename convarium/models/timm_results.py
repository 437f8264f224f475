"""What timm tells of its trained weights outside its package: accuracy on ImageNet-1k, parameters, operations.

`timm_imagenet.csv` holds it, one row for each set of weights and side of the input: model (network and tag), side in
pixels, share of the picture that the crop takes, top-1 and top-5 in per cent on the 50,000 validation pictures,
millions of parameters and thousand millions of multiply-accumulates. Source: huggingface/pytorch-image-models,
results/results-imagenet.csv of 2025-10-30 (commit 4e5207c7), and for the operations
results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv (commit 90cae8c5) and -pt240-cu124-rtx4090.csv, under Apache-2.0.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = "timm, results-imagenet.csv of 2025-10-30"


class Result(NamedTuple):
    """One set of weights at one side of the input.

    Args:
        model: network and tag, as "resnet50.a1_in1k".
        size: side of the input in pixels.
        top1: in per cent.
        top5: in per cent.
        parameters: as timm counts them, to 10,000.
        macs: multiply-accumulates a picture, as timm counts them, to 10 million.
    """

    model: str
    size: int
    top1: float
    top5: float
    parameters: float
    macs: float


@cache
def results() -> dict[tuple[str, int], Result]:
    """Every result, by model and side."""
    with (Path(__file__).parent / "timm_imagenet.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            Result(
                model=row["model"],
                size=int(row["size"]),
                top1=float(row["top1"]),
                top5=float(row["top5"]),
                parameters=float(row["mparams"]) * 1e6,
                macs=float(row["gmacs"]) * 1e9,
            )
            for row in csv.DictReader(file)
        ]
    return {(row.model, row.size): row for row in rows}


def accuracy(model: str, size: int) -> tuple[float, float] | None:
    """Top-1 and top-5 in per cent.

    Args:
        model: network and tag, as "resnet50.a1_in1k".
        size: side of the input in pixels.

    Returns:
        Both, or None where timm has published none for this side.
    """
    found = results().get((model, size))
    return (found.top1, found.top5) if found else None
