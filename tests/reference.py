"""Networks of other libraries to compare ours with, their statistics made so that no part is an identity."""

from __future__ import annotations

import re

import torch
from torch import nn

from convarium.models import create, variant, weights
from convarium.net import Net

NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build(reference: str, **arguments) -> nn.Module:
    """The network that a row names as its reference, as "torchvision:resnet18"."""
    library, name = reference.split(":")
    if library == "torchvision":
        import torchvision

        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, **extra, **arguments)
    import timm

    return timm.create_model(name, pretrained=False, **arguments)


def randomise(net: nn.Module, seed: int = 0) -> None:
    """Draw every statistic, scale and bias, so that parts that start as identities hide no error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, NORMS):
                if module.weight is not None:
                    module.weight.copy_(torch.rand(module.weight.shape, generator=generator) * 0.5 + 0.75)
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
                if getattr(module, "running_mean", None) is not None:
                    module.running_mean.copy_(
                        torch.randn(module.running_mean.shape, generator=generator) * 0.1
                    )
                    module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
        for name, parameter in net.named_parameters():
            if re.search(r"(gamma|layer_scale|\.ls\d?|grn)", name):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) * 0.5 + 0.75)


def pair(name: str, **arguments) -> tuple[Net, nn.Module]:
    """Our network and its reference with the same randomised weights, loaded through the row's rules."""
    row = variant(name)
    assert row.reference
    theirs = build(row.reference)
    randomise(theirs)
    ours = create(name, **arguments)
    rules = row.rules[row.reference.split(":")[0]]
    weights.fit(ours, weights.rename(theirs.state_dict(), rules(ours) if callable(rules) else rules))
    return ours, theirs
