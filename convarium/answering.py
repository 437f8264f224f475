"""From sources of pictures to answers in their order: computed in batches, never all held.

Nothing here needs torch: a network is whatever turns prepared pictures into scores.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from convarium.data.ahead import WANTED, Group, Source, grouped
from convarium.data.pictures import PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, DataError, PictureError
from convarium.judge.given import Given, joined
from convarium.judge.outliers import Outlier

FORMAT = 1
KEY = "convarium"  # of the entry in a classifier's file
NO_FEATURES = "an export gives probabilities and no features; give the classifier it was made from"


class Guess(NamedTuple):
    """A class and the probability given to it."""

    name: str
    probability: float
    index: int  # type: ignore[assignment]  # a tuple has a method of this name, which nobody misses


@dataclass(frozen=True)
class Prediction(Sequence[Guess]):
    """What was said of one picture: guesses in falling probability; none where it could not be read.

    Args:
        path: of the picture; empty where it was given as pixels.
        guesses: the likeliest classes.
        error: why it could not be read; None where it could.
        unsure: whether the likeliest class has no more than the classifier's threshold: perhaps none of these.
        strange: whether the picture is unlike those that the classifier was trained on, by its features.
    """

    path: str
    guesses: tuple[Guess, ...]
    error: str | None = None
    unsure: bool = False
    strange: bool = False

    def __getitem__(self, index: Any) -> Any:
        return self.guesses[index]

    def __len__(self) -> int:
        return len(self.guesses)

    def to_dict(self) -> dict[str, Any]:
        """{"path", "predictions": [{"class", "index", "probability"}...], "unsure", "strange", "error"}."""
        said = [{"class": g.name, "index": g.index, "probability": g.probability} for g in self.guesses]
        return {
            "path": self.path,
            "predictions": said,
            "unsure": self.unsure,
            "strange": self.strange,
            "error": self.error,
        }


@dataclass
class Scored:
    """Probabilities of a whole set.

    Args:
        pictures: those that could be read.
        given: what the network gave to them.
        damaged: key and reason of each other.
    """

    pictures: PictureSet
    given: Given
    damaged: list[tuple[str, str]] = field(default_factory=list)

    @property
    def probabilities(self) -> np.ndarray:
        """float64 (N, classes), aligned with the pictures."""
        return self.given.probabilities


@dataclass(frozen=True)
class Features:
    """What a network makes of pictures before it tells classes.

    Args:
        paths: N, of the pictures that could be read; empty where they were given as pixels.
        values: float32 (N, D), what the last layer is given.
        damaged: path and reason of each other.
    """

    paths: tuple[str, ...]
    values: np.ndarray
    damaged: tuple[tuple[str, str], ...] = ()


class Engine(Protocol):
    """A way to run a network: prepared pictures (n, C, H, W), n <= batch, to scores (n, classes), features (n, D)."""

    @property
    def batch(self) -> int: ...

    def __call__(self, pictures: np.ndarray, /) -> tuple[np.ndarray, np.ndarray]: ...


class Answering:
    """What answers for pictures; a subclass says how prepared pictures are computed.

    Attributes:
        classes: names, in the order of the scores.
        preprocessing: from a file to what the network takes.
        threshold: probability above which an answer is relied on; 0 where none was fitted.
        outlier: tells pictures of another kind; None where none was fitted.
        mirror: whether each picture is also looked at mirrored, and both answers averaged, at twice the cost.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    threshold: float
    outlier: Outlier | None
    mirror: bool

    @property
    def way(self) -> str:
        """Name of the way in which the network is run."""
        raise NotImplementedError

    @property
    def batch(self) -> int:
        """Pictures that are computed at once."""
        raise NotImplementedError

    def _said(self, pictures: np.ndarray) -> Given:
        """What the network says of at most `batch` prepared pictures."""
        raise NotImplementedError

    def _prepared(self, image: Image.Image | np.ndarray) -> np.ndarray:
        return self.preprocessing.square(image)

    def predict(self, pictures: Source | Iterable[Source], top: int = 5) -> list[Prediction]:
        """Say what is on some pictures.

        Args:
            pictures: paths, PIL pictures or arrays, one or several: uint8 (H, W) or (H, W, 3); where the classifier
                keeps all bands, (H, W, bands), of which uint16 is divided by 257 and floats are taken as they are.
            top: guesses a picture; fewer where there are fewer classes.

        Returns:
            One prediction a picture, in the order asked; one that cannot be read has an `error` and no guesses.
        """
        if isinstance(pictures, Source):
            pictures = [pictures]
        return list(self.stream(pictures, top))

    def stream(self, pictures: Iterable[Source], top: int = 5) -> Iterator[Prediction]:
        """As `predict`, one by one as they come, for sets of any size.

        Args:
            pictures: as for `predict`.
            top: guesses a picture.

        Yields:
            Predictions in the order asked.
        """
        for some in self.in_batches(pictures, top):
            yield from some

    def in_batches(self, pictures: Iterable[Source], top: int = 5) -> Iterator[list[Prediction]]:
        """As `stream`, as many at once as are computed at once.

        Args:
            pictures: as for `predict`.
            top: guesses a picture.

        Yields:
            Predictions in the order asked.
        """
        if not isinstance(top, int) or top < 1:
            raise ArgumentError(f"top = {top!r}; it must be a whole number of at least 1")
        for group in self.groups(pictures):
            said = None if group.pictures is None else self._said(group.pictures)
            yield self._predictions(group.entries, said, top)

    def groups(self, pictures: Iterable[Source]) -> Iterator[Group]:
        """Pictures as the network takes them, put together as they are computed.

        Args:
            pictures: as for `predict`.

        Yields:
            Groups in the order asked.
        """
        return grouped(pictures, self._prepare, self.batch)

    def features(self, pictures: Source | Iterable[Source]) -> Features:
        """What the network makes of some pictures before it tells classes, as for a search or another classifier.

        Args:
            pictures: as for `predict`.

        Returns:
            Rows of features in the order asked, and what could not be read.

        Raises:
            ArgumentError: this is an export, which gives probabilities only.
            DataError: none can be read.
        """
        if isinstance(pictures, Source):
            pictures = [pictures]
        paths: list[str] = []
        damaged: list[tuple[str, str]] = []
        rows: list[np.ndarray] = []
        mirror, self.mirror = self.mirror, False  # features are those of pictures as they are
        try:
            for entries, pixels in self.groups(pictures):
                if pixels is not None:
                    rows.append(self._said(pixels).features)
                    if not rows[0].shape[1]:
                        raise ArgumentError(NO_FEATURES)
                paths += [path for path, error in entries if error is None]
                damaged += [(path, error) for path, error in entries if error is not None]
        finally:
            self.mirror = mirror
        if not rows:
            raise DataError(
                "no picture can be read" + (f": {damaged[0][0]}: {damaged[0][1]}" if damaged else "")
            )
        return Features(tuple(paths), np.concatenate(rows), tuple(damaged))

    def score(self, pictures: PictureSet) -> Scored:
        """Probabilities of every picture of a set that can be read.

        Args:
            pictures: with labels in this classifier's order.

        Returns:
            Probabilities, and what could not be read.

        Raises:
            DataError: none can be read.
        """
        good, rows, damaged = [], [], []
        coming = iter(pictures.pictures)
        for entries, pixels in self.groups(picture.source for picture in pictures.pictures):
            if pixels is not None:
                rows.append(self._said(pixels))
            # In this order of the two: a group ends first.
            for (_, error), picture in zip(entries, coming, strict=False):
                if error is None:
                    good.append(picture)
                else:
                    damaged.append((picture.key, error))
        if not rows:
            raise DataError(
                "no picture of this set can be read"
                + (f": {damaged[0][0]}: {damaged[0][1]}" if damaged else "")
            )
        return Scored(PictureSet(pictures.classes, tuple(good)), joined(rows), damaged)

    def _prepare(self, source: Source) -> tuple[str, np.ndarray | None, str | None]:
        if not isinstance(source, Source):
            raise ArgumentError(f"a picture given as {type(source).__name__}; {WANTED}")
        path = str(source) if isinstance(source, str | Path) else ""
        try:
            opened = self.preprocessing.open(Path(source) if isinstance(source, str) else source)
            return path, np.ascontiguousarray(self._prepared(opened)), None
        except PictureError as error:
            return path, None, str(error)

    def _predictions(
        self, entries: list[tuple[str, str | None]], said: Given | None, top: int
    ) -> list[Prediction]:
        told: Iterator[tuple[list[int], list[float], bool]] = iter(())
        if said is not None:
            # A stable sort of -p: of equal probabilities the lower index comes first.
            order = np.argsort(-said.probabilities, axis=1, kind="stable")[:, :top]
            best = np.take_along_axis(said.probabilities, order, axis=1)
            outside = [False] * len(order)
            if self.outlier is not None:
                outside = self.outlier.outside(said.features).tolist()
            told = zip(order.tolist(), best.tolist(), outside, strict=True)
        return [
            Prediction(path, (), error) if error is not None else self._prediction(path, *next(told))
            for path, error in entries
        ]

    def _prediction(self, path: str, order: list[int], best: list[float], strange: bool) -> Prediction:
        guesses = tuple(Guess(self.classes[i], p, i) for i, p in zip(order, best, strict=True))
        return Prediction(path, guesses, None, best[0] <= self.threshold, strange)


