"""Answers within a second of a process's start: by a way that was remembered, or from an export; without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from convarium import answering
from convarium.answering import FORMAT, Answering, Engine
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import processor, runtimes, silent
from convarium.errors import ArgumentError, CheckpointError, MissingExtra
from convarium.judge.given import Given
from convarium.judge.outliers import Outlier

ABOUT = "model.json"
WEIGHTS = "model.safetensors"
BATCH = 32
"""Pictures at once of an export that takes any number."""

_LIBRARIES = {".onnx": "onnxruntime", ".xml": "openvino"}


class Quick(Answering):
    """A classifier whose network is run without torch; it answers as a `Classifier` does.

    Args:
        engine: prepared pictures to scores and features.
        name: of the way in which the network is run.
        told: what the classifier's file says of itself.
    """

    def __init__(self, engine: Engine, name: str, told: Mapping[str, Any]) -> None:
        self.engine, self._way = engine, name
        self.classes = tuple(told["classes"])
        self.preprocessing = Preprocessing.from_dict(dict(told["preprocessing"]))
        self.temperature = _number(told.get("temperature"), 1.0)
        self.threshold = _number(told.get("threshold"), 0.0)
        self.outlier = Outlier.from_dict(told["outlier"]) if told.get("outlier") else None
        self.mirror = False

    @property
    def way(self) -> str:
        """Name of the way in which the network is run."""
        return self._way

    @property
    def batch(self) -> int:
        """Pictures that are computed at once."""
        return self.engine.batch

    def _said(self, pictures: np.ndarray) -> Given:
        return answering.run(self.engine, pictures, self.temperature, self.mirror)


@dataclass(frozen=True)
class Graph:
    """The graph of an export: uint8 pictures (N, H, W, channels) to probabilities (N, classes).

    Args:
        run: the graph.
        batch: the most pictures at once.
        whole: whether pictures of any size are resized in it; these go one at a time.
    """

    run: Callable[[np.ndarray], np.ndarray]
    batch: int
    whole: bool


class Exported(Answering):
    """What `convarium export` wrote, which gives probabilities and nothing else: no picture is told to be strange.

    Args:
        graph: of the export.
        name: of the way in which it is run.
        told: content of its model.json.
    """

    def __init__(self, graph: Graph, name: str, told: Mapping[str, Any]) -> None:
        self.graph, self._way = graph, name
        self.classes = tuple(told["classes"])
        self.preprocessing = Preprocessing.from_dict(dict(told["preprocessing"]))
        self.threshold = _number(told.get("threshold"), 0.0)
        self.outlier, self.mirror = None, False

    @property
    def way(self) -> str:
        """Name of the way in which the network is run."""
        return self._way

    @property
    def batch(self) -> int:
        """Pictures that are computed at once."""
        return self.graph.batch

    def _prepared(self, image: Image.Image | np.ndarray) -> np.ndarray:
        if not self.graph.whole:
            return self.preprocessing.square(image).transpose(1, 2, 0)
        pixels = np.asarray(image)
        return pixels.reshape(*pixels.shape[:2], -1)

    def _said(self, pictures: np.ndarray) -> Given:
        if self.mirror and self.graph.whole:  # the crop would lie elsewhere where its margin is odd
            raise ArgumentError(
                "an export that resizes cannot look at pictures mirrored; leave out --mirror, or export with --square"
            )
        sides = (pictures, np.ascontiguousarray(pictures[:, :, ::-1])) if self.mirror else (pictures,)
        given = np.mean([self.graph.run(side).astype(np.float64) for side in sides], axis=0)
        return Given(np.empty((len(given), 0)), given, np.empty((len(given), 0), np.float32))


def open(
    path: str | Path, mode: str = "auto", count: int = 1, batch: int | None = None
) -> Quick | Exported | None:
    """A classifier that answers without torch.

    Args:
        path: a classifier's file or the folder of its run, for which a way is remembered; or the folder of an export.
        mode: "auto", "exact" for float32 only, "plain", or the name of a way.
        count: pictures that will be asked for.
        batch: as many at once; what is soonest done where None.

    Returns:
        What answers; None where nothing is remembered, or only torch can run it: then load the classifier.

    Raises:
        ArgumentError: an export that does not run in this mode.
        CheckpointError: a damaged export.
        MissingExtra: the library for an export is not installed.
    """
    path = Path(path)
    if path.is_dir() and not (path / WEIGHTS).exists() and (path / ABOUT).is_file():
        return _export(path, mode)
    if mode == "plain":
        return None
    from convarium.deploy import remembered

    way = remembered.find(path, mode, count, batch)
    if way is None or way.needs_torch:
        return None
    told = answering.described(path / WEIGHTS if path.is_dir() else path)
    if told is None or told.get("format") != FORMAT:
        return None
    try:
        return Quick(way.open(), way.name, told)
    except (CheckpointError, MissingExtra, ArgumentError, KeyError, TypeError, ValueError):
        return None  # loading the classifier tells what is wrong with it, if anything is


def described(path: Path) -> dict[str, Any] | None:
    """What a classifier's file, a run or an export says of itself.

    Args:
        path: file or folder.

    Returns:
        "classes", "preprocessing" and others; None where it is none of these.
    """
    if path.is_dir() and not (path / WEIGHTS).exists():
        try:
            told = json.loads((path / ABOUT).read_text("utf-8"))
            return told if {"convarium_export", "classes", "preprocessing"} <= told.keys() else None
        except (OSError, ValueError, AttributeError):
            return None
    return answering.described(path / WEIGHTS if path.is_dir() else path)


def files(path: Path) -> list[Path]:
    """The files that decide what a classifier, a run or an export answers.

    Args:
        path: file or folder.
    """
    if not path.is_dir():
        return [path]
    if (path / WEIGHTS).exists():
        return [path / WEIGHTS]
    told = described(path) or {}
    model = path / str(told.get("file", ""))
    return [file for file in (path / ABOUT, model, model.with_suffix(".bin")) if file.is_file()]


def _export(folder: Path, mode: str) -> Exported:
    told = described(folder)
    if told is None:
        raise CheckpointError(f"{folder / ABOUT} cannot be read as that of an export; export the model anew")
    file = folder / str(told.get("file"))
    library = _LIBRARIES.get(file.suffix)
    if library is None:
        raise ArgumentError(
            f"{folder} holds {file.name}, which only its own predict.py runs; give the classifier it was exported from"
        )
    if mode not in ("auto", "exact", library):
        raise ArgumentError(f"an export to {library} is run by {library}; leave out --engine {mode}")
    if mode == "exact" and told.get("int8"):
        raise ArgumentError(
            f"{folder} computes in 8 bits; give the classifier it was made from, or leave out --engine"
        )
    if not file.is_file():
        raise CheckpointError(f"{file} is not there; export the model anew")
    try:
        whole, shape = bool(told["whole"]), told["input"]["shape"]
        batch = shape[0] if type(shape[0]) is int else 1 if whole else BATCH
        run = (_by_onnxruntime if library == "onnxruntime" else _by_openvino)(file)
        return Exported(Graph(run, batch, whole), library, told)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"{folder / ABOUT} cannot be read ({error!r}); export the model anew"
        ) from error


def _by_onnxruntime(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    try:
        session = runtimes.onnx_session(file, processor.threads())
    except CheckpointError as error:
        raise CheckpointError(f"{error}; export the model anew") from error
    name = session.get_inputs()[0].name
    return lambda pictures: session.run(None, {name: pictures})[0]


def _by_openvino(file: Path) -> Callable[[np.ndarray], np.ndarray]:
    # bfloat16, which it takes by default where the processor has it, would not be what was exported.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": processor.threads(),
    }
    try:
        request = silent.core().compile_model(file, "CPU", settings).create_infer_request()
    except Exception as error:  # of its own kinds, or a RuntimeError
        raise CheckpointError(f"{runtimes.unusable(file, error)}; export the model anew") from error

    def run(pictures: np.ndarray) -> np.ndarray:
        request.infer([pictures])
        return np.array(request.get_output_tensor(0).data)

    return run


def _number(told: Any, default: float) -> float:
    """A value as a classifier's file has it, in {"value": ...}, or as an export has it, alone."""
    value = told.get("value", default) if isinstance(told, Mapping) else told
    return default if value is None else float(value)
