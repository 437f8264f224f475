"""A network in two: the trunk, which stays as it is, and the tail, which learns; and the trunk's outputs as rows.

Rows are computed as a classifier's scores are: in any way of `ways` that pays and agrees, chosen by `job.choose`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from convarium.data.preprocessing import Preprocessing
from convarium.deploy.job import Chosen, choose
from convarium.deploy.ways import PLAIN
from convarium.errors import UserError
from convarium.net import Head, Net, Parted


def trunk(net: nn.Module) -> nn.Module:
    """A copy of a network that gives what its classifier would be given.

    Args:
        net: ours, or a wrapped one.

    Returns:
        Pictures to `pre_logits`.
    """
    copied = copy.deepcopy(net)
    if isinstance(copied, Net):
        if not isinstance(copied.head, Head):
            copied.head = nn.Identity()
        else:
            behind = False
            for name in dict(copied.head.named_children()):
                behind = behind or name == copied.head.classifier
                if behind:
                    setattr(copied.head, name, nn.Identity())
        return copied
    copied.head = nn.Identity()  # a wrapped network puts it where its classifier was
    return copied.net  # type: ignore[return-value]


def tail(net: nn.Module) -> nn.Module:
    """What turns `pre_logits` into scores: the network's own parts, shared with it.

    Args:
        net: ours, or a wrapped one.
    """
    if not isinstance(net, Net) or not isinstance(net.head, Head):
        return net.head  # type: ignore[return-value]
    parts = dict(net.head.named_children())
    names = list(parts)
    behind = names[names.index(net.head.classifier) :] if net.head.classifier in names else []
    return parts[behind[0]] if len(behind) == 1 else nn.Sequential(*(parts[name] for name in behind))


class Rows(Parted):
    """What a trunk gives, one row a picture, in place of class scores.

    Args:
        trunk: shared.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def place(self, point: str) -> tuple[str, bool]:
        """Nothing is known of its inside; see `Parted.place`."""
        return "", False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D)."""
        return self.trunk(x).flatten(1)


@dataclass(frozen=True)
class _Subject:
    net: Parted
    preprocessing: Preprocessing
    device: torch.device
    temperature: None = None


def chosen(
    trunk: nn.Module,
    preprocessing: Preprocessing,
    device: torch.device,
    pictures: np.ndarray,
    count: int,
    batch: int,
    *,
    exact: bool = False,
    name: str | None = None,
    on_trial: Callable[[str], None] = lambda name: None,
) -> Chosen:
    """The way in which a trunk's rows are computed first.

    Args:
        trunk: lies on the device; left as it was.
        preprocessing: of the pictures.
        device: where to compute.
        pictures: some real ones, prepared: uint8 (N, C, H, W).
        count: how many will be run in all.
        batch: pictures at once.
        exact: float32 only.
        name: of the way to take, as an earlier call chose it, where it can still be taken.
        on_trial: is told the name of each way before it is set up or timed, and may raise.

    Returns:
        The way; what it gives as scores are the rows.
    """
    subject, mode = _Subject(Rows(trunk), preprocessing, device), "exact" if exact else "auto"
    if name:
        try:
            return choose(subject, pictures, count, name, batch=batch, on_trial=on_trial)
        except UserError as error:  # of another version, or a library that is gone: one as good is found
            found = choose(subject, pictures, count, mode, batch=batch, on_trial=on_trial)
            why = f"the run began with {name}, which cannot be taken any more ({str(error).split(';')[0]})"
            return replace(found, notes=(*found.notes, why))
    return choose(subject, pictures, count, mode, batch=batch, on_trial=on_trial)


def difference(found: Chosen) -> float:
    """Of a way's rows from the plain way's, relative (L2), on the pictures it was tried on; 0 for the plain one."""
    row = next((row for row in found.rows if row.name == found.name != PLAIN), None)
    return row.agreement.scores if row and row.agreement else 0.0
