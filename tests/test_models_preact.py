"""Pre-activated residual nets: what is special to them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import convarium.models.preact  # noqa: F401
from convarium.errors import ArgumentError
from convarium.joins import Sum
from convarium.models import create, variant, weights
from convarium.models.preact import preact_block
from convarium.models.residual import ZeroNorm
from convarium.net import meta_call
from tests.reference import pair, randomise


def test_gradients_in_training_equal_the_reference():
    ours, theirs = pair("resnetv2_50")
    ours.double(), theirs.double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for net in (ours, theirs):
        net.train()
        torch.nn.functional.cross_entropy(net(x), torch.tensor([1, 2])).backward()
    rules = variant("resnetv2_50").rules["timm"]
    expected = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, rules)
    for path, parameter in ours.named_parameters():
        scale = expected[path].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[path], rtol=1e-6, atol=1e-6 * scale, msg=path)


@pytest.mark.parametrize(
    ("name", "millions"),
    [("wrn_16_8", 11.0), ("wrn_28_10", 36.5), ("resnet110_v2", 1.7), ("resnet164_v2", 1.7)],
)
def test_parameters_are_those_of_the_paper(name, millions):
    with torch.device("meta"):
        net = create(name)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions


def test_wide_net_sizes_are_those_of_table_1():
    with torch.device("meta"):
        net = create("wrn_28_10")
    shapes = meta_call(net, "trunk", (1, 3, 32, 32))
    assert [tuple(shape.shape[1:]) for shape in shapes.values()] == [
        (16, 32, 32), (160, 32, 32), (320, 16, 16), (640, 8, 8),
    ]  # fmt: skip
    assert [len(stage.blocks) for stage in net.stages] == [4, 4, 4]


@pytest.mark.parametrize(("name", "depth"), [("wrn_16_8", 16), ("wrn_28_10", 28)])
def test_the_depth_counts_convolutions_with_projections(name, depth):
    with torch.device("meta"):
        net = create(name)
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == depth


@pytest.mark.parametrize(("name", "depth"), [("resnet110_v2", 110), ("resnet164_v2", 164)])
def test_the_depth_counts_layers_without_projections(name, depth):
    with torch.device("meta"):
        net = create(name)
    layers = [
        p for p, m in net.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "shortcut" not in p
    ]
    assert len(layers) == depth


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
def test_a_signal_passes_through_unchanged_where_bodies_give_nothing(bottleneck):
    block = preact_block(16, 16, 1, bottleneck=bottleneck)
    assert isinstance(block, Sum)
    nn.init.zeros_(list(block.body)[-1].weight)
    x = torch.randn(2, 16, 4, 4)  # negative values too: no ReLU stands on the way around
    assert torch.equal(block(x), x)


def test_both_ways_see_activated_features_where_the_shape_changes():
    block = preact_block(16, 32, 2, bottleneck=False)
    seen = []
    for part in (block.sum.body.conv1, block.sum.shortcut.conv):
        part.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    block(torch.randn(2, 16, 4, 4))
    assert seen[0] is seen[1]
    assert seen[0].min() == 0


def test_pre_activation_is_another_function_than_post_activation():
    v1, v2 = create("resnet20").eval(), create("resnet110_v2", depth=20).eval()
    randomise(v1)
    convolutions = [m for m in v1.modules() if isinstance(m, nn.Conv2d)]
    others = [m for m in v2.modules() if isinstance(m, nn.Conv2d)]
    for ours, theirs in zip(others, convolutions, strict=True):
        ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(v1(x), v2(x), atol=1e-2)


def test_the_first_1x1_strides_on_cifar_and_the_3x3_on_imagenet():
    with torch.device("meta"):
        cifar, imagenet = create("resnet164_v2"), create("resnetv2_50")
    for net, strides in ((cifar, [2, 1]), (imagenet, [1, 2])):
        body = net.part("stages.1.blocks.0.sum.body")
        assert [body[name].stride[0] for name in ("conv1", "conv2")] == strides


@pytest.mark.parametrize(
    ("name", "arguments"), [("wrn_16_8", {"width": 1}), ("resnet164_v2", {"depth": 11}), ("resnetv2_50", {})]
)
def test_zero_init_zeroes_the_last_norm_of_each_block(name, arguments):
    net = create(name, zero_init=True, **arguments)
    zero = [m for m in net.modules() if isinstance(m, ZeroNorm)]
    assert len(zero) == sum(len(stage.blocks) for stage in net.stages)
    assert all(not norm.weight.any() for norm in zero)


def test_dropout_stands_between_the_convolutions():
    with torch.device("meta"):
        net = create("wrn_16_8", dropout=0.3)
    body = net.part("stages.0.blocks.1.body")
    assert list(body._modules) == ["norm1", "act1", "conv1", "norm2", "act2", "drop", "conv2"]
    assert body.drop.p == 0.3


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("wrn_28_10", {"depth": 27}, "depth = 27; it must be 6n [+] 4"),
        ("wrn_28_10", {"width": 0}, "width = 0"),
        ("wrn_28_10", {"dropout": 1.5}, "dropout = 1.5"),
        ("resnet164_v2", {"depth": 110 + 1}, "depth = 111; it must be 9n [+] 2"),
        ("resnet110_v2", {"shortcut": "C"}, "shortcut = 'C'; it must be 'A' or 'B'"),
    ],
)
def test_options_that_cannot_be_are_refused(name, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        create(name, **arguments)
