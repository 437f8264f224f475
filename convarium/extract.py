"""Features from inside a network: any parts, by their paths, and no more computed than they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from convarium.errors import ArgumentError, unknown_name


class _Enough(BaseException):
    """Everything asked for has been seen; no Exception, so that no part notes it as its error."""


class Extractor(nn.Module):
    """The outputs of some parts of a network.

    Args:
        net: any module; it is used as it is, and shared, not copied.
        paths: of the parts, as in `net.named_modules()`, or end points of ours as "stage2".

    Raises:
        ArgumentError: no path.
        UnknownName: there is no such part.
    """

    def __init__(self, net: nn.Module, *paths: str) -> None:
        super().__init__()
        if not paths:
            raise ArgumentError("no path was given; name at least one part, as 'stages.2'")
        parts = {name for name, _ in net.named_modules() if name}
        self.net = net
        self.places = {path: _place(path) if path not in parts else path for path in paths}
        for path, place in self.places.items():
            if place not in parts:
                raise unknown_name("part", path, parts)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Run the network until the last of the parts has answered.

        Args:
            x: pictures, as the network takes them.

        Returns:
            The outputs by path, in the order asked.

        Raises:
            ArgumentError: a part does not run in this mode, as auxiliary classifiers.
        """
        with self._listening() as seen, suppress(_Enough):
            self.net(x)
        missing = [path for path in self.places if path not in seen]
        if missing:
            raise ArgumentError(
                f"{', '.join(missing)} did not run; ask for parts that the forward pass goes through"
            )
        return {path: seen[path] for path in self.places}

    @contextmanager
    def _listening(self) -> Iterator[dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}
        handles = []

        def note(path: str) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                seen[path] = output
                if len(seen) == len(self.places):
                    raise _Enough

            return hook

        try:
            for path, place in self.places.items():
                handles.append(self.net.get_submodule(place).register_forward_hook(note(path)))
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _place(path: str) -> str:
    """An end point's name as a path: "stage2" is "stages.2"."""
    number = path.removeprefix("stage")
    return f"stages.{number}" if path.startswith("stage") and number.isdigit() else path
