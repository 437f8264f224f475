"""What a network costs, part by part, by two counters that do not know of each other.

The rule. One multiplication with its addition is one MAC; convolutions, linear layers and attention's two products
are counted, biases, norms, activations and pools are not. FLOPs are twice the MACs. One counter is the fold of
closed formulas over the parts (`leaves`), the other sees the operators that torch runs (`trace`). What is shown is
what the operators say; where the formulas say otherwise, that is said, and the whole is "partial".
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import nn

from convarium.costs.field import Fields
from convarium.costs.fold import Part, fold, several
from convarium.costs.trace import Call, NeedsValues, Shape, Trace, trace
from convarium.errors import ArgumentError, unknown_name
from convarium.net import Net

__all__ = ["DTYPES", "RULE", "Cost", "Part", "cost"]

RULE = "1 MAC = one multiply and one add; FLOPs = 2 x MACs; convolutions, linears, attention products"

DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Names of the number types that a network can be counted in, and the bytes of one."""

NO_FIELD = "no receptive field of the last plane: "
"""How the note begins that tells why there is none."""


@dataclass(frozen=True)
class Cost:
    """What a network costs on one batch of pictures.

    Args:
        picture: (channels, height, width) of the input.
        batch: pictures at once; all figures but shapes and parameters are for all of them.
        dtype: name of the number type.
        rows: every part in the order of its definition, the whole first.
        receptive_field: of the last plane, before it is pooled to a vector; None where there is none.
        notes: what is left out or doubtful, in words.
        status: "complete"; "partial" where operators are not counted, the counters disagree, or the network could not
            be run to its end without data; "unavailable" where nothing could be counted so.
    """

    picture: Shape
    batch: int
    dtype: str
    rows: tuple[Part, ...]
    receptive_field: Fields | None
    notes: tuple[str, ...]
    status: str

    @property
    def params(self) -> int:
        """Parameters, shared ones once."""
        return self.rows[0].params

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates by the rule; None where the network could not be run."""
        return self.rows[0].macs

    @property
    def flops(self) -> int | None:
        """2 x MACs."""
        return self.rows[0].flops

    @property
    def activations(self) -> int | None:
        """Elements of all new tensors that a forward pass writes; None where the network could not be run."""
        return self.rows[0].activations

    @property
    def activation_bytes(self) -> int | None:
        """Bytes of the activations; None where the network could not be run."""
        return self.rows[0].activation_bytes

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved, leaf by leaf."""
        return self.rows[0].intensity

    def tree(self, depth: int | None = None, **look: Any) -> str:
        """The parts as an indented text, and the rule below; see `convarium.costs.tree.tree` for the look."""
        from convarium.costs.tree import COST_COLUMNS, tree

        look = {"columns": COST_COLUMNS, **look}
        return tree(self.rows, depth, **look) + (_rule(look) if "MACs" in look["columns"] else "")

    def table(self, by: str = "stage", **look: Any) -> str:
        """One line a "stage", "block" or "leaf" with its shares of the whole, as text, and the rule below.

        See `convarium.costs.tables.text` for the look.
        """
        from convarium.costs.tables import text

        return text(self, by, **look) + _rule(look)

    def to_csv(self, by: str | None = None, depth: int | None = None) -> str:
        """All parts, those down to a depth, or one line a "stage", "block" or "leaf", with a heading."""
        from convarium.costs.tables import csv

        return csv(self, by, depth)

    def to_json(self, by: str | None = None, depth: int | None = None) -> str:
        """One object: totals, notes and, under "parts", all parts, those down to a depth, or those of `by`."""
        from convarium.costs.tables import json

        return json(self, by, depth)

    def to_markdown(self, by: str = "stage") -> str:
        """A table with one line a "stage", "block" or "leaf"."""
        from convarium.costs.tables import markdown

        return markdown(self, by)

    def __str__(self) -> str:
        return "\n".join([self.tree(), "", *self.notes]).rstrip()


def _rule(look: Mapping[str, Any]) -> str:
    """The rule as it stands below a table of a certain width."""
    return "\n\n" + (textwrap.fill(RULE, look["width"]) if look.get("width") else RULE)


