"""A network that the user names, as the verbs that look at networks need it: without memory, with its picture."""

from __future__ import annotations

import re
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
    size: int | str | None = None,
    empty: bool = True,
    **arguments: Any,
) -> Subject:
    """The network of a name, a saved file or a run.

    Args:
        name: of a network ("resnet50", "timm:NAME", "torchvision:NAME"), or the path of a saved model or a run.
        classes: number of class scores; its own where None.
        channels: of the picture; its own where None.
        size: of the picture in pixels: its side, or "HEIGHTxWIDTH"; its own where None.
        empty: on the meta device, without weights and memory; otherwise with fresh ones.
        arguments: the family's own.

    Returns:
        The network, in training mode where it is built anew.

    Raises:
        ArgumentError: a saved model is asked to be another one, or a size that is none.
        CheckpointError: a path at which there is no trained model.
        UnknownName: no such network.
    """
    import torch

    from convarium import storage
    from convarium.errors import ArgumentError
    from convarium.models import create, variant

    refuse_missing(name)
    sides = None if size is None else _sides(size)
    if storage.is_model(name):
        from convarium.classifier import load

        if classes or channels or arguments:
            raise ArgumentError(f"{name} is a trained model: its classes, channels and form are those it has")
        net = load(name).net
        row = variant(net.architecture["name"])
        return Subject(name, net, (net.in_channels, *(sides or (net.size, net.size))), row)
    row = variant(name)
    # Networks are built for a square; another picture goes through one of the usual size, where it can.
    square = sides[0] if sides and sides[0] == sides[1] else None
    with torch.device("meta" if empty else "cpu"):
        net = create(name, classes=classes, in_channels=channels, size=square, **arguments)
    return Subject(name, net, (net.in_channels, *(sides or (net.size, net.size))), row)


def refuse_missing(name: str) -> None:
    """Tell what looks like a path and is none as one, not as an unknown network.

    Raises:
        CheckpointError: there is nothing, or a folder without a trained model.
    """
    path = Path(name)
    separated = ":" not in name and ("/" in name or "\\" in name or name.startswith((".", "~")))
    if not (separated or path.suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin")):
        return
    from convarium import storage
    from convarium.errors import CheckpointError

    if not path.exists():
        raise CheckpointError(
            f"there is no file or folder {name}; give a trained model's file or run, or the name of a network"
        )
    if path.is_dir() and not storage.is_model(name):
        raise CheckpointError(
            f"{name} holds no trained model (model.safetensors); give the folder of a finished run"
        )


def _sides(size: int | str) -> tuple[int, int]:
    """224 as (224, 224), "224x320" as (224, 320): height and width."""
    from convarium.errors import ArgumentError

    found = re.fullmatch(r"(\d+)(?:x(\d+))?", str(size), re.ASCII)
    sides = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if min(sides) < 1:
        raise ArgumentError(f"--size {size}; it must be a side in pixels as 224, or HEIGHTxWIDTH as 224x320")
    return sides
