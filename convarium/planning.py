"""What a run is to do, worked out and checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convarium import __version__
from convarium.beginning import read, regularised, weights_of
from convarium.data.folders import Data
from convarium.errors import ArgumentError, DataError
from convarium.models import front
from convarium.training import recipes
from convarium.training.run import without_none

_ELSEWHERE = {
    "classes": "the data decides it",
    "in_channels": "say it with --channels",
    "size": "say it with --size",
    "weights": "say it with --weights",
}
"""Arguments of every network, and where they are said."""


@dataclass(frozen=True)
class Plan:
    """A run that has not begun.

    Args:
        config: what its config.toml will say.
        found: the data with its parts.
        needed: bytes that it will write.
    """

    config: dict[str, Any]
    found: Data
    needed: int


def planned(
    data: str | Path,
    model: str,
    *,
    weights: str | Path | None = None,
    val: str | Path | None = None,
    fraction: float = 0.2,
    fold: tuple[int, int] | None = None,
    seed: int = 0,
    size: int | None = None,
    channels: int | None = None,
    fit: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    recipe: str | None = None,
    workers: int | None = None,
    precision: str = "auto",
    cache: str | Path | None = None,
    tensorboard: bool = False,
    minutes: float | None = None,
    save_minutes: float = 5.0,
    arguments: dict[str, Any] | None = None,
    **changes: Any,
) -> Plan:
    """Work out a run; the arguments are those of `api.train`.

    Returns:
        The plan.

    Raises:
        UserError: anything that the user can mend; the message says how.
    """
    row = front.variant(model)
    if row.family == "clip":  # its `classes` are the width of a common space
        raise ArgumentError(
            f"{model} gives features of pictures and texts, not class scores, so it cannot be trained on classes here; "
            "choose another network; `convarium list` shows them"
        )
    for name, way in _ELSEWHERE.items():
        if name in (arguments or {}):
            raise ArgumentError(f"{name} is no argument to set on the network: {way}")
    if not str(data):
        raise DataError("no data: the path is empty")
    chosen = recipes.recipe(recipe or ("finetune" if weights else "scratch"), **changes)
    if not chosen.backbone and weights is None:
        raise ArgumentError(
            f"the recipe {recipe} trains nothing but the classifier, so it needs trained weights: give --weights, as "
            f"`convarium weights {model}` lists them, or take the recipe scratch"
        )
    for name, value in (("minutes", minutes), ("save_minutes", save_minutes)):
        if value is not None and not value > 0:
            raise ArgumentError(f"{name} = {value}; it must be above 0")
    if workers is not None and (not isinstance(workers, int) or workers < 0):
        raise ArgumentError(f"workers = {workers!r}; it must be 0 or more")
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(f"seed = {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    found = read(Path(data), None if val is None else Path(val), fraction, seed, fold)
    if channels is None:
        channels = row.in_channels if row.in_channels in (1, 3) else 3
    if channels not in (1, 3):
        raise ArgumentError(f"channels = {channels}; it must be 1 (grey) or 3 (colour)")
    start = weights_of(model, weights, size, channels, fit, mean, std)
    given = {**start.arguments, **regularised(model, chosen), **(arguments or {})}
    with torch.device("meta"):  # a first look, so that a wrong size is told before any picture is read
        probe = front.create(
            model, classes=len(found.classes), in_channels=channels, size=start.size, **given
        )
    if changes.get("auxiliary") and not getattr(probe, "taps", ()):
        raise ArgumentError(
            f"auxiliary = {changes['auxiliary']}, but {model} has no auxiliary classifiers that are trained here; "
            "leave it out"
        )
    augment = chosen.augment
    if augment == "auto":
        augment = "photo" if channels == 3 and probe.size >= 64 else "light"
    found.notes += start.notes
    config = {
        "convarium": __version__,
        "data": str(Path(data).absolute()),
        "val": None if val is None else str(Path(val).absolute()),
        "classes": list(found.classes),
        "fraction": float(fraction),
        "fold": None if fold is None else list(fold),
        "seed": seed,
        "fit": fit or (start.preprocessing or {}).get("fit", "crop"),
        "augment": augment,
        "workers": workers,
        "precision": precision,
        "tensorboard": tensorboard or None,
        "cache": None if cache is None else str(Path(cache).absolute()),
        "budget": minutes,
        "minutes": save_minutes,
        "weights": start.weights,
        "weights_sha256": start.sha256,
        "preprocessing": start.preprocessing,
        "architecture": probe.architecture,
        "recipe": {"name": recipe or ("finetune" if weights else "scratch"), **chosen.to_dict()},
    }
    config = without_none(config)  # as the file will tell it when the run goes on
    tensors = [*probe.parameters(), *probe.buffers()]
    # Two states (the old one stays until the new one is whole), each with two moments and an average; the model.
    needed = 10 * sum(t.numel() * t.element_size() for t in tensors) + 2_000_000
    return Plan(config, found, needed)
