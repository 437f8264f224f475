"""Leaves that are drawn as one box, blocks that are drawn once for many, and a block in a few lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from convarium.draw.anatomy import Part, Shape

GENERIC = {"Chain", "Sum", "Concat", "Gate", "Stage", "Head", "Sequential", "ModuleList", "Leaves"}
"""Classes whose name says nothing about what was built of them."""

VAGUE = ("layers", "concat", "gate")
"""What `kind` calls parts for which it knows no better word."""

MAIN = ("weights", "pool", "other")
"""Roles of leaves that a box is named after; norms, activations and the like stand beside them."""


FEW = 3
"""So many boxes in turn are drawn one by one, even where they are alike."""

MANY = 6
"""Of more branches than these, those alike are drawn as one."""

SHARE_OPENED = 0.6
"""A sequence with more than this share of another library's network is opened."""


@dataclass(frozen=True)
class Unit:
    """Leaves in turn that are drawn as one box.

    Args:
        leaves: at least one.
        text: what it mainly is.
        before: what comes before that, as "BN · ReLU".
        behind: what comes behind it.
    """

    leaves: tuple[Part, ...]
    text: str
    before: str = ""
    behind: str = ""

    @property
    def main(self) -> Part:
        """The leaf that it is named after."""
        return next((leaf for leaf in self.leaves if leaf.words and leaf.words.role in MAIN), self.leaves[0])

    @property
    def named(self) -> bool:
        """Whether it is more than norms, activations and the like."""
        return _role(self.main) in MAIN

    @property
    def shape(self) -> Shape | None:
        """Of its output."""
        return self.leaves[-1].shape

    @property
    def parameters(self) -> int:
        """Of all its leaves."""
        return sum(leaf.parameters for leaf in self.leaves)

    @property
    def macs(self) -> int | None:
        """Of all its leaves, where they are counted."""
        return total(leaf.macs for leaf in self.leaves)


@dataclass(frozen=True)
class Run:
    """Parts in turn that are alike: one is drawn for all.

    Args:
        parts: at least two.
    """

    parts: tuple[Part, ...]


Item = Unit | Run | Part


def total(numbers: Iterator[int | None] | Sequence[int | None]) -> int | None:
    """Their sum; None where one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(known)  # type: ignore[arg-type]


def outer(net: Part) -> list[tuple[str, Part]]:
    """A network's outer parts with their names: stem, stages, head.

    Of another library's network what it calls in turn, leaves next to each other as one.
    """
    by_name = {part.name: part for part in net.parts}
    if net.join == "chain" and "stages" in by_name:
        stages = [(f"stage{stage.name}", stage) for stage in by_name["stages"].parts]
        ends = {name: part for name, part in by_name.items() if name in ("stem", "head") and not part.idle}
        stem, head = ([(name, ends[name])] if name in ends else [] for name in ("stem", "head"))
        return [*stem, *stages, *head]
    found = []
    for leaves, group in groupby(_opened(net), key=lambda pair: not pair[1].parts):
        pairs = [(name, part) for name, part in group if not part.idle]
        found += [_together(pairs, "Leaves")] if leaves and pairs else pairs
    return found


def _opened(net: Part) -> Iterator[tuple[str, Part]]:
    """What a network calls in turn; a sequence with most of it is opened by the size of what its parts put out."""
    for part in net.parts:
        sizes = [list(group) for _, group in groupby(part.parts, key=lambda p: p.shape and p.shape[1:])]
        large = net.parameters and part.parameters / net.parameters > SHARE_OPENED
        if not large or part.join != "chain" or len(sizes) < 2:
            yield part.name, part
            continue
        for group in sizes:
            pairs = [(f"{part.name}.{p.name}" if p is group[0] else p.name, p) for p in group]
            yield _together(pairs, "Sequential")


def _together(pairs: Sequence[tuple[str, Part]], kind: str) -> tuple[str, Part]:
    """Parts that follow each other as one chain, with a name from the first to the last."""
    parts = tuple(part for _, part in pairs)
    chain = Part(
        path=parts[0].path,
        kind=kind,
        join="chain",
        given=parts[0].given,
        shape=parts[-1].shape,
        parameters=sum(part.parameters for part in parts),
        macs=total([part.macs for part in parts]),
        parts=parts,
    )
    return (pairs[0][0] if len(pairs) == 1 else f"{pairs[0][0]} … {pairs[-1][0]}"), chain


def flow(part: Part, few: int = FEW) -> list[Item]:
    """What a chain does in turn: chains inside it dissolved, leaves put together, runs folded.

    Args:
        part: any; what is no chain is the only item.
        few: parts alike are not folded where they are so few boxes.
    """
    items: list[Item] = []
    for piece in _dissolved(part, few):
        if isinstance(piece, Part) and piece.words is not None:
            items.append(Unit((piece,), ""))
        else:
            items.append(piece)
    return _joined(items)


def _dissolved(part: Part, few: int) -> Iterator[Part | Run]:
    if part.join != "chain":
        if not part.idle:
            yield part
        return
    for group in alike(part.parts):
        if len(group) > 1 and not group[0].words and len(group) * _boxes(group[0]) > few:
            yield Run(tuple(group))
        else:
            for one in group:
                yield from _dissolved(one, few)


def _boxes(part: Part) -> int:
    """About how many boxes it takes to draw a part."""
    return sum(_role(leaf) in MAIN for leaf in part.leaves)


def alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Neighbours that are built alike and put out as many channels, together."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and groups[-1][0].alike == part.alike:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _joined(items: Sequence[Item]) -> list[Item]:
    """Leaves next to each other put together.

    A norm belongs to the convolution before it, as in ResNet; where the first norm comes before the first
    convolution, to the one behind, as in DenseNet and in the transformer.
    """
    roles = [_role(item.leaves[0]) for item in items if isinstance(item, Unit)]
    first_norm, first_main = (_first(roles, sort) for sort in (("norm",), MAIN))
    joined: list[Item] = []
    group: list[Part] = []
    main = ""  # role of the leaf that the group will be named after

    def close() -> None:
        nonlocal main
        if group:
            joined.append(_unit(tuple(group)))
        group.clear()
        main = ""

    for item in items:
        if not isinstance(item, Unit):
            close()
            joined.append(item)
            continue
        (leaf,) = item.leaves
        role = _role(leaf)
        opens = role in MAIN and (main or (group and role != "weights"))
        leads = role == "norm" and main and (main != "weights" or first_norm < first_main)
        if opens or leads:
            close()
        group.append(leaf)
        main = role if role in MAIN else main
    close()
    return [item for item in joined if not (isinstance(item, Unit) and not item.text)]


def _role(leaf: Part) -> str:
    return leaf.words.role if leaf.words else ""


def _first(roles: Sequence[str], sort: Sequence[str]) -> int:
    return next((i for i, role in enumerate(roles) if role in sort), len(roles))


def _unit(leaves: tuple[Part, ...]) -> Unit:
    spoken = [leaf for leaf in leaves if leaf.words and leaf.words.text]
    texts = [leaf.words.text for leaf in spoken if leaf.words]
    at = _first([_role(leaf) for leaf in spoken], MAIN)
    if at == len(spoken):
        return Unit(leaves, " · ".join(texts))
    return Unit(leaves, texts[at], " · ".join(texts[:at]), " · ".join(texts[at + 1 :]))


def addends(part: Part) -> list[Part]:
    """What a sum adds: sums of sums, as ResNeXt's form a, are one sum."""
    body, shortcut, _ = part.parts
    found = []
    for way in (body, shortcut):
        inner = way.join == "sum" and way.parts[2].idle
        found += addends(way) if inner else [way]
    return found


