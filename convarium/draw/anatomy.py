"""What a network is made of, as a drawing needs it: joins, what goes in and comes out, what it costs.

One recursion over the four joins. A module of another library has none; of `nn.Sequential` the order is known,
of any other only which parts it calls, and it is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from convarium.draw.words import Words, words
from convarium.errors import unknown_name
from convarium.joins import Chain, Concat, Gate, Sum
from convarium.net import Net, Stage, meta_call

Shape = tuple[int, ...]

CHAINS = (Chain, Stage, Net, nn.Sequential)


class Costed(Protocol):
    """What is asked of a row; the rows of `costs.cost.Cost` answer, and say `macs` too."""

    @property
    def path(self) -> str:
        """Names joined by dots; empty for the whole."""
        ...

    @property
    def shape(self) -> Shape | None:
        """Of the output without the batch; None where the part is not run or gives no single tensor."""
        ...


@dataclass(frozen=True)
class Part:
    """One part of a network.

    Args:
        path: names joined by dots; empty for the whole.
        kind: name of its class.
        join: "chain", "sum", "concat", "gate", "leaf"; "towers": networks side by side; "calls": what it calls,
            how joined is unknown.
        given: shape of its input without the batch, where it is known.
        shape: shape of its output.
        parameters: of it and all below it.
        macs: multiply-accumulates of it and all below it, where they are counted.
        words: what a leaf is.
        parts: below it; body, shortcut and act of a sum.
    """

    path: str
    kind: str
    join: str
    given: Shape | None = None
    shape: Shape | None = None
    parameters: int = 0
    macs: int | None = None
    words: Words | None = None
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        """Last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def idle(self) -> bool:
        """Whether it gives what it is given."""
        return self.words is not None and self.words.role == "identity"

    @property
    def leaves(self) -> Iterator[Part]:
        """All below it that have nothing below them, in order; itself where it has none."""
        if not self.parts:
            yield self
        for part in self.parts:
            yield from part.leaves

    def find(self, path: str) -> Part:
        """A part below by its path.

        Raises:
            UnknownName: there is no such part, or it is not run.
        """
        found = {part.path: part for part in self.all}
        if path not in found:
            raise unknown_name("part", path, (p for p in found if p), "(`convarium show` lists them)")
        return found[path]

    def under(self, old: str, new: str) -> Part:
        """The same with paths that begin otherwise."""
        path = new + self.path.removeprefix(old)
        return replace(self, path=path, parts=tuple(part.under(old, new) for part in self.parts))

    @property
    def all(self) -> Iterator[Part]:
        """It and everything below it, from the outside in."""
        yield self
        for part in self.parts:
            yield from part.all

    @cached_property
    def alike(self) -> tuple[Any, ...]:
        """Equal for parts that are built alike and whose leaves put out as many channels: a run of them is folded."""
        return self._print(lambda part: part.alike, self.words.alike if self.words else ())

    @cached_property
    def form(self) -> tuple[Any, ...]:
        """Equal for parts of one kind, whatever their numbers: one block stands for all."""
        return self._print(lambda part: part.form, self.words.form if self.words else ())

    @cached_property
    def exact(self) -> tuple[Any, ...]:
        """Equal for parts that are the same in all that a figure tells, their names aside."""
        text = self.words.text if self.words else ""
        return (self.kind, text, self.shape, self.parameters, *(part.exact for part in self.parts))

    def _print(self, of: Callable[[Part], tuple[Any, ...]], leaf: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.words is not None:
            return leaf
        parts = self.parts
        while len(parts) == 1 and parts[0].join == "chain" and self.join == "chain":
            parts = parts[0].parts  # a frame around a chain says nothing
        return (self.join, self.kind, *(of(part) for part in parts))


def anatomy(net: nn.Module, picture: Shape, rows: Iterable[Costed]) -> Part:
    """The network as a tree of parts.

    Args:
        net: any module that takes pictures; left as it was.
        picture: (channels, height, width).
        rows: what each part puts out and costs.

    Returns:
        The whole.
    """
    whole = _Reader(rows, lambda: _turns(net, picture)).part(net, "", picture)
    if whole.shape is None and whole.parts:
        whole = replace(whole, shape=whole.parts[-1].shape)
    return whole


def side_by_side(net: nn.Module, towers: Mapping[str, Part]) -> Part:
    """Networks that are not joined, as CLIP's two, as one.

    Args:
        net: what holds them.
        towers: each as a tree of parts with its path in `net`.
    """
    macs = [tower.macs for tower in towers.values()]
    return Part(
        path="",
        kind=type(net).__name__,
        join="towers",
        parameters=sum(tower.parameters for tower in towers.values()),
        macs=None if None in macs else sum(macs),  # type: ignore[arg-type]
        parts=tuple(towers.values()),
    )


class OfIds(nn.Module):
    """A network over token ids that is called with a picture, which it does not look at: for its shapes and costs.

    Args:
        tower: the network; its `size` is the number of ids.
    """

    def __init__(self, tower: Net) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, x: Tensor) -> Tensor:
        """What the network gives for a text."""
        ids = torch.zeros(len(x), self.tower.size, dtype=torch.long, device=x.device)
        return self.tower(ids)


