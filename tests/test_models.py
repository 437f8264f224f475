"""Every row of the registry: a new row is tested by being there."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError, UnknownName
from convarium.models import create, names, variant
from convarium.models.registry import register
from convarium.net import meta_call
from tests.reference import build, fitted, randomise, sizes

ALL = names()
WITH_REFERENCE = [name for name in ALL if variant(name).reference]
LARGE = [name for name in WITH_REFERENCE if variant(name).parameters > 100e6]
# Gradients and repeated runs are checked on what runs in a moment; shapes and counts on everything.
SMALL = [name for name in ALL if variant(name).parameters < 1e6 and variant(name).size <= 64]


@pytest.fixture(scope="module", params=ALL)
def net(request) -> nn.Module:
    """Each network of the registry in turn, without memory; the tests leave it as it was."""
    with torch.device("meta"):
        return create(request.param)


def test_parameters_are_those_of_the_row_and_no_two_parts_share_one(net):
    parameters = list(net.named_parameters(remove_duplicate=False))
    assert sum(p.numel() for p in net.parameters()) == variant(net.architecture["name"]).parameters
    assert len(list(net.parameters())) == len(parameters)


def test_end_points_and_other_classes_and_channels(net):
    points = net.end_points
    assert list(points)[0] == "stem"
    assert list(points)[-2:] == ["pre_logits", "logits"]
    # The same is seen in a network of other classes and channels: it is as wide inside.
    with torch.device("meta"):
        other = create(net.architecture["name"], classes=7, in_channels=4)
    seen = meta_call(other, "features", (2, 4, other.size, other.size))
    wide = {point: t.shape[1] if t.ndim == 4 else t.shape[-1] for point, t in seen.items()}
    of_picture = {point for point in seen if seen[point].shape[1:] == (4, other.size, other.size)}
    expected = {point: 4 if point in of_picture else p.channels for point, p in points.items()}
    assert wide == expected | {"logits": 7}
    assert all(t.shape[0] == 2 for t in seen.values())


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient_and_nothing_is_nan(name):
    net = create(name)
    x = torch.randn(2, net.in_channels, net.size, net.size)
    scores = net.auxiliary(x) if hasattr(net, "auxiliary") else (net(x), [])
    loss = sum(nn.functional.cross_entropy(s, torch.arange(2) % net.classes) for s in (scores[0], *scores[1]))
    loss.backward()
    assert torch.isfinite(loss)
    without = [n for n, p in net.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_features_end_in_what_forward_gives(name):
    net = create(name).eval()
    x = torch.randn(2, net.in_channels, net.size, net.size)
    with torch.no_grad():
        assert torch.equal(net.features(x)["logits"], net(x))


@pytest.mark.parametrize("name", SMALL)
def test_fresh_weights_depend_on_the_seed_alone(name):
    torch.manual_seed(3)
    first = create(name).state_dict()
    torch.manual_seed(3)
    second = copy.deepcopy(create(name)).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", LARGE)
def test_names_and_shapes_are_those_of_the_reference(name):
    # For all other rows `test_equals_its_reference` says so.
    theirs = build(str(variant(name).reference))
    assert len(fitted(theirs, name).state_dict()) <= len(theirs.state_dict())


@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_equals_its_reference(name):
    if name in LARGE and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip(f"{variant(name).parameters:,} parameters: compared where CONVARIUM_ALL=1 is set")
    side, ours_to, theirs_to = sizes(name)
    theirs = randomise(build(str(variant(name).reference), **theirs_to)).eval()
    ours = fitted(theirs, name, **ours_to).eval()
    x = torch.randn(2, 3, side, side)
    x[1] = 2 * x[1] + 1  # brighter and harder, so that nets of global pools tell it from the first
    with torch.no_grad():
        expected = theirs(x)
        got = ours(x)
    scale = expected.abs().max().item()
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * scale, "the pictures must matter"
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * scale)


def test_an_unknown_name_suggests_near_ones():
    with pytest.raises(UnknownName, match="did you mean resnet18"):
        create("resnet81")


def test_an_unknown_argument_is_refused_by_name():
    with pytest.raises(ArgumentError, match="resnet20 takes no argument 'width'; it takes classes"):
        create("resnet20", width=2)


def test_a_number_of_classes_must_be_whole_and_not_below_zero():
    with pytest.raises(ArgumentError, match="classes = -1; it must be a whole number of at least 0"):
        create("lenet5", classes=-1)


def test_a_taken_name_is_refused():
    with pytest.raises(ValueError, match="registered already"):
        register(variant("lenet5"))


def test_names_are_matched_by_pattern():
    assert names("lenet5*") == ["lenet5_1998", "lenet5"]
    assert names("LeNet5_*") == ["lenet5_1998"]
    assert names("nothing*") == []


def test_names_come_in_the_order_of_history():
    families = list(dict.fromkeys(variant(name).family for name in ALL))
    years = [min(variant(name).year for name in ALL if variant(name).family == f) for f in families]
    assert years == sorted(years)
