"""What a classifier got right and wrong on pictures whose class is known.

Ranking: classes in falling probability; of equal ones the lower index comes first (a stable sort of -p).
The rule holds for what was said, for top-1 and for top-5 alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convarium.errors import ArgumentError
from convarium.judge.intervals import Proportion


@dataclass(frozen=True)
class ClassScore:
    """How one class fared; a score that nothing can tell is None, never a silent zero.

    Args:
        name: the class.
        index: its place in the list of classes.
        precision: of those said to be this class, the share that were; None where it was never said.
        recall: of this class's pictures, the share said to be it; None where there was no picture.
        f1: harmonic mean of the two; None where either is None.
        count: its pictures.
        predicted: pictures said to be it.
    """

    name: str
    index: int
    precision: float | None
    recall: float | None
    f1: float | None
    count: int
    predicted: int

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; the name is written as "class"."""
        d = dict(self.__dict__)
        return {"class": d.pop("name"), **d}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> ClassScore:
        """The score that `to_dict` wrote."""
        d = dict(d)
        return cls(name=d.pop("class"), **d)


@dataclass(frozen=True)
class Metrics:
    """The verdict on one set of pictures.

    Args:
        top1: share of pictures whose class was said first.
        top5: share whose class was among the first five; None unless there are more than five classes.
        loss: mean cross-entropy, in nats a picture.
        classes: a score for each class, in the order of the classes.
        confusion: pictures counted by (truth, said): rows are the truth, columns what was said.
    """

    top1: Proportion
    top5: Proportion | None
    loss: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "top1": self.top1.to_dict(),
            "top5": self.top5.to_dict() if self.top5 else None,
            "loss": self.loss,
            "classes": [score.to_dict() for score in self.classes],
            "confusion": [list(row) for row in self.confusion],
        }

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Metrics:
        """The metrics that `to_dict` wrote, also after a way through JSON."""
        return cls(
            top1=Proportion.from_dict(d["top1"]),
            top5=Proportion.from_dict(d["top5"]) if d.get("top5") else None,
            loss=float(d["loss"]),
            classes=tuple(ClassScore.from_dict(score) for score in d["classes"]),
            confusion=tuple(tuple(row) for row in d["confusion"]),
        )


def measure(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Metrics:
    """Judge predicted probabilities by the true classes.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1.
        labels: (N,), the index of each picture's true class, 0 to K - 1.
        classes: the K names, in the order of the columns.

    Returns:
        Accuracy with 95 % Wilson intervals, loss, scores by class and the confusion matrix. The loss
        takes a probability of zero as the smallest normal float32 (87.3 nats), as softmax rounds to it.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or the rows are no probabilities.
    """
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), len(classes))
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # slow to import

    count, width = p.shape
    own = p[np.arange(count), truth][:, None]
    # The place of the true class: those more probable, and those as probable with a lower index.
    before = (p > own) | ((p == own) & (np.arange(width) < truth[:, None]))
    rank = before.sum(axis=1)
    said = p.argmax(axis=1)

    every = np.arange(width)
    table = confusion_matrix(truth, said, labels=every)
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, said, labels=every, average=None, zero_division=np.nan
    )
    f1 = np.where(np.isnan(precision) | np.isnan(recall), np.nan, f1)
    scores = tuple(
        ClassScore(
            name=str(name),
            index=i,
            precision=_known(precision[i]),
            recall=_known(recall[i]),
            f1=_known(f1[i]),
            count=int(table[i].sum()),
            predicted=int(table[:, i].sum()),
        )
        for i, name in enumerate(classes)
    )
    return Metrics(
        top1=Proportion.of(int((rank < 1).sum()), count),
        top5=Proportion.of(int((rank < 5).sum()), count) if width > 5 else None,
        loss=_loss(own),
        classes=scores,
        confusion=tuple(tuple(row) for row in table.tolist()),
    )


def brief(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What is looked at after each epoch: loss and top-1 of `measure`, without the rest.

    Args:
        probabilities: (N, K), a row a picture, each row summing to 1.
        labels: (N,), the index of each picture's true class, 0 to K - 1.

    Returns:
        {"val_loss", "val_top1"}.
    """
    p, truth = checked(np.asarray(probabilities), np.asarray(labels), np.shape(probabilities)[-1])
    own = p[np.arange(len(p)), truth]
    return {"val_loss": _loss(own), "val_top1": float((p.argmax(axis=1) == truth).mean())}


def _loss(own: np.ndarray) -> float:
    """Mean cross-entropy in nats from the probabilities given to the truth."""
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean())


def _known(score: float) -> float | None:
    return None if np.isnan(score) else float(score)


def checked(p: np.ndarray, labels: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities as float64 and labels as int64, after a look that they are such.

    Args:
        p: (N, K), a row a picture.
        labels: (N,), the index of each picture's true class.
        classes: K.

    Raises:
        ArgumentError: shapes do not fit, a label is out of range, or the rows are no probabilities.
    """
    if p.ndim != 2 or labels.shape != (len(p),):
        raise ArgumentError(
            f"probabilities of shape {p.shape} and labels of shape {labels.shape}; "
            "allowed are (N, K) and (N,): one row and one label a picture"
        )
    if p.shape[1] != classes:
        raise ArgumentError(f"{p.shape[1]} probabilities a picture for {classes} class names; give as many")
    if not len(p):
        raise ArgumentError("there is no picture to judge; give at least one")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ArgumentError(f"labels are whole numbers from 0 to {classes - 1}; got {_span(labels)}")
    p = p.astype(np.float64)
    broken = int((~np.isfinite(p)).any(axis=1).sum())
    if broken:
        raise ArgumentError(
            f"the network gave no finite number for {broken} of {len(p)} pictures: training diverged; "
            "train again with a lower learning rate, a longer warm-up or gradient clipping"
        )
    # Half precision sums to 1 within a few thousandths a class; logits are far off.
    if p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 0.02:
        raise ArgumentError(
            f"rows of numbers from {p.min():.3g} to {p.max():.3g} that do not each sum to 1 "
            "are no probabilities; apply softmax first"
        )
    return p, labels.astype(np.int64)


def _span(labels: np.ndarray) -> str:
    return f"{labels.dtype} from {labels.min()} to {labels.max()}"
