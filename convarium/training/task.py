"""What is learnt: a task is a network and its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from convarium.training.mix import mixed, shares


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
        mixup: alpha of Mixup in training, 0 for none (see `mix`).
        cutmix: likewise of CutMix.
        class_weights: what each class's share of the loss is multiplied by, (classes,).
    """

    class_weights: Tensor | None

    def __init__(
        self,
        net: nn.Module,
        label_smoothing: float = 0.0,
        auxiliary: float = 0.3,
        *,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__(net)
        self.label_smoothing = label_smoothing
        self.auxiliary = auxiliary if getattr(net, "taps", ()) else 0.0
        self.mixup, self.cutmix = mixup, cutmix
        self.register_buffer("class_weights", class_weights, persistent=False)

    def step(self, pictures: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """As `Task.step`; where pictures are mixed, right is the label with the larger share."""
        others, share = labels, 1.0
        if self.training and (self.mixup or self.cutmix):
            pictures, others, share = mixed(pictures, labels, self.mixup, self.cutmix)
        scores, further = self.net.auxiliary(pictures) if self.auxiliary else (self.net(pictures), [])  # type: ignore[operator]
        target = labels if share == 1 else shares(labels, others, share, scores.shape[1])
        loss = self._loss(scores, target)
        for inner in further:
            loss = loss + self.auxiliary * self._loss(inner, target)
        right = labels if share >= 0.5 else others
        return {"loss": loss, "correct": (scores.argmax(1) == right).sum()}

    def _loss(self, scores: Tensor, target: Tensor) -> Tensor:
        smoothing, weights = self.label_smoothing, self.class_weights
        if weights is None:
            return F.cross_entropy(scores.float(), target, label_smoothing=smoothing)
        # Divided by the number of pictures: torch's mean would divide by the weights in the batch, so that the loss of
        # a class would hang on its company.
        each = F.cross_entropy(scores.float(), target, weights, label_smoothing=smoothing, reduction="none")
        return each.mean()
