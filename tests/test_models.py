"""Every row of the registry: a new row is tested by being there."""

from __future__ import annotations

import copy

import pytest
import torch

from convarium.errors import ArgumentError, UnknownName
from convarium.models import create, names, variant
from convarium.models.registry import register
from convarium.net import meta_call
from tests.reference import pair

ALL = names()
WITH_REFERENCE = [name for name in ALL if variant(name).reference]
# Gradients and repeated runs are checked on what runs in a moment; shapes and counts on everything.
SMALL = [name for name in ALL if variant(name).parameters < 3e6 and variant(name).size <= 64]


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_those_of_the_row(name):
    with torch.device("meta"):
        net = create(name)
    assert sum(p.numel() for p in net.parameters()) == variant(name).parameters


@pytest.mark.parametrize("name", ALL)
def test_classes_and_channels_can_be_changed(name):
    with torch.device("meta"):
        net = create(name, classes=7, in_channels=4)
    assert meta_call(net, "forward", (2, 4, net.size, net.size)).shape == (2, 7)


@pytest.mark.parametrize("name", ALL)
def test_end_points_are_known_beforehand(name):
    with torch.device("meta"):
        net = create(name)
    points = net.end_points
    assert list(points)[0] == "stem"
    assert list(points)[-2:] == ["pre_logits", "logits"]
    assert points["logits"].channels == net.classes
    shapes = meta_call(net, "features", (1, net.in_channels, net.size, net.size))
    assert {name: p.channels for name, p in points.items()} == {
        name: s.shape[1] for name, s in shapes.items()
    }


@pytest.mark.parametrize("name", ALL)
def test_no_two_parts_share_parameters(name):
    with torch.device("meta"):
        net = create(name)
    assert len(list(net.parameters())) == len(list(net.named_parameters(remove_duplicate=False)))


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient_and_nothing_is_nan(name):
    net = create(name)
    x = torch.randn(4, net.in_channels, net.size, net.size)
    loss = torch.nn.functional.cross_entropy(net(x), torch.arange(4) % net.classes)
    loss.backward()
    assert torch.isfinite(loss)
    without = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_features_end_in_what_forward_gives(name):
    net = create(name).eval()
    x = torch.randn(2, net.in_channels, net.size, net.size)
    assert torch.equal(net.features(x)["logits"], net(x))


@pytest.mark.parametrize("name", SMALL)
def test_fresh_weights_depend_on_the_seed_alone(name):
    torch.manual_seed(3)
    first = create(name).state_dict()
    torch.manual_seed(3)
    second = copy.deepcopy(create(name)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_equals_its_reference(name):
    ours, theirs = pair(name)
    ours.eval(), theirs.eval()
    x = torch.randn(2, 3, min(64, ours.size), min(64, ours.size))
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(UnknownName, match="did you mean resnet18"):
        create("resnet81")


def test_an_unknown_argument_is_refused_by_name():
    with pytest.raises(ArgumentError, match="resnet20 takes no argument 'width'; it takes classes"):
        create("resnet20", width=2)


def test_a_number_of_classes_must_be_whole_and_positive():
    with pytest.raises(ArgumentError, match="classes = 0"):
        create("lenet5", classes=0)


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="registered already"):
        register(variant("lenet5"))


def test_names_are_matched_by_pattern():
    assert names("resnet1*") == [
        "resnet110",
        "resnet18",
        "resnet101",
        "resnet152",
        "resnet101_v1",
        "resnet152_v1",
    ]
    assert names("nothing*") == []
