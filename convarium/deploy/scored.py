"""A classifier's network from prepared pictures to scores and features, as one module and as one ONNX file."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import time
import weakref
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from convarium import __version__, storage
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import fused, onnx_file, remembered
from convarium.errors import ConvariumError
from convarium.net import Parted


class Subject(Protocol):
    """What is run: a `Classifier`, or what has as much.

    net gives scores and lies on the device; scores are divided by the temperature before softmax, or are none where it
    is None (see `agreement.compare`).
    """

    @property
    def net(self) -> Parted: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def temperature(self) -> float | None: ...
    @property
    def device(self) -> torch.device: ...


class _Noted(nn.Module):
    """part(x); x can be asked for afterwards."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part
        self.given: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.given = x
        return self.part(x)


class _Flat(nn.Module):
    """mean(x) over a plane, or x as one row a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.ndim == 4 else x.flatten(1)


class Scored(nn.Module):
    """scores, features of (pictures / 255 - mean) / std, as `judge.scoring.given` has them.

    Args:
        net: copied.
        preprocessing: whose mean and deviation are used.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Parted, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        place, _ = self.net.place("pre_logits")
        self.place = place
        if place:
            self.net.set_submodule(place, _Noted(self.net.get_submodule(place)))
        self.flat = _Flat()
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, values)
        self.number, self.channels_last = torch.float32, False

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            pictures: uint8 (N, channels, H, W), or float32 on the same scale.

        Returns:
            float32 (N, classes) and float32 (N, D).
        """
        if self.channels_last:
            pictures = pictures.contiguous(memory_format=torch.channels_last)
        x = ((pictures / 255).sub_(self.mean).div_(self.std)).to(self.number)
        scores, features = self.net(x), x
        if self.place:
            noted: Any = self.net.get_submodule(self.place)
            features, noted.given = noted.given, None
        return scores.float(), self.flat(features).float()

    def turned(self, number: torch.dtype, size: int) -> Scored:
        """A copy with channels innermost, whose weights are still float32 but whose numbers will be others.

        Args:
            number: bfloat16, float16 or float32.
            size: side of the pictures.
        """
        made = copy.deepcopy(self)
        made.number, made.channels_last = number, True
        for name in ("mean", "std"):  # as long as a row of pixels, or each pixel would be a loop of its own
            row = getattr(self, name).expand(1, -1, 1, size)
            setattr(made, name, row.contiguous(memory_format=torch.channels_last))
        return made


def converted(module: nn.Module, number: torch.dtype) -> nn.Module:
    """Weights in another number format and with channels innermost; mean and deviation stay exact.

    Args:
        module: `Scored.turned`, or its graph; changed.
        number: of the weights.
    """
    exact = {name: getattr(module, name) for name in ("mean", "std")}
    module.to(number).to(memory_format=torch.channels_last)
    for name, values in exact.items():
        setattr(module, name, values)
    return module


class Workpiece:
    """A classifier in the forms that the ways need, each made once.

    Args:
        subject: the classifier; left as it is.
        folder: where its ONNX file and compiled forms are kept; a temporary one where None.
    """

    def __init__(self, subject: Subject, folder: Path | None = None) -> None:
        self.subject, self.folder = subject, folder
        self.size = subject.preprocessing.size
        self.notes: list[str] = []
        self.writing = 0.0  # seconds that the ONNX file took; 0 where it was there
        self._scored: Scored | None = None
        self._onnx: Path | Exception | None = None

    @property
    def scored(self) -> Scored:
        """The network on its device, in float32."""
        if self._scored is None:
            made = Scored(self.subject.net, self.subject.preprocessing)
            self._scored = made.to(self.subject.device)
        return self._scored

    def turned(self, number: torch.dtype) -> Scored:
        """A copy with channels innermost, its weights in a number format."""
        made = self.scored.turned(number, self.size)
        converted(made, number)
        return made

    def graph(self, number: torch.dtype) -> fx.GraphModule | None:
        """As `turned`, as a graph with batch norms folded; None where the forward cannot be followed."""
        graph = fused.traced(self.scored.turned(number, self.size))
        if graph is None:
            return None
        graph = fused.folded(graph)
        converted(graph, number)
        return graph

    def onnx(self) -> Path:
        """The ONNX file, with a free number of pictures.

        Raises:
            ConvariumError: a library is not installed, or the network is too large.
            Exception: what torch raises on a network that it cannot write.
        """
        if self._onnx is None:
            try:
                self._onnx = self._kept or self._written()
            except Exception as error:
                self._onnx = error
        if isinstance(self._onnx, Exception):
            raise self._onnx
        return self._onnx

    def has_onnx(self) -> bool:
        """Whether the ONNX file is there; one that cannot be written is not tried twice."""
        return self._onnx is not None or self._kept is not None

    @cached_property
    def _kept(self) -> Path | None:
        """The ONNX file that was kept, where it is whole: all of it is read to tell, so only once."""
        kept = self.folder / remembered.MODEL if self.folder else None
        return kept if kept and remembered.whole(kept) else None

    def _written(self) -> Path:
        began = time.perf_counter()
        try:
            return self._write()
        finally:
            self.writing = time.perf_counter() - began

    def _write(self) -> Path:
        shape = (2, self.subject.preprocessing.channels, self.size, self.size)
        example = torch.zeros(shape, dtype=self.subject.preprocessing.dtype)
        module = copy.deepcopy(self.scored).cpu()
        free = {0: torch.export.Dim("batch", min=1)}
        about = json.dumps({"convarium": __version__, "gives": ["scores", "features"]})
        traced = onnx_file.traced(module, example, free)

        def write(path: Path) -> None:
            traced(path, about)

        if self.folder:
            try:
                path = storage.make_folder(self.folder, storage.ELSEWHERE) / remembered.MODEL
                storage.sweep(self.folder)
                storage.write(path, write)
                remembered.seal(path)
                return path
            except ConvariumError as error:
                self.notes.append(f"nothing is kept for the next time: {error}")
        place = tempfile.mkdtemp(prefix="convarium-")
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        path = Path(place, remembered.MODEL)
        write(path)
        return path
