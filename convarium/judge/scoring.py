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

BATCH = 64
"""Pictures in a batch. A kernel may add in another order for another number of pictures, so it is fixed."""


def probabilities(
    net: nn.Module,
    batches: Iterable[Tensor],
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Softmax of the class scores, batch by batch.

    Args:
        net: lies on the device; its mode is put back afterwards.
        batches: uint8 pictures, (N, C, H, W), of `BATCH` pictures each but the last.
        normalise: to what the network takes.
        device: where to compute.

    Yields:
        float64 (N, classes); each row sums to one.
    """
    with in_eval_mode(net):
        for pictures in batches:
            with torch.inference_mode():
                scores = net(normalise(pictures.to(device)))
                yield scores.double().softmax(1).cpu().numpy()


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Every part in evaluation mode; each part's own mode is put back, also after an error."""
    before = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
