"""Names to networks: ours, other libraries' by "timm:NAME" and "torchvision:NAME", with published weights by name.

The rows themselves stand in `registry`; this is where they, the wrapped networks and the downloads meet.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convarium.errors import ArgumentError, CheckpointError, unknown_name
from convarium.models import alike, download, foreign, published, registry
from convarium.models.registry import Variant
from convarium.models.weights import missing
from convarium.net import Net

_SHARED = ("classes", "in_channels", "size", "weights")  # arguments of every network


def variant(name: str) -> Variant:
    """The row of one network, ours or another library's.

    Raises:
        ArgumentError: it is no text.
        UnknownName: there is none; near names are suggested.
    """
    if not isinstance(name, str):
        raise ArgumentError(
            f"name = {name!r}; it must be the name of a network, as 'resnet50' (`convarium list` shows all)"
        )
    return foreign.variant(name) if foreign.is_foreign(name) else registry.variant(name)


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
        name: one of `names()`, or another library's as "timm:resnet10t" or "torchvision:regnet_y_400mf".
        classes: number of class scores; that of the weights or else the published number where None; 0 for features
            without a classifier.
        in_channels: channels of the picture; the published number where None.
        size: side of the input in pixels, for networks whose head depends on it.
        weights: a file of weights (.safetensors, .pth) of this project or of a publisher whose names are known, or
            published ones by name, as "torchvision:IMAGENET1K_V2" (downloaded once, then from the cache); what
            they lack for the classes and channels asked for is made by the rules of `adapt`.
        arguments: the family's own, as `shortcut="B"` for the CIFAR residual nets.

    Returns:
        The network in training mode, with fresh weights (drawn from torch's global generator) or the file's.

    Raises:
        UnknownName: no such network.
        ArgumentError: an argument that this network does not take, or a value that it cannot work with.
        MissingExtra: the weights are known to a library that is not installed.
        CheckpointError: the weights cannot be had, read or made to fit.
    """
    if not isinstance(name, str):
        variant(name)
    if published.is_reference(weights):
        known = published.find(name, str(weights))
        own = {n: v for n, v in arguments.items() if n not in known.arguments}
        alike.refuse_altered(name, own, known.reference)
        arguments = {**known.arguments, **arguments}
        if classes is None and known.publisher not in ("openai", "open_clip"):  # whose classes are no scores
            classes = known.classes
        size = known.size if size is None else size
        weights = download.fetch(known)
    elif weights is not None:
        weights = file(name, weights)
        alike.refuse_others(name, arguments, weights)
    asked: dict[str, Any] = {"classes": classes, "in_channels": in_channels, "size": size, **arguments}
    library: Any = foreign if foreign.is_foreign(name) else registry
    try:
        return library.create(name, weights=weights, **asked)
    except ArgumentError as error:
        for argument in arguments:
            if f"no argument {argument!r}" in str(error):
                near = _near(argument, [*_SHARED, *library.options(name)])
                raise ArgumentError(f"{error}{near}") from None
        raise


def file(name: str, weights: object) -> Path:
    """The file that `create` is given for weights, once it is seen to be there.

    Args:
        name: the network.
        weights: a path.

    Raises:
        ArgumentError: it is no path.
        CheckpointError: there is no such file; published weights of that name are suggested.
    """
    if not isinstance(weights, str | Path):
        raise ArgumentError(
            f"weights = {weights!r}; it must be the path of a file, or published weights by name as "
            f"'torchvision:DEFAULT' (`convarium weights {name}` lists them)"
        )
    path = Path(weights)
    if path.is_file():
        return path
    error = missing(path)
    meant = []
    if path.name == str(weights):  # one word: perhaps a publisher's name was left out
        meant = [
            p.reference for p in published.available(name) if str(weights) in (p.tag, f"{p.model}.{p.tag}")
        ]
        meant += ["torchvision:DEFAULT"] if weights == "DEFAULT" else []
    raise CheckpointError(f"{error}; did you mean {' or '.join(map(repr, meant))}?") if meant else error


def _near(argument: str, allowed: list[str]) -> str:
    """The suggestion for an argument that a network does not take; none where nothing is near."""
    said = str(unknown_name("argument", argument, allowed))
    return said[said.index("; did you mean") :] if "; did you mean" in said else ""


def build_empty(architecture: Mapping[str, Any]) -> Net:
    """A network without memory, from what `net.architecture` told, to assign loaded tensors to.

    Args:
        architecture: {"name", "arguments"}.

    Returns:
        The network on the meta device.
    """
    if foreign.is_foreign(architecture["name"]):
        return foreign.build_empty(architecture)  # type: ignore[return-value]
    return registry.build_empty(architecture)
