"""Parameter groups, optimisers, learning rates and averaged weights, all from a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convarium.training.recipes import Recipe


def parameter_groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that are decayed, and those that are not.

    Args:
        net: parameters that need no gradient are left out. A module whose own parameters learn at another rate says so
            by its attribute `rate`, as 0.1.
        recipe: says whether norms and biases (parameters of fewer than two axes) are decayed.

    Returns:
        Groups for a torch optimiser; "rate" is what the learning rate is multiplied by. None is empty.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    seen: set[nn.Parameter] = set()
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                kind = (recipe.decay_all or parameter.ndim >= 2, getattr(module, "rate", 1.0))
                groups.setdefault(kind, []).append(parameter)
    return [
        {"params": groups[kind], "weight_decay": recipe.weight_decay if kind[0] else 0.0, "rate": kind[1]}
        for kind in sorted(groups, reverse=True)
    ]


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the network's parameters, in torch's fused form where there is one."""
    groups = parameter_groups(net, recipe)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=recipe.lr, alpha=0.9, eps=1.0, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def averaged(task: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """An exponential moving average of all weights and buffers, where the recipe asks for one."""
    if not recipe.ema:
        return None
    return AveragedModel(task, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)


@dataclass
class Plateau:
    """Divides the rate by ten when the validation error has not fallen for a while.

    Krizhevsky et al. 2012, section 5; He et al. 2015, section 3.4.
    """

    patience: int
    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def update(self, error: float) -> None:
        """Take note of one epoch's validation error, as a share."""
        if error < self.best:
            self.best, self.waited = error, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.factor, self.waited = self.factor * 0.1, 0


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int, plateau_factor: float = 1.0) -> float:
    """The learning rate of one step: a function of its number alone, so that a resumed run has the same.

    Args:
        recipe: gives the highest rate, warm-up and schedule.
        step: number of the step from the start of training, from 0.
        steps_per_epoch: steps in one epoch.
        plateau_factor: what `Plateau` has come to.

    Returns:
        The rate for this step.
    """
    total = recipe.epochs * steps_per_epoch
    warm = min(recipe.warmup * steps_per_epoch, total / 2)
    if step < warm:
        return recipe.lr * (step + 1) / math.ceil(warm)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm)))
    if recipe.schedule == "exponential":
        return recipe.lr * 0.94 ** (step // (2 * steps_per_epoch))
    return recipe.lr * (plateau_factor if recipe.schedule == "plateau" else 1.0)
