"""The cost of a network: formulas against operators part by part, sizes, figures, shared parts."""

from __future__ import annotations

import os
import random

import pytest
import torch
from torch import Tensor, nn

import convarium
from convarium.costs.cost import Cost, cost
from convarium.errors import ArgumentError, UnknownName
from convarium.models import create, names, variant

BY_SIZE = sorted(names(), key=lambda name: -variant(name).parameters)
SMALLEST = {variant(name).family: name for name in BY_SIZE}.values()
# One of each family is counted always; the others together take a minute.
ALWAYS = {*SMALLEST, "resnet50", "vgg16", "lenet5_1998", "inception_v3"}


def empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return create(name)


def at(counted: Cost, path: str):
    return next(row for row in counted.rows if row.path == path)


# ------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", names())
def test_formulas_and_operators_agree_in_every_part(name):
    if name not in ALWAYS and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("one of each family is counted; all where CONVARIUM_ALL=1 is set")
    row, counted = variant(name), cost(empty(name))
    assert [(part.path, part.folded) for part in counted.rows] == [
        (part.path, part.macs) for part in counted.rows
    ]
    assert {part.status for part in counted.rows} <= {"agreed", "not run"}
    assert counted.status == "complete" and counted.params == row.parameters
    assert counted.macs and counted.flops == 2 * counted.macs
    if row.macs is not None:  # publishers count with other rules and round
        assert counted.macs == pytest.approx(row.macs, rel=0.02)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:vgg11", "timm:vit_tiny_patch16_224"])
def test_networks_of_other_libraries_are_counted_as_torch_counts_them(name):
    from torch.utils.flop_counter import FlopCounterMode

    net = empty(name).eval()
    counted = cost(net)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        net(torch.empty(1, *counted.picture, device="meta"))
    assert counted.status == "complete"
    assert counted.flops == theirs.get_total_flops()
    assert counted.params == variant(name).parameters


def test_timm_networks_drawn_by_lot_are_counted_or_named_partial():
    if not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("100 networks of timm, three minutes: counted where CONVARIUM_ALL=1 is set")
    import timm

    for name in random.Random(2026).sample(sorted(timm.list_models()), 100):
        counted = cost(empty(f"timm:{name}"))
        doubts = any("not counted" in note or "disagree" in note for note in counted.notes)
        assert counted.status == ("partial" if doubts else "complete"), name
        assert counted.macs, name


# ------------------------------------------------------------------------------------------------ sizes


def test_another_size_batch_and_number_type():
    net = empty("resnet18")
    once, more = cost(net, (3, 96, 160)), cost(net, (3, 96, 160), batch=3, dtype="bfloat16")
    assert once.rows[0].shape == more.rows[0].shape == (1000,)
    assert at(once, "stages").shape == (512, 3, 5)
    assert (more.macs, more.activations) == (3 * once.macs, 3 * once.activations)
    assert more.activation_bytes == 2 * more.activations and once.activation_bytes == 4 * once.activations
    assert more.params == once.params


def test_the_picture_is_the_networks_own_where_none_is_given():
    assert cost(empty("lenet5")).picture == (1, 28, 28)
    assert cost(nn.Conv2d(3, 4, 3)).picture == (3, 224, 224)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"picture": (3, 4, 4)}, "cannot run on 1x3x4x4"),
        ({"batch": 0}, "batch = 0"),
        ({"batch": "4"}, "batch = '4'; it must be a whole number"),
        ({"dtype": "float31"}, "float32"),
        ({"dtype": None}, "'None'; there are: bfloat16, float16, float32, float64"),
        ({"dtype": torch.int8}, "'int8'; there are: bfloat16, float16"),
        ({"picture": 3}, r"picture = 3; it must be \(channels, height, width\)"),
        ({"picture": (8, 8)}, r"picture = \(8, 8\); it must be"),
        ({"picture": (3, 8, 0)}, "whole numbers of at least 1"),
        ({"picture": (3, 8, 8.0)}, "whole numbers of at least 1"),
        ({"picture": "388"}, "picture = '388'"),
    ],
)
@pytest.mark.parametrize("count", [cost, convarium.cost])
def test_what_cannot_be_counted_is_told(count, arguments, said):
    with pytest.raises((ArgumentError, UnknownName), match=said):
        count(nn.Conv2d(3, 4, 7), **arguments)


