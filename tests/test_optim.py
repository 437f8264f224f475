"""Parameter groups by depth, schedules that fall, and averages that begin lower."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convarium.models import create, foreign
from convarium.training import optim
from convarium.training.recipes import Recipe, recipe
from convarium.training.task import Classify
from tests.tiny import TINY, tiny


def owners(net: nn.Module) -> list[set[str]]:
    """Names of the parameters of each unit."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    return [{names[parameter] for parameter in unit} for unit in optim.units(net)]


def rates(net: nn.Module, **changes: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by."""
    names = {parameter: name for name, parameter in net.named_parameters()}
    groups = optim.parameter_groups(net, Recipe(**changes))
    return {names[parameter]: group["rate"] for group in groups for parameter in group["params"]}


def test_the_stem_each_block_and_the_head_are_units() -> None:
    net = create("resnet20", depth=8)
    found = owners(net)
    blocks = [f"stages.{stage}.blocks.0." for stage in range(3)]
    prefixes = ["stem.", *blocks, "head."]
    assert [all(name.startswith(p) for name in unit) for unit, p in zip(found, prefixes, strict=True)] == [
        True
    ] * 5


@pytest.mark.parametrize("family", TINY)
def test_each_parameter_of_every_family_is_in_one_unit(family: str) -> None:
    net = tiny(family)
    found = [name for unit in owners(Classify(net)) for name in unit]
    assert sorted(found) == sorted(name for name, _ in Classify(net).named_parameters())


def test_rates_fall_from_the_classifier_to_the_stem() -> None:
    got = rates(Classify(create("resnet20", depth=14)), layer_decay=0.5)
    assert got["net.head.fc.weight"] == got["net.head.fc.bias"] == 1
    assert got["net.stages.2.blocks.1.body.conv1.weight"] == 0.5
    assert got["net.stages.0.blocks.0.body.norm1.weight"] == 0.5**6
    assert got["net.stem.conv.weight"] == 0.5**7


@pytest.mark.parametrize(
    ("name", "number", "first", "last"),
    [
        ("timm:resnet10t", 8, "net.conv1.0.weight", "net.fc.weight"),
        ("timm:vit_tiny_patch16_224", 14, "net.cls_token", "net.head.weight"),
        ("torchvision:mobilenet_v2", 20, "net.features.0.0.weight", "net.classifier.1.weight"),
        ("torchvision:vit_b_16", 14, "net.class_token", "net.heads.head.weight"),
        ("torchvision:squeezenet1_1", 10, "net.features.0.weight", "net.classifier.1.weight"),
    ],
)
def test_networks_of_other_libraries_are_taken_apart_by_structure(
    name: str, number: int, first: str, last: str
) -> None:
    with torch.device("meta"):
        found = owners(Classify(foreign.create(name, classes=5)))
    assert len(found) == number
    assert f"net.{first}" in found[0]
    assert f"net.{last}" in found[-1]
    assert len(found[-1]) == 2


def test_a_norm_learns_with_what_is_before_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2))
    assert owners(net) == [{"0.weight", "0.bias", "1.weight", "1.bias"}, {"3.weight", "3.bias"}]


def test_what_a_network_owns_beside_its_parts_learns_with_the_first() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))
            self.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))

    assert owners(Scaled()) == [{"scale", "body.0.weight", "body.0.bias"}, {"body.2.weight", "body.2.bias"}]


def test_frozen_parameters_are_left_out_but_count_as_depth() -> None:
    net = create("resnet20", depth=8)
    net.freeze("stages.2")
    got = rates(net, layer_decay=0.5)
    assert not any(name.startswith("stages.2") for name in got)
    assert got["stages.1.blocks.0.body.conv1.weight"] == 0.25


def test_a_rate_of_its_own_is_multiplied_by_the_depths() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].rate = 0.1  # type: ignore[assignment]
    assert rates(net, layer_decay=0.5) == pytest.approx(
        {"0.weight": 0.05, "0.bias": 0.05, "1.weight": 1, "1.bias": 1}
    )


def test_without_decay_by_depth_there_are_two_groups() -> None:
    groups = optim.parameter_groups(create("resnet20", depth=8), Recipe())
    assert [group["rate"] for group in groups] == [1.0, 1.0]


def test_efficientnets_rate_falls_every_two_and_two_fifths_epochs() -> None:
    how = recipe("efficientnet")
    seen = [optim.learning_rate(how, step, 10) for step in range(50, 200)]
    falls = [step for step, (a, b) in enumerate(zip(seen, seen[1:], strict=False), 51) if b < a]
    assert falls == [72, 96, 120, 144, 168, 192]
    assert seen[0] == pytest.approx(how.lr * 0.97**2)


def test_rmsprop_has_the_recipes_epsilon() -> None:
    built = optim.optimizer(nn.Linear(2, 2), recipe("efficientnet"))
    assert built.defaults["eps"] == 0.0316
    assert optim.optimizer(nn.Linear(2, 2), recipe("inception2015")).defaults["eps"] == 1.0


def test_averages_begin_with_a_lower_decay() -> None:
    net = nn.Linear(1, 1, bias=False)
    average = optim.averaged(net, Recipe(ema=0.5))
    assert average is not None
    seen = []
    for value in (0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 5.0):
        nn.init.constant_(net.weight, value)
        average.update_parameters(net)
        seen.append(average.module.weight.item())
    want = [0.0]
    for steps, value in enumerate((1.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 4.0, 5.0), 1):
        decay = min(0.5, (1 + steps) / (10 + steps))
        want.append(decay * want[-1] + (1 - decay) * value)
    assert seen == pytest.approx(want)
    assert decay == 0.5


def test_few_steps_of_a_slow_average_do_not_keep_the_first_weights() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 100.0)
    average = optim.averaged(net, Recipe(ema=0.9999))
    assert average is not None
    for value in [100.0] + [1.0] * 200:
        nn.init.constant_(net.weight, value)
        average.update_parameters(net)
    assert average.module.weight.item() == pytest.approx(1.0, abs=0.01)
