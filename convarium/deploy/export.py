"""A trained network as a file for other programs, that holds its preprocessing and was compared with the original.

    onnx            model.onnx, which ONNX Runtime and others run
    openvino        model.xml and model.bin, which OpenVINO runs
    torch-export    model.pt2, which torch runs without this package
    safetensors     the weights as they are

Beside it lie model.json, which says what model it is, and predict.py, which answers for files.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convarium import __version__, storage
from convarium.data.decode import MODES
from convarium.data.preprocessing import Preprocessing
from convarium.deploy import onnx_file, openvino_file, parity, resizing, script, torch_file
from convarium.errors import ArgumentError, CheckpointError, RunError, UserError, unknown_name
from convarium.net import Net

FILES = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "torch-export": "model.pt2",
    "safetensors": "model.safetensors",
}
"""What can be exported to, and the name of the file."""

BESIDE = {"openvino": ("model.bin",)}
"""Further files, which it needs."""

ABOUT = "model.json"
FORMAT = 1

Reference = Callable[[Sequence[Path]], Iterable[np.ndarray | None]]
"""Probabilities of the classifier for each of some files, (classes,); None for one that cannot be read."""


class Answer(nn.Module):
    """uint8 pictures (N, H, W, channels) to probabilities (N, classes): all that comes after decoding.

    Args:
        net: gives scores.
        preprocessing: of its pictures.
        temperature: that scores are divided by.
        whole: take pictures of any size; otherwise squares that are prepared already.
    """

    preprocessing_mean: Tensor
    preprocessing_std: Tensor

    def __init__(self, net: nn.Module, preprocessing: Preprocessing, temperature: float, whole: bool) -> None:
        super().__init__()
        self.square = resizing.Square(preprocessing) if whole else None
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preprocessing, name), dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(f"preprocessing_{name}", values)
        self.net = copy.deepcopy(net).cpu().float().eval().requires_grad_(False)
        self.temperature = temperature

    def forward(self, pictures: Tensor) -> Tensor:
        planes = pictures.permute(0, 3, 1, 2) if self.square is None else self.square(pictures)
        x = (planes.float() / 255 - self.preprocessing_mean) / self.preprocessing_std
        return (self.net(x) / self.temperature).softmax(1)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        folder: where.
        files: names in it; the model's first.
        about: content of model.json.
        parity: the comparison with the classifier; None for "safetensors", which is the same file.
        notes: sentences on what was decided.
    """

    folder: Path
    files: tuple[str, ...]
    about: dict[str, Any]
    parity: parity.Parity | None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """{"folder", "files", "about", "notes"}, JSON-able; the parity is in "about"."""
        files, notes = list(self.files), list(self.notes)
        return {"folder": str(self.folder), "files": files, "about": self.about, "notes": notes}


def export(
    net: Net,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    known: Mapping[str, Any],
    to: str,
    folder: Path,
    *,
    reference: Reference,
    pictures: Sequence[Path] = (),
    source: Path | None = None,
    whole: bool | None = None,
    dynamic: bool = False,
) -> Exported:
    """Write a model for other programs, once it was seen to agree with the classifier.

    Args:
        net: the network; left as it was.
        classes: names, in the order of its scores.
        preprocessing: of its pictures.
        known: what is known besides: "temperature", "threshold", "architecture", "weights_sha256".
        to: "onnx", "openvino", "torch-export" or "safetensors".
        folder: a new or empty one, or that of an earlier export.
        reference: the classifier.
        pictures: to compare on; some are made where there are none.
        source: the file of weights, for "safetensors".
        whole: the graph also resizes and crops, as Pillow does; None: where the comparison allows it, for "onnx".
        dynamic: take batches of any number of pictures, not of one.

    Returns:
        What was written.

    Raises:
        UnknownName: no such format.
        ArgumentError: what this format cannot do.
        CheckpointError: the exported model disagrees with the classifier; nothing is written.
        MissingExtra: a library for this format is not installed.
        RunError: the folder holds something else, or cannot be written.
    """
    if to not in FILES:
        raise unknown_name("format", to, FILES)
    if to == "safetensors" and (whole or dynamic or source is None):
        raise ArgumentError("safetensors holds weights and no graph; leave out --whole and --dynamic")
    if to != "safetensors":
        must_fit(preprocessing)
    if to == "openvino" and whole:
        raise ArgumentError(
            "OpenVINO computes in float32, in which Pillow's resizing does not come out to the pixel; leave out "
            f"--whole, {script.NAME} then resizes with Pillow"
        )
    must_be_free(folder, source)
    about = told(net, classes, preprocessing, known, to)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        staging = Path(place)
        if to == "safetensors":
            shutil.copyfile(source or "", staging / FILES[to])
            return placed(Exported(folder, (FILES[to],), about, None), staging)
        made = not pictures
        if made:
            (staging / "made").mkdir()
            pictures = parity.make(staging / "made", preprocessing.mode, preprocessing.size)
        expected = list(reference(pictures))
        notes: list[str] = []
        for way in _ways(to, whole, preprocessing, notes):
            here = {**about, "whole": way, "input": input_of(preprocessing, way, dynamic)}
            answer = Answer(net, preprocessing, float(known.get("temperature", 1.0)), way)
            write = graph(answer, to, preprocessing, dynamic, about)
            write(staging / FILES[to], json.dumps(here))
            program = script.write(staging, to, FILES[to], preprocessing, way)
            _, run = script.load(program, staging / FILES[to])
            found = parity.measure(expected, run, pictures, made=made)
            if found.agrees:
                here["parity"] = found.to_dict()
                write(staging / FILES[to], json.dumps(here))
                files = (FILES[to], *BESIDE.get(to, ()), script.NAME)
                return placed(Exported(folder, files, here, found, tuple(notes)), staging)
            notes.append(f"with resizing in the graph, {found}; so {script.NAME} resizes, with Pillow")
    raise CheckpointError(
        f"the exported model disagrees with the classifier ({found}, a flip at a margin of {found.margin:.3f}; allowed "
        f"is {parity.BOUND}), so nothing was written; "
        + ("try --square, or " if way else "")
        + "try another format with --to, and please report it"
    )


