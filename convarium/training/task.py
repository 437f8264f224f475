"""What is learnt: a task is a network and its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Task(nn.Module):
    """What the loop trains: parameters, and one step's loss.

    Args:
        net: the network that is kept when training ends.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def step(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss of one batch.

        Args:
            pictures: (N, C, H, W), normalised.
            labels: (N,), class indices.

        Returns:
            "loss", the mean over the batch, to be minimised; "correct", the number of right answers.
        """
        raise NotImplementedError


class Classify(Task):
    """Cross-entropy of class scores, and of those of auxiliary classifiers where the network has some.

    Args:
        net: gives (N, classes); one with `taps` gives from `auxiliary` a list of further ones, too.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2015, section 7).
        auxiliary: weight of each auxiliary classifier's loss (Szegedy et al. 2014, section 5: 0.3).
    """

    def __init__(self, net: nn.Module, label_smoothing: float = 0.0, auxiliary: float = 0.3) -> None:
        super().__init__(net)
        self.label_smoothing = label_smoothing
        self.auxiliary = auxiliary if getattr(net, "taps", ()) else 0.0

    def step(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        scores, further = self.net.auxiliary(pictures) if self.auxiliary else (self.net(pictures), [])  # type: ignore[operator]
        scores = scores.float()
        loss = F.cross_entropy(scores, labels, label_smoothing=self.label_smoothing)
        for inner in further:
            smoothing = self.label_smoothing
            loss = loss + self.auxiliary * F.cross_entropy(inner.float(), labels, label_smoothing=smoothing)
        return {"loss": loss, "correct": (scores.argmax(1) == labels).sum()}
