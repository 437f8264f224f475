"""What a file of weights is, which network it belongs to, and what keeps it from fitting. Nothing in it is executed."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError, CheckpointError, UserError
from convarium.models import alike, front, kinds, registry, weights

# A network is tried when its parameters are between these shares of the file's: another number of classes or of
# channels, or a missing classifier, changes much of a small network (MobileNetV2 0.35: three quarters).
_NEAR = (0.4, 5.0)

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Fit:
    """How a file fits one network.

    Args:
        name: of the network.
        publisher: whose names the file carries, as that network's rules know them.
        arguments: classes, channels and size that fit the file best.
        problems: one line a tensor that does not fit; none when all do.
        tensors: how many the network has.
        unseen: options that change what is computed but no tensor, which the file cannot tell, with their values,
            the network's own first; none where the file describes itself.
    """

    name: str
    publisher: str
    arguments: dict[str, Any]
    problems: tuple[str, ...]
    tensors: int
    unseen: dict[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass
class Examination:
    """All that was found out about a file.

    Args:
        path: the file.
        bytes: its size.
        kind: what it is, in words.
        problem: why its tensors cannot be read; empty where they can.
        description: what one of our own files says of itself.
        tensors: how many.
        parameters: numbers in them, without the statistics of norms.
        dtypes: how many tensors of each type.
        classes: number of class scores, as the best fit tells; 0 for features alone; None where nothing fits.
        fits: networks, the best first; several where names and shapes cannot tell them apart.
        norms: what the statistics of batch norm look like.
        notes: what else is worth knowing.
    """

    path: str
    bytes: int
    kind: str
    problem: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    tensors: int = 0
    parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    classes: int | None = None
    fits: list[Fit] = field(default_factory=list)
    norms: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the tensors can be read and fit some network completely."""
        return any(not fit.problems for fit in self.fits)

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able, with `usable`."""
        return {**asdict(self), "usable": self.usable}


def examine(path: str | Path, model: str | None = None) -> Examination:
    """Look into a file of weights.

    Args:
        path: any file.
        model: the only network to compare with, ours or another library's as "timm:resnet10t"; where None, that which
            the file itself tells of, or else the nearest of all of ours.

    Returns:
        What was found; a damaged file has a `problem`.

    Raises:
        CheckpointError: there is no such file.
        UnknownName: no such network.
    """
    path = Path(path)
    if not path.is_file():
        raise weights.missing(path)
    if model is not None:
        front.variant(model)
    kind, problem = kinds.identify(path)
    found = Examination(str(path), path.stat().st_size, kind, problem or kinds.misnamed(path, kind))
    if found.problem:
        return found
    try:
        state = weights.read(path)
    except CheckpointError as error:
        found.problem = str(error)
        return found
    found.tensors = len(state)
    found.parameters = sum(t.numel() for n, t in state.items() if not n.endswith(_STATISTICS))
    for tensor in state.values():
        name = str(tensor.dtype).removeprefix("torch.")
        found.dtypes[name] = found.dtypes.get(name, 0) + 1
    found.description = weights.description(path)
    found.norms = _norms(state)
    found.notes += _oddities(state)
    told = _told(found.description)
    names = [model] if model else [told["name"]] if told else _candidates(found.parameters)
    found.fits = _fits(names, state, told)
    if told and not model and found.fits[0].problems:  # it is not what it says
        found.fits = _fits([*names, *_candidates(found.parameters)], state, told)
    if model is None:  # what shares less than half of its tensors with the file is another network
        found.fits = [fit for fit in found.fits if len(fit.problems) < fit.tensors / 2][:3]
    if found.fits:
        found.classes = found.fits[0].arguments["classes"]
    perfect = [fit.name for fit in found.fits if not fit.problems]
    if len(perfect) > 1:
        found.notes.append(_undecided(perfect))
    return found


def _told(description: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture that a file tells of, as {"name", "arguments"}; nothing where it names none that is known."""
    try:
        told = {
            "name": description["architecture"]["name"],
            "arguments": dict(description["architecture"]["arguments"]),
        }
        front.build_empty(told)
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        UserError,
    ):  # none, or of a later version
        return {}
    return told


def _undecided(names: Sequence[str]) -> str:
    """What can be said of a file that fits several networks."""
    both = " and ".join(names)
    if len({alike.function(name) for name in names}) == 1:
        return f"{both} are one network under several names"
    rows = [registry.variant(name) for name in names]
    offered = " and ".join(f"{row.name} ({row.paper})" for row in rows if row.reference)
    return (
        f"it fits {both} equally: they have the same names and shapes but compute different things, and only who "
        "trained it can tell which it is" + (f"; the publishers' weights are of {offered}" if offered else "")
    )


def _candidates(parameters: int) -> list[str]:
    """Networks of ours of about this many parameters, the nearest first."""
    distances = {
        name: abs(math.log(registry.variant(name).parameters / max(parameters, 1)))
        for name in registry.names()
        if _NEAR[0] < registry.variant(name).parameters / max(parameters, 1) < _NEAR[1]
    }
    return sorted(distances, key=distances.__getitem__)


