"""Probabilities of pictures from a network, computed in one way wherever they are computed.

Validation, evaluation and prediction share this function, its precision (float32) and its batch size, so that they
agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from convarium.judge.given import Given, joined

__all__ = ["BATCH", "Given", "given", "in_eval_mode", "joined", "probabilities", "softmax"]

BATCH = 64
"""Pictures in a batch. A kernel may add in another order for another number of pictures, so it is fixed."""


def given(
    net: nn.Module,
    last: nn.Module,
    batches: Iterable[Tensor],
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    temperature: float = 1.0,
    mirror: bool = False,
) -> Iterator[Given]:
    """Class scores, their softmax, and the features below them, batch by batch.

    Args:
        net: lies on the device; its mode is put back afterwards.
        last: the part of it that is given the features.
        batches: uint8 pictures, (N, C, H, W), of `BATCH` pictures each but the last.
        normalise: to what the network takes.
        device: where to compute.
        temperature: that scores are divided by before softmax (see `calibration`).
        mirror: whether each picture is also looked at mirrored, and both answers are averaged.

    Yields:
        Scores and features of the picture as it is; probabilities, each row summing to one.
    """
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    try:
        with in_eval_mode(net):
            for pictures in batches:
                with torch.inference_mode():
                    upright = normalise(pictures.to(device))
                    sides = (upright, upright.flip(-1)) if mirror else (upright,)
                    found = [net(side).double().cpu().numpy() for side in sides]
                    features = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0].flatten(1)
                    seen.clear()
                    said = np.mean([softmax(scores, temperature) for scores in found], axis=0)
                    yield Given(found[0], said, features.float().cpu().numpy())
    finally:
        handle.remove()


def softmax(scores: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities from scores, with the same bits wherever they are computed: float64 (N, classes)."""
    return (torch.from_numpy(scores) / temperature).softmax(1).numpy()


def probabilities(
    net: nn.Module,
    batches: Iterable[Tensor],
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Iterator[np.ndarray]:
    """The probabilities of `given`, batch by batch, without features."""
    with in_eval_mode(net):
        for pictures in batches:
            with torch.inference_mode():
                yield softmax(net(normalise(pictures.to(device))).double().cpu().numpy())


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Every part in evaluation mode; each part's own mode is put back, also after an error."""
    learning = [module for module in net.modules() if module.training]
    if learning:  # or a walk for each single picture, 2 ms of 35
        net.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True
