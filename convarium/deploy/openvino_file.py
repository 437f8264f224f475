"""A graph as OpenVINO's two files: model.xml, the operators, and model.bin, the weights.

OpenVINO reads the ONNX graph that `onnx_file` makes. (Its own way from torch, `convert_model`, fails on vision
transformers.) Weights stay in float32: OpenVINO would halve them, and answers would no longer be the model's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from convarium.deploy import onnx_file, silent
from convarium.errors import ArgumentError

ABOUT = "convarium"
"""The entry of the file's runtime information that tells what the model is."""

EXACT = {"INFERENCE_PRECISION_HINT": "f32"}
"""For the compiler: processors that have bfloat16 would use it for all that is float32."""

Run = Callable[[np.ndarray], np.ndarray]


def traced(module: nn.Module, example: Tensor, free: dict[int, Any]) -> Callable[[Path, str], None]:
    """Trace a module.

    Args:
        module: takes one tensor, "pictures", and gives "probabilities"; its network is `module.net`.
        example: such a tensor.
        free: its dimensions that may vary.

    Returns:
        Writes it to a path that ends in .xml, and beside it the .bin, with a text on what it is.

    Raises:
        MissingExtra: a library for it is not installed.
        ArgumentError: the network is too large for one ONNX file.
    """
    silent.openvino()
    model = read(onnx_file.model(module, example, free).SerializeToString())
    return lambda path, about: write(model, path, about)


def read(content: bytes) -> Any:
    """The model in an ONNX file's content, in OpenVINO's own operators.

    Args:
        content: of an ONNX file.

    Returns:
        Biases and activations are single operators, as its compiler and NNCF know them; named as in the file.

    Raises:
        ArgumentError: an operator that OpenVINO does not take so, as a window larger than its picture.
    """
    try:
        model = silent.core().read_model(content)
    except RuntimeError as error:
        said = str(error).partition("Summary:")[0].strip().splitlines() or [""]
        raise ArgumentError(
            f"OpenVINO cannot read the graph ({said[-1].strip()[:200]}); export with --to onnx, or for larger pictures"
        ) from error
    # What convert_model does to what it has read; by itself, the reader writes each bias as ten operators.
    passes = importlib.import_module("openvino._offline_transformations")
    passes.apply_moc_transformations(model, cf=False, smart_reshape=False)
    return model


def write(model: Any, path: Path, about: str) -> None:
    """Write a model, with a text on what it is.

    Args:
        model: of OpenVINO.
        path: ends in .xml; the .bin comes beside it.
        about: JSON.
    """
    model.set_rt_info(about, [ABOUT])
    path.with_suffix(".bin").unlink(
        missing_ok=True
    )  # one that is in use is mapped into memory: not to be cut
    silent.openvino().save_model(model, str(path), compress_to_fp16=False)


def runner(model: Any, batch: int | None = None) -> Run:
    """A model made ready to run on the processor, in the numbers that it tells.

    Args:
        model: of OpenVINO; left as it was.
        batch: pictures in each call; None for any number.

    Returns:
        uint8 pictures (n, H, W, channels) to float32 probabilities (n, classes).
    """
    if batch is not None:
        model = model.clone()
        model.reshape([batch, *list(model.input(0).partial_shape)[1:]])
    compiled = silent.core().compile_model(model, "CPU", EXACT)
    return lambda pictures: compiled(pictures)[0]
