"""What is known of an operator: what it costs, how receptive fields pass through it, what it puts out."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from convarium.costs import flow, outputs
from convarium.costs.operators import ELEMENTWISE, FREE, MACS, TRUTHS
from convarium.costs.outputs import MAKES


class Operator:
    """One of torch's operators, looked up once.

    Attributes:
        name: without "aten::"; of another library with its name in front.
        in_place: it writes into its first argument.
        composite: torch takes it apart into others.
        mutates: it writes into an argument.
        macs: its multiply-accumulates, from its output and arguments; None where it has none or they are not known.
        flow: how it passes receptive fields on; None where that is not known.
        make: its output without its kernel; None where torch must be asked.
        known: whether it is known what it multiplies and adds.
        multiplies: it multiplies two tensors.
        constant: it takes a tensor for its shape alone.
    """

    def __init__(self, func: Any) -> None:
        # Of another library's operators nothing is known, whatever they are called.
        name = func._schema.name.removeprefix("aten::")
        self.name = name
        self.in_place = name.endswith("_") and not name.endswith("__")
        plain = name.rstrip("_") if self.in_place else name
        self.composite = torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), "CompositeImplicitAutograd"
        )
        self.mutates = func._schema.is_mutable
        self.macs = MACS.get(plain)
        self.flow = flow.FLOWS.get(plain)
        self.make = MAKES.get(plain)
        elementwise = torch.Tag.pointwise in func.tags or plain in ELEMENTWISE
        if elementwise:
            self.flow = self.flow or flow.elementwise
            if plain not in TRUTHS and len(func._schema.returns) == 1:
                self.make = self.make or outputs.elementwise
        self.known = self.macs is not None or elementwise or plain in FREE or func.is_view
        self.multiplies = plain == "mul"
        self.constant = plain.startswith("new_") or plain.endswith(
            "_like"
        )  # takes a tensor for its shape alone


@cache
def known(func: Any) -> Operator:
    """What is known of an operator of torch's dispatcher."""
    return Operator(func)
