"""What one sitting of a run works with, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from convarium.data.folders import Data
from convarium.data.loader import Checked
from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.judge.metrics import Metrics
from convarium.judge.scoring import Given
from convarium.net import Net
from convarium.training import checkpoint
from convarium.training.precision import Precision
from convarium.training.recipes import Recipe, recipe
from convarium.training.run import RunFolder
from convarium.training.watch import Watch

SMALL = 64
"""Side in pixels below which pictures in memory are changed faster than a thread could be told to."""


@dataclass
class Sitting:
    """What one sitting works with.

    Args:
        folder: of the run, held by this process.
        config: what its config.toml says.
        found: the data with its parts.
        watch: told how it goes.
        resume: whether to go on from the state.
        device: where to compute.
        sets: the pictures that can be read, by part.
        damaged: key and reason of each other.
        times: seconds by phase.
        sha256: fingerprint of each part's pictures.
        began: moment of `time.perf_counter()` at which training began.
    """

    folder: RunFolder
    config: dict[str, Any]
    found: Data
    watch: Watch
    resume: bool
    device: torch.device
    sets: dict[str, Checked] = field(default_factory=dict)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    began: float = 0.0

    @property
    def arguments(self) -> dict[str, Any]:
        """Of the network: classes, in_channels, size and its own."""
        return self.config["architecture"]["arguments"]

    @property
    def recipe(self) -> Recipe:
        """How to train."""
        return recipe(**self.config["recipe"])

    @property
    def held_out(self) -> tuple[str, Checked]:
        """The part that the final figures are measured on."""
        part = "test" if "test" in self.sets else "val"
        return part, self.sets[part]

    def preprocessing(self, mean: tuple[float, ...] = (), std: tuple[float, ...] = ()) -> Preprocessing:
        """How pictures are prepared: as the weights ask for; without weights as photographs are by custom from 64
        pixels on, and whole below that.

        Args:
            mean: of the training pictures, where there are no weights.
            std: likewise.
        """
        if "preprocessing" in self.config:
            return from_fields(Preprocessing, self.config["preprocessing"])
        size, fit = self.arguments["size"], self.config["fit"]
        resize = round(size * 256 / 224) if fit == "crop" and size >= 64 else None
        channels = self.arguments["in_channels"]
        if self.config.get("deep"):
            return Preprocessing(size, "F", fit, resize, mean=mean, std=std, bands=channels)
        return Preprocessing(size, "L" if channels == 1 else "RGB", fit, resize, mean=mean, std=std)

    def workers(self, checked: Checked) -> int:
        """How many threads decode and change pictures; none where small ones are in memory already."""
        asked = self.config.get("workers")
        if asked is not None:
            return int(asked)
        ready = checked.prepared is not None and self.arguments["size"] < SMALL
        return 0 if ready else min(8, torch.get_num_threads())


@dataclass(frozen=True)
class Trained:
    """What training gave.

    Args:
        net: the network to keep.
        progress: where training ended.
        way: how steps were computed.
        given: what the network gives to the pictures of a part, where training has that already.
        notes: what a reader must know of how it was done.
    """

    net: Net
    progress: checkpoint.Progress
    way: Precision
    given: dict[str, Given] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class End:
    """How a run ended."""

    folder: RunFolder
    metrics: Metrics
    progress: checkpoint.Progress
