"""What a network costs, part by part, by two counters that do not know of each other.

The rule. One multiplication with its addition is one MAC; convolutions, linear layers and attention's two products
are counted, biases, norms, activations and pools are not. FLOPs are twice the MACs. One counter is the fold of
closed formulas over the parts (`leaves`), the other sees the operators that torch runs (`trace`). What is shown is
what the operators say; where the formulas say otherwise, that is said, and the whole is "partial".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from convarium.costs.field import Fields
from convarium.costs.fold import Part, fold
from convarium.costs.trace import Shape, Trace, trace
from convarium.errors import ArgumentError, unknown_name
from convarium.net import Net

__all__ = ["DTYPES", "RULE", "Cost", "Part", "cost"]

RULE = "1 MAC = one multiply and one add; FLOPs = 2 x MACs; convolutions, linears, attention products"

DTYPES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
"""Names of the number types that a network can be counted in, and the bytes of one."""


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
        status: "complete"; "partial" where operators are not counted or the counters disagree; "unavailable" where
            the network cannot be run without weights.
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
    def activations(self) -> int:
        """Elements of all new tensors that a forward pass writes."""
        return self.rows[0].activations

    @property
    def activation_bytes(self) -> int:
        """Bytes of the activations."""
        return self.rows[0].activation_bytes

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved, leaf by leaf."""
        return self.rows[0].intensity

    def tree(self, depth: int | None = None, **look: Any) -> str:
        """The parts as an indented text; see `convarium.costs.tree.tree` for the look."""
        from convarium.costs.tree import COST_COLUMNS, tree

        return tree(self.rows, depth, **{"columns": COST_COLUMNS, **look})

    def table(self, by: str = "stage") -> str:
        """One line a "stage", "block" or "leaf" with its shares of the whole, as text."""
        from convarium.costs.tables import text

        return text(self, by)

    def to_csv(self, by: str | None = None) -> str:
        """All parts, or one line a "stage", "block" or "leaf", with a heading."""
        from convarium.costs.tables import csv

        return csv(self, by)

    def to_json(self, by: str | None = None) -> str:
        """One object: totals, notes and, under "parts", all parts or those of `by`."""
        from convarium.costs.tables import json

        return json(self, by)

    def to_markdown(self, by: str = "stage") -> str:
        """A table with one line a "stage", "block" or "leaf"."""
        from convarium.costs.tables import markdown

        return markdown(self, by)

    def __str__(self) -> str:
        return "\n".join([self.tree(), "", *self.notes]).rstrip()


def cost(
    net: nn.Module,
    picture: Shape | None = None,
    *,
    batch: int = 1,
    dtype: str = "float32",
) -> Cost:
    """Count what a network costs, without its weights and without memory.

    Args:
        net: any module that takes pictures; left as it was.
        picture: (channels, height, width); None for the network's own, or 3 x 224 x 224 where it tells none.
        batch: pictures at once.
        dtype: name of the number type, one of `DTYPES`.

    Returns:
        Totals and every part.

    Raises:
        ArgumentError: the network cannot work with such a picture, or an argument is not allowed.
    """
    if dtype not in DTYPES:
        raise unknown_name("number type", dtype, DTYPES)
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise ArgumentError(f"batch = {batch!r}; it must be a whole number of at least 1")
    if picture is None:
        side: Any = getattr(net, "size", 224)
        picture = (getattr(net, "in_channels", 3), side, side)
    about = (tuple(picture), batch, dtype)
    try:
        seen = trace(net, (batch, *picture), dtype=getattr(torch, dtype))
    except ArgumentError as error:
        if "meta" not in str(error.__cause__):
            raise
        # It asks for values, which only weights and a picture could give; its parameters are known all the same.
        rows, _ = fold(net, Trace((), {}, {}), DTYPES[dtype])
        rows = tuple(replace(row, macs=None, folded=None, status="unavailable") for row in rows)
        return Cost(*about, rows, None, (str(error),), "unavailable")
    rows, notes = fold(net, seen, DTYPES[dtype])
    status = "complete" if rows[0].status in ("agreed", "operators only") else "partial"
    return Cost(*about, rows, _last_plane(net, seen), notes, status)


def _last_plane(net: nn.Module, seen: Trace) -> Fields | None:
    """The receptive field of the last output that is a plane or tokens; in our heads of the last plane alone."""
    ends = {f"{path}.stages".lstrip(".") for path, module in net.named_modules() if isinstance(module, Net)}
    for call in reversed(seen.calls):
        shape = call.outputs[0] if call.outputs else ()
        several = sum(side > 1 for side in shape[1:]) > 1
        if call.path in ends or (several and (len(shape) == 4 or not ends)):
            return seen.fields.get(call.path)
    return None