def test_a_wrong_picture_of_a_named_network_is_told():
    with pytest.raises(ArgumentError, match="picture = 3"):
        convarium.cost("lenet5", 3)


def test_a_named_network_takes_pictures_that_are_no_squares():
    assert convarium.cost("resnet18", (3, 64, 96)).rows[0].shape == (1000,)


def test_number_types_are_torchs_too():
    half = cost(nn.Conv2d(3, 4, 3), (3, 8, 8), dtype=torch.float16)
    assert (half.dtype, half.activation_bytes) == ("float16", 2 * half.activations)


@pytest.mark.parametrize(
    ("look", "said"),
    [
        ({"columns": ("foo",)}, "no column is called 'foo'; there are: FLOPs, MACs"),
        ({"depth": -1}, "depth = -1"),
        ({"depth": "1"}, "depth = '1'"),
    ],
)
def test_a_tree_that_cannot_be_drawn_is_told(look, said):
    with pytest.raises((ArgumentError, UnknownName), match=said):
        cost(nn.Conv2d(3, 4, 3), (3, 8, 8)).tree(**look)


def test_a_network_is_left_as_it_was():
    net = create("lenet5").train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cost(net, batch=2)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# ------------------------------------------------------------------------------------------------ figures


def test_the_figures_of_a_convolution():
    row = at(cost(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), (3, 10, 10), batch=2), "0")
    assert (row.params, row.macs, row.activations) == (8 * 27 + 8, 2 * 800 * 27, 1600)
    assert row.moved == 4 * (600 + 1600 + 224)
    assert row.intensity == row.flops / row.moved
    assert row.fields.with_gates.size == (3, 3) and row.fields.with_gates.start == (-1, -1)


def test_what_is_done_in_place_writes_no_new_tensor():
    parts = cost(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.ReLU()), (3, 4, 4)).rows
    assert [row.activations for row in parts] == [48, 0, 0, 48]


def test_the_receptive_field_is_that_of_the_last_plane():
    found = cost(empty("seresnet50")).receptive_field
    assert found.without_gates.size == (427, 427) and found.without_gates.stride == (32, 32)
    assert found.with_gates.whole


def test_parts_that_a_picture_does_not_reach_are_told():
    counted = cost(empty("clip_vit_b_32"))
    assert at(counted, "text").status == "not run" and at(counted, "text").shape is None
    assert counted.notes == ("not called for a picture: text (63,428,096 parameters)",)


# ------------------------------------------------------------------------------------------------ shared


def test_shared_parts_have_their_parameters_once_and_their_work_at_each_place():
    one = nn.Conv2d(3, 3, 3, padding=1)
    counted = cost(nn.Sequential(nn.Sequential(one), nn.Sequential(one, one)), (3, 4, 4))
    work = 3 * 16 * 27
    assert counted.params == at(counted, "0").params == at(counted, "1").params == 84
    assert counted.macs == counted.rows[0].folded == 3 * work
    assert (at(counted, "0").macs, at(counted, "1").macs) == (work, 2 * work)
    total = counted.table("leaf").partition("\n\n")[0].splitlines()[-1].split()
    assert total[0] == "total" and "84" in total and f"{3 * work:,}" in total


def test_a_part_run_twice_counts_twice():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    counted = cost(Net(), (3, 4, 4))
    assert (counted.params, counted.macs, counted.rows[0].folded) == (12, 2 * 144, 2 * 144)
