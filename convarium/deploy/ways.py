"""All ways of running a classifier's network that Convarium knows, each named, with what it needs.

    plain              torch as it comes, float32: the reference that all are compared with
    eager-bf16         the same with weights and numbers of 16 bits, channels innermost
    folded-fp32        batch norms folded into convolutions, channels innermost
    onednn-fp32/-bf16  besides, activations and sums computed with the convolutions (see fused.py)
    compile-fp32/-bf16 torch.compile, for one number of pictures
    onnxruntime-fp32, openvino-fp32/-bf16  from an ONNX file (see runtimes.py)

On an accelerator: plain, eager-bf16, eager-fp16, compile-bf16, compile-fp16.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from convarium.deploy import fused, processor, runtimes
from convarium.deploy.runtimes import Ready
from convarium.deploy.scored import Subject, Workpiece
from convarium.judge import scoring
from convarium.net import last_part

INSTALL = "not installed: pip install 'convarium[deploy]'"
PLAIN = "plain"

_NUMBERS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_WORDS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Way:
    """One way to run a classifier.

    Args:
        name: as the user gives it.
        numbers: "float32", "bfloat16" or "float16".
        library: "torch", "openvino" or "onnxruntime".
        setup: seconds that setting it up takes about, where it was never measured; an ONNX file not counted.
        make: sets it up, for so many pictures at once and so many threads.
        missing: why it cannot be taken here; empty where it can.
    """

    name: str
    numbers: str
    library: str
    setup: float
    make: Callable[[Workpiece, int, int], Ready]
    missing: Callable[[], str] = str


def ways(subject: Subject) -> list[Way]:
    """The ways for a classifier on its device, the plain one first, then those that are set up soonest.

    Args:
        subject: the classifier.
    """
    if subject.device.type == "cpu":
        return list(_CPU)
    return [way for way in _DEVICE if way.name != "eager-bf16" or _device_has_bf16(subject.device)]


def threads(device: torch.device) -> int:
    """Threads that all ways compute with."""
    return min(processor.threads(), torch.get_num_threads()) if device.type == "cpu" else 1


def _plain(work: Workpiece, batch: int, threads: int) -> Ready:
    """Exactly what predictions, evaluation and training call float32."""
    subject = work.subject
    net, normalise = subject.net, subject.preprocessing.normalise

    def run(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (given,) = scoring.given(net, last_part(net), [_tensor(pictures)], normalise, subject.device)
        return given.scores.astype(np.float32), given.features

    return Ready(PLAIN, batch, threads, run)


def _called(work: Workpiece, module: Callable[[Tensor], tuple[Tensor, Tensor]]) -> runtimes.Run:
    device = work.subject.device

    def run(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            scores, features = module(_tensor(pictures).to(device))
            return scores.cpu().numpy(), features.cpu().numpy()

    return run


def _tensor(pictures: np.ndarray) -> Tensor:
    # torch warns of memory that may not be written, as that of a file.
    return torch.from_numpy(np.require(pictures, requirements=["C", "W"]))


def _eager(short: str) -> Way:
    def make(work: Workpiece, batch: int, threads: int) -> Ready:
        return Ready(f"eager-{short}", batch, threads, _called(work, work.turned(_NUMBERS[short])))

    return Way(f"eager-{short}", _WORDS[short], "torch", 0.5, make, _short_missing(short))


def _graph(kind: str, short: str, setup: float) -> Way:
    def make(work: Workpiece, batch: int, threads: int) -> Ready:
        graph = work.graph(_NUMBERS[short])
        if graph is None:
            raise TypeError("its forward cannot be written as a graph")
        module = fused.with_onednn(graph) if kind == "onednn" else graph
        return Ready(f"{kind}-{short}", batch, threads, _called(work, module))

    return Way(f"{kind}-{short}", _WORDS[short], "torch", setup, make, _short_missing(short))


def _compile(short: str, cuda: bool) -> Way:
    def make(work: Workpiece, batch: int, threads: int) -> Ready:
        module = work.turned(_NUMBERS[short])
        with warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")  # of torch's compiler, on itself
            compiled = _compiled(module, cuda)
            shape = (batch, work.subject.preprocessing.channels, work.size, work.size)
            example = torch.zeros(shape, dtype=work.subject.preprocessing.dtype)
            run = _called(work, compiled)
            run(example.numpy())
        return Ready(f"compile-{short}", batch, threads, run, fixed=True)

    missing = _short_missing(short)
    return Way(
        f"compile-{short}",
        _WORDS[short],
        "torch",
        40.0,
        make,
        missing if cuda else lambda: missing() or _compiler_missing(),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's compiler does not report what it found on the machine."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _compiled(module: nn.Module, cuda: bool) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    if cuda:  # the calls to the device are recorded once and replayed
        return torch.compile(module, dynamic=False, mode="reduce-overhead")
    return torch.compile(module, dynamic=False, options={"freezing": True})


def _openvino(short: str) -> Way:
    def make(work: Workpiece, batch: int, threads: int) -> Ready:
        return runtimes.openvino(work.onnx(), _WORDS[short], batch, threads, work.folder)

    lacks, short_lacks = _library_missing("openvino"), _short_missing(short)
    return Way(f"openvino-{short}", _WORDS[short], "openvino", 1.0, make, lambda: lacks() or short_lacks())


def _onnxruntime() -> Way:
    def make(work: Workpiece, batch: int, threads: int) -> Ready:
        return runtimes.onnxruntime(work.onnx(), batch, threads)

    return Way("onnxruntime-fp32", "float32", "onnxruntime", 0.5, make, _library_missing("onnxruntime"))


def _library_missing(name: str) -> Callable[[], str]:
    def missing() -> str:
        needed = dict.fromkeys(("onnx", "onnxscript", "onnxruntime", name))
        found = all(importlib.util.find_spec(library) is not None for library in needed)
        return "" if found else INSTALL

    return missing


def _short_missing(short: str) -> Callable[[], str]:
    def missing() -> str:
        if short != "bf16" or processor.short_numbers():
            return ""
        return "this processor has no instructions for bfloat16"

    return missing


def _compiler_missing() -> str:
    names = (os.environ.get("CXX", ""), "g++", "c++", "clang++", "cl")
    return "" if any(name and shutil.which(name) for name in names) else "no C++ compiler is installed"


def _device_has_bf16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported()


def _always(way: Way) -> Way:
    return replace(way, missing=str)


_REFERENCE = Way(PLAIN, "float32", "torch", 0.0, _plain)
_CPU = (
    _REFERENCE,
    _eager("bf16"),
    _graph("folded", "fp32", 1.5),
    _graph("onednn", "fp32", 2.0),
    _graph("onednn", "bf16", 2.0),
    _onnxruntime(),
    _openvino("fp32"),
    _openvino("bf16"),
    _compile("fp32", cuda=False),
    _compile("bf16", cuda=False),
)
_DEVICE = (
    _REFERENCE,
    _always(_eager("bf16")),
    _eager("fp16"),
    _always(_compile("bf16", cuda=True)),
    _compile("fp16", cuda=True),
)
