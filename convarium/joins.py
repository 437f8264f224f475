"""The four ways of joining parts, of which every network here is made.

    Chain(name=part, ...)        the parts in turn
    Sum(body, shortcut, act)     act(body(x) + shortcut(x))
    Concat(name=branch, ...)     the branches' outputs, concatenated on channels in the order written
    Gate(gate)                   x * gate(x)

A block is a constructor over these and has no forward of its own, so that whatever walks the tree
(cost, receptive field, drawing, folding) cannot disagree with what runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn


def locate(error: Exception, name: str) -> None:
    """Write into an error the path of the part in which it arose.

    Args:
        error: the error on its way out.
        name: the name of the part, in its join, through which it comes.
    """
    path = ".".join(filter(None, (name, getattr(error, "part", ""))))
    notes = getattr(error, "__notes__", [])
    error.__notes__ = [note for note in notes if not note.startswith("in part ")] + [f"in part {path}"]
    error.part = path  # type: ignore[attr-defined]


class Join(nn.Module):
    """A node of the tree: named parts and one rule of joining them."""

    def run(self, name: str, x: Tensor) -> Tensor:
        """The output of one part; an error in it carries the part's path."""
        try:
            return self._modules[name](x)  # type: ignore[misc]
        except Exception as error:
            locate(error, name)
            raise


class Chain(Join):
    """The parts in turn, each named.

    Args:
        parts: (name, module) pairs or a mapping, for names that are not Python identifiers.
        named: the parts, in the order written; None leaves a part out.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module | None] | Iterable[tuple[str, nn.Module | None]] = (),
        /,
        **named: nn.Module | None,
    ) -> None:
        super().__init__()
        for name, part in {**dict(parts), **named}.items():
            if part is not None:
                self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        name = ""
        try:  # around the whole rather than `run` for each: small networks are mostly made of such calls
            for name, part in self._modules.items():  # noqa: B007 (told where one fails)
                x = part(x)  # type: ignore[misc]
        except Exception as error:
            locate(error, name)
            raise
        return x

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, key: int | str) -> nn.Module:
        name = list(self._modules)[key] if isinstance(key, int) else key
        return self._modules[name]  # type: ignore[return-value]


class Sum(Join):
    """act(body(x) + shortcut(x)).

    Args:
        body: the residual function.
        shortcut: the way around it; the identity where None.
        act: applied to the sum; nothing where None.
    """

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        return self.run("act", self.run("body", x) + self.run("shortcut", x))


class Concat(Join):
    """The branches' outputs, concatenated on channels in the order written.

    The order is part of a network's definition: reversed, published weights load and the output is wrong.

    Args:
        branches: each is given the same input.
    """

    def __init__(self, **branches: nn.Module) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.run(name, x) for name in self._modules], dim=1)


class Gate(Join):
    """x * gate(x), the gate's output broadcast over x.

    Args:
        gate: gives one factor a channel, (N, C, 1, 1), or one an element.
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.run("gate", x)
