"""Features from inside a network: any parts, by their paths, and no more computed than they need."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_map

from convarium.errors import ArgumentError, unknown_name
from convarium.net import Parted


class _Enough(BaseException):
    """Everything asked for has been seen; no Exception, so that no part notes it as its error."""


class Extractor(nn.Module):
    """The outputs of some parts of a network.

    Args:
        net: any module; it is used as it is, and shared, not copied.
        paths: of the parts, as in `net.named_modules()`; of networks of ours and wrapped ones also end points, as
            "stage2" or "pre_logits", and parts as `net.part` takes them. A part's own path goes before an end
            point's name.

    Raises:
        ArgumentError: no path.
        UnknownName: there is no such part.
    """

    def __init__(self, net: nn.Module, *paths: str) -> None:
        super().__init__()
        if not paths:
            raise ArgumentError("no path was given; name at least one part, as 'stages.2'")
        parts = dict(net.named_modules())
        self.net = net
        self.places: dict[str, tuple[str, bool]] = {}
        for path in paths:
            named = isinstance(net, Parted) and path not in parts
            self.places[path] = net.place(path) if named else (path, False)  # type: ignore[operator]
            if not path or self.places[path][0] not in parts:
                raise unknown_name("part", path, (name for name in parts if name))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Run the network until the last of the parts has answered.

        Args:
            x: pictures, as the network takes them.

        Returns:
            The outputs by path, in the order asked; of a part that runs several times the first.

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

        def keep(path: str, value: Any) -> None:
            if path in seen:
                return
            last = len(seen) + 1 == len(self.places)
            # What runs after may work in place, as activations do: it would overwrite what is kept. Nothing runs
            # after the last.
            seen[path] = value if last else tree_map(_copy, value)
            if last:
                raise _Enough

        def output_of(path: str) -> Any:
            return lambda module, inputs, output: keep(path, output)

        def input_of(path: str) -> Any:
            return lambda module, inputs: keep(path, inputs[0])

        try:
            for path, (place, is_input) in self.places.items():
                part = self.net.get_submodule(place)
                handles.append(
                    part.register_forward_pre_hook(input_of(path))
                    if is_input
                    else part.register_forward_hook(output_of(path))
                )
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
