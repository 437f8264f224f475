"""Networks run by OpenVINO or ONNX Runtime, from a file and without torch.

OpenVINO's compiled form is kept beside the model, so that the next start does without compiling. The first 32 bytes
of such a file are the SHA-256 of what it was made by (versions, processor) and of its content: a damaged file, and
one of another machine, are as if they were absent.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from convarium import storage
from convarium.deploy import processor, silent
from convarium.errors import ArgumentError, CheckpointError, MissingExtra

Run = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_DIGEST = hashlib.sha256().digest_size
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def _nothing() -> str:
    return ""


@dataclass
class Ready:
    """One way to run a classifier's network, ready to be called by one thread at a time.

    Args:
        name: of the way, as "openvino-bf16".
        batch: the most pictures that one call takes.
        threads: that it computes with.
        run: a batch to scores and features.
        fixed: whether `run` takes `batch` pictures only; fewer are then filled up.
        keep: writes what makes the next start quick; says why it could not, or nothing.
    """

    name: str
    batch: int
    threads: int
    run: Run
    fixed: bool = False
    keep: Callable[[], str] = _nothing

    def __call__(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the network.

        Args:
            pictures: uint8 (n, channels, height, width) as `Preprocessing.prepare` gives them, n <= `batch`; float32
                for classifiers that keep more than 8 bits.

        Returns:
            float32 scores (n, classes), before softmax; float32 features (n, D), what the classifier was given.
        """
        count = len(pictures)
        if not 1 <= count <= self.batch:
            raise ArgumentError(f"{count} pictures at once; {self.name} takes 1 to {self.batch}")
        if self.fixed and count < self.batch:
            filling = np.repeat(pictures[-1:], self.batch - count, axis=0)
            pictures = np.concatenate([pictures, filling])
        scores, features = self.run(pictures)
        return scores[:count], features[:count]


def openvino(model: Path, numbers: str, batch: int, threads: int, cache: Path | None = None) -> Ready:
    """A network run by OpenVINO on the processor.

    Args:
        model: an ONNX file that takes uint8 (N, C, H, W) and gives scores and features.
        numbers: "float32" or "bfloat16".
        batch: pictures at once; always so many are computed.
        threads: to compute with.
        cache: folder with the compiled form; None: compile, and keep nothing.

    Returns:
        The network; its `keep` writes the compiled form into the folder.

    Raises:
        CheckpointError: the file cannot be read or run.
        MissingExtra: OpenVINO is not installed.
    """
    kept = blob(cache, numbers, batch, threads) if cache else None
    if kept is not None:
        try:
            return imported(kept, numbers, batch, threads)
        except CheckpointError:  # as of another build with the same version: compiled anew below
            pass
    core, settings = silent.core(), _settings(numbers, threads)
    try:
        network = core.read_model(model)
        network.reshape([batch, *list(network.input(0).partial_shape)[1:]])
        compiled = core.compile_model(network, "CPU", settings)
    except Exception as error:  # of OpenVINO's own kinds, or a RuntimeError
        raise unusable(model, error) from error
    keep = partial(_keep, compiled, cache, numbers, batch, threads) if cache else _nothing
    return _compiled(compiled, numbers, batch, threads, keep)


def imported(kept: bytes, numbers: str, batch: int, threads: int) -> Ready:
    """The network of a compiled form.

    Args:
        kept: from `blob`.
        numbers: as it was compiled.
        batch: as it was compiled.
        threads: as it was compiled.

    Raises:
        CheckpointError: OpenVINO does not take it.
        MissingExtra: OpenVINO is not installed.
    """
    try:
        # Settings must be told again: what was compiled for float32 would otherwise run in bfloat16.
        compiled = silent.core().import_model(kept, "CPU", _settings(numbers, threads))
        told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    except MissingExtra:
        raise
    except Exception as error:
        raise unusable("the compiled form", error) from error
    if told != _HINTS[numbers]:
        raise CheckpointError(f"the compiled form computes in {told}, not in {numbers}; it is made anew")
    return _compiled(compiled, numbers, batch, threads, _nothing)


def blob(folder: Path, numbers: str, batch: int, threads: int) -> bytes | None:
    """A compiled form that is whole and was made here by these versions; None where there is none.

    Args:
        folder: where it lies.
        numbers: "float32" or "bfloat16".
        batch: pictures at once.
        threads: to compute with.
    """
    try:
        content = (folder / _title(numbers, batch, threads)).read_bytes()
    except OSError:
        return None
    digest, kept = content[:_DIGEST], content[_DIGEST:]
    return kept if digest == _digest(kept) else None


def onnx_session(model: Path, threads: int) -> Any:
    """An ONNX file, opened by ONNX Runtime for the processor.

    Args:
        model: the file.
        threads: to compute with.

    Raises:
        CheckpointError: the file cannot be read or run.
        MissingExtra: ONNX Runtime is not installed.
    """
    try:
        library = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtra(
            "onnxruntime is not installed; pip install 'convarium[deploy]' brings it"
        ) from error
    settings = library.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = threads, 3
    try:
        return library.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own kinds
        raise unusable(model, error) from error


def onnxruntime(model: Path, batch: int, threads: int) -> Ready:
    """A network run by ONNX Runtime on the processor, in float32.

    Args:
        model: an ONNX file that takes uint8 (N, C, H, W) and gives scores and features.
        batch: the most pictures at once.
        threads: to compute with.

    Raises:
        CheckpointError: the file cannot be read or run.
        MissingExtra: ONNX Runtime is not installed.
    """
    session = onnx_session(model, threads)
    title = session.get_inputs()[0].name

    def run(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, features = session.run(None, {title: np.ascontiguousarray(pictures)})
        return scores, features

    return Ready("onnxruntime-fp32", batch, threads, run)


def _compiled(compiled: Any, numbers: str, batch: int, threads: int, keep: Callable[[], str]) -> Ready:
    request = compiled.create_infer_request()

    def run(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        request.infer([np.ascontiguousarray(pictures)], share_inputs=True)
        scores, features = (np.array(request.get_output_tensor(i).data) for i in (0, 1))
        return scores, features

    short = {"float32": "fp32", "bfloat16": "bf16"}[numbers]
    return Ready(f"openvino-{short}", batch, threads, run, fixed=True, keep=keep)


def _settings(numbers: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINTS[numbers],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
    }


def _keep(compiled: Any, folder: Path, numbers: str, batch: int, threads: int) -> str:
    try:
        content = compiled.export_model().getvalue()
        storage.make_folder(folder, storage.ELSEWHERE)
        place = folder / _title(numbers, batch, threads)
        storage.write(place, lambda path: _write(path, _digest(content), content))
    except Exception as error:  # a full disk, or what OpenVINO cannot export: it will be compiled again
        return f"the compiled form is not kept: {error}"
    return ""


def _write(path: Path, *parts: bytes) -> None:
    with path.open("wb") as file:
        file.writelines(parts)


def _title(numbers: str, batch: int, threads: int) -> str:
    return f"openvino-{numbers}-batch{batch}-threads{threads}.blob"


def _digest(content: bytes) -> bytes:
    """Of a compiled form and of all that it depends on."""
    made = json.dumps([processor.versions(), processor.fingerprint()], sort_keys=True)
    total = hashlib.sha256(made.encode())
    total.update(content)
    return total.digest()


def unusable(what: object, error: Exception) -> CheckpointError:
    """What to raise where a library cannot read or run something, with the last line of its reason."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return CheckpointError(f"{what} cannot be run ({(lines or [type(error).__name__])[-1][:200]})")
