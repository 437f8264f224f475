"""A trained network with everything that it needs to answer: class names and preprocessing, in one file."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from convarium import storage
from convarium.data.folders import PictureSet
from convarium.data.loader import Loader
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, CheckpointError, DataError, PictureError
from convarium.judge.outliers import Outlier
from convarium.judge.scoring import BATCH, Given, given, joined
from convarium.models import front, weights
from convarium.net import Net, last_part

FORMAT = 1
KEY = "convarium"  # of the entry in the file's metadata

Source = str | Path | Image.Image | np.ndarray
WANTED = "give paths, PIL pictures or uint8 arrays, one or several"


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


class Classifier:
    """A network that knows its classes and how pictures are prepared for it.

    Args:
        net: gives one score a class.
        classes: names, in the order of the scores.
        preprocessing: from a decoded picture to the network's input.
        about: what is known besides, JSON-able: metrics, recipe, data, version, licence; "temperature",
            "threshold" and "outlier" as training fitted them.
        device: where to compute; the network is moved there.

    Attributes:
        temperature: that scores are divided by before softmax.
        outlier: tells pictures of another kind; None where none was fitted.
        threshold: probability above which an answer is relied on; 0 where none was fitted.
        mirror: whether each picture is also looked at mirrored, and both answers averaged, at twice the cost.
    """

    def __init__(
        self,
        net: Net,
        classes: Sequence[str],
        preprocessing: Preprocessing,
        about: dict[str, Any] | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if len(classes) != net.classes:
            raise ArgumentError(
                f"{len(classes)} class names for a network of {net.classes} classes; give as many"
            )
        doubled = [name for name, times in Counter(map(_composed, classes)).items() if times > 1]
        if doubled:
            raise ArgumentError(
                f"class names come twice: {', '.join(doubled[:6])}; pictures are matched to classes by name, so make "
                "them unique, as by their numbers or ImageNet's wnids (`convarium pack` does it itself)"
            )
        if preprocessing.channels != net.in_channels:
            raise ArgumentError(
                f"preprocessing gives {preprocessing.channels} channels, the network takes {net.in_channels}"
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.net = net.to(self.device).eval()
        self.classes = tuple(classes)
        self.preprocessing = preprocessing
        self.about = dict(about or {})
        self.temperature = float(self.about.get("temperature", {}).get("value", 1.0))
        if not self.temperature > 0:
            raise ArgumentError(f"a temperature of {self.temperature}; it must be above 0")
        self.threshold = float(self.about.get("threshold", {}).get("value", 0.0))
        told = self.about.get("outlier")
        self.outlier = Outlier.from_dict(told) if told else None
        self.mirror = False

    def predict(self, pictures: Source | Iterable[Source], top: int = 5) -> list[Prediction]:
        """Say what is on some pictures.

        Args:
            pictures: paths, PIL pictures or arrays, one or several: uint8 (H, W) or (H, W, 3); where the classifier
                keeps all bands, (H, W, bands), of which uint16 is divided by 257 and floats are taken as they are.
            top: guesses a picture; fewer where there are fewer classes.

        Returns:
            One prediction a picture, in the order asked; one that cannot be read has an `error` and no guesses.
        """
        if isinstance(pictures, str | Path | Image.Image | np.ndarray):
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
        if not isinstance(top, int) or top < 1:
            raise ArgumentError(f"top = {top!r}; it must be a whole number of at least 1")
        for path, error, row in self._answered(pictures):
            if row is None:
                yield Prediction(path, (), error)
                continue
            said = row.probabilities[0]
            order = np.argsort(-said, kind="stable")[:top]
            guesses = tuple(Guess(self.classes[i], float(said[i]), int(i)) for i in order)
            strange = self.outlier is not None and bool(self.outlier.outside(row.features)[0])
            yield Prediction(path, guesses, None, float(said[order[0]]) <= self.threshold, strange)

    def _answered(self, pictures: Iterable[Source]) -> Iterator[tuple[str, str | None, Given | None]]:
        """Path and what is given to each picture, one row; or why it cannot be read."""
        # Batches are of BATCH pictures that could be read, as in an evaluation of the same pictures, so that both
        # give the same bits; those that could not wait for their place.
        waiting: list[tuple[str, str | None]] = []
        ready: list[Tensor] = []
        with ThreadPoolExecutor() as pool:
            if not isinstance(pictures, Iterable) or isinstance(pictures, bytes):
                raise ArgumentError(f"pictures = {pictures!r}; {WANTED}")
            for chunk in _chunks(pictures):
                for path, tensor, error in pool.map(self._prepare, chunk):
                    waiting.append((path, error))
                    if tensor is not None:
                        ready.append(tensor)
                    if len(ready) == BATCH:
                        yield from self._batch(waiting, ready)
                        waiting, ready = [], []
        yield from self._batch(waiting, ready)

    def _prepare(self, source: Source) -> tuple[str, Tensor | None, str | None]:
        if not isinstance(source, Source):
            raise ArgumentError(f"a picture given as {type(source).__name__}; {WANTED}")
        path = str(source) if isinstance(source, str | Path) else ""
        try:
            opened = self.preprocessing.open(Path(source) if isinstance(source, str) else source)
            return path, self.preprocessing.prepare(opened), None
        except PictureError as error:
            return path, None, str(error)

    def _batch(
        self, waiting: list[tuple[str, str | None]], ready: list[Tensor]
    ) -> Iterator[tuple[str, str | None, Given | None]]:
        rows = None
        for batch in self._given([torch.stack(ready)] if ready else []):
            rows = (Given(*(values[i : i + 1] for values in batch)) for i in range(len(ready)))
        for path, error in waiting:
            yield path, error, None if error is not None or rows is None else next(rows)

    def _given(self, batches: Iterable[Tensor]) -> Iterator[Given]:
        normalise = self.preprocessing.normalise
        return given(
            self.net, last_part(self.net), batches, normalise, self.device, self.temperature, self.mirror
        )

    def score(self, pictures: PictureSet, prepared: Tensor | None = None) -> Scored:
        """Probabilities of every picture of a set that can be read.

        Args:
            pictures: with labels in this classifier's order.
            prepared: (N, C, size, size) as from `Preprocessing.prepare`, where they are in memory already.

        Returns:
            Probabilities, and what could not be read.
        """
        if prepared is not None:
            loader = Loader(pictures, self.preprocessing, batch=BATCH, seed=0, prepared=prepared)
            batches = (batch.pictures for batch in loader.batches(0))
            return Scored(pictures, joined(self._given(batches)))
        good, rows, damaged = [], [], []
        for picture, (_, error, row) in zip(
            pictures.pictures, self._answered(p.source for p in pictures.pictures), strict=True
        ):
            if row is None:
                damaged.append((picture.key, str(error)))
                continue
            good.append(picture)
            rows.append(row)
        if not rows:
            raise DataError(
                "no picture of this set can be read"
                + (f": {damaged[0][0]}: {damaged[0][1]}" if damaged else "")
            )
        return Scored(PictureSet(pictures.classes, tuple(good)), joined(rows), damaged)

    def save(self, path: str | Path) -> Path:
        """Write everything into one .safetensors file, whole or not at all.

        Args:
            path: the file to make or replace.

        Returns:
            The path.

        Raises:
            CheckpointError: the network was not built by name, or changed since, so that no file could tell how to
                build it.
            RunError: the disk is full or read-only.
        """
        if not self.net.architecture:
            raise CheckpointError(
                "this network was not built by convarium.create, so a file cannot say how to build it"
            )
        changed = weights.differences(front.build_empty(self.net.architecture), self.net.state_dict())
        if changed:
            name, more = self.net.architecture["name"], f"\n... and {len(changed) - 6} more"
            raise CheckpointError(
                f"this network is not the {name} that its architecture tells of, so its file could not be loaded; was "
                "a part replaced or taken off? Build it so, as with convarium.create(NAME, classes=...), or keep "
                "net.state_dict() yourself:\n" + "\n".join(changed[:6]) + (more if len(changed) > 6 else "")
            )
        content = {
            **self.about,
            "format": FORMAT,
            "architecture": self.net.architecture,
            "classes": list(self.classes),
            "preprocessing": self.preprocessing.to_dict(),
        }
        # One entry only: several would be written in random order, and equal runs would give unequal files.
        metadata = {KEY: json.dumps(content, ensure_ascii=False)}
        tensors = {n: t.detach().to("cpu", copy=True).contiguous() for n, t in self.net.state_dict().items()}
        storage.write(Path(path), lambda temporary: save_file(tensors, temporary, metadata))
        return Path(path)


def load(path: str | Path, device: torch.device | str | None = None) -> Classifier:
    """Read a classifier that training or `Classifier.save` wrote.

    Args:
        path: the .safetensors file, or the folder of a run.
        device: where to compute; an accelerator where there is one.

    Returns:
        The classifier, ready to predict.

    Raises:
        CheckpointError: no such file, a damaged one, or weights without a description.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"no model at {path}; give the .safetensors file of a run, or the folder of a finished run"
        )
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a whole .safetensors file ({error}); copy or train it anew"
        ) from error
    if KEY not in metadata:
        raise CheckpointError(
            f"{path} holds weights but does not say of which network, classes and preprocessing; build it with "
            "convarium.create(NAME, weights=FILE) and wrap it in convarium.Classifier"
        )
    try:
        content = json.loads(metadata[KEY])
        version = content.pop("format")
        if version != FORMAT:
            raise CheckpointError(f"{path} has format {version}; this version reads format {FORMAT}")
        architecture, classes = content.pop("architecture"), content.pop("classes")
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise TypeError("its classes are no list of names")
        preprocessing = Preprocessing.from_dict(content.pop("preprocessing"))
        net = front.build_empty(architecture)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} describes itself in a way that cannot be read ({error})") from error
    weights.fit(net, tensors)
    try:
        return Classifier(net, classes, preprocessing, content, device)
    except (TypeError, ValueError, AttributeError) as error:  # of its temperature, threshold or outlier score
        raise CheckpointError(f"{path} describes itself in a way that cannot be read ({error})") from error


def described(path: Path) -> dict[str, Any] | None:
    """What a file of ours says of itself; None where it is another's.

    Args:
        path: a file of weights.

    Returns:
        "architecture", "classes", "preprocessing" and what is known besides.
    """
    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})[KEY])
        return content if {"architecture", "classes", "preprocessing"} <= content.keys() else None
    except (SafetensorError, OSError, KeyError, ValueError, AttributeError):
        return None


def _composed(name: str) -> str:
    """As names of classes are compared when data is read."""
    return unicodedata.normalize("NFC", name)


def _chunks(items: Iterable[Source]) -> Iterator[tuple[Source, ...]]:
    iterator = iter(items)  # Python 3.12 has this as itertools.batched
    while chunk := tuple(itertools.islice(iterator, BATCH)):
        yield chunk
