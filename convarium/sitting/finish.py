"""The end of a run: what was trained is judged from the file in which it is kept, and the report is written."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from convarium import __version__, account, classifier, storage
from convarium.classifier import Classifier
from convarium.data.loader import Checked
from convarium.data.pictures import PictureSet, contents
from convarium.data.preprocessing import Preprocessing
from convarium.judge import grid
from convarium.judge.abstain import Threshold, fit_threshold
from convarium.judge.answers import answers, write_answers
from convarium.judge.calibration import SMALLEST, Temperature, fit_temperature
from convarium.judge.grid import write_grid
from convarium.judge.metrics import Metrics, measure
from convarium.judge.outliers import fit_outlier
from convarium.judge.report import render
from convarium.judge.scoring import Given, softmax
from convarium.sitting.state import Sitting, Trained

FAMILIAR = 300
"""Training pictures by which what is familiar is known, where their features are still to be computed."""

APART = 0.1
"""Difference of a probability above which kept features are not believed, of half the pictures: numbers of 16 bits move
a few answers by as much, features of another network or of other pictures nearly all."""

CHECKED = 16
"""Held-out pictures that are run once more in plain float32, where features were computed in a faster way."""


def finish(now: Sitting, trained: Trained, preprocessing: Preprocessing) -> Metrics:
    """Judge what was trained, from the very file in which it is kept, and write everything that a run leaves.

    Args:
        now: the sitting.
        trained: what training gave.
        preprocessing: of the pictures.

    Returns:
        Metrics on the held-out pictures.
    """
    started = time.perf_counter()
    Classifier(trained.net, now.found.classes, preprocessing, _about(now, trained)).save(now.folder.model)
    clf = classifier.load(now.folder.model)
    part, held = now.held_out
    given = {name: _given(clf, trained, name, now.sets[name]) for name in dict.fromkeys(("val", part))}
    notes = list(trained.notes)
    if trained.given:
        words, agrees = _agreement(clf, held, given[part].probabilities)
        if not agrees:
            words += "; so all pictures were judged in plain float32"
            trained = replace(trained, given={})
            given = {name: clf.score(now.sets[name].good, now.sets[name].prepared).given for name in given}
        notes.append(words)
        now.watch.note(words)
    temperature, threshold = _fit(clf, now, given["val"], _some(clf, trained, now.sets["train"]))
    said = softmax(given[part].scores, clf.temperature)
    labels = _labels(held)
    metrics = measure(said, labels, clf.classes)
    judged = metrics.to_dict()
    clf.about["metrics"] = {"part": part, **{key: judged[key] for key in ("top1", "top5", "loss")}}
    clf.save(now.folder.model)
    digests = [digest for _, digest in contents(held.good.pictures)]
    keys = [picture.key for picture in held.good.pictures]
    write_answers(now.folder.answers, answers(keys, said, labels, clf.classes, digests))
    now.times["judging"] = time.perf_counter() - started
    content = account.report(
        config=now.config,
        found=now.found,
        sets=now.sets,
        damaged=now.damaged,
        times=now.times,
        clf=clf,
        way=trained.way,
        progress=trained.progress,
        metrics=metrics,
        held=held,
        given=said,
        notes=notes,
        temperature=temperature,
        threshold=threshold,
    )
    write_grid(now.folder.grid, account.grid_of(content))
    storage.write_text(now.folder.evaluation, json.dumps(judged))
    storage.write_text(now.folder.report, render(content))
    now.watch.note(f"top-1 {metrics.top1}; report: {now.folder.report}")
    return metrics


def _about(now: Sitting, trained: Trained) -> dict[str, Any]:
    """What the file says of the classifier beside what it needs to answer."""
    about = {
        "recipe": now.config["recipe"],
        "augment": now.config["augment"],
        "seed": now.config["seed"],
        "precision": "bf16" if trained.way.bf16 else "fp32",
        "data": {
            "name": os.fsencode(now.found.root.name).decode("utf-8", "replace"),
            "pictures": {part: len(checked.good) for part, checked in now.sets.items()},
            "sha256": now.sha256,
        },
        "version": __version__,
        "torch": torch.__version__,
    }
    if "weights" in now.config:
        about["origin"] = {"weights": os.fsencode(now.config["weights"]).decode("utf-8", "replace")}
    return about


def _given(clf: Classifier, trained: Trained, part: str, checked: Checked) -> Given:
    """What the classifier gives to a part's pictures, at temperature 1."""
    if part in trained.given:
        return trained.given[part]
    scored = clf.score(checked.good, checked.prepared)
    return scored.given


def _some(clf: Classifier, trained: Trained, train: Checked) -> np.ndarray:
    """Features of training pictures, by which what is familiar is known."""
    if "train" in trained.given:
        return trained.given["train"].features
    few = grid.drawn([picture.key for picture in train.good.pictures], FAMILIAR)
    pictures = PictureSet(train.good.classes, tuple(train.good.pictures[i] for i in few))
    return clf.score(pictures, None if train.prepared is None else train.prepared[few]).given.features


def _fit(
    clf: Classifier, now: Sitting, given: Given, familiar: np.ndarray
) -> tuple[Temperature | None, Threshold | None]:
    """Fit temperature, threshold and outlier score on the validation pictures, and put them into the classifier."""
    labels = _labels(now.sets["val"])
    clf.about["outlier"] = fit_outlier(familiar, given.features).to_dict()
    if len(labels) < SMALLEST:  # chance would decide them
        return None, None
    temperature = fit_temperature(given.scores, labels)
    clf.about["temperature"] = {**temperature.to_dict(), "part": "val"}
    clf.temperature = temperature.value
    threshold = fit_threshold(softmax(given.scores, clf.temperature), labels)
    clf.about["threshold"] = {"value": threshold.value, "asked": threshold.asked, "part": "val"}
    return temperature, threshold


def _agreement(clf: Classifier, held: Checked, given: np.ndarray) -> tuple[str, bool]:
    """How what the file says agrees with kept features, in words, and whether it does: in plain float32."""
    few = min(CHECKED, len(held.good))
    pictures = PictureSet(held.good.classes, held.good.pictures[:few])
    plain = clf.score(pictures, None if held.prepared is None else held.prepared[:few]).probabilities
    flips = int((plain.argmax(1) != given[:few].argmax(1)).sum())
    apart = np.abs(plain - given[:few]).max(axis=1)
    words = (
        f"judged on kept features; on the first {few} pictures the saved model in plain float32 gives {flips} other "
        f"answers, its probabilities differ by {apart.max():.1e} at most"
    )
    return words, float(np.median(apart)) <= APART


def _labels(checked: Checked) -> np.ndarray:
    return np.array([picture.label for picture in checked.good.pictures])
