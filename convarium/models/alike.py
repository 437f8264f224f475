"""Networks that names and shapes cannot tell apart, though they compute different things, and those that do not.

resnet50_v1 strides the 1x1 convolution and resnet50 the 3x3: either's weights fit the other and are wrong in it. So
weights whose network is known, by a publisher's list or by the file's own description, go into that network alone.
Of a bare file nothing can be known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import foreign, registry, weights

# timm's names for networks that carry torchvision's name here.
_IN_TIMM = {
    "vit_b_16": "vit_base_patch16_224",
    "vit_b_32": "vit_base_patch32_224",
    "vit_l_16": "vit_large_patch16_224",
    "vit_l_32": "vit_large_patch32_224",
}

# What may differ between two networks of one function: these act in training or in memory alone, or, as auxiliary
# classifiers and what depends on the input's form, are seen in the tensors.
_NEUTRAL = (
    *("classes", "in_channels", "size", "aux"),
    *("drop_path", "dropout", "aux_dropout", "zero_init", "momentum", "recompute"),
)

# Options that may change what is computed and no tensor, and the values that share their tensors.
_UNSEEN: dict[str, tuple[Any, ...]] = {
    "padding": ("torch", "same"),
    "act": ("quick_gelu", "gelu"),
    "squeeze": ("avg", "max"),
    "shortcut": ("B", "D"),
    **dict.fromkeys(("v1", "ceil_pool", "transform_input"), (False, True)),
}


def counterpart(name: str, library: str) -> str | None:
    """What a library calls the network that computes what one of ours does.

    Args:
        name: one of ours.
        library: "timm" or "torchvision".

    Returns:
        Its name there; None where it has none.

    Raises:
        UnknownName: no such network.
    """
    row = registry.variant(name)
    own, _, theirs = (row.reference or "").partition(":")
    if not own or library not in row.rules:  # names alone say nothing: resnet50_v1 has those of resnet50
        return None
    if own != library:
        theirs = _IN_TIMM.get(name, name) if library == "timm" else name
    return theirs if f"{library}:{theirs}" in foreign.names(library) else None


def mistakable(name: str) -> list[str]:
    """Other networks of the same family with exactly as many parameters, which compute something else.

    Args:
        name: one of ours, or another library's, which has none.
    """
    if foreign.is_foreign(name):
        return []
    row = registry.variant(name)
    others = (registry.variant(other) for other in registry.names())
    near = [o.name for o in others if (o.family, o.parameters) == (row.family, row.parameters)]
    return [other for other in near if function(other) != function(name)]


def function(name: str, arguments: Mapping[str, Any] | None = None) -> tuple[object, str]:
    """What two networks have in common if and only if they compute the same with the same weights.

    Args:
        name: one of ours.
        arguments: its own, over those of its row.
    """
    acting = {n: v for n, v in {**registry.options(name), **(arguments or {})}.items() if n not in _NEUTRAL}
    return registry.variant(name).build, _text(acting)


def unseen(name: str, arguments: Mapping[str, Any] | None = None) -> dict[str, tuple[Any, ...]]:
    """Options by which a network computes something else with the same tensors, so that no bare file tells them.

    Args:
        name: one of ours, or another library's, of which nothing is known.
        arguments: its own, over those of its row.

    Returns:
        The values of each, the network's own first.
    """
    if foreign.is_foreign(name):
        return {}
    row = registry.variant(name)
    own = {"classes": row.classes, "in_channels": row.in_channels, "size": row.size, **(arguments or {})}
    acting = {**registry.options(name), **own}
    form = _form(name, own)
    found = {}
    for option, values in _UNSEEN.items():
        if acting.get(option) in values:
            others = [v for v in values if v != acting[option] and _form(name, own | {option: v}) == form]
            if others:
                found[option] = (acting[option], *others)
    return found


def _form(name: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors; none where there is no such network."""
    try:
        net = registry.build_empty({"name": name, "arguments": arguments})
    except ArgumentError:
        return {}
    return {tensor: tuple(value.shape) for tensor, value in net.state_dict().items()}


def altered(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by which a network computes something else than its row says.

    Args:
        architecture: {"name", "arguments"}, of one of ours.
    """
    own = registry.options(architecture["name"])
    given = architecture["arguments"].items()
    return {n: v for n, v in given if n not in _NEUTRAL and _text(v) != _text(own.get(n))}


def refuse_others(name: str, arguments: Mapping[str, Any], path: Path) -> None:
    """Refuse a file that describes itself as the weights of a network which computes something else.

    Args:
        name: the network that it is to be loaded into.
        arguments: its own.
        path: the file; one without a description is let through.

    Raises:
        WeightsMismatch: they are another network's.
    """
    told = weights.description(path).get("architecture") or {}
    if foreign.is_foreign(name):  # the libraries' tensors are called otherwise than ours, which is seen
        return
    try:
        theirs, given = str(told["name"]), dict(told["arguments"])
    except (KeyError, TypeError, ValueError):  # no description, or none that can be read
        return
    if foreign.is_foreign(theirs):
        library, _, model = theirs.partition(":")
        same = counterpart(name, library) == model
    elif theirs not in registry.names():  # of a later version, perhaps: names and shapes will tell
        return
    else:
        same = function(theirs, given) == function(name, arguments)
    if not same:
        options = _shown(given)
        raise WeightsMismatch(
            f"{path} holds weights of {theirs}{options}; {name}{_shown(arguments)} computes something else, even "
            f"where names and shapes are the same; create({theirs!r}{options}, weights=...) is their network"
        )


def refuse_altered(name: str, arguments: Mapping[str, Any], reference: str) -> None:
    """Refuse published weights for a network that is asked to compute something else than the published one.

    Args:
        name: the network, ours or another library's.
        arguments: its own, without those that the weights need.
        reference: of the weights.

    Raises:
        WeightsMismatch: an argument changes what is computed.
    """
    if foreign.is_foreign(name):
        return
    known = {n: v for n, v in arguments.items() if n in registry.options(name)}  # others are refused by name
    changed = altered({"name": name, "arguments": known})
    if changed:
        raise WeightsMismatch(
            f"{name}{_shown(changed)} computes something else than the network that {reference!r} was trained as; "
            f"leave {' and '.join(changed)} out, or leave the weights out"
        )


def _shown(arguments: Mapping[str, Any]) -> str:
    return "".join(f", {n}={v!r}" for n, v in arguments.items() if n not in _NEUTRAL)


def _text(value: object) -> str:
    """So that a tuple equals the list that a file made of it."""
    return json.dumps(value, sort_keys=True, default=repr)
