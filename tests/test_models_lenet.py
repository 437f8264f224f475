"""LeNet-5 of 1998, line by line with section II.B of its paper."""

from __future__ import annotations

import pytest
import torch

from convarium.errors import ArgumentError
from convarium.models import create
from convarium.models.lenet import C3_TABLE, output_vectors


def trainable(net, path):
    return sum(p.numel() for p in net.part(path).parameters())


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("stages.0.blocks.0.conv", 156),  # C1
        ("stages.0.blocks.0.pool", 12),  # S2
        ("stages.1.blocks.0.conv", 1_516),  # C3
        ("stages.1.blocks.0.pool", 32),  # S4
        ("head.conv", 48_120),  # C5
        ("head.fc", 10_164),  # F6
    ],
)
def test_parameters_of_each_layer_are_those_of_the_paper(path, parameters):
    assert trainable(create("lenet5_1998"), path) == parameters


def test_planes_of_each_layer_are_those_of_the_paper():
    net = create("lenet5_1998")
    x = torch.zeros(1, 1, 32, 32)
    shapes = {}
    for path in ("stages.0.blocks.0.conv", "stages.0", "stages.1.blocks.0.conv", "stages.1", "head.conv"):
        net.part(path).register_forward_hook(
            lambda m, i, o, path=path: shapes.update({path: tuple(o.shape[1:])})
        )
    net(x)
    assert list(shapes.values()) == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1)]


def test_c3_sees_only_the_maps_of_table_one():
    conv = create("lenet5_1998").part("stages.1.blocks.0.conv")
    assert [len(row) for row in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    x = torch.randn(1, 6, 5, 5, requires_grad=True)
    for out, row in enumerate(C3_TABLE):
        (gradient,) = torch.autograd.grad(conv(x)[0, out].sum(), x)
        seen = [channel for channel in range(6) if gradient[0, channel].abs().sum() > 0]
        assert seen == list(row)


def test_scores_are_minus_the_squared_distances_to_the_bitmaps():
    net = create("lenet5_1998").eval()
    points = net.features(torch.randn(2, 1, 32, 32))
    for digit, vector in enumerate(output_vectors(10)):
        distance = (points["pre_logits"] - torch.tensor(vector)).square().sum(1)
        torch.testing.assert_close(points["logits"][:, digit], -distance)


def test_bitmaps_are_distinct_and_of_seven_by_twelve():
    vectors = output_vectors(10)
    assert {len(v) for v in vectors} == {84}
    assert len({tuple(v) for v in vectors}) == 10
    assert {value for v in vectors for value in v} == {-1.0, 1.0}


def test_the_scaled_tanh_maps_one_to_one():
    act = create("lenet5_1998").part("head.act1")
    torch.testing.assert_close(
        act(torch.tensor([1.0, -1.0])), torch.tensor([1.0, -1.0]), rtol=1e-4, atol=1e-4
    )


def test_a_picture_that_is_too_small_is_refused_with_the_least_size():
    with pytest.raises(ArgumentError, match="lenet5 cannot take pictures of 8 pixels; at least 12"):
        create("lenet5", size=8)
    create("lenet5", size=12)
