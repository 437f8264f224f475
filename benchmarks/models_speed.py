"""Our networks beside torchvision's in one run: building for weights, and inference in plain eager PyTorch.

Both have the same weights; they take turns, and the ratio of the medians is printed (below 1: ours is faster).

    python -m benchmarks.models_speed [--rounds 9] [NAME ...]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torchvision

from convarium.models import variant
from convarium.models.registry import build_empty
from tests.reference import pair

NAMES = ("alexnet", "vgg11", "googlenet", "resnet18", "resnet50", "squeezenet1_1", "densenet121", "mobilenet_v2",
         "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny")  # fmt: skip


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {asked.rounds} rounds, batch 1 at 224 px"
    )
    row = variant("vgg16")
    given = {"name": "vgg16", "arguments": {"classes": 1000, "in_channels": 3, "size": row.size}}
    building = ratio(lambda: build_empty(given), lambda: torchvision.models.vgg16(weights=None), 3)
    print(f"vgg16, building for weights {building:.3f}")
    for name in asked.names:
        ours, theirs = pair(name)
        ours.eval(), theirs.eval()
        x = torch.randn(1, 3, 224, 224)
        with torch.inference_mode():
            figure = ratio(lambda: ours(x), lambda: theirs(x), asked.rounds)  # noqa: B023
        print(f"{name:<20} inference {figure:.3f}")


def ratio(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> float:
    """Median of ours over median of theirs, in turn, after one of each that is not counted."""
    figures: list[list[float]] = [[], []]
    for round_ in range(rounds + 1):
        for call, kept in zip((ours, theirs), figures, strict=True):
            start = time.process_time()
            call()
            if round_:
                kept.append(time.process_time() - start)
    return statistics.median(figures[0]) / statistics.median(figures[1])


if __name__ == "__main__":
    main()
