"""Weights for a network that differs from the file's in its classes or in the channels of its pictures.

Three rules, each used only where `create` was asked for such a network:

- No classes (`classes=0`): the network ends in its features; the file's classifier is dropped by name, and may
  be absent.
- Another number of classes: the classifier is drawn fresh by the row's rule; all else comes from the file.
- Another number of channels: the file's channels are dealt out in turn. Where the network has more, channel j
  gets the weights of channel j modulo theirs, divided by how often these are used; where it has fewer, the
  weights that meet in one channel are added. So 3 to 1 is a sum, 3 to 6 twice the half, and for any number a
  grey picture repeated gives the activations of the same picture in the file's channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
) -> State:
    """A file's tensors made to fit; what no rule speaks of is left as it is, to be refused by `weights.fit`.

    Args:
        net: the network, possibly on the meta device.
        state: tensors by our names.
        initialise: the row's rule for fresh weights.
        taken: paths whose tensors are dropped, as `without_classifier` gave them.
        other_classes: the network was asked for with another number of classes.
        other_channels: the network was asked for with another number of channels.

    Returns:
        Tensors by our names.
    """
    state = {n: t for n, t in state.items() if not any(n.startswith(f"{path}.") for path in taken)}
    if other_channels:
        path, first = next((p, m) for p, m in net.named_modules() if isinstance(m, nn.Conv2d))
        name = f"{path}.weight"
        if name in state and first.groups == 1 and _same_but(1, state[name], first.weight):
            state[name] = dealt_out(state[name], first.in_channels)
    if other_classes:
        for path in classifiers(net):
            state |= _fresh(path, net.get_submodule(path), state, initialise)
    return state


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
    wanted = {f"{path}.{name}": t for name, t in classifier.state_dict().items()}
    found = {name: t for name, t in state.items() if name.startswith(f"{path}.")}
    if found and not all(n in wanted and _same_but(0, t, wanted[n]) for n, t in found.items()):
        return {}
    drawn = classifier if not any(t.is_meta for t in wanted.values()) else classifier.to_empty(device="cpu")
    with torch.no_grad():
        for name, module in drawn.named_modules(prefix=path):
            if not initialise(name, module) and hasattr(module, "reset_parameters"):
                module.reset_parameters()
    return {f"{path}.{name}": t for name, t in drawn.state_dict().items()}


def _same_but(axis: int, a: Tensor, b: Tensor) -> bool:
    """Whether two shapes differ in one axis and in nothing else."""
    here, there = list(a.shape), list(b.shape)
    return (
        len(here) == len(there)
        and here[axis : axis + 1] != there[axis : axis + 1]
        and (here[:axis] + here[axis + 1 :] == there[:axis] + there[axis + 1 :])
    )
