"""A trained network with everything that it needs to answer: class names and preprocessing, in one file."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from convarium import answering, storage
from convarium.answering import FORMAT, KEY, Answering, Engine, Guess, Prediction, Scored, described
from convarium.data.ahead import Source
from convarium.data.folders import PictureSet
from convarium.data.preprocessing import Preprocessing
from convarium.errors import ArgumentError, CheckpointError
from convarium.judge.outliers import Outlier
from convarium.judge.scoring import BATCH, Given, given, joined
from convarium.models import front, weights
from convarium.net import Net, last_part

__all__ = ["Classifier", "Guess", "Prediction", "Scored", "Source", "described", "load"]


READ = 512
"""Pictures of which one must be readable, so that ways can be compared."""


class Classifier(Answering):
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
        engine: how the network is run: a faster way that was seen to agree (see `deploy.job`), or None for the
            plain one, in float32.
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
        self.engine: Engine | None = None

    @property
    def way(self) -> str:
        """Name of the way in which the network is run."""
        return "plain" if self.engine is None else str(getattr(self.engine, "name", "an engine of your own"))

    @property
    def batch(self) -> int:
        """Pictures that are computed at once; as in an evaluation, so that both give the same bits."""
        return BATCH if self.engine is None else self.engine.batch

    def _said(self, pictures: np.ndarray) -> Given:
        (row,) = self._given([torch.from_numpy(pictures)])
        return row

    def _given(self, batches: Iterable[Tensor]) -> Iterator[Given]:
        if self.engine is not None:
            for batch in batches:
                for part in batch.split(self.batch):
                    pixels = np.ascontiguousarray(part.numpy())
                    yield answering.run(self.engine, pixels, self.temperature, self.mirror)
            return
        normalise = self.preprocessing.normalise
        yield from given(
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
        if prepared is None:
            return super().score(pictures)
        from convarium.data.loader import Loader  # with torchvision, which takes as long to import as torch

        loader = Loader(pictures, self.preprocessing, batch=BATCH, seed=0, prepared=prepared)
        batches = (batch.pictures for batch in loader.batches(0))
        return Scored(pictures, joined(self._given(batches)))

    def _readable(self, sources: Sequence[Source], count: int) -> np.ndarray | None:
        """Some of the pictures that can be read, taken evenly: the first alone may all be of one class."""
        step = max(1, len(sources) // count)
        spread = sources[::step][:count]
        rest = [
            source for place, source in enumerate(sources[:READ]) if place % step or place >= count * step
        ]
        order, found = [*spread, *rest], list[np.ndarray]()
        for start in range(0, len(order), count):
            groups = self.groups(order[start : start + count])
            found += [group.pictures for group in groups if group.pictures is not None]
            if sum(map(len, found)) >= count:
                break
        return np.concatenate(found)[:count] if found else None

    def hasten(
        self,
        sources: Sequence[Source],
        mode: str = "auto",
        file: Path | None = None,
        batch: int | None = None,
    ) -> list[str]:
        """Run from now on in the fastest way that agrees, found on some of the pictures that can be read.

        Args:
            sources: the pictures that are to be answered; their number decides what may be tried.
            mode: "auto", "exact" for float32 only, "plain", or the name of a way.
            file: this classifier's, by which is remembered what was measured.
            batch: pictures at once; chosen by their number where None.

        Returns:
            Notes on what went otherwise than planned.

        Raises:
            UnknownName: no such mode or way.
            ArgumentError: the way that was named cannot be taken here, or disagrees.
        """
        self.engine = None
        if mode == "plain" or (mode == "auto" and len(sources) <= BATCH):
            return []
        from convarium.deploy import job, measuring, remembered, ways

        if mode not in remembered.MODES:
            measuring.named(mode, ways.ways(self))
        some = self._readable(sources, job.CHECKED)
        if some is None:
            return [
                f"none of the first {min(len(sources), READ):,} pictures can be read, so no engine was looked for"
            ]
        chosen = job.choose(self, some, len(sources), mode, file=file, batch=batch)
        if chosen.name != "plain":  # which this class does itself, with the bits of an evaluation
            self.engine = chosen.ready
        return list(chosen.notes)

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


def _composed(name: str) -> str:
    """As names of classes are compared when data is read."""
    return unicodedata.normalize("NFC", name)
