"""A graph as an ONNX file, with tensors and nodes named by our paths."""

from __future__ import annotations

import importlib
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError, MissingExtra

ABOUT = "convarium"
"""The entry of the file's metadata that tells what the model is."""

_LARGEST = 1_900_000_000  # bytes; one file of Protocol Buffers ends at 2^31


def traced(module: nn.Module, example: Tensor, free: dict[int, Any]) -> Callable[[Path, str], None]:
    """Trace a module.

    Args:
        module: takes one tensor, "pictures", and gives "probabilities"; its network is `module.net`.
        example: such a tensor.
        free: its dimensions that may vary.

    Returns:
        Writes it to a path, with a text on what it is.

    Raises:
        MissingExtra: onnx, onnxscript or onnxruntime is not installed.
        ArgumentError: the network is too large for one file.
    """
    must_be_there("onnxruntime")  # what predict.py needs
    made = model(module, example, free)
    return lambda path, about: write(made, path, about)


def model(module: nn.Module, example: Tensor, free: dict[int, Any]) -> Any:
    """Trace a module, as `traced` does.

    Args:
        module: takes one tensor; its network is `module.net`.
        example: such a tensor.
        free: its dimensions that may vary.

    Returns:
        An onnx.ModelProto.
    """
    must_be_there("onnx", "onnxscript")
    import onnx

    bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    if bytes_ > _LARGEST:
        raise ArgumentError(
            f"the weights take {bytes_ / 1e9:.1f} GB, and an ONNX file ends at 2 GB; export with --to torch-export"
        )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter, on itself
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["pictures"],
            output_names=["probabilities"],
            dynamic_shapes=(free,),
        )
    if program is None:
        raise RuntimeError("torch gave no program")
    made = program.model_proto
    _name(made.graph)
    del made.functions[:]
    onnx.checker.check_model(made, full_check=True)
    return made


def write(made: Any, path: Path, about: str) -> None:
    """Write a model, with a text on what it is.

    Args:
        made: an onnx.ModelProto.
        path: the file.
        about: JSON.
    """
    import onnx

    del made.metadata_props[:]
    onnx.helper.set_model_props(made, {ABOUT: about})
    path.write_bytes(made.SerializeToString(deterministic=True))


def must_be_there(*libraries: str) -> None:
    """Refuse to begin without a library.

    Raises:
        MissingExtra: one is not installed.
    """
    for library in libraries:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtra(
                f"ONNX files need {error.name}, which is not installed; `pip install convarium[deploy]` brings it"
            ) from error


def _name(graph: Any) -> None:
    """Tensors as in the state dict, nodes by the part that they are of; nothing of this machine's folders."""

    def ours(name: str) -> str:
        return name.removeprefix("net.")

    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = ours(tensor.name)
        del tensor.metadata_props[:]
    graph.name = "convarium"
    seen: Counter[str] = Counter()
    for node in graph.node:
        node.input[:] = map(ours, node.input)
        node.output[:] = map(ours, node.output)
        name = f"{_part(node)}/{node.op_type}".lstrip("/")
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"
        node.doc_string = ""
        del node.metadata_props[:]


def _part(node: Any) -> str:
    """Path of the part that a node computes: that of its weight, or that which was called."""
    for name in node.input:
        if name.endswith((".weight", ".bias")):
            return name.rpartition(".")[0]
    told = {entry.key: entry.value for entry in node.metadata_props}
    scopes = [
        scope.strip(" '\"") for scope in told.get("pkg.torch.onnx.name_scopes", "").strip("[]").split(",")
    ]
    inside = scopes[-2] if len(scopes) > 1 else ""
    return inside.removeprefix("net.") if not inside.startswith("_") else ""
