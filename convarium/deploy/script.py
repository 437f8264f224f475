"""predict.py, the program that is written beside an exported model: it needs no Convarium, and torch for .pt2 only.

It decodes as `data.decode` does, but for pictures of which the file does not say what white is, and LAB.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from convarium import storage
from convarium.data.decode import formats
from convarium.data.preprocessing import Preprocessing

NAME = "predict.py"

_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torch-export": "torch"}


def write(folder: Path, kind: str, file: str, preprocessing: Preprocessing, whole: bool) -> Path:
    """Write the program for one model.

    Args:
        folder: that of the model.
        kind: "onnx", "openvino" or "torch-export".
        file: name of the model's file.
        preprocessing: of its pictures.
        whole: whether the model takes decoded pictures of any size, and brings them to size itself.

    Returns:
        Its path.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convarium.deploy", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    p = preprocessing
    text = environment.get_template(f"{NAME}.j2").render(
        runtime=_RUNTIMES[kind],
        needs=f"{_RUNTIMES[kind]}, numpy and Pillow",
        file=file,
        formats=" ".join(formats()),
        whole=whole,
        fit=p.fit,
        size=p.size,
        resize=p.resize or p.size,
        filter=p.filter.upper(),
        mode=p.mode,
        channels=p.channels,
        orient=p.orient,
    )
    storage.write_text(folder / NAME, text)
    return folder / NAME


def load(path: Path, model: Path) -> tuple[dict[str, Any], Callable[[Path], np.ndarray]]:
    """Take the program's own way from a file to probabilities.

    Args:
        path: of the program, as `write` made it.
        model: the model's file.

    Returns:
        What the model tells of itself; a function from a picture's path to float32 (classes,).
    """
    program = runpy.run_path(str(path), run_name="predict")  # leaves no compiled file beside it
    about, run = program["load"](model)
    return about, lambda picture: run(program["prepare"](picture))[0]