class _Reader:
    """Modules to parts.

    Args:
        rows: of each part.
        turns: finds when each part is first called; asked where a module has no known join.
    """

    def __init__(self, rows: Iterable[Costed], turns: Callable[[], dict[str, int]]) -> None:
        self.rows = {row.path: row for row in rows}
        self.find_turns = turns
        self.turns: dict[str, int] | None = None

    def part(self, module: nn.Module, path: str, given: Shape | None) -> Part:
        """A module and all below it."""
        row = self.rows.get(path)
        shape = row.shape if row else None
        join, children = self._join(module, path)
        parts: list[Part] = []
        into = given
        for name, child in children:
            below = self.part(child, f"{path}.{name}" if path else name, into)
            parts.append(below)
            if join == "chain":
                into = below.shape or (into if below.idle else None)
            elif join == "calls":
                into = None
        if join == "sum" and len(parts) == 3:
            parts[2] = replace(parts[2], given=parts[2].shape)
        shape = shape or (parts[-1].shape if join == "chain" and parts else None)
        if isinstance(module, nn.Identity) or (join == "chain" and not parts):
            shape = shape or given
        return Part(
            path=path,
            kind=type(module).__name__,
            join=join,
            given=given,
            shape=shape,
            parameters=sum(p.numel() for p in module.parameters()),
            macs=getattr(row, "macs", None),
            words=words(module, given, shape) if join == "leaf" else None,
            parts=tuple(parts),
        )

    def _join(self, module: nn.Module, path: str) -> tuple[str, Sequence[tuple[str, nn.Module]]]:
        children = list(module.named_children())
        if isinstance(module, Net):
            return "chain", [(name, module.get_submodule(name)) for name in ("stem", "stages", "head")]
        if isinstance(module, Sum):
            return "sum", [(name, module.get_submodule(name)) for name in ("body", "shortcut", "act")]
        if isinstance(module, Concat):
            return "concat", children
        if isinstance(module, Gate):
            return "gate", children
        if isinstance(module, CHAINS):
            return "chain", children
        if not children:
            return "leaf", []
        if self.turns is None:
            self.turns = self.find_turns()
        prefix = f"{path}." if path else ""
        last = len(self.turns)
        called = [(name, child) for name, child in children if self._called(prefix + name)]
        return "calls", sorted(called, key=lambda child: self.turns.get(prefix + child[0], last))  # type: ignore[union-attr]

    def _called(self, path: str) -> bool:
        """Whether it or anything below it runs: a list of modules is never called itself."""
        assert self.turns is not None
        return any(name == path or name.startswith(f"{path}.") for name in self.turns)


def _turns(net: nn.Module, picture: Shape) -> dict[str, int]:
    """In which turn each part is first called, by path; parts that are not called are absent."""
    order: dict[str, int] = {}
    hooks = []

    def note(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            # A list of modules is where its first member is.
            for name in _upwards(path):
                order.setdefault(name, len(order))

        return hook

    try:
        for path, module in net.named_modules():
            hooks.append(module.register_forward_pre_hook(note(path)))
        meta_call(net, "forward", (1, *picture))
    finally:
        for handle in hooks:
            handle.remove()
    return order


def _upwards(path: str) -> Iterator[str]:
    """ "a", "a.b" and "a.b.c" for "a.b.c"."""
    names = path.split(".")
    return (".".join(names[: i + 1]) for i in range(len(names)))
