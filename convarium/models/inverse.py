"""Weights under a publisher's names: the rules of `weights` read backwards.

Ordered patterns have no inverse of their own. So the publisher's library is asked for the names and shapes of its
network, without memory; each name is sent through the rules, and where it arrives, there our tensor is taken from.
Of OpenAI's CLIP, which no library here builds, the rules themselves tell the way back. Nothing is written unless
every name of theirs is filled, every tensor of ours used, and the file read by our own rules gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from convarium import storage
from convarium.errors import ArgumentError, CheckpointError, UnknownName, WeightsMismatch
from convarium.models import alike, foreign, registry, weights
from convarium.net import Net

# open_clip reads what OpenAI wrote, and calls its networks by the same names.
_SAME_NAMES = {"open_clip": "openai"}

# Arguments of ours that the libraries' networks take by the same name.
_SHARED = ("transform_input",)

# Arguments that the tensors show, so that a difference is found by comparing them.
_SEEN = ("depths", "width", "patch", "text_width", "text_depth")


@dataclass(frozen=True)
class Translated:
    """A network's weights as a publisher would have written them.

    Args:
        publisher: whose names these are.
        model: what the publisher calls the network; "" where no library here builds it.
        arguments: what the publisher's library must be told to build it.
        state: the tensors, by the publisher's names.
        changed: how the network differs from any that the library builds, in words; "" where it does not.
    """

    publisher: str
    model: str
    arguments: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    changed: str = ""

    def loading(self, path: str | Path) -> str:
        """Lines of Python that load a file of these weights into the publisher's own network."""
        function = {"timm": "timm.create_model", "torchvision": "torchvision.models.get_model"}
        words = ", ".join([repr(self.model), *(f"{n}={v!r}" for n, v in self.arguments.items())])
        made = [f"net = {function[self.publisher]}({words})"] if self.publisher in function else []
        if self.changed:
            made.append(f"# make it one of {self.changed}")
        return "\n".join([*made, f"net.load_state_dict(safetensors.torch.load_file({str(path)!r}))"])


def publishers(name: str) -> list[str]:
    """Publishers in whose names a network's weights can be saved.

    Args:
        name: one of ours, or "timm:NAME" or "torchvision:NAME".

    Raises:
        UnknownName: no such network.
    """
    if foreign.is_foreign(name):
        return [name.partition(":")[0]]
    found = [library for library in foreign.LIBRARIES if alike.counterpart(name, library)]
    told = [p for p, rules in registry.variant(name).rules.items() if isinstance(rules, weights.TwoWay)]
    return [*found, *told, *(new for new, old in _SAME_NAMES.items() if old in told)]


def translated(net: Net, publisher: str) -> Translated:
    """A network's weights under a publisher's names, in its layouts.

    Args:
        net: built by `create`, with any number of classes and channels.
        publisher: one of `publishers`.

    Returns:
        The tensors, sharing memory with the network's where the layout is the same.

    Raises:
        CheckpointError: the network was not built by name.
        UnknownName: the publisher has no network that computes the same.
        WeightsMismatch: its tensors are not those of the publisher's network; both sides are listed.
    """
    if not net.architecture:
        raise CheckpointError(
            "this network was not built by convarium.create, so nobody's names are known for it"
        )
    name, given = net.architecture["name"], dict(net.architecture["arguments"])
    known = publishers(name)
    if known and publisher not in known:
        raise UnknownName(f"{name} can be saved in the names of {', '.join(known)}, not of {publisher}")
    if not known:
        raise UnknownName(
            f"{name} cannot be saved in the names of {publisher}: no library here has a network that computes the "
            "same; the file that training wrote holds its weights under our own names"
        )
    ours = {n: t.detach() for n, t in net.state_dict().items()}
    if foreign.is_foreign(name):
        return _told(publisher, name.partition(":")[2], given, ours)
    rules = registry.variant(name).rules[_SAME_NAMES.get(publisher, publisher)]
    unseen = {n: v for n, v in alike.altered(net.architecture).items() if n not in (*_SHARED, *_SEEN)}
    if publisher == "open_clip":  # whose networks come with either activation
        unseen.pop("act", None)
    if unseen:
        options = ", ".join(f"{n}={v!r}" for n, v in unseen.items())
        raise WeightsMismatch(
            f"{name} with {options} computes something else than the network of {publisher} that has tensors of "
            "these names, so they would be wrong in it; keep it in our own names"
        )
    if isinstance(rules, weights.TwoWay):
        state = weights.rename(ours, rules.theirs(net))
        _compare(net, ours, weights.rename(state, rules.ours(net)))
        return Translated(publisher, "", {}, state)
    model = str(alike.counterpart(name, publisher))
    arguments = {n: given[n] for n in ("classes", "in_channels", "size")}
    extra = {n: given[n] for n in _SHARED if n in given}
    if "aux" in registry.options(name):
        extra["aux_logits"] = len(net.get_submodule("aux")._modules) > 0
    theirs = foreign.build_empty({"name": f"{publisher}:{model}", "arguments": {**arguments, **extra}})
    shapes = {n: t.shape for n, t in theirs.state_dict().items()}
    return _told(publisher, model, {**arguments, **extra}, _filled(net, ours, shapes, rules))