def run(engine: Engine, pictures: np.ndarray, temperature: float, mirror: bool) -> Given:
    """What a network says, run in some way, in float64 from its scores on.

    Args:
        engine: the way.
        pictures: (n, C, H, W), n <= engine.batch.
        temperature: that scores are divided by before softmax.
        mirror: whether each picture is also looked at mirrored, and both answers are averaged.

    Returns:
        Scores and features of the pictures as they are.
    """
    scores, features = engine(pictures)
    sides = [softmax(scores, temperature)]
    if mirror:
        sides.append(softmax(engine(np.ascontiguousarray(pictures[..., ::-1]))[0], temperature))
    return Given(scores.astype(np.float64), np.mean(sides, axis=0), features)


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """exp(scores / temperature) / sum, in float64, (N, classes)."""
    scaled = scores.astype(np.float64) / temperature
    scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return scaled / scaled.sum(axis=1, keepdims=True)


def described(path: str | Path) -> dict[str, Any] | None:
    """What a file of ours says of itself; None where it is another's.

    Args:
        path: a file of weights.

    Returns:
        "architecture", "classes", "preprocessing" and what is known besides.
    """
    try:
        with safe_open(path, "np") as file:
            content = json.loads((file.metadata() or {})[KEY])
        return content if {"architecture", "classes", "preprocessing"} <= content.keys() else None
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError):
        return None
