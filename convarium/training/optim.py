"""Parameter groups, optimisers, learning rates and averaged weights, all from a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from convarium.joins import Chain
from convarium.net import Net, Stage
from convarium.training.recipes import Recipe


def parameter_groups(net: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that are decayed, and those that are not.

    Args:
        net: parameters that need no gradient are left out. A module whose own parameters learn at another rate says so
            by its attribute `rate`, as 0.1.
        recipe: says whether norms and biases (parameters of fewer than two axes) are decayed, and how much slower
            each unit learns than the one after it (see `units`).

    Returns:
        Groups for a torch optimiser; "rate" is what the learning rate is multiplied by. None is empty.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    slower = dict[nn.Parameter, float]()
    if recipe.layer_decay != 1:
        for depth, unit in enumerate(reversed(units(net))):
            slower |= dict.fromkeys(unit, recipe.layer_decay**depth)
    seen: set[nn.Parameter] = set()
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                rate = getattr(module, "rate", 1.0) * slower.get(parameter, 1.0)
                kind = (recipe.decay_all or parameter.ndim >= 2, rate)
                groups.setdefault(kind, []).append(parameter)
    return [
        {"params": groups[kind], "weight_decay": recipe.weight_decay if kind[0] else 0.0, "rate": kind[1]}
        for kind in sorted(groups, reverse=True)
    ]


def units(net: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a network's units, in the order in which they run; the classifier is the last.

    A unit is the stem, a block, or the head of a `Net`. Elsewhere the structure decides: a sequence, and what holds a
    sequence of two or more blocks, is taken apart; a part without any weight of two axes or more (a norm) belongs to
    the part before it; what a module owns beside its parts belongs to its first unit.

    Args:
        net: any module that registers its parts in the order in which they run; perhaps a task around a network.

    Returns:
        One list a unit, none empty; each parameter is in one of them.
    """
    while not list(net.parameters(recurse=False)):  # a task, or a wrapped network
        inner = [part for part in net.children() if list(part.parameters())]
        if len(inner) != 1:
            break
        net = inner[0]
    found: list[list[nn.Parameter]] = []
    for unit in _apart(net):
        if found and all(parameter.ndim < 2 for parameter in unit):
            found[-1] += unit
        else:
            found.append(unit)
    return found


def _apart(module: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters of the units of a module, none empty."""
    if isinstance(module, Net):
        own = [[*module.stem.parameters()], *_units_of(module.stages)]
        known = {parameter for unit in own for parameter in unit}
        own.append([parameter for parameter in module.parameters() if parameter not in known])
        return [unit for unit in own if unit]
    found = [unit for part in module.children() for unit in _units_of(part)]
    if not found:
        return [list(module.parameters())]
    return [[*module.parameters(recurse=False), *found[0]], *found[1:]]


def _units_of(part: nn.Module) -> list[list[nn.Parameter]]:
    """`_apart` for what is taken apart, else the whole."""
    if _is_sequence(part) or any(map(_lists_blocks, part.children())):
        return _apart(part)
    whole = list(part.parameters())
    return [whole] if whole else []


def _is_sequence(part: nn.Module) -> bool:
    # Of Chain there are subclasses that are blocks; those of Sequential are mostly a convolution and its norm.
    return isinstance(part, nn.Sequential | nn.ModuleList | nn.ModuleDict) or type(part) in (Chain, Stage)


def _lists_blocks(part: nn.Module) -> bool:
    """Whether it is a sequence with two or more modules of one class that have two or more weights each."""
    kinds = [type(item) for item in part.children() if sum(p.ndim > 1 for p in item.parameters()) > 1]
    return _is_sequence(part) and len(kinds) > len(set(kinds))


def optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the network's parameters, in torch's fused form where there is one."""
    groups = parameter_groups(net, recipe)
    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=recipe.lr, alpha=0.9, eps=recipe.epsilon, momentum=recipe.momentum
        )
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def averaged(task: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """An exponential moving average of all weights and buffers, where the recipe asks for one.

    After n steps the decay is at most (1 + n) / (10 + n), as in the code that EfficientNet was trained with: where
    there are fewer steps than 1 / (1 - decay), the first weights would weigh most otherwise.
    """
    if not recipe.ema:
        return None

    def average(averages: Any, weights: Any, steps: Tensor | int) -> None:
        decay = min(recipe.ema, (1 + int(steps)) / (10 + int(steps)))
        get_ema_multi_avg_fn(decay)(averages, weights, steps)

    return AveragedModel(task, multi_avg_fn=average, use_buffers=True)


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
        return recipe.lr * recipe.fall ** (step // (recipe.every * steps_per_epoch))
    return recipe.lr * (plateau_factor if recipe.schedule == "plateau" else 1.0)
