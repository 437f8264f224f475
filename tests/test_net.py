"""Net: end points, parts, and calls without memory."""

from __future__ import annotations

import pytest
import torch

from convarium.errors import UnknownName
from convarium.models import create
from convarium.net import EndPoint, meta_call


def test_end_points_of_resnet18():
    points = create("resnet18", classes=5).end_points
    assert points == {
        "stem": EndPoint(64, 4),
        "stage0": EndPoint(64, 4),
        "stage1": EndPoint(128, 8),
        "stage2": EndPoint(256, 16),
        "stage3": EndPoint(512, 32),
        "pre_logits": EndPoint(512, None),
        "logits": EndPoint(5, None),
    }


def test_strides_are_right_where_borders_are_cut():
    # 28 -> 5 would suggest a stride of 6.
    assert create("lenet5").end_points["stage1"].stride == 4


def test_pre_logits_are_what_the_classifier_sees():
    net = create("resnet20").eval()
    points = net.features(torch.randn(2, 3, 32, 32))
    assert torch.equal(net.head.fc(points["pre_logits"]), points["logits"])


def test_a_part_is_found_by_its_path():
    net = create("resnet20")
    assert net.part("stages.2.blocks.1") is net.stages[2].blocks[1]


def test_a_wrong_path_suggests_near_ones():
    with pytest.raises(UnknownName, match="stages.2.blocks.1"):
        create("resnet20").part("stages.2.block.1")


def test_the_head_can_be_replaced():
    net = create("resnet20")
    net.head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    assert net.features(torch.randn(1, 3, 32, 32))["logits"].shape == (1, 3)


def test_a_meta_call_leaves_the_network_as_it_was():
    net = create("resnet20")
    net.stem.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert meta_call(net, "forward", (7, 3, 32, 32)).shape == (7, 10)
    assert net.training and not net.stem.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


def test_channels_of_tokens_are_their_last_axis():
    with torch.device("meta"):
        points = create("vit_tiny_16", classes=5).end_points
    assert points == {
        "stem": EndPoint(192, None),
        "stage0": EndPoint(192, None),
        "pre_logits": EndPoint(192, None),
        "logits": EndPoint(5, None),
    }


@pytest.mark.parametrize("name", ["alexnet_2012", "convnextv2_atto", "mobilenet_v3_small", "clip_rn50"])
def test_a_meta_call_sees_the_shapes_that_running_gives(name):
    net = create(name, size=96 if name != "alexnet_2012" else 67).eval()
    x = torch.zeros(2, 3, net.size, net.size)
    with torch.no_grad():
        expected = {point: t.shape for point, t in net.features(x).items()}
    assert {point: t.shape for point, t in meta_call(net, "features", x.shape).items()} == expected


@pytest.mark.parametrize("norm", [torch.nn.BatchNorm2d(5), torch.nn.LayerNorm(5)], ids=["batch", "layer"])
def test_a_meta_call_refuses_a_norm_of_another_width(norm):
    with pytest.raises((RuntimeError, ValueError)):
        meta_call(norm, "forward", (2, 4, 8, 8))


def test_frozen_parts_neither_learn_nor_move_their_statistics():
    net = create("resnet20", depth=8).train().freeze("stem", "stages.0")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=0.1)
    net(torch.randn(4, 3, 32, 32)).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and not [name for name in moved if name.startswith(("stem", "stages.0"))]
    net.eval().train()
    assert not net.stem.training and net.stages[1].training
    assert all(p.requires_grad for p in net.freeze().parameters()) and net.stem.training
