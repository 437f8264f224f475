"""Features of pictures from a network that does not learn: computed once, kept by what they depend on.

A row belongs to the network's weights, the preprocessing, the number format and the picture's content; an augmented
view also to the seed, the number of the view and the picture's key. So a picture that is added to a folder costs one
picture, and another split or fold of the same pictures costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from convarium import storage
from convarium.errors import RunError


class Kept:
    """Rows of numbers by name, in files that are whole or absent; many processes may add to them.

    Args:
        folder: where the files lie; made when something is added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """The rows that are there; a damaged file is as if it were absent.

        Args:
            names: of rows.

        Returns:
            float32 rows by name.
        """
        wanted, found = set(names), dict[str, np.ndarray]()
        for file in self._files():
            try:
                with safe_open(file, "np") as opened:
                    told = opened.metadata()
                    listed = json.loads(told["names"])
                    here = [i for i, name in enumerate(listed) if name in wanted]
                    rows = opened.get_tensor("rows") if here else np.empty(0)
                if here and told["sha256"] != hashlib.sha256(rows.tobytes()).hexdigest():
                    continue
                found.update((listed[i], rows[i]) for i in here)
            except (SafetensorError, OSError, KeyError, TypeError, ValueError, IndexError):
                continue
        return found

    def _files(self) -> list[Path]:
        try:
            return sorted(self.folder.glob("*.safetensors"))
        except OSError:
            return []

    def add(self, rows: dict[str, np.ndarray]) -> str:
        """Keep rows.

        Args:
            rows: by name, of one shape.

        Returns:
            Why they could not be kept; empty where they are.
        """
        if not rows:
            return ""
        names = list(rows)
        title = hashlib.sha256("\n".join(names).encode()).hexdigest()[:32]
        stacked = np.ascontiguousarray(np.stack([rows[name] for name in names]))
        told = {"names": json.dumps(names), "sha256": hashlib.sha256(stacked.tobytes()).hexdigest()}
        try:
            storage.make_folder(self.folder, storage.ELSEWHERE)
            storage.sweep(self.folder)
            storage.write(
                self.folder / f"{title}.safetensors", lambda path: save_file({"rows": stacked}, path, told)
            )
        except RunError as error:
            return str(error)
        return ""


def identity(net: nn.Module, *others: object) -> str:
    """What a network and the rest of its circumstances are, in 32 digits.

    Args:
        net: its tensors count, with their names.
        others: values that JSON can hold.
    """
    total = hashlib.sha256(json.dumps(others, sort_keys=True).encode())
    for name, tensor in net.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        total.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
        total.update(values.view(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    return total.hexdigest()[:32]
