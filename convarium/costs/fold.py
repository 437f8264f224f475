"""From one pass over a network to what each part costs, and to what is left out or doubtful, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from convarium.costs.field import Fields
from convarium.costs.leaves import own_macs, own_weights
from convarium.costs.trace import Call, Counted, Shape, Trace


@dataclass(frozen=True)
class Part:
    """One part of a network with all that is below it, for the whole batch.

    Args:
        path: names joined by dots; empty for the whole.
        kind: name of its class.
        detail: its settings in short, for a leaf.
        leaf: whether nothing is below it.
        shape: of its last output without the batch; None where it is not run or gives no single tensor.
        params: parameters; a tensor that several parts share is counted once.
        macs: multiply-accumulates by the operators that ran; None where it could not be run, or was not reached.
        folded: the same by formulas; None where a part below has none.
        activations: elements of the new tensors that its operators write; views and work in place write none; None
            where `macs` is.
        moved: bytes that its leaves read (inputs, weights) and write (outputs), one leaf after the other; views none.
        itemsize: bytes of one number.
        fields: what of the picture one output sees, with gates and without; None where it has no plane.
        status: "agreed", "operators only" (no formula), "partial" (operators not counted), "disagrees", "not run".
    """

    path: str
    kind: str
    detail: str
    leaf: bool
    shape: Shape | None
    params: int
    macs: int | None
    folded: int | None
    activations: int | None
    moved: int
    itemsize: int
    fields: Fields | None
    status: str

    @property
    def name(self) -> str:
        """Last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def depth(self) -> int:
        """Names in the path."""
        return self.path.count(".") + 1 if self.path else 0

    @property
    def flops(self) -> int | None:
        """2 x MACs."""
        return None if self.macs is None else 2 * self.macs

    @property
    def activation_bytes(self) -> int | None:
        """Bytes of the activations in the number type asked for."""
        return None if self.activations is None else self.activations * self.itemsize

    @property
    def intensity(self) -> float | None:
        """FLOPs per byte moved; None where nothing is moved."""
        return self.flops / self.moved if self.flops is not None and self.moved else None


def fold(net: nn.Module, seen: Trace, itemsize: int) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts of a network with what each costs, and notes on what is not agreed or not counted.

    Args:
        net: any module.
        seen: one pass over it; without calls the parameters alone are counted.
        itemsize: bytes of one number.

    Returns:
        Rows in the order of definition, the whole first, and notes.
    """
    parts = _own(net, seen, itemsize)
    rows = _rows(parts, seen, itemsize)
    never = _never_run(parts, "called for a picture" if seen.stopped is None else "reached")
    notes = (_differences(parts), _uncounted(parts), _without_formula(parts), never)
    return rows, tuple(note for some in notes for note in some)


def innermost(rows: Sequence[Part]) -> Part:
    """The part that is the whole: inside the frames that hold a single part each and do nothing, as wrappers do."""
    whole = rows[0]
    for depth in range(max(row.depth for row in rows) - 1):
        inside = [row for row in rows if row.depth == depth + 1]
        same = [
            (row.params, row.macs, row.activations) == (whole.params, whole.macs, whole.activations)
            for row in inside
        ]
        if len(inside) > 1 or not all(same):
            break
        whole = inside[0]
    return whole


class _Own:
    """What one part does by itself and, once the parts below are added, what it costs with them."""

    def __init__(self, module: nn.Module, calls: list[Call], counted: Counted | None, itemsize: int) -> None:
        self.module = module
        by_formula = [own_macs(module, call.inputs) for call in calls]
        self.macs = self.counted = counted.macs if counted else 0
        unfinished = self.counted and not calls
        self.formula = None if None in by_formula or unfinished else sum(filter(None, by_formula))
        self.weights = own_weights(module)
        self.written = counted.written if counted else 0
        self.unknown = counted.unknown if counted else ()
        self.partial = bool(self.unknown)
        self.tensors = {id(p): p.numel() for p in module._parameters.values() if p is not None}
        self.shape = calls[-1].outputs[0][1:] if calls and len(calls[-1].outputs) == 1 else None
        self.moved = 0
        # Views and what does nothing in evaluation move nothing; work in place moves all and writes nothing new.
        in_place = getattr(module, "inplace", False) and not isinstance(module, nn.modules.dropout._DropoutNd)
        if self.counted or (not module._modules and (self.written or in_place)):
            elements = sum(prod(shape) for call in calls for shape in (*call.inputs, *call.outputs))
            self.moved = (elements + len(calls) * sum(self.tensors.values())) * itemsize
        # Without a formula the fold is silent, unless there is nothing that one could be about.
        self.folded = 0 if self.formula is None and not self.counted else self.formula
        self.differs = self.formula is not None and self.formula != self.counted
        self.misfits = self.weights is not None and self.weights[0] != self.weights[1]
        self.disagrees = self.differs or self.misfits
        self.ran = bool(calls)

    def add(self, below: _Own) -> None:
        """The cost of a part below; `formula` and `counted` stay this part's own."""
        self.macs += below.macs
        self.folded = None if self.folded is None or below.folded is None else self.folded + below.folded
        self.written += below.written
        self.moved += below.moved
        self.partial |= below.partial
        self.tensors = self.tensors | below.tensors
        self.disagrees |= below.disagrees
        self.ran |= below.ran

    @property
    def status(self) -> str:
        """As in `Part`."""
        if not self.ran:
            return "not run"
        if self.disagrees:
            return "disagrees"
        if self.partial:
            return "partial"
        return "operators only" if self.folded is None else "agreed"


