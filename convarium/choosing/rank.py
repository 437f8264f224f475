"""Finalists ranked on the user's own pictures: frozen features, a linear classifier, pictures that it has not seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from convarium.choosing.candidates import Source
from convarium.data.checking import check
from convarium.data.folders import read_data
from convarium.data.loader import Loader
from convarium.data.pictures import PictureSet
from convarium.data.preprocessing import Preprocessing, from_fields
from convarium.errors import DataError, UserError
from convarium.judge.intervals import Proportion
from convarium.judge.paired import Paired, mcnemar
from convarium.judge.probe import out_of_fold
from convarium.judge.scoring import BATCH, in_eval_mode
from convarium.models import front, published

MOST = 1000
"""Pictures of the sample at most: enough for intervals of 2 to 3 points around 90 %."""


@dataclass(frozen=True)
class Place:
    """One finalist on the user's pictures.

    Args:
        title: the network's name.
        weights: that its features come from.
        accuracy: of a logistic regression on them, on pictures that it was not fitted to.
        against_best: the paired test of the best one against it; None for the best.
    """

    title: str
    weights: str
    accuracy: Proportion
    against_best: Paired | None


@dataclass(frozen=True)
class Ranking:
    """Finalists, the best first.

    Args:
        places: those whose weights could be had.
        left_out: name and reason of each other.
        pictures: of the sample.
        classes: of the data.
        damaged: pictures that could not be read.
    """

    places: tuple[Place, ...]
    left_out: tuple[tuple[str, str], ...]
    pictures: int
    classes: int
    damaged: int

    @property
    def sentence(self) -> str:
        """What the ranking shows, in words."""
        if not self.places:
            return "None of the finalists could be tried on your pictures."
        best, *others = self.places
        alike = [place.title for place in others if place.against_best and not place.against_best.shown]
        if not others:
            return f"{best.title} is the only finalist that could be tried on your pictures."
        if alike:
            return f"No difference on your pictures is shown between {', '.join([best.title, *alike])}."
        return f"{best.title} is better on your pictures than each other finalist (paired test, 5 %)."


def rank(
    sources: Sequence[Source],
    pictures: PictureSet,
    *,
    deadline: float,
    device: str = "cpu",
    on_progress: Callable[[str], None] = lambda text: None,
) -> Ranking:
    """Rank networks by a linear probe of their frozen features.

    Args:
        sources: networks with their weights, which are fetched where they are not in the cache.
        pictures: the user's, with labels; see `sample`.
        deadline: moment of `time.perf_counter()` after which no further network is begun.
        device: where to compute features.
        on_progress: is told in words what is being done.

    Returns:
        Accuracies with intervals, on the same pictures for all.
    """
    left_out: list[tuple[str, str]] = []
    right: dict[str, np.ndarray] = {}
    damaged = 0
    for source in sources:
        title = source.option.title
        if time.perf_counter() >= deadline:
            left_out.append((title, "time was up"))
            continue
        on_progress(f"features of {len(pictures):,} pictures by {title}")
        try:
            found, labels, damaged = features(source, pictures, device)
        except UserError as error:  # as when its weights cannot be had
            left_out.append((title, str(error)))
            continue
        right[title] = out_of_fold(found, labels)
    order = sorted(right, key=lambda title: -right[title].mean())
    weights = {source.option.title: source.option.weights for source in sources}
    places = [
        Place(
            title,
            weights[title],
            Proportion.of(int(right[title].sum()), len(right[title])),
            mcnemar(right[order[0]], right[title]) if title != order[0] else None,
        )
        for title in order
    ]
    return Ranking(tuple(places), tuple(left_out), len(pictures) - damaged, len(pictures.classes), damaged)


def sample(data: str | Path, most: int = MOST) -> PictureSet:
    """Some pictures of all parts of the data, each class in its share.

    Args:
        data: pictures by class.
        most: pictures at most.

    Raises:
        DataError: the data cannot be used.
    """
    parts = list(read_data(data).parts.values())
    every = sorted((p for part in parts for p in part.pictures), key=lambda p: p.key)
    if len(every) > most:
        shuffled = np.random.default_rng(0).permutation(len(every))
        by_class: dict[int | None, list[int]] = {}
        for position in shuffled.tolist():
            by_class.setdefault(every[position].label, []).append(position)
        share = most / len(every)
        kept = sorted(
            p for positions in by_class.values() for p in positions[: max(2, round(share * len(positions)))]
        )
        every = [every[position] for position in kept]
    return PictureSet(parts[0].classes, tuple(every))


def features(source: Source, pictures: PictureSet, device: str = "cpu") -> tuple[np.ndarray, np.ndarray, int]:
    """What a network's classifier would see of each picture.

    Args:
        source: the network and its weights.
        pictures: with labels.
        device: where to compute.

    Returns:
        float32 (N, D), labels (N,), and how many pictures could not be read.

    Raises:
        CheckpointError: the weights cannot be had.
        DataError: no picture can be read.
    """
    option = source.option
    net = front.create(option.title, weights=option.weights, size=option.size, **source.arguments).to(device)
    preprocessing = from_fields(Preprocessing, published.preprocessing(source.weights))
    checked = check(pictures, preprocessing)
    if not len(checked.good):
        raise DataError("no picture of the data can be read")
    loader = Loader(checked.good, preprocessing, batch=BATCH, seed=0, prepared=checked.prepared)
    rows = []
    with in_eval_mode(net), torch.inference_mode():
        for batch in loader.batches(0):
            normal = preprocessing.normalise(batch.pictures.to(device))
            rows.append(net.features(normal)["pre_logits"].flatten(1).float().cpu().numpy())
    labels = np.array([picture.label for picture in checked.good.pictures])
    return np.concatenate(rows), labels, len(checked.damaged)
