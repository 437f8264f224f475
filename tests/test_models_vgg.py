"""VGG: table 1, both publishers' names, and growing a deep net from a trained shallow one."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import convarium.models.vgg as vgg
from convarium.errors import ArgumentError
from convarium.models import create, variant, weights
from tests.reference import build, randomise

NARROW = {"widths": (4, 8, 8, 16, 16), "hidden": 16, "classes": 5}
PLAIN = ["vgg11", "vgg13", "vgg16", "vgg19"]


@pytest.mark.parametrize(
    ("name", "millions", "convolutions"),
    [("vgg11", 133, 8), ("vgg13", 133, 10), ("vgg16", 138, 13), ("vgg19", 144, 16)],
)
def test_layers_and_parameters_are_those_of_tables_1_and_2(name, millions, convolutions):
    with torch.device("meta"):
        net = create(name)
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    linears = [part for part in net.modules() if isinstance(part, nn.Linear)]
    assert len(convs) == convolutions
    assert len(convs) + len(linears) == int(name[3:])
    assert {conv.kernel_size for conv in convs} == {(3, 3)}
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == millions


def test_end_points_have_the_strides_between_the_pools():
    with torch.device("meta"):
        points = create("vgg16").end_points
    assert [(p.channels, p.stride) for name, p in points.items() if name.startswith("stage")] == [
        (64, 1),
        (128, 2),
        (256, 4),
        (512, 8),
        (512, 16),
    ]


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_gradients_equal_torchvisions_in_training_mode(name):
    # Up to the linear layers, which hold 93 % of the parameters and are compared by their output elsewhere.
    theirs = torchvision.models.vgg.make_layers(
        torchvision.models.vgg.cfgs["A"], batch_norm=name.endswith("bn")
    )
    randomise(theirs)
    ours = create(name, hidden=4, classes=2)
    rules = vgg.torchvision_rules(ours)

    def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return weights.rename({f"features.{n}": t for n, t in tensors.items()}, rules)

    head = {n: t for n, t in ours.state_dict().items() if n.startswith("head")}
    weights.fit(ours, renamed(theirs.state_dict()) | head)
    x = torch.randn(2, 3, 32, 32)
    ours.head["pool"](ours.stages(x)).square().sum().backward()
    theirs(x).square().sum().backward()
    expected = renamed({n: p.grad for n, p in theirs.named_parameters()})
    for path, gradient in expected.items():
        torch.testing.assert_close(ours.get_parameter(path).grad, gradient, rtol=1e-5, atol=1e-6)


def test_timms_names_give_timms_output():
    theirs = build("timm:vgg11_bn", num_classes=10).eval()
    randomise(theirs)
    with torch.device("meta"):
        ours = create("vgg11_bn", classes=10)
    weights.fit(ours, weights.rename(theirs.state_dict(), vgg.timm_rules(ours)))
    ours.eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("deep", ["vgg13", "vgg16", "vgg19"])
def test_growing_copies_four_convolutions_and_three_linears_and_nothing_else(deep):
    shallow, net = create("vgg11", **NARROW), create(deep, **NARROW)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    paths = vgg.grow(net, shallow)
    assert paths == [
        "stages.0.blocks.0.conv",
        "stages.1.blocks.0.conv",
        "stages.2.blocks.0.conv",
        "stages.2.blocks.1.conv",
        "head.fc1",
        "head.fc2",
        "head.fc",
    ]
    trained = shallow.state_dict()
    for name, value in net.state_dict().items():
        copied = name.rpartition(".")[0] in paths
        assert torch.equal(value, trained[name] if copied else before[name]), name


def test_growing_shares_no_memory():
    shallow, deep = create("vgg11", **NARROW), create("vgg13", **NARROW)
    vgg.grow(deep, shallow)
    with torch.no_grad():
        shallow.get_parameter("head.fc.weight").zero_()
    assert deep.get_parameter("head.fc.weight").abs().sum() > 0


def test_growing_takes_batch_norm_with_its_convolution():
    shallow, deep = create("vgg11_bn", **NARROW), create("vgg16_bn", **NARROW)
    randomise(shallow)
    paths = vgg.grow(deep, shallow)
    assert paths[:2] == ["stages.0.blocks.0.conv", "stages.0.blocks.0.norm"]
    assert len(paths) == 11
    path = "stages.2.blocks.1.norm.running_var"
    assert torch.equal(deep.get_buffer(path), shallow.get_buffer(path))


def test_growing_from_a_net_without_batch_norm_leaves_it_fresh():
    deep = create("vgg16_bn", **NARROW)
    assert len(vgg.grow(deep, create("vgg11", **NARROW))) == 7
    assert torch.equal(deep.get_buffer("stages.0.blocks.0.norm.running_var"), torch.ones(4))


def test_growing_from_another_number_of_classes_is_refused_and_copies_nothing():
    shallow, deep = create("vgg11", **NARROW), create("vgg13", **{**NARROW, "classes": 6})
    before = {name: value.clone() for name, value in deep.state_dict().items()}
    with pytest.raises(
        ArgumentError, match=r"cannot grow: head\.fc is weight 5 x 16, .* and weight 6 x 16, "
    ):
        vgg.grow(deep, shallow)
    assert all(torch.equal(value, before[name]) for name, value in deep.state_dict().items())


def test_growing_a_shallow_net_from_a_deep_one_is_refused():
    said = r"stages\.0\.blocks\.1\.conv is weight 4 x 4 x 3 x 3, bias 4 in the shallow net and missing in the deep one"
    with pytest.raises(ArgumentError, match=said):
        vgg.grow(create("vgg11", **NARROW), create("vgg13", **NARROW))


def test_only_vgg_nets_grow():
    with pytest.raises(ArgumentError, match="only VGG nets grow"):
        vgg.grow(create("lenet5"), create("vgg11", **NARROW))


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_every_parameter_of_a_narrow_net_gets_a_gradient(name):
    net = create(name, **NARROW)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_linears_and_convolutions_start_as_torchvisions():
    net = create("vgg11", hidden=256)
    conv, fc = net.part("stages.3.blocks.1.conv"), net.part("head.fc1")
    assert conv.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert fc.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not conv.bias.any() and not fc.bias.any()


def test_a_picture_under_32_pixels_is_refused():
    with pytest.raises(ArgumentError, match="31 pixels; at least 32 are needed"):
        create("vgg11", size=31)


def test_fewer_depths_than_widths_are_refused():
    with pytest.raises(ArgumentError, match="2 depths and 5 widths"):
        create("vgg11", depths=(1, 1))


def test_rows_name_their_configuration():
    assert [variant(name).paper.rsplit(" ", 1)[-1] for name in PLAIN] == ["A", "B", "D", "E"]
