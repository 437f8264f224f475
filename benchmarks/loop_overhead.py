"""What the training loop costs beside a bare PyTorch loop over the same tensors, in one run.

Both train the same network from the same weights on the same batches of pictures in memory, with the same optimiser
and normalisation; the bare loop keeps no sums, no state and no seed. They take turns, one epoch each, and the
ratio is that of the medians.

    python benchmarks/loop_overhead.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import convarium
from convarium.data.loader import Loader
from convarium.data.pictures import Picture, PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.training import loop
from convarium.training.optim import optimizer
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe
from convarium.training.signals import Stop
from convarium.training.task import Classify
from convarium.training.watch import Watch

BATCH = 128
PICTURES = 128 * 80


def main() -> None:
    """Print one line a network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, batch {BATCH}, {rounds} rounds")
    for name, options in {"lenet5": {}, "resnet20": {"size": 16, "depth": 8}}.items():
        ours, bare = measure(name, options, rounds)
        a, b = statistics.median(ours), statistics.median(bare)
        spread = [x / y for x, y in zip(ours, bare, strict=True)]
        print(
            f"{name:<10} loop {1000 * a:.2f} ms a step, bare {1000 * b:.2f} ms, ratio {a / b:.3f} "
            f"(pairs {min(spread):.2f} to {max(spread):.2f})"
        )


def measure(name: str, options: dict[str, int], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds a step of both loops, a figure a round, after one round that is not counted."""
    recipe = Recipe(epochs=1, batch=BATCH, optimizer="sgd", lr=0.01, clip=0.0, schedule="constant", warmup=0)
    net = convarium.create(name, classes=10, **options)
    look = Preprocessing(net.size, "L" if net.in_channels == 1 else "RGB", mean=(0.5,) * net.in_channels)
    draw = np.random.default_rng(0)
    prepared = torch.from_numpy(
        draw.integers(0, 256, (PICTURES, net.in_channels, net.size, net.size), np.uint8)
    )
    blank = np.zeros((1, 1), np.uint8)
    pictures = tuple(Picture(f"{i:05}", blank, i % 10) for i in range(PICTURES))
    loader = Loader(
        PictureSet(tuple("0123456789"), pictures), look, batch=BATCH, seed=0, shuffle=True, prepared=prepared
    )
    labels = torch.arange(PICTURES) % 10
    steps = len(loader)
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as folder:
        setting = loop.Setting(
            seed=0,
            device=torch.device("cpu"),
            precision=Precision(False, False, "fixed"),
            normalise=look.normalise,
            validate=None,
            state=Path(folder) / "last.safetensors",
            minutes=60,
            stop=Stop(),
            watcher=Watch(quiet=True),
        )
        for round_ in range(rounds + 1):
            task = Classify(copy.deepcopy(net))
            start = time.perf_counter()
            loop.fit(task, loader, recipe, setting)
            first = (time.perf_counter() - start) / steps

            other = copy.deepcopy(net).train()
            step = optimizer(other, recipe)
            start = time.perf_counter()
            for rows in torch.randperm(PICTURES).split(BATCH):
                loss = F.cross_entropy(other(look.normalise(prepared[rows])), labels[rows])
                step.zero_grad()
                loss.backward()
                step.step()
            second = (time.perf_counter() - start) / steps
            if round_:
                ours.append(first)
                bare.append(second)
    return ours, bare


if __name__ == "__main__":
    main()
