"""TorchScript archives (`torch.jit.save`, as OpenAI published CLIP): their tensors without running their code.

`torch.jit.load` compiles and runs what the archive holds, and `torch.load(weights_only=True)` refuses it. The tensors
lie in it as plain bytes, though, and a pickle says which belongs where. That pickle is read here by an unpickler that
knows a few names, all of them inert, and refuses every other: objects of the archive's own classes become bags of
attributes.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from convarium.errors import CheckpointError


class _Storage(NamedTuple):
    """Numbers as they lie in the archive."""

    data: bytes
    dtype: torch.dtype


class _Bag:
    """An object of which only the attributes are kept."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.held = state if isinstance(state, dict) else {}


def _tensor(storage: Any, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *rest: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without storage")
    if math.prod(shape) * storage.dtype.itemsize > len(storage.data):
        raise pickle.UnpicklingError(f"a tensor {tuple(shape)} larger than its storage")
    if 0 in shape:
        return torch.empty(shape, dtype=storage.dtype)
    flat = torch.frombuffer(bytearray(storage.data), dtype=storage.dtype)
    return torch.as_strided(flat, shape, stride, offset).clone()


def _same(value: Any, *rest: Any) -> Any:
    return value


_INERT: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _same,
    ("torch.jit._pickle", "restore_type_tag"): _same,
    **{("torch.jit._pickle", f"build_{kind}list"): _same for kind in ("int", "tensor", "double", "bool")},
}


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self.archive = archive
        self.root = root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _INERT:
            return _INERT[module, name]
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if module.startswith("__torch__"):  # the archive's own classes
            return _Bag
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, identity: Any) -> _Storage:
        _, dtype, key, *_ = identity
        return _Storage(self.archive.read(f"{self.root}/data/{key}"), dtype)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip that holds code."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def read(path: Path) -> dict[str, Tensor]:
    """All tensors of an archive by name, on the CPU; nothing in it is executed.

    Args:
        path: written by `torch.jit.save`.

    Returns:
        Parameters and buffers, by the names of the module that was saved.

    Raises:
        CheckpointError: a damaged archive, or one that holds more than can be read without running it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).rpartition("/")[0]
            module = _Reader(archive, root).load()
        tensors = dict(_walk(module, ""))
    except (pickle.UnpicklingError, AttributeError, IndexError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is a TorchScript archive that cannot be read without running it ({error}); where you trust it, "
            "convert it: torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pth')"
        ) from error
    except (zipfile.BadZipFile, StopIteration, KeyError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole TorchScript archive ({error}); get it anew") from error
    if not tensors:
        raise CheckpointError(f"{path} is a TorchScript archive without tensors")
    return tensors


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in getattr(module, "held", {}).items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Bag):
            yield from _walk(value, f"{prefix}{name}.")
