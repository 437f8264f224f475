"""A graph as torch's own file (.pt2), which torch runs without the network's source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ABOUT = "convarium.json"
"""The file inside, which tells what the model is."""


def traced(module: nn.Module, example: Tensor, free: dict[int, Any]) -> Callable[[Path, str], None]:
    """Trace a module.

    Args:
        module: takes one tensor, "pictures".
        example: such a tensor.
        free: its dimensions that may vary.

    Returns:
        Writes it to a path that ends in .pt2, with a text on what it is.
    """
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=(free,))
    for part in program.graph_module.modules():
        for node in getattr(getattr(part, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # names folders of this machine
    # The example would be the one part of the file that is a pickle.
    program._example_inputs = None

    def write(path: Path, about: str) -> None:
        torch.export.save(program, path, extra_files={ABOUT: about})

    return write