def save_as(net: Net, path: str | Path, publisher: str, about: Mapping[str, Any] | None = None) -> Translated:
    """Write a network's weights under a publisher's names, so that the publisher's library loads them strictly.

        net = torchvision.models.resnet50(num_classes=5)
        net.load_state_dict(safetensors.torch.load_file("theirs.safetensors"))

    Args:
        net: built by `create`, with any number of classes and channels.
        path: the .safetensors file to make or replace.
        publisher: one of `publishers`.
        about: what the file shall tell besides, JSON-able, as class names and preprocessing.

    Returns:
        What was written, with the publisher's name of the network.

    Raises:
        ArgumentError: the path does not end in .safetensors.
        CheckpointError: as `translated`.
        UnknownName: as `translated`.
        RunError: the disk is full or read-only.
    """
    if Path(path).suffix != ".safetensors":
        raise ArgumentError(f"{path}: the name of a file of weights must end in .safetensors")
    found = translated(net, publisher)
    from convarium import __version__

    content = {
        **(about or {}),
        "format": f"the names of {publisher}",
        "writer": f"convarium {__version__}",
        "architecture": net.architecture,
        "model": found.model,
        "arguments": found.arguments,
    }
    # One entry only: several would be written in random order, and equal weights would give unequal files.
    metadata = {weights.KEY: json.dumps(content, ensure_ascii=False)}
    tensors = {n: t.cpu().contiguous() for n, t in found.state.items()}
    storage.write(Path(path), lambda temporary: save_file(tensors, temporary, metadata))
    return found


def _told(publisher: str, model: str, given: Mapping[str, Any], state: dict[str, Tensor]) -> Translated:
    """The weights with the library's own words for how its network is built."""
    rest = {n: v for n, v in given.items() if n not in ("classes", "in_channels", "size")}
    words = {"num_classes": given["classes"], **rest}
    changed = []
    if given["in_channels"] != 3 and publisher == "timm":
        words["in_chans"] = given["in_channels"]
    elif given["in_channels"] != 3:
        changed.append(f"{given['in_channels']} channels in its first convolution")
    if not given["classes"] and publisher == "torchvision":
        changed.append("features without a classifier")
    if any(n.endswith(("pos_embed", "pos_embedding")) for n in state):  # tensors that depend on the size
        words["img_size" if publisher == "timm" else "image_size"] = given["size"]
    return Translated(publisher, model, words, state, " and ".join(changed))


def _filled(
    net: Net, ours: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], rules: weights.Rules
) -> dict[str, Tensor]:
    """Each of the publisher's names with our tensor, in its shape."""
    ordered = weights.made(rules, net)
    state, lines, used = {}, [], set()
    for name, shape in shapes.items():
        source, value = weights.renamed_as(name, ordered)
        if source is None or source not in ours:
            lines.append(f"- not filled {name} {tuple(shape)}")
            continue
        used.add(source)
        tensor = value.theirs(ours[source]) if isinstance(value, weights.TwoWay) else ours[source]
        if tensor.numel() != shape.numel() or (value is None and tensor.shape != shape):
            lines.append(f"! shape      {name}: theirs {tuple(shape)}, ours {tuple(tensor.shape)}")
            continue
        state[name] = tensor.reshape(shape)
    lines += [f"+ not used   {name} {tuple(t.shape)}" for name, t in ours.items() if name not in used]
    if lines:
        shown = lines[:20] + ([f"... and {len(lines) - 20} more"] if len(lines) > 20 else [])
        raise WeightsMismatch(f"{len(lines)} tensors have no place there:\n" + "\n".join(shown))
    _compare(net, ours, weights.rename(state, ordered))
    return state


def _compare(net: Net, ours: Mapping[str, Tensor], back: Mapping[str, Tensor]) -> None:
    """Our tensors against what our rules read from theirs, so that a wrong rule writes no file."""
    lines = weights.differences(net, back)
    lines += [f"! value      {n}" for n, t in ours.items() if not lines and not _same_bits(t, back[n])]
    if lines:
        raise WeightsMismatch(f"{len(lines)} tensors would not come back:\n" + "\n".join(lines[:20]))


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """Equality of bytes, by which a number that is none equals itself."""
    if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
        return True
    return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
