"""Weights for a network that differs from the file's in its classes or in the channels of its pictures.

Rules for our own networks and for wrapped ones alike, each used only where `create` was asked for such a network:

- No number of classes was asked for: the network gets as many as the file's classifier scores.
- No classes (`classes=0`): the network ends in its features; the file's classifier is dropped by name, and may
  be absent.
- Another number of classes: the classifier is drawn fresh by the row's rule; all else comes from the file.
- Another number of channels: the file's channels are dealt out in turn. Where the network has more, channel j
  gets the weights of channel j modulo theirs, divided by how often these are used; where it has fewer, the
  weights that meet in one channel are added. So 3 to 1 is a sum, 3 to 6 twice the half, and for any number a
  grey picture repeated gives the activations of the same picture in the file's channels.

What was made to fit is told in one line of the log, by the logger "convarium".
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from convarium.errors import ArgumentError
from convarium.models.parts import AuxiliaryNet
from convarium.net import Head, Net

State = dict[str, Tensor]
Initialise = Callable[[str, nn.Module], bool]


def classifiers(net: nn.Module) -> Iterator[str]:
    """Paths of the parts whose size is the number of classes, auxiliary ones too."""
    for path, part in net.named_modules():
        if isinstance(part, Net):
            prefix = f"{path}." if path else ""
            if isinstance(part.head, Head) and part.head.classifier:
                yield f"{prefix}head.{part.head.classifier}"
            if isinstance(part, AuxiliaryNet):
                yield from (f"{prefix}aux.{i}.fc" for i, _ in enumerate(part.aux))


def without_classifier(net: nn.Module) -> list[str]:
    """Take the classifier off a network, and the auxiliary ones whole: it then ends in its features.

    Args:
        net: changed in place.

    Returns:
        Paths of what was taken off.

    Raises:
        ArgumentError: the network has no head of its own to take it from.
    """
    if not isinstance(net, Net) or not isinstance(net.head, Head):
        raise ArgumentError(
            f"classes = 0 is not for a {type(net).__name__}, whose classes are the width of a common space; "
            "take pre_logits of its features"
        )
    taken = [f"head.{net.head.classifier}"]
    del net.head._modules[net.head.classifier]
    net.head.classifier = ""
    net.classes = 0
    if isinstance(net, AuxiliaryNet):
        taken.append("aux")
        net.aux, net.taps = nn.ModuleList(), ()
    return taken


def adapted(
    net: nn.Module,
    state: State,
    initialise: Initialise,
    *,
    taken: list[str],
    other_classes: bool,
    other_channels: bool,
    rebuild: Callable[[int], nn.Module] | None = None,
    said: list[str] | None = None,
) -> State:
    """A file's tensors made to fit; what no rule speaks of is left as it is, to be refused by `weights.fit`.

    Args:
        net: the network, possibly on the meta device.
        state: tensors by our names.
        initialise: the row's rule for fresh weights.
        taken: paths whose tensors are dropped, as `without_classifier` gave them.
        other_classes: the network was asked for with another number of classes.
        other_channels: the network was asked for with another number of channels.
        rebuild: makes the network for a number of classes, where none was asked for: `net` then gets the classifier
            that the file needs.
        said: is overwritten with what was made to fit, in words.

    Returns:
        Tensors by our names.
    """
    said = [] if said is None else said
    said.clear()
    state = {n: t for n, t in state.items() if not any(n.startswith(f"{path}.") for path in taken)}
    if other_channels:
        path, first = next((p, m) for p, m in net.named_modules() if isinstance(m, nn.Conv2d))
        name = f"{path}.weight"
        if name in state and first.groups == 1 and same_but(1, state[name], first.weight):
            said.append(channels_changed(path, state[name].shape[1], first.in_channels))
            state[name] = dealt_out(state[name], first.in_channels)
    if rebuild is not None and isinstance(net, Net):
        wanted = {
            n: t for path in classifiers(net) for n, t in _tensors(path, net.get_submodule(path)).items()
        }
        count = counted(state, wanted, net.classes)
        if count != net.classes:
            said.append(f"{count} classes as in the file, not {net.classes}")
            _give_classes(net, count, rebuild(count))
    if other_classes:
        fresh = {
            path: _fresh(path, net.get_submodule(path), state, initialise) for path in list(classifiers(net))
        }
        drawn = {name: tensor for tensors in fresh.values() for name, tensor in tensors.items()}
        if drawn:
            counts = [state[name].shape[0] for name in drawn if name in state]
            said.append(drawn_fresh([path for path, tensors in fresh.items() if tensors], counts))
        state |= drawn
    return state


def counted(state: State, wanted: State, classes: int) -> int:
    """The number of classes that a file scores.

    Args:
        state: the file's tensors.
        wanted: the network's tensors whose first axis may be the classes.
        classes: of the network.

    Returns:
        The file's number where its tensors differ from the network's in that alone and agree; `classes` otherwise.
    """
    counts = {
        state[name].shape[0]
        for name, tensor in wanted.items()
        if name in state and tensor.shape[:1] == (classes,) and same_but(0, state[name], tensor)
    }
    return counts.pop() if len(counts) == 1 else classes


def drawn_fresh(paths: Iterable[str], counts: Iterable[int]) -> str:
    """Words for classifiers that are not the file's, which scores so many classes, or none."""
    found = ", ".join(map(str, sorted(set(counts))))
    why = f"the file scores {found} classes" if found else "the file has none"
    return f"{', '.join(paths)} drawn fresh, to be trained ({why})"


