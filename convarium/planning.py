"""What a run is to do, worked out and checked before anything is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convarium import __version__
from convarium.beginning import read, regularised, weights_of
from convarium.data.augment import REFUSAL, SETS
from convarium.data.folders import Data
from convarium.data.preprocessing import MOST_BANDS
from convarium.errors import ArgumentError, DataError
from convarium.models import front
from convarium.training import recipes, track
from convarium.training.precision import ALLOWED as PRECISIONS
from convarium.training.run import without_none

_ELSEWHERE = {
    "classes": "the data decides it",
    "in_channels": "say it with --channels",
    "size": "say it with --size",
    "weights": "say it with --weights",
}
"""Arguments of every network, and where they are said."""


MOST_WORKERS = 1000
"""Threads that decode pictures, at most."""


def _refuse_what_a_probe_ignores(changes: dict[str, Any]) -> None:
    """Where only the classifier learns, on kept features, some of what may be asked for would change nothing."""
    asked = {name for name, value in changes.items() if value is not None}
    for name in sorted(asked & {"mixup", "cutmix", "norms", "head", "layer_decay", "stochastic_depth"}):
        if changes[name] not in (0, 1.0) or name == "head" and changes[name]:
            raise ArgumentError(
                f"{name} = {changes[name]} changes nothing where only the classifier learns; leave it out"
            )
    views = changes.get("views") or 1
    if changes.get("augment") not in (None, "none") and views == 1:
        raise ArgumentError(
            f"augment = {changes['augment']} changes nothing for one view a picture; ask for more, as --views 4"
        )
    if changes.get("augment") == "none" and views > 1:
        raise ArgumentError(f"{views} views without augmentation are all alike; leave --augment out")


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
    deep: bool = False,
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

    Args:
        deep: keep all bits and bands of the pictures; always so for another number of channels than 1 or 3.

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
    if chosen.norms == "kept" and weights is None:
        raise ArgumentError(
            "batch norms cannot go by kept statistics where no weights bring any: give --weights, or take the recipe "
            "scratch"
        )
    for name, value in (("minutes", minutes), ("save_minutes", save_minutes)):
        if value is not None and not 0 < value < math.inf:
            raise ArgumentError(f"{name} = {value}; it must be above 0")
    if workers is not None and (not isinstance(workers, int) or not 0 <= workers <= MOST_WORKERS):
        raise ArgumentError(f"workers = {workers!r}; it must be from 0 to {MOST_WORKERS}")
    if precision not in PRECISIONS:
        raise ArgumentError(f"precision = {precision!r}; it must be one of {', '.join(PRECISIONS)}")
    if tensorboard:
        track.needed()
    if not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ArgumentError(f"seed = {seed!r}; it must be a whole number from 0 to 2**63 - 1")
    if channels is None:
        channels = row.in_channels if row.in_channels in (1, 3) else 3
    if not isinstance(channels, int) or not 1 <= channels <= MOST_BANDS:
        raise ArgumentError(
            f"channels = {channels!r}; it must be 1 (grey), 3 (colour), or any number of bands up to {MOST_BANDS}"
        )
    deep = deep or channels not in (1, 3)
    found = read(Path(data), None if val is None else Path(val), fraction, seed, fold, deep)
    start = weights_of(model, weights, size, channels, fit, mean, std, deep)
    regular = regularised(model, chosen)
    for name in {"stochastic_depth", "dropout"} & changes.keys():
        if changes[name] and not any(changes[name] == value for value in regular.values()):
            raise ArgumentError(f"{name} = {changes[name]}, but {model} has no such option; leave it out")
    given = {**start.arguments, **regular, **(arguments or {})}
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
    if not chosen.backbone:
        _refuse_what_a_probe_ignores(changes)
        if chosen.views > 1 and augment == "none" and "augment" not in changes:
            augment = "auto"
    if augment == "auto":
        augment = "photo" if channels == 3 and probe.size >= 64 and not deep else "light"
    changed = SETS.get(augment)
    if deep and changed is not None and changed.of_bytes:
        raise ArgumentError(f"augment = {augment}: {REFUSAL}")
    found.notes += start.notes
    config = {
        "convarium": __version__,
        "data": str(Path(data).absolute()),
        "val": None if val is None else str(Path(val).absolute()),
        "classes": list(found.classes),
        "fraction": float(fraction),
        "fold": None if fold is None else list(fold),
        "seed": seed,
        "deep": deep or None,
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