def _own(net: nn.Module, seen: Trace, itemsize: int) -> dict[str, _Own]:
    """Every part by path, what is below it not yet added."""
    calls: dict[str, list[Call]] = {}
    for call in seen.calls:
        calls.setdefault(call.path, []).append(call)
    alive = set(calls)  # what runs, and what is around it
    for path in calls:
        while path := path.rpartition(".")[0]:
            alive.add(path)
    found, shown = {}, set()
    for path, module in net.named_modules(remove_duplicate=False):
        # A module that stands at several places has a row at each where it runs, and at the first in any case.
        if id(module) not in shown or path in alive:
            found[path] = _Own(module, calls.get(path, []), seen.counted.get(path), itemsize)
            shown.add(id(module))
    if seen.stopped in found:
        found[seen.stopped].partial = found[seen.stopped].ran = True
    return found


def _rows(parts: Mapping[str, _Own], seen: Trace, itemsize: int) -> tuple[Part, ...]:
    """Rows in the order of definition; adds to each part what is below it."""
    for path in reversed(list(parts)):
        if path:
            parts[path.rpartition(".")[0]].add(parts[path])
    rows = []
    for path, own in parts.items():
        module = own.module
        reached = own.ran or seen.stopped is None
        rows.append(
            Part(
                path=path,
                kind=type(module).__name__,
                detail=module.extra_repr(),
                leaf=not module._modules,
                shape=own.shape,
                params=sum(own.tensors.values()),
                macs=own.macs if reached else None,
                folded=own.folded,
                activations=own.written if reached else None,
                moved=own.moved,
                itemsize=itemsize,
                fields=seen.fields.get(path),
                status=own.status,
            )
        )
    return tuple(rows)


def _differences(parts: Mapping[str, _Own]) -> Iterable[str]:
    for path, own in parts.items():
        if own.differs:
            yield (
                f"the counters disagree in {path or 'the whole'}: {own.formula:,} MACs by its formula, "
                f"{own.counted:,} by the operators that ran"
            )
        if own.misfits and own.weights:
            yield (
                f"the counters disagree in {path or 'the whole'}: {own.weights[0]:,} weights and biases by its "
                f"formula, {own.weights[1]:,} in its tensors"
            )


def _uncounted(parts: Mapping[str, _Own]) -> Iterable[str]:
    where: dict[str, list[str]] = {}
    for path, own in parts.items():
        for operator in own.unknown:
            where.setdefault(operator, []).append(path or "the network itself")
    for operator, paths in where.items():
        yield f"not counted: {operator} in {several(paths)}"


def _without_formula(parts: Mapping[str, _Own]) -> Iterable[str]:
    kinds: dict[str, list[str]] = {}
    for path, own in parts.items():
        if own.formula is None and own.counted:
            kinds.setdefault(type(own.module).__name__, []).append(path or "the network itself")
    for kind, paths in kinds.items():
        yield f"counted by operators only, for want of a formula: {kind}, {several(paths)}"


def _never_run(parts: Mapping[str, _Own], words: str) -> Iterable[str]:
    """Outermost parts with parameters that a pass over a picture does not call."""
    idle: list[str] = []
    for path, own in parts.items():
        above = path.rpartition(".")[0]
        # What counts by itself may use the tensors of parts inside it without calling them.
        used = path and (parts[above].counted or parts[above].unknown)
        if own.tensors and not own.ran and not used and above not in idle or above in idle:
            idle.append(path)
    outer = [path for path in idle if path.rpartition(".")[0] not in idle]
    if outer:
        tensors = {key: n for path in outer for key, n in parts[path].tensors.items()}
        yield f"not {words}: {several(outer)} ({sum(tensors.values()):,} parameters)"


def several(paths: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    return ", ".join(paths[:3]) + (f" and {len(paths) - 3} more" if len(paths) > 3 else "")
