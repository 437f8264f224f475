"""A network that the user names, as the verbs that look at networks need it: without memory, with its picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convarium.models.registry import Variant
    from convarium.net import Net


@dataclass(frozen=True)
class Subject:
    """A network and what is known of it.

    Args:
        title: what the user called it.
        net: the network.
        picture: (channels, height, width) of its input.
        row: the published facts of its architecture.
    """

    title: str
    net: Net
    picture: tuple[int, int, int]
    row: Variant


def subject(
    name: str,
    *,
    classes: int | None = None,
    channels: int | None = None,
    size: int | None = None,
    empty: bool = True,
    **arguments: Any,
) -> Subject:
    """The network of a name, a saved file or a run.

    Args:
        name: of a network ("resnet50", "timm:NAME", "torchvision:NAME"), or the path of a saved model or a run.
        classes: number of class scores; its own where None.
        channels: of the picture; its own where None.
        size: side of the picture in pixels; its own where None.
        empty: on the meta device, without weights and memory; otherwise with fresh ones.
        arguments: the family's own.

    Returns:
        The network, in training mode where it is built anew.

    Raises:
        ArgumentError: a saved model is asked to be another one.
        UnknownName: no such network.
    """
    import torch

    from convarium.errors import ArgumentError
    from convarium.models import create, variant

    if name.endswith(".safetensors") or Path(name, "model.safetensors").is_file():
        from convarium.classifier import load

        if classes or channels or arguments:
            raise ArgumentError(f"{name} is a trained model: its classes, channels and form are those it has")
        net = load(name).net
        row = variant(net.architecture["name"])
        side = size or net.size
        return Subject(name, net, (net.in_channels, side, side), row)
    row = variant(name)
    with torch.device("meta" if empty else "cpu"):
        net = create(name, classes=classes, in_channels=channels, size=size, **arguments)
    return Subject(name, net, (net.in_channels, net.size, net.size), row)
