"""Shapes and parameters of every part of any module, found on the meta device: no weights, no memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from convarium.net import meta_call


@dataclass(frozen=True)
class Row:
    """One part of a network.

    Args:
        path: names joined by dots; empty for the whole.
        kind: name of its class.
        shape: of its output without the batch; None where the part is not run or gives no single tensor.
        parameters: of it and all below it.
        detail: its settings in short, for a leaf.
        leaf: whether nothing is below it.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    detail: str
    leaf: bool

    @property
    def name(self) -> str:
        """Last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def depth(self) -> int:
        """Names in the path."""
        return self.path.count(".") + 1 if self.path else 0


def shapes(net: nn.Module, picture: tuple[int, int, int]) -> list[Row]:
    """Every part in the order of its definition, the whole first.

    Args:
        net: any module that takes pictures; left as it was.
        picture: (channels, height, width).

    Returns:
        One row a part.
    """
    with _outputs(net) as seen:
        meta_call(net, "forward", (1, *picture))
    rows = []
    for path, module in net.named_modules():
        rows.append(
            Row(
                path=path,
                kind=type(module).__name__,
                shape=seen.get(path),
                parameters=sum(p.numel() for p in module.parameters()),
                detail=module.extra_repr(),
                leaf=not any(True for _ in module.children()),
            )
        )
    return rows


@contextmanager
def _outputs(net: nn.Module) -> Iterator[dict[str, tuple[int, ...]]]:
    """While inside, the shape of every part's last output is written down, by path."""
    seen: dict[str, tuple[int, ...]] = {}
    handles = []

    def note(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                seen[path] = tuple(output.shape[1:])

        return hook

    try:
        for path, module in net.named_modules():
            handles.append(module.register_forward_hook(note(path)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()