def cost(
    net: nn.Module,
    picture: Shape | None = None,
    *,
    batch: int = 1,
    dtype: str | torch.dtype = "float32",
) -> Cost:
    """Count what a network costs, without its weights and without memory.

    Args:
        net: any module that takes pictures; left as it was.
        picture: (channels, height, width); None for the network's own, or 3 x 224 x 224 where it tells none.
        batch: pictures at once.
        dtype: the number type, or its name; one of `DTYPES`.

    Returns:
        Totals and every part.

    Raises:
        ArgumentError: the network cannot work with such a picture, or an argument is not allowed.
    """
    number = str(dtype).removeprefix("torch.")
    if number not in DTYPES:
        raise unknown_name("number type", number, DTYPES)
    if not _counts(batch):
        raise ArgumentError(f"batch = {batch!r}; it must be a whole number of at least 1")
    if picture is None:
        side: Any = getattr(net, "size", 224)
        picture = (getattr(net, "in_channels", 3), side, side)
    picture = checked(picture)
    about = (picture, batch, number)
    try:
        seen = trace(net, (batch, *picture), dtype=getattr(torch, number))
    except NeedsValues as error:
        # It asks for values, which only weights and a picture could give; its parameters are known all the same.
        if any(part.macs for part in error.seen.counted.values()):
            rows, notes = fold(net, error.seen, DTYPES[number])
            return Cost(*about, rows, None, (f"counted only until it stopped: {error}", *notes), "partial")
        rows, _ = fold(net, Trace((), {}, {}), DTYPES[number])
        rows = tuple(
            replace(row, macs=None, folded=None, activations=None, status="unavailable") for row in rows
        )
        return Cost(*about, rows, None, (str(error),), "unavailable")
    rows, notes = fold(net, seen, DTYPES[number])
    status = "complete" if rows[0].status in ("agreed", "operators only") else "partial"
    last = _last_plane(net, seen)
    found = None if last is None else seen.fields.get(last.path)
    if found is None or None in (found.with_gates, found.without_gates):
        notes = (*notes, NO_FIELD + _why_no_field(last, seen))
    return Cost(*about, rows, found, notes, status)


def checked(picture: Any) -> tuple[int, int, int]:
    """A picture's shape, as a tuple.

    Args:
        picture: (channels, height, width).

    Raises:
        ArgumentError: it is something else.
    """
    sides = tuple(picture) if isinstance(picture, Sequence) else ()
    if len(sides) != 3 or not all(map(_counts, sides)):
        raise ArgumentError(
            f"picture = {picture!r}; it must be (channels, height, width), whole numbers of at least 1"
        )
    channels, height, width = map(int, sides)
    return channels, height, width


def _counts(number: Any) -> bool:
    return isinstance(number, Integral) and not isinstance(number, bool) and int(number) >= 1


def _why_no_field(last: Call | None, seen: Trace) -> str:
    """Why the receptive field of the last plane is not known."""
    if last is None:
        return "no part gives a plane or tokens"
    lost: dict[str, list[str]] = {}
    for path, operator in seen.lost.items():
        lost.setdefault(operator, []).append(path or "the network itself")
    if lost:
        ways = "; ".join(f"{operator} in {several(paths)}" for operator, paths in lost.items())
        return f"it is not followed through {ways}"
    if len(last.outputs) > 1:
        return f"{last.path or 'the network'} gives {len(last.outputs)} tensors whose fields differ"
    return f"the outputs of {last.path or 'the network'} have no size and stride in common"


def _last_plane(net: nn.Module, seen: Trace) -> Call | None:
    """What gave the last output that is a plane or tokens; in our heads the last plane alone."""
    ends = {f"{path}.stages".lstrip(".") for path, module in net.named_modules() if isinstance(module, Net)}
    for call in reversed(seen.calls):
        shape = call.outputs[0] if call.outputs else ()
        several = sum(side > 1 for side in shape[1:]) > 1
        if call.path in ends or (several and (len(shape) == 4 or not ends)):
            return call
    return None
