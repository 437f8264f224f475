"""Options that several families share: switches, gates, drop path, depths and the size of the picture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from convarium.cli.train import arguments_of
from convarium.errors import ArgumentError
from convarium.joins import Gate
from convarium.models import create, names, variant
from convarium.models.parts import DropPath
from convarium.net import Net, meta_call
from tests.reference import randomise

GATED = (
    *("resnet18", "resnet20", "resnet50_v1", "resnet50d", "wide_resnet50_2", "resnext50_32x4d"),
    *("wrn_16_8", "resnet110_v2", "resnetv2_50", "googlenet", "googlenet_2014"),
)
DROPPED = (*GATED[:-2], "resnet164_v2", "seresnet18", "seresnet50", "senet154")

# A few of the same blocks, for what runs on memory.
SHORT: dict[str, dict[str, Any]] = {
    "resnet18": {"depths": (1, 1, 1, 1)},
    "resnet20": {"depth": 14},
    "resnext50_32x4d": {"depths": (1, 1, 1, 1), "form": "b"},
    "resnet50d": {"depths": (1, 1, 1, 1)},
    "wrn_16_8": {"width": 1},
    "resnet110_v2": {"depth": 14},
    "seresnet18": {"depths": (1, 1, 1, 1)},
    "googlenet": {"aux": False},
}


def on_meta(name: str, **arguments: Any) -> Net:
    with torch.device("meta"):
        return create(name, **arguments)


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {path: tuple(tensor.shape) for path, tensor in net.state_dict().items()}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def rates(net: nn.Module) -> list[float]:
    return [part.rate for part in net.modules() if isinstance(part, DropPath)]


# Switches


@pytest.mark.parametrize("value", ["False", "yes", "", 0, 1, None])
def test_a_switch_takes_nothing_but_true_and_false(value):
    with pytest.raises(ArgumentError, match=r"aux = .*; googlenet takes True or False"):
        create("googlenet", aux=value)


def test_a_switch_of_a_row_is_one_too():
    with pytest.raises(ArgumentError, match="norm = 'no'; vgg11_bn takes True or False"):
        create("vgg11_bn", norm="no")


@pytest.mark.parametrize(
    ("text", "value"),
    [("False", False), ("no", False), ("false", False), ("True", True), ("yes", True), ("true", True)],
)
def test_words_for_true_and_false_are_read_as_such(text, value):
    assert arguments_of([f"aux={text}"])["aux"] is value


def test_other_words_stay_text_and_numbers_numbers():
    assert arguments_of(["shortcut=none", "naive=flase", "depth=8"]) == {
        "shortcut": "none", "naive": "flase", "depth": 8,
    }  # fmt: skip


# Gates


@pytest.mark.parametrize("name", ["resnet50", "resnet101", "resnext50_32x4d", "resnext101_32x8d"])
def test_a_gated_resnet_is_the_senet_of_that_name(name):
    assert shapes(on_meta(name, se=True)) == shapes(on_meta(f"se{name}"))


@pytest.mark.parametrize("reduction", [16, 4])
@pytest.mark.parametrize("name", GATED)
def test_gates_add_two_small_layers_each_and_nothing_else(name, reduction):
    plain, net = on_meta(name), on_meta(name, se=True, se_reduction=reduction)
    gates = [part for part in net.modules() if isinstance(part, Gate)]
    assert len(gates) == sum(len(stage.blocks) for stage in net.stages)
    extra = 0
    for part in gates:
        c = part.gate.fc1.in_channels
        squeezed = max(1, c // reduction)
        extra += 2 * c * squeezed + squeezed + c
    assert count(net) == count(plain) + extra


@pytest.mark.parametrize("name", SHORT)
def test_gated_and_dropped_nets_run_with_all_gradients(name):
    more = {"drop_path": 0.2} if name in DROPPED else {}
    se = {} if name == "seresnet18" else {"se": True}
    net = create(name, classes=3, size=32, **SHORT[name], **se, **more)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", ["resnet20", "googlenet"])
def test_a_max_pooled_squeeze_is_another_function(name):
    mean, largest = (
        create(name, classes=3, size=64, se=True, squeeze=kind, **SHORT[name]).eval()
        for kind in ("avg", "max")
    )
    randomise(mean)
    largest.load_state_dict(mean.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(mean(x), largest(x), rtol=1e-3)


@pytest.mark.parametrize("name", ["resnet50", "wrn_16_8", "googlenet", "inception_v2", "inception_v3"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"squeeze": "max"}, "add se=True"),
        ({"se_reduction": 8}, "add se=True"),
        ({"se": True, "se_reduction": 0}, "se_reduction = 0; it must be a whole number of at least 1"),
        ({"se": True, "squeeze": "sum"}, "squeeze = 'sum'; it must be 'avg' or 'max'"),
    ],
)
def test_options_of_gates_that_cannot_be_are_refused(name, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        create(name, **arguments)


def test_in_inception_nets_the_reduction_is_an_option_too():
    net = on_meta("se_inception_v2", se_reduction=8)
    assert net.part("stages.0.blocks.0.se.gate.fc1").out_channels == 256 // 8


@pytest.mark.parametrize("option", [{"se": True}, {"drop_path": 0.1}])
def test_plain_nets_have_no_body_to_weigh_or_drop(option):
    with pytest.raises(ArgumentError, match="se and drop_path need shortcuts"):
        create("plain20", **option)


# Drop path


@pytest.mark.parametrize("name", DROPPED)
def test_drop_path_grows_evenly_from_zero_and_adds_no_tensor(name):
    net = on_meta(name, drop_path=0.3)
    blocks = sum(len(stage.blocks) for stage in net.stages)
    assert rates(net) == pytest.approx([0.3 * i / (blocks - 1) for i in range(1, blocks)])
    plain = on_meta(name)
    assert shapes(net) == shapes(plain)
    assert rates(plain) == []


@pytest.mark.parametrize("name", ["resnet20", "wrn_16_8", "seresnet18", "resnext50_32x4d"])
def test_drop_path_changes_training_alone(name):
    plain = create(name, classes=3, size=32, **SHORT[name])
    net = create(name, classes=3, size=32, drop_path=0.9, **SHORT[name])
    net.load_state_dict(plain.state_dict())
    x = torch.randn(8, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(net.eval()(x), plain.eval()(x))
        assert not torch.equal(net.train()(x), plain.train()(x))


@pytest.mark.parametrize("name", ["resnet18", "resnet20", "resnetv2_50", "senet154"])
@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_a_rate_that_is_none_is_refused(name, rate):
    with pytest.raises(ArgumentError, match="drop_path = .*; it must be at least 0 and below 1"):
        create(name, drop_path=rate)


# Depths


@pytest.mark.parametrize("name", ["resnet50", "resnetv2_50", "seresnet18", "senet154", "convnext_atto"])
def test_each_stage_needs_one_depth(name):
    with pytest.raises(ArgumentError, match="2 depths and 4 widths"):
        create(name, depths=(1, 1))


@pytest.mark.parametrize("depths", [3, "1111", (1, 0, 1, 1), (1, 1.5, 1, 1)])
def test_depths_are_whole_numbers(depths):
    with pytest.raises(ArgumentError, match="depths = .*; it must be a list of whole numbers of at least 1"):
        create("resnet50", depths=depths)


# Sizes


def _smallest_of_each_builder() -> list[str]:
    found: dict[Callable[..., Net], str] = {}
    for name in sorted(names(), key=lambda name: variant(name).parameters):
        found.setdefault(variant(name).build, name)
    return list(found.values())


# Fewer of the same blocks see the same sizes.
FEW: dict[str, dict[str, Any]] = {
    "resnet110_fixup": {"depth": 14},
    "resnet164_v2": {"depth": 11},
    "senet154": {"depths": (1, 1, 1, 1)},
}
WITHOUT_AUX = [(n, {"aux": False}) for n in ("googlenet", "googlenet_2014", "inception_v3")]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((n, FEW.get(n, {})) for n in _smallest_of_each_builder()), *WITHOUT_AUX, ("resnet50d", {})],
)
def test_a_small_picture_is_refused_or_runs(name, arguments):
    for size in (1, 2, 14, 20, 30):
        try:
            net = on_meta(name, size=size, **arguments)
        except ArgumentError:
            continue
        assert meta_call(net, "forward", (1, net.in_channels, size, size)).shape == (1, net.classes)


@pytest.mark.parametrize(
    ("name", "arguments", "least"),
    [
        ("convnext_atto", {}, 32),
        ("convnext_atto", {"depths": (1, 1), "widths": (8, 8)}, 8),
        ("googlenet", {}, 15),
        ("googlenet_2014", {"aux": False}, 31),
        ("senet154", {}, 3),
        ("vgg11", {}, 32),
    ],
)
def test_the_least_size_is_named_and_runs(name, arguments, least):
    with pytest.raises(
        ArgumentError, match=f"cannot take pictures of {least - 1} pixels; at least {least} are"
    ):
        create(name, size=least - 1, **arguments)
    net = on_meta(name, size=least, **arguments)
    assert meta_call(net, "forward", (1, 3, least, least)).shape == (1, 1000)
