"""A classifier judged on pictures whose class is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convarium.answering import Answering, Scored
from convarium.classifier import Classifier, load
from convarium.data.folders import PictureSet, read_data
from convarium.data.pictures import contents
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import quick
from convarium.errors import DataError
from convarium.judge.abstain import coverage_risk
from convarium.judge.answers import answers, write_answers
from convarium.judge.calibration import Reliability, reliability
from convarium.judge.metrics import Metrics, measure


def evaluate(
    clf: Answering | str | Path,
    data: str | Path | PictureSet,
    part: str | None = None,
    *,
    mirror: bool = False,
    engine: str = "plain",
) -> Evaluation:
    """Judge a classifier on pictures whose class is known.

    Args:
        clf: a classifier, or the path of its file, of a run or of an export.
        data: a folder, a CSV file or a set of pictures; classes are matched by name.
        part: "train", "val", "test" or "all"; where None, test if there is one, else val, else all.
        mirror: look at each picture mirrored, too, and average both answers, at twice the time.
        engine: "plain" for the bits of training's own evaluation; "auto" for the fastest way that agrees, "exact" for
            one of float32 only, or the name of a way. For paths only; a classifier that is given runs as it is.

    Returns:
        Metrics with intervals, and what was left out.

    Raises:
        DataError: the data cannot be used, has no such part or none of the classes.
    """
    notes: list[str] = []
    told = clf if isinstance(clf, Answering) else _told(Path(clf))
    if isinstance(data, PictureSet):
        pictures = data
    else:
        found = read_data(data, classes=told.classes, deep=told.preprocessing.deep)
        notes = list(found.notes)
        pictures = _part(found.parts, part, str(data))
    classifier = clf if isinstance(clf, Answering) else _opened(Path(clf), engine, pictures, notes)
    before, classifier.mirror = classifier.mirror, mirror or classifier.mirror
    try:
        scored = classifier.score(pictures)
    finally:
        classifier.mirror = before
    labels = np.array([p.label for p in scored.pictures.pictures])
    metrics = measure(scored.probabilities, labels, classifier.classes)
    return Evaluation(metrics, scored, notes, classifier.threshold, classifier.way)


class _Told(NamedTuple):
    classes: tuple[str, ...]
    preprocessing: Preprocessing


def _told(path: Path) -> _Told | Classifier:
    """What a file says of itself; loading it tells what is wrong with one that says nothing."""
    content = quick.described(path)
    if content is None:
        return load(path)
    return _Told(tuple(content["classes"]), Preprocessing.from_dict(dict(content["preprocessing"])))


def _opened(path: Path, engine: str, pictures: PictureSet, notes: list[str]) -> Answering:
    """What answers: without torch where a way is remembered that needs none, and otherwise the classifier."""
    found = quick.open(path, engine, len(pictures))
    if found is not None:
        return found
    classifier = load(path)
    notes += classifier.hasten([picture.source for picture in pictures.pictures], engine, path)
    return classifier


@dataclass
class Evaluation:
    """Metrics of one evaluation, and what they rest on.

    Args:
        metrics: top-1 and top-5 with intervals, scores by class, confusion.
        scored: the probabilities behind them.
        notes: sentences on what was left out.
        threshold: probability above which the classifier relies on its answer; 0 where it has none.
        way: in which the network was run.
    """

    metrics: Metrics
    scored: Scored
    notes: list[str] = field(default_factory=list)
    threshold: float = 0.0
    way: str = "plain"

    @property
    def labels(self) -> np.ndarray:
        """True classes of the pictures that were scored, (N,)."""
        return np.array([p.label for p in self.scored.pictures.pictures])

    @property
    def reliability(self) -> Reliability:
        """Whether the probabilities mean what they say."""
        return reliability(self.scored.probabilities, self.labels)

    @property
    def relied_on(self) -> tuple[float, float] | None:
        """Shares of the pictures that are answered above the threshold, and of these answers that are wrong."""
        if not self.threshold:
            return None
        return coverage_risk(self.scored.probabilities, self.labels).at(self.threshold)

    def write_answers(self, path: Path) -> None:
        """Write each picture's answer to a CSV file, by which two classifiers can be compared picture by picture."""
        pictures = self.scored.pictures
        digests = [digest for _, digest in contents(pictures.pictures)]
        keys = [picture.key for picture in pictures.pictures]
        write_answers(path, answers(keys, self.scored.probabilities, self.labels, pictures.classes, digests))

    def __getattr__(self, name: str) -> Any:
        # So that `evaluate(...).top1` reads as it should; dunder names must not be looked up before __init__.
        if name.startswith("_") or name == "metrics":
            raise AttributeError(name)
        return getattr(self.metrics, name)

    def to_dict(self) -> dict[str, Any]:
        """The metrics, and "damaged", JSON-able."""
        damaged = [{"path": key, "reason": reason} for key, reason in self.scored.damaged]
        told = {**self.metrics.to_dict(), "ece": self.reliability.ece, "engine": self.way, "damaged": damaged}
        if self.relied_on:
            told["threshold"] = dict(zip(("coverage", "risk"), self.relied_on, strict=True)) | {
                "value": self.threshold
            }
        return told


def _part(parts: dict[str, PictureSet], asked: str | None, where: str) -> PictureSet:
    if asked == "all" and "all" not in parts:
        sets = list(parts.values())
        return PictureSet(sets[0].classes, tuple(p for s in sets for p in s.pictures))
    name = asked or next((p for p in ("test", "val", "all", "train") if p in parts), "all")
    if name not in parts:
        raise DataError(f"{where} has no part {name!r}; it has {', '.join(parts)}")
    return parts[name]
