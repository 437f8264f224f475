"""A graph in 8 bits, by NNCF for OpenVINO and by ONNX Runtime's own tool for ONNX files, and what each layer costs.

Both read the ONNX graph of `onnx_file`, with a free batch, so that a layer has one name in both. NNCF can write ONNX
files, too, but ONNX Runtime then joins a quarter of the convolutions with their rounding: half the speed of float32.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from convarium.deploy import onnx_file, openvino_file, silent
from convarium.deploy.openvino_file import Run
from convarium.errors import MissingExtra

BATCH = 10
"""Pictures at once while ranges are collected."""

FINE = 48
"""Parts that are tried one by one; a network of more is tried block by block."""

_THROUGH = {
    *(
        "Reshape",
        "Transpose",
        "Squeeze",
        "Unsqueeze",
        "Concat",
        "MaxPool",
        "Convert",
        "Slice",
        "StridedSlice",
    ),
    *("Split", "VariadicSplit", "Gather", "Pad", "ShuffleChannels", "Interpolate"),
}
_lock = threading.Lock()


class Maker(Protocol):
    """Makes and writes models of one format from one graph.

    Attributes:
        plain: the model in float32.
    """

    plain: Any

    def rounded(self, squares: np.ndarray, kept: Sequence[str]) -> Any:
        """A model in 8 bits.

        Args:
            squares: uint8 (N, H, W, channels) to take ranges from.
            kept: names of operators to leave in float32.
        """

    def run(self, model: Any, batch: int | None = None) -> Run:
        """A model made ready, for batches of one size or of any."""

    def write(self, model: Any, path: Path, about: str) -> None:
        """Write a model, with a text on what it is."""


class OpenVINO:
    """Models of OpenVINO, rounded by NNCF: symmetric ranges, weights by channel, biases corrected.

    Args:
        proto: an onnx.ModelProto.
    """

    def __init__(self, proto: Any) -> None:
        self.plain = openvino_file.read(proto.SerializeToString())
        self.run, self.write = openvino_file.runner, openvino_file.write

    def rounded(self, squares: np.ndarray, kept: Sequence[str] = (), simulated: bool = False) -> Any:
        """A model in 8 bits.

        Args:
            squares: uint8 (N, H, W, channels) to take ranges from.
            kept: names of operators to leave in float32.
            simulated: round by operators of their own, "FakeQuantize", and correct no bias.
        """
        nncf = library()
        types = [node.get_type_name() for node in self.plain.get_ops()]
        tokens = (
            types.count("Softmax") + types.count("ScaledDotProductAttention") > 1
        )  # the last one is the answer's
        step = 1 if tokens else BATCH  # ranges of tokens are wrong where a batch is looked at as one
        items = [squares[start : start + step] for start in range(0, len(squares), step)]
        with quiet():
            return nncf.quantize(
                self.plain,
                nncf.Dataset(items),
                subset_size=len(items),
                target_device=nncf.TargetDevice.CPU,
                model_type=nncf.ModelType.TRANSFORMER if tokens else None,
                ignored_scope=nncf.IgnoredScope(names=list(kept)) if kept else None,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    disable_bias_correction=simulated,
                    backend_params={"compress_weights": False} if simulated else {},
                ),
            )


class Onnx:
    """ONNX files, rounded by ONNX Runtime's tool: activations uint8, weights int8 by channel.

    Args:
        proto: an onnx.ModelProto.
    """

    # Not softmax, nor sums of indices: probabilities in 8 bits would be steps of 0.004.
    _TYPES = (
        *("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool"),
        *("Relu", "Clip", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Pad"),
    )

    def __init__(self, proto: Any) -> None:
        self.plain = proto
        self.write = onnx_file.write

    def run(self, model: Any, batch: int | None = None) -> Run:
        """A model made ready; it takes batches of any size."""
        onnxruntime = importlib.import_module("onnxruntime")
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
        return lambda pictures: session.run(None, {"pictures": np.ascontiguousarray(pictures)})[0]

    def rounded(self, squares: np.ndarray, kept: Sequence[str] = ()) -> Any:
        """A model in 8 bits.

        Args:
            squares: uint8 (N, H, W, channels) to take ranges from.
            kept: names of operators to leave in float32.
        """
        import onnx

        quantization = importlib.import_module("onnxruntime.quantization")

        names = {_of_onnx(name) for name in kept}
        with tempfile.TemporaryDirectory() as place, quiet():
            before, after = Path(place, "before.onnx"), Path(place, "after.onnx")
            quantization.quant_pre_process(
                self.plain, str(before), skip_optimization=True, skip_symbolic_shape=True
            )
            quantization.quantize_static(
                str(before),
                str(after),
                _Reader(squares),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=list(self._TYPES),
                nodes_to_exclude=self._with_activations(names),
            )
            made = onnx.load(after)
        _direct(made.graph)
        _hold(made.graph, names)
        return made

    def _with_activations(self, kept: set[str]) -> list[str]:
        """The operators, and the activations beside those that stay in float32.

        The tool drops an activation behind a convolution, as rounding cuts, too. What is not rounded needs it.
        """
        nodes = self.plain.graph.node
        floats = [node for node in nodes if node.name in kept or node.op_type not in self._TYPES]
        around = {name for node in floats for name in (*node.input, *node.output)}
        return [
            node.name
            for node in nodes
            if node.name in kept
            or (node.op_type in ("Relu", "Clip") and around & {node.input[0], *node.output})
        ]


class _Reader:
    """Gives the tool its pictures."""

    def __init__(self, squares: np.ndarray) -> None:
        self.items = iter([squares[start : start + BATCH] for start in range(0, len(squares), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        item = next(self.items, None)
        return None if item is None else {"pictures": item}


def _direct(graph: Any) -> None:
    """Activations take what a convolution gives before it is rounded: beyond their ends the range would be wasted."""
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        after = makers.get(node.input[0]) if node.op_type in ("Relu", "Clip") else None
        before = (
            makers.get(after.input[0]) if after is not None and after.op_type == "DequantizeLinear" else None
        )
        if before is not None and before.op_type == "QuantizeLinear":
            node.input[0] = before.input[0]
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        for node in [node for node in graph.node if node.op_type == kind and node.output[0] not in used]:
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _hold(graph: Any, kept: set[str]) -> None:
    """Put max(x, -largest) behind convolutions that stay in float32; it changes nothing.

    ONNX Runtime 1.31 would round their weights itself, with one range for all channels, where rounding stands before
    and behind (its optimizer WeightBiasQuantization); of MobileNet v1 0.25 that left 2 % right for 46 %.
    """
    import onnx

    least = onnx.numpy_helper.from_array(np.array(np.finfo(np.float32).min), "least")
    for place, node in reversed(list(enumerate(graph.node))):
        if node.name in kept and node.op_type in ("Conv", "Gemm"):
            inner, outer = f"{node.name}/float32", node.output[0]
            node.output[0] = inner
            graph.node.insert(
                place + 1, onnx.helper.make_node("Max", [inner, "least"], [outer], f"{node.name}/Max")
            )
            if not any(tensor.name == "least" for tensor in graph.initializer):
                graph.initializer.append(least)


MAKERS: dict[str, type[OpenVINO] | type[Onnx]] = {"openvino": OpenVINO, "onnx": Onnx}
"""By the format that they write."""


def harm(proto: Any, squares: np.ndarray, few: np.ndarray) -> dict[str, tuple[float, list[str]]]:
    """What rounding each part alone does to the answers.

    Args:
        proto: an onnx.ModelProto.
        squares: uint8 (N, H, W, channels) to take ranges from.
        few: some of them, to compare answers on.

    Returns:
        Path of the part to the mean difference of answers (sum over classes of |p - q|) and the names of its
        operators, the most harmful first.
    """
    maker = OpenVINO(proto)
    expected = openvino_file.runner(maker.plain)(few)
    every = maker.rounded(squares, simulated=True)
    parts = _parts(every)
    if len(parts) > FINE:
        parts = _merged(parts)
    found = {}
    for path, operators in parts.items():
        model = every.clone()
        wanted = {name for names in operators.values() for name in names}
        for node in model.get_ops():
            if node.get_type_name() == "FakeQuantize" and node.get_friendly_name() not in wanted:
                node.output(0).replace(node.input_value(0))
        difference = np.abs(openvino_file.runner(model)(few) - expected).sum(1).mean()
        found[path] = (float(difference), sorted(operators))
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def _parts(model: Any) -> dict[str, dict[str, set[str]]]:
    """Path of a part to its operators that take rounded numbers, and for each the names of what rounds them."""
    parts: dict[str, dict[str, set[str]]] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() in _THROUGH or node.get_type_name() == "FakeQuantize":
            continue
        rounding: set[str] = set()
        waiting = [value.get_node() for value in node.input_values()]
        while waiting:
            before = waiting.pop()
            if before.get_type_name() == "FakeQuantize":
                rounding.add(before.get_friendly_name())
            elif before.get_type_name() in _THROUGH:
                waiting.extend(value.get_node() for value in before.input_values())
        if rounding:
            name = node.get_friendly_name()
            parts.setdefault(path_of(name), {})[name] = rounding
    return parts


def _merged(parts: Mapping[str, dict[str, set[str]]]) -> dict[str, dict[str, set[str]]]:
    """Parts of one block taken together."""
    merged: dict[str, dict[str, set[str]]] = {}
    for path, operators in parts.items():
        words = path.split(".")
        block = ".".join(words[: words.index("blocks") + 2]) if "blocks" in words else path
        merged.setdefault(block, {}).update(operators)
    return merged


def path_of(name: str) -> str:
    """Path of the part that an operator belongs to, as in the state dict; its name where it has none."""
    return _of_onnx(name).rpartition("/")[0] or name


def _of_onnx(name: str) -> str:
    return name.removesuffix("/WithoutBiases")


def library() -> ModuleType:
    """NNCF, imported so that it reports nothing to its makers.

    Raises:
        MissingExtra: it is not installed.
    """
    silent.openvino()
    reporter, modules = "openvino_telemetry", sys.modules
    with _lock, quiet():
        before = modules.get(reporter)
        if "nncf" not in modules:
            modules[reporter] = None  # type: ignore[assignment]  # NNCF expects that it may be absent
        try:
            nncf = importlib.import_module("nncf")
            nncf.set_log_level(logging.ERROR)
            return nncf
        except ImportError as error:
            raise MissingExtra(
                f"8 bits need {error.name or 'nncf'}, which is not installed; `pip install convarium[deploy]` "
                "brings it"
            ) from error
        finally:
            if before is not None:
                modules[reporter] = before
            elif modules.get(reporter, before) is None:
                modules.pop(reporter, None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The tools' progress bars and advice are held back."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