def channels_changed(path: str, given: int, channels: int) -> str:
    """Words for a first convolution that was dealt out."""
    return f"{path} made for {channels} channels of the file's {given}"


def tell(name: str, file: Path, said: list[str]) -> None:
    """Put into the log what was made to fit, where anything was.

    Args:
        name: of the network.
        file: where its weights are from.
        said: as `adapted` fills it.
    """
    if said:
        logging.getLogger("convarium").warning("%s from %s: %s", name, file.name, "; ".join(said))


def dealt_out(weight: Tensor, channels: int) -> Tensor:
    """A first convolution's weights for another number of input channels.

    Args:
        weight: (O, C, H, W).
        channels: of the network's pictures.

    Returns:
        (O, channels, H, W); its sum over channels is that of `weight`.
    """
    given = weight.shape[1]
    if channels >= given:
        source = torch.arange(channels) % given
        copies = torch.bincount(source, minlength=given).to(weight.dtype)
        return weight[:, source] / copies[source].view(-1, 1, 1)
    target = torch.arange(given) % channels
    return weight.new_zeros(weight.shape[0], channels, *weight.shape[2:]).index_add_(1, target, weight)


def _fresh(path: str, classifier: nn.Module, state: State, initialise: Initialise) -> State:
    """The classifier's tensors drawn anew where the file has none, or those of another number of classes."""
    wanted = _tensors(path, classifier)
    found = {name: t for name, t in state.items() if name.startswith(f"{path}.")}
    if found and not all(n in wanted and same_but(0, t, wanted[n]) for n, t in found.items()):
        return {}
    drawn = classifier if not any(t.is_meta for t in wanted.values()) else classifier.to_empty(device="cpu")
    with torch.no_grad():
        for name, module in drawn.named_modules(prefix=path):
            if not initialise(name, module) and hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return _tensors(path, drawn)


def _tensors(path: str, part: nn.Module) -> State:
    return {f"{path}.{name}": t for name, t in part.state_dict().items()}


def _give_classes(net: Net, count: int, other: nn.Module) -> None:
    """Give a network the classifiers of another of as many classes as wanted."""
    for path in list(classifiers(net)):
        net.set_submodule(path, other.get_submodule(path))
    net.classes = count
    arguments = {**net.architecture["arguments"], "classes": count}
    net.architecture = {**net.architecture, "arguments": arguments}


def same_but(axis: int, a: Tensor, b: Tensor) -> bool:
    """Whether two shapes differ in one axis and in nothing else."""
    here, there = list(a.shape), list(b.shape)
    return (
        len(here) == len(there)
        and here[axis : axis + 1] != there[axis : axis + 1]
        and (here[:axis] + here[axis + 1 :] == there[:axis] + there[axis + 1 :])
    )