def _ways(to: str, whole: bool | None, preprocessing: Preprocessing, notes: list[str]) -> tuple[bool, ...]:
    """With resizing in the graph or not, in the order to try."""
    if whole is not None:
        return (whole,)
    if to != "onnx":
        return (False,)
    if preprocessing.filter in resizing.FILTERS:
        return (True, False)
    notes.append(
        f"the filter {preprocessing.filter} cannot be put into a graph; {script.NAME} resizes, with Pillow"
    )
    return (False,)


def graph(
    answer: Answer, to: str, preprocessing: Preprocessing, dynamic: bool, about: dict[str, Any]
) -> Callable[[Path, str], None]:
    """The exported graph, as a function that writes it to a path together with what it tells of itself."""
    modules = {"onnx": onnx_file, "openvino": openvino_file, "torch-export": torch_file}
    return traced(modules[to].traced, answer, preprocessing, dynamic, about, to)


def traced(
    trace: Callable[[nn.Module, Tensor, dict[int, Any]], Any],
    answer: Answer,
    preprocessing: Preprocessing,
    dynamic: bool,
    about: dict[str, Any],
    to: str,
) -> Any:
    """What a tracer makes of the graph; where it cannot, a message that says what else can be done."""
    side, whole = preprocessing.size, answer.square is not None
    height, width = (side + 40, side + 60) if whole else (side, side)
    example = torch.zeros(2 if dynamic else 1, height, width, preprocessing.channels, dtype=torch.uint8)
    dim = torch.export.Dim
    free: dict[int, Any] = {0: dim("batch", min=1)} if dynamic else {}
    if whole:
        free |= {1: dim("height", min=1), 2: dim("width", min=1)}
    try:
        return trace(answer, example, free)
    except UserError:
        raise
    except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ArgumentError(
            f"{about['architecture'].get('name', 'this network')} cannot be written as {to} ({reason}); try another "
            f"format with --to: {', '.join(FILES)}"
        ) from error


def told(
    net: Net, classes: Sequence[str], preprocessing: Preprocessing, known: Mapping[str, Any], to: str
) -> dict[str, Any]:
    """What model.json says of every export."""
    return {
        "convarium_export": FORMAT,
        "convarium": __version__,
        "file": FILES[to],
        "architecture": net.architecture,
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "temperature": 1.0,
        "threshold": 0.0,
        **known,
    }


def input_of(preprocessing: Preprocessing, whole: bool, dynamic: bool) -> dict[str, Any]:
    """What the graph is given and gives, for those who write their own program."""
    sides = ["height", "width"] if whole else [preprocessing.size] * 2
    shape = ["batch" if dynamic else 1, *sides, preprocessing.channels]
    return {"name": "pictures", "type": "uint8", "shape": shape, "output": "probabilities"}


def must_fit(preprocessing: Preprocessing) -> None:
    """Refuse pictures that the graph's input, which is uint8, cannot hold."""
    if preprocessing.mode not in MODES:
        raise ArgumentError(
            f"pictures of mode {preprocessing.mode!r} keep more than 8 bits, which the graph's input does not hold; "
            "export with --to safetensors"
        )


def must_be_free(folder: Path, source: Path | None) -> None:
    """Refuse a folder with anything that is not of an earlier export."""
    if source is not None and source.exists() and folder.exists() and folder.samefile(source.parent):
        raise RunError(f"{folder} is the folder of the model itself; choose another with -o")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; choose a folder with -o")
    with contextlib.suppress(OSError, ValueError, TypeError):
        if (
            not folder.exists()
            or not any(folder.iterdir())
            or "convarium_export" in json.loads((folder / ABOUT).read_text("utf-8"))
        ):
            place = folder.absolute()
            while not place.exists():
                place = place.parent
            storage.must_be_writable(place / ABOUT)
            return
    raise RunError(f"{folder} holds other files; choose a new folder with -o, or empty it")


def placed(exported: Exported, staging: Path) -> Exported:
    """Move what is finished into its folder; until model.json is whole, nobody takes the folder for an export."""
    folder = storage.make_folder(exported.folder)
    earlier = _earlier(folder)
    begun = {"convarium_export": FORMAT, "finished": False, "files": [*{*earlier, *exported.files}]}
    storage.write_text(folder / ABOUT, json.dumps(begun) + "\n")
    for name in earlier:  # or one half of an old pair could be run with the other of the new one
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    for name in exported.files:
        storage.write(folder / name, functools.partial(shutil.copyfile, staging / name))
    text = json.dumps(exported.about, ensure_ascii=False, indent=1)
    storage.write_text(folder / ABOUT, text + "\n")
    return replace(exported, files=(*exported.files, ABOUT))


def _earlier(folder: Path) -> list[str]:
    """Names of the files that an earlier export wrote, or had begun to write, into a folder."""
    try:
        told = json.loads((folder / ABOUT).read_text("utf-8"))
        model = told.get("file")
        names = told.get("files") or [model, *BESIDE.get(_format_of(model), ()), script.NAME]
        return [name for name in names if isinstance(name, str) and Path(name).name == name]
    except (OSError, ValueError, AttributeError):
        return []


def _format_of(file: str) -> str:
    return next((to for to, name in FILES.items() if name == file), "")
