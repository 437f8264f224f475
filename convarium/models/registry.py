"""The table of all networks: names to rows of published facts, rows to networks."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from convarium.errors import ArgumentError, unknown_name
from convarium.models import adapt
from convarium.models import weights as weight_files
from convarium.net import Net

# A rule that fills one module's tensors and says whether it did; what it leaves is filled by torch's own default.
Initialise = Callable[[str, nn.Module], bool]


@dataclass(frozen=True)
class Variant:
    """One network: its published facts, and how it is built.

    Args:
        name: lower case with underscores, unique.
        family: name of the file that it stands in.
        build: makes the network from keyword arguments.
        year: of the paper.
        paper: authors, title, and the table or section that defines this variant.
        parameters: exact count with the default classes and channels.
        size: side of the input, in pixels.
        arguments: what this row passes to `build`.
        least: side of the smallest picture that it is tested with, in pixels, where that is below `size`.
        in_channels: channels of the input.
        classes: classes of the published network.
        macs: multiply-accumulates in units (convolutions and linears, no bias, no norm), where published.
        top1: published accuracy in per cent.
        source: where `macs` and `top1` come from.
        reference: another library's network that computes the same, as "torchvision:resnet18".
        initialise: how fresh weights are drawn.
        rules: publishers' names to ours, by publisher.
    """

    name: str
    family: str
    build: Callable[..., Net]
    year: int
    paper: str
    parameters: int
    size: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    least: int = 64
    in_channels: int = 3
    classes: int = 1000
    macs: float | None = None
    top1: float | None = None
    source: str = ""
    reference: str | None = None
    initialise: Initialise = lambda path, module: False
    rules: Mapping[str, weight_files.Rules] = field(default_factory=dict)


_variants: dict[str, Variant] = {}


def register(*rows: Variant) -> None:
    """Add rows to the table.

    Raises:
        ValueError: a name is taken.
    """
    for row in rows:
        if row.name in _variants:
            raise ValueError(
                f"a network called {row.name!r} is registered already, by {_variants[row.name].family}"
            )
        _variants[row.name] = row


def names(pattern: str = "*") -> list[str]:
    """Names of the networks, in the order of history.

    Args:
        pattern: shell-style, as in "resnet*".

    Returns:
        The names that match, possibly none.
    """
    return [name for name in _variants if fnmatch.fnmatchcase(name, pattern.lower())]


def variant(name: str) -> Variant:
    """The row of one network.

    Raises:
        UnknownName: there is none; near names are suggested.
    """
    if name not in _variants:
        raise unknown_name("network", name, _variants, "(`convarium list` shows all)")
    return _variants[name]


def options(name: str) -> dict[str, Any]:
    """The arguments that a network takes beside classes, in_channels and size, with its own values."""
    row = variant(name)
    parameters = inspect.signature(row.build).parameters
    own = {n: p.default for n, p in parameters.items() if n not in ("classes", "in_channels", "size")}
    return {**own, **row.arguments}


def create(
    name: str,
    *,
    classes: int | None = None,
    in_channels: int | None = None,
    size: int | None = None,
    weights: str | Path | None = None,
    **arguments: Any,
) -> Net:
    """Build a network by name.

    Args:
        name: one of `names()`.
        classes: number of class scores; that of the file or else the published number where None; 0 for features
            without a classifier.
        in_channels: channels of the picture; the published number where None.
        size: side of the input in pixels, for networks whose head depends on it.
        weights: a file of weights (.safetensors, .pth) of this project or of a publisher whose names are known;
            what it lacks for the classes and channels asked for is made by the rules of `adapt`.
        arguments: the family's own, as `shortcut="B"` for the CIFAR residual nets.

    Returns:
        The network in training mode, with fresh weights (drawn from torch's global generator) or the file's.

    Raises:
        UnknownName: no such network.
        ArgumentError: an argument that this network does not take, or a value that it cannot work with.
        CheckpointError: the weights cannot be read or do not fit.
    """
    row = variant(name)
    allowed = options(name)
    for argument in arguments:
        if argument not in allowed:
            raise ArgumentError(
                f"{name} takes no argument {argument!r}; it takes "
                + ", ".join(["classes", "in_channels", "size", "weights", *allowed])
            )
    chosen = {
        "classes": _whole("classes", classes, row.classes, least=0),
        "in_channels": _whole("in_channels", in_channels, row.in_channels),
        "size": _whole("size", size, row.size),
    }
    device = torch.get_default_device()
    net, taken = _build(row, {**row.arguments, **chosen, **arguments})
    net.architecture = {"name": name, "arguments": {**chosen, **arguments}}
    if weights is not None:
        said: list[str] = []

        def rebuild(count: int) -> Net:
            return _build(row, {**row.arguments, **chosen, **arguments, "classes": count})[0]

        made_to_fit = partial(
            adapt.adapted,
            net,
            initialise=row.initialise,
            taken=taken,
            other_classes=bool(classes),
            other_channels=chosen["in_channels"] != row.in_channels,
            rebuild=rebuild if classes is None else None,
            said=said,
        )
        weight_files.load(net, Path(weights), row.rules, made_to_fit)
        adapt.tell(name, Path(weights), said)
        return net.to(device)
    if device.type != "meta":
        net.to_empty(device=device)
        initialise(net, row.initialise)
    return net


def build_empty(architecture: Mapping[str, Any]) -> Net:
    """A network without memory, from what `net.architecture` told, to assign loaded tensors to.

    Args:
        architecture: {"name", "arguments"}.

    Returns:
        The network on the meta device.
    """
    row = variant(architecture["name"])
    net, _ = _build(row, {**row.arguments, **architecture["arguments"]})
    net.architecture = dict(architecture)
    return net


def _build(row: Variant, arguments: dict[str, Any]) -> tuple[Net, list[str]]:
    """The network on the meta device, so that no weight is drawn that is drawn again or loaded; what was taken off."""
    features = arguments["classes"] == 0
    _check_switches(row, arguments)
    try:
        with torch.device("meta"):
            net = row.build(**{**arguments, "classes": 1} if features else arguments)
    except ArgumentError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ArgumentError(f"{row.name} cannot be built with {arguments}: {error}") from error
    return net, adapt.without_classifier(net) if features else []


def _check_switches(row: Variant, arguments: Mapping[str, Any]) -> None:
    """Refuse what is no bool for an argument whose own value is one: any text but the empty one counts as true."""
    for name, own in options(row.name).items():
        if isinstance(own, bool) and not isinstance(arguments.get(name, own), bool):
            raise ArgumentError(
                f"{name} = {arguments[name]!r}; {row.name} takes True or False (true or false)"
            )


def initialise(net: nn.Module, rule: Initialise) -> None:
    """Draw fresh weights: by the family's rule, and by torch's own default for what the rule leaves.

    Args:
        net: the network; every tensor of it is overwritten.
        rule: is given each module with its path.
    """
    with torch.no_grad():
        for path, module in net.named_modules():
            if not rule(path, module) and hasattr(module, "reset_parameters"):
                module.reset_parameters()


def _whole(name: str, got: int | None, default: int, least: int = 1) -> int:
    if got is None:
        return default
    if isinstance(got, bool) or not isinstance(got, int) or got < least:
        raise ArgumentError(f"{name} = {got!r}; it must be a whole number of at least {least}")
    return got