def _fits(names: Iterable[str], state: Mapping[str, Tensor], told: Mapping[str, Any]) -> list[Fit]:
    """Networks that the file fits, or else the nearest."""
    fits: list[Fit] = []
    counts: set[int] = set()  # parameters of the networks that fit: only others of as many can fit as well
    for name in dict.fromkeys(names):
        row = front.variant(name)
        if not counts or row.parameters in counts:
            fit = _fit(name, state, told)
            fits.append(fit)
            if not fit.problems:
                counts.add(row.parameters)
    # The publisher's own counterpart first, for names that several networks of ours answer to.
    fits.sort(
        key=lambda f: (len(f.problems), not str(front.variant(f.name).reference).startswith(f.publisher))
    )
    return [fit for fit in fits if not fit.problems] or fits


def _fit(name: str, state: Mapping[str, Tensor], told: Mapping[str, Any]) -> Fit:
    """The best reading of a file as this network, over its publishers and with the file's classes and channels."""
    row = front.variant(name)
    own = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size}
    arguments = {**own, **(told.get("arguments", {}) if told.get("name") == name else {})}
    net: nn.Module = front.build_empty({"name": name, "arguments": arguments})
    wanted = net.state_dict()
    read: list[tuple[int, str, weights.State]] = []
    for publisher, rules in {"convarium": (), **row.rules}.items():
        try:
            renamed = weights.rename(state, rules(net) if callable(rules) else rules)
        except CheckpointError:  # two tensors of one name: by these rules it is not this network
            continue
        read.append((len(wanted.keys() ^ renamed.keys()), publisher, renamed))
    _, publisher, renamed = min(read, key=lambda r: r[0])
    shape = _shape(net, renamed)
    if "classes" not in shape:  # features without a classifier
        shape["classes"] = 0
    if shape.items() - arguments.items():
        with contextlib.suppress(ArgumentError):  # not every network can be had so; then its own shape it is
            net = front.build_empty({"name": name, "arguments": arguments | shape})
            arguments |= shape
    problems = tuple(weights.differences(net, renamed))
    unseen = {} if problems or name == told.get("name") else alike.unseen(name, arguments)
    return Fit(name, publisher, arguments, problems, len(net.state_dict()), unseen)


def _shape(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, int]:
    """Classes and channels of the file, where its classifier or first convolution are told by name."""
    found = {}
    wanted = net.state_dict()
    heads = [n for n, t in wanted.items() if t.ndim >= 2 and t.shape[0] == net.classes and n in state]
    if heads and state[heads[-1]].ndim >= 2:
        found["classes"] = state[heads[-1]].shape[0]
    stems = [n for n, t in wanted.items() if t.ndim == 4 and t.shape[1] == net.in_channels and n in state]
    if stems and state[stems[0]].ndim == 4:
        found["in_channels"] = state[stems[0]].shape[1]
    return {key: value for key, value in found.items() if value > 0}


def _norms(state: Mapping[str, Tensor]) -> str:
    """Whether the statistics of batch norm are those of a trained network."""
    variances = {n.removesuffix(".running_var"): t for n, t in state.items() if n.endswith("running_var")}
    if not variances:
        return ""
    means = {name: state.get(f"{name}.running_mean", torch.zeros(1)) for name in variances}
    wrong = [n for n, v in variances.items() if not (v.isfinite().all() and means[n].isfinite().all())]
    if wrong:
        return (
            f"{len(wrong)} of {len(variances)} batch norms hold values that are no numbers, first {wrong[0]}"
        )
    negative = [n for n, v in variances.items() if (v < 0).any()]
    if negative:
        return f"{len(negative)} of {len(variances)} batch norms have negative variances, first {negative[0]}"
    untouched = [n for n, v in variances.items() if (means[n] == 0).all() and (v - 1).abs().max() < 2e-3]
    if len(untouched) == len(variances):
        weight = [state[f"{n}.weight"] for n in variances if f"{n}.weight" in state]
        bias = [state[f"{n}.bias"] for n in variances if f"{n}.bias" in state]
        if all((w - 1).abs().max() < 2e-3 for w in weight) and any((b != 0).any() for b in bias):
            return f"all {len(variances)} batch norms are identities with a bias: they were folded into convolutions"
        return f"all {len(variances)} batch norms have mean 0 and variance 1: it was never trained, or it was folded"
    if untouched:
        return f"{len(untouched)} of {len(variances)} batch norms have mean 0 and variance 1, first {untouched[0]}"
    return f"the statistics of all {len(variances)} batch norms look trained"


def _oddities(state: Mapping[str, Tensor]) -> list[str]:
    floats = {n: t for n, t in state.items() if t.is_floating_point() and t.numel()}
    wrong = [n for n, t in floats.items() if not n.endswith(_STATISTICS) and not t.isfinite().all()]
    notes = [f"{len(wrong)} tensors hold values that are no numbers, first {wrong[0]}"] if wrong else []
    if any(t.dtype in (torch.float16, torch.bfloat16) for t in floats.values()):
        notes.append("numbers of half precision: they are widened when loaded")
    return notes
