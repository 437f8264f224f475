"""The account that a run gives of itself: what its report says."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from convarium.classifier import Classifier
from convarium.costs.cost import cost
from convarium.data.folders import Data
from convarium.data.loader import Checked
from convarium.data.pictures import counted
from convarium.data.preprocessing import Preprocessing
from convarium.errors import PictureError
from convarium.judge import grid, thumbnails
from convarium.judge.abstain import Threshold, coverage_risk
from convarium.judge.calibration import Temperature, reliability
from convarium.judge.metrics import Metrics
from convarium.judge.report import ReportContent, Shown, duration
from convarium.judge.suspects import suspects
from convarium.models import front
from convarium.training.checkpoint import Progress
from convarium.training.pace import verdict
from convarium.training.precision import Precision

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORST = 24
"""Mistakes shown in a report."""

SUSPECTS = 12
"""Pictures shown whose label may be wrong."""


def report(
    *,
    config: dict[str, Any],
    found: Data,
    sets: dict[str, Checked],
    damaged: list[tuple[str, str]],
    times: dict[str, float],
    clf: Classifier,
    way: Precision,
    progress: Progress,
    metrics: Metrics,
    held: Checked,
    given: np.ndarray,
    notes: Sequence[str] = (),
    temperature: Temperature | None = None,
    threshold: Threshold | None = None,
) -> ReportContent:
    """Everything that the report of a run shows.

    Args:
        config: what config.toml says.
        found: the data.
        sets: pictures that could be read, by part.
        damaged: key and reason of each other.
        times: seconds by phase.
        clf: what was trained.
        way: how steps were computed.
        progress: where training ended.
        metrics: on the held-out pictures.
        held: the held-out pictures.
        given: probabilities given to them, (N, classes).
        notes: what a reader must know of the training.
        temperature: that the probabilities were made with.
        threshold: from which confidence on a picture is answered.

    Returns:
        The content, for `judge.report.render`.
    """
    net = clf.net
    labels = np.array([picture.label for picture in held.good.pictures])
    drawn = grid.drawn([picture.key for picture in held.good.pictures])
    doubted = suspects(given, labels)[:SUSPECTS]
    return ReportContent(
        title=f"{config['architecture']['name']} on {found.root.name}",
        summary=_summary(config, found, sets, clf, way, progress),
        history=progress.history,
        metrics=metrics,
        mistakes=_mistakes(held, given, clf.preprocessing),
        tree=cost(net).tree(columns=("output", "params")),
        recipe={**config["recipe"], "augment": config["augment"], "seed": config["seed"]},
        notes=[*found.notes, *notes, *_warnings(config, sets)],
        damaged=damaged,
        times=times,
        verdict=verdict(progress, way.bf16) if config["recipe"].get("backbone", True) else "",
        grid=[_shown(held, i, given, clf.preprocessing) for i in drawn],
        reliability=reliability(given, labels),
        temperature=temperature,
        curve=coverage_risk(given, labels),
        threshold=threshold,
        suspects=[_shown(held, s.index, given, clf.preprocessing) for s in doubted],
    )


def grid_of(content: ReportContent) -> Figure:
    """The report's pictures drawn by chance, as one figure."""
    return grid.grid(
        [shown.picture for shown in content.grid],
        [grid.title(shown.truth, shown.said) for shown in content.grid],
        [shown.right for shown in content.grid],
    )


def _mistakes(held: Checked, given: np.ndarray, preprocessing: Preprocessing) -> list[Shown]:
    """The pictures whose true class was given the least probability, among those answered wrongly."""
    labels = [picture.label or 0 for picture in held.good.pictures]
    said = (-given).argsort(axis=1, kind="stable")[:, 0]
    wrong = [i for i, label in enumerate(labels) if said[i] != label]
    wrong.sort(key=lambda i: (given[i, labels[i]], i))
    return [_shown(held, i, given, preprocessing) for i in wrong[:WORST]]


def _shown(held: Checked, index: int, given: np.ndarray, preprocessing: Preprocessing) -> Shown:
    """One held-out picture with what was said of it."""
    picture, classes = held.good.pictures[index], held.good.classes
    label, said = picture.label or 0, int((-given[index]).argsort(kind="stable")[0])
    return Shown(
        picture=_picture(held, index, preprocessing),
        name=picture.key,
        truth=classes[label],
        said=classes[said],
        probability=float(given[index, said]),
        truth_probability=float(given[index, label]),
    )


def _picture(held: Checked, index: int, preprocessing: Preprocessing) -> Image.Image:
    """A picture as it is on the disk; where that is gone by now, as the network saw it, or blank."""
    try:
        opened = preprocessing.open(held.good.pictures[index].source)
    except PictureError:
        if held.prepared is None:
            return Image.new("L", (8, 8), 128)
        opened = held.prepared[index].permute(1, 2, 0).numpy()
        if not preprocessing.deep:
            return Image.fromarray(
                np.ascontiguousarray(opened.squeeze(2) if opened.shape[2] == 1 else opened)
            )
    return thumbnails.stretched(opened) if isinstance(opened, np.ndarray) else opened


def _summary(
    config: dict[str, Any],
    found: Data,
    sets: dict[str, Checked],
    clf: Classifier,
    way: Precision,
    progress: Progress,
) -> list[tuple[str, str]]:
    row = front.variant(config["architecture"]["name"])
    parameters = sum(p.numel() for p in clf.net.parameters())
    held = ", ".join(f"{len(s.good):,} {part}" for part, s in sets.items())
    colours = "grey" if clf.net.in_channels == 1 else "colour"
    if clf.preprocessing.deep:
        colours = f"{counted(clf.net.in_channels, 'band')} with all bits (the pictures here are stretched)"
    return [
        ("network", f"{row.name} ({row.paper})"),
        ("parameters", f"{parameters:,}"),
        ("pictures", f"{held}; {len(found.classes)} classes"),
        (
            "input",
            f"{clf.net.size} x {clf.net.size}, {colours}, {config['fit']}",
        ),
        ("training", f"{progress.epoch} epochs, {progress.step:,} steps, {duration(progress.seconds)}"),
        ("arithmetic", f"{_arithmetic(way)}: {way.reason}"),
        (
            "machine",
            f"{platform.machine()}, {clf.device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        ),
    ]


def _arithmetic(way: Precision) -> str:
    return ("bfloat16" if way.bf16 else "float32") + (", channels last" if way.channels_last else "")


def _warnings(config: dict[str, Any], sets: dict[str, Checked]) -> list[str]:
    """What a reader must know to read the figures rightly."""
    notes = []
    if config["recipe"]["patience"] and "test" not in sets:
        notes.append(
            "The epoch was chosen on the pictures that it is judged on, so the accuracy is somewhat too high."
        )
    if "test" not in sets:
        notes.append(
            "Temperature and threshold were fitted on the pictures that they are judged on, so what is said of "
            "confidence, and the loss, is somewhat too good."
        )
        if config["recipe"]["schedule"] == "plateau":
            notes.append(
                "The learning rate went by the accuracy on the pictures that are judged, which flatters a little."
            )
    trained = _files(sets["train"])
    for part, checked in sets.items():
        shared = len(_files(checked) & trained)
        if part != "train" and shared:
            notes.append(
                f"{shared:,} of the {part} pictures are training pictures too: the accuracy is too high."
            )
    return notes


def _files(checked: Checked) -> set[Path]:
    """The pictures that are files; those in memory have no name to compare."""
    return {picture.source for picture in checked.good.pictures if isinstance(picture.source, Path)}