def kind(part: Part) -> str:
    """What a block is called: by its class, or by what was built of the general ones."""
    if part.words is not None:
        return part.words.text or part.kind
    if part.kind not in GENERIC:
        return part.kind
    inner = [p for p in part.parts if not p.idle]
    if part.join == "gate":
        return "gate"
    if part.join == "sum":
        named = next((p for p in part.parts if p.kind not in GENERIC and not p.words), None)
        return named.kind if named else "residual block"
    if part.join == "concat":
        return "concat"
    if not inner:
        return "nothing"
    if len(inner) == 1:
        return kind(inner[0])
    if inner[-1].join == "gate" and inner[0].kind not in GENERIC:
        return f"{inner[0].kind} + gate"
    joins = {p.join for p in inner}
    if "sum" in joins:
        return "residual block"
    units = [item for item in flow(part) if isinstance(item, Unit)]
    if len(units) == len(flow(part)) and len(units) <= 2:
        return " · ".join(unit.text for unit in units)
    return "layers"


def titled(part: Part) -> str:
    """What stands over a block that is drawn: `kind`, but no list of what is then seen."""
    name = kind(part)
    if part.words is None and (name in VAGUE or " · " in name):
        return "downsample" if part.name == "downsample" else "layers"
    return name


def lines(part: Part) -> list[str]:
    """A part in a few lines: what has weights, and how it is joined."""
    found: list[str] = []
    for item in flow(part):
        if isinstance(item, Unit):
            if item.main.words and item.main.words.role in MAIN:
                found.append(item.text)
        elif isinstance(item, Run):
            found += [f"{len(item.parts)} × {line}" for line in _one_line(item.parts[0])]
        else:
            found += _joined_lines(item)
    return list(counted(found))


def _joined_lines(part: Part) -> list[str]:
    if part.join == "sum":
        body, shortcut, _ = part.parts
        ways = addends(part)
        if len(ways) > 2 and len(alike(ways)) == 1:
            return [f"sum of {len(ways)} × ({' → '.join(lines(ways[0]))})"]
        around = " → ".join(lines(shortcut)) or "x"
        return [*lines(body), f"+ {around}"]
    if part.join == "concat":
        groups = alike(part.parts) if len(part.parts) > MANY else [[branch] for branch in part.parts]
        return [f"| {f'{len(g)} × ' if len(g) > 1 else ''}{_branch(g[0])}" for g in groups]
    if part.join == "gate":
        inner = [leaf for leaf in part.leaves if leaf.words and leaf.words.role == "weights" and leaf.shape]
        least = min((leaf.shape[0] for leaf in inner if leaf.shape), default=None)
        return ["× gate" + (f", {least}" if least else "")]
    if part.join == "calls":
        return [line for below in part.parts for line in lines(below)] or [part.kind]
    return [kind(part)]


def _branch(branch: Part) -> str:
    """A branch in one line; branches inside it in brackets."""
    words = []
    for item in flow(branch):
        if isinstance(item, Unit):
            words.append(item.text)
        elif isinstance(item, Part) and item.join == "concat":
            words.append("(" + " | ".join(_branch(inner) for inner in item.parts) + ")")
        else:
            words += _one_line(item.parts[0] if isinstance(item, Run) else item)
    return " → ".join(words) or "x"


def _one_line(part: Part) -> list[str]:
    return [" → ".join(lines(part)) or kind(part)]


def counted(texts: Sequence[str]) -> tuple[str, ...]:
    """Equal neighbours as one with their number."""
    return tuple(
        text if n == 1 else f"{n} × {text}" for text, n in ((t, len(list(g))) for t, g in groupby(texts))
    )
