"""SE-ResNet, SE-ResNeXt and SENet-154: what is special to them."""

from __future__ import annotations

import pytest
import torch

import convarium.models.senet  # noqa: F401
from convarium.errors import ArgumentError, WeightsMismatch
from convarium.joins import Gate, Sum
from convarium.models import create, variant, weights
from convarium.models.residual import ZeroNorm
from convarium.models.senet import squeezed
from tests.reference import build, pair, randomise

SMALL = {"depths": (1, 1, 1, 1), "classes": 5}


@pytest.mark.parametrize("name", ["seresnet18", "seresnext50_32x4d"])
def test_gradients_in_training_equal_the_reference(name):
    ours, theirs = pair(name)
    ours.double(), theirs.double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for net in (ours, theirs):
        net.train()
        torch.nn.functional.cross_entropy(net(x), torch.tensor([1, 2])).backward()
    expected = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, variant(name).rules["timm"])
    for path, parameter in ours.named_parameters():
        scale = expected[path].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[path], rtol=1e-6, atol=1e-6 * scale, msg=path)


def test_the_gate_acts_before_the_sum():
    with torch.device("meta"):
        net = create("seresnet50")
    blocks = [block for stage in net.stages for block in stage.blocks]
    assert all(isinstance(block, Sum) for block in blocks)
    assert all(isinstance(list(block.body)[-1], Gate) for block in blocks)


@pytest.mark.parametrize(("channels", "expected"), [(64, 8), (128, 8), (256, 16), (512, 32), (2048, 128)])
def test_the_squeeze_is_a_sixteenth_in_eights(channels, expected):
    assert squeezed(channels) == expected


def test_a_max_pooled_squeeze_is_another_function():
    mean, largest = create("seresnet18", **SMALL).eval(), create("seresnet18", squeeze="max", **SMALL).eval()
    randomise(mean)
    weights.fit(largest, mean.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(mean(x), largest(x), rtol=1e-3)


@pytest.mark.parametrize("name", ["seresnet18", "seresnet50", "senet154"])
def test_zero_init_zeroes_the_norm_before_each_gate(name):
    net = create(name, zero_init=True, **SMALL)
    for stage in net.stages:
        norm = stage.blocks[0].body[-2]
        assert isinstance(norm, ZeroNorm)
        assert not norm.weight.any()


def test_biases_of_gates_start_at_zero():
    net = create("seresnet18", **SMALL)
    assert not net.part("stages.0.blocks.0.body.se.gate.fc1").bias.any()


def test_the_two_first_pools_of_senet154_differ_on_the_same_weights():
    authors, padded = create("senet154", **SMALL).eval(), create("senet154_gluon", **SMALL).eval()
    randomise(authors)
    weights.fit(padded, authors.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(authors(x), padded(x), rtol=1e-3)


def test_weights_of_the_padded_senet154_are_refused_by_the_authors():
    with torch.device("meta"):
        theirs, ours = build("timm:senet154"), create("senet154")
    with pytest.raises(WeightsMismatch, match="missing    stem"):
        weights.fit(ours, weights.rename(theirs.state_dict(), variant("senet154").rules["timm"]))


def test_weights_of_v1_strides_are_refused():
    # timm's legacy nets stride the first 1x1: every shape is that of seresnet50, the function is not.
    with torch.device("meta"):
        theirs, ours = build("timm:legacy_seresnet50"), create("seresnet50")
    renamed = weights.rename(theirs.state_dict(), variant("seresnet50").rules["timm"])
    assert weights.differences(ours, renamed) != []


def test_senet154_halves_the_first_1x1_and_projects_with_3x3():
    with torch.device("meta"):
        net = create("senet154")
    body = net.part("stages.1.blocks.0.body")
    assert (body.conv1.out_channels, body.conv2.out_channels, body.conv2.groups) == (256, 512, 64)
    assert net.part("stages.1.blocks.0.shortcut.conv").kernel_size == (3, 3)
    assert net.part("stages.0.blocks.0.shortcut.conv").kernel_size == (1, 1)


def test_groups_need_bottlenecks():
    with pytest.raises(ArgumentError, match="this net has basic blocks"):
        create("seresnet18", groups=32)
