"""EfficientNets: scaling, constants of the norms, squeezed channels, and equality in training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import create, efficientnet, variant, weights
from convarium.models.mobile_parts import SameConv2d, bodies
from convarium.models.parts import DropPath
from tests.reference import build, pair
from tests.test_models_mobilenet import assert_same_training


def meta(name, **arguments):
    with torch.device("meta"):
        return create(name, **arguments)


@pytest.mark.parametrize("name", ["efficientnet_b0", "tf_efficientnet_b0", "efficientnet_lite0"])
def test_gradients_and_statistics_of_training_are_the_references(name):
    ours, theirs = pair(name, drop_path=0.0)
    for part in theirs.modules():
        if type(part).__name__ == "StochasticDepth":
            part.p = 0.0
    assert_same_training(ours, theirs)


@pytest.mark.parametrize("name", ["tf_efficientnet_b0", "tf_efficientnet_b1"])
def test_same_padding_holds_on_odd_and_oblong_pictures(name):
    ours, theirs = pair(name)
    x = torch.randn(1, 3, 75, 98)
    with torch.no_grad():
        expected = theirs.eval()(x)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "depths"),
    [
        ("efficientnet_b0", [32, 16, 24, 40, 80, 112, 192, 320, 1280], [1, 2, 2, 3, 3, 4, 1]),
        ("efficientnet_b1", [32, 16, 24, 40, 80, 112, 192, 320, 1280], [2, 3, 3, 4, 4, 5, 2]),
        ("efficientnet_b3", [40, 24, 32, 48, 96, 136, 232, 384, 1536], [2, 3, 3, 5, 5, 6, 2]),
        ("efficientnet_b7", [64, 32, 48, 80, 160, 224, 384, 640, 2560], [4, 7, 7, 10, 10, 13, 4]),
        ("efficientnet_lite3", [32, 24, 32, 48, 96, 136, 232, 384, 1280], [1, 3, 3, 5, 5, 6, 1]),
    ],
)
def test_channels_and_depths_after_scaling(name, channels, depths):
    net = meta(name)
    widths = [stage.blocks[0].body.project.out_channels for stage in net.stages]
    assert [net.stem.conv.out_channels, *widths, net.head.fc.in_features] == channels
    assert [len(stage.blocks) for stage in net.stages] == depths


def test_compound_scaling_nearly_doubles_the_work_at_each_step():
    depth, width, resolution = efficientnet.compound(1)
    assert (depth, width, resolution) == (1.2, 1.1, 1.15)
    assert depth * width**2 * resolution**2 == pytest.approx(1.92, abs=0.005)
    assert efficientnet.compound(0) == (1, 1, 1)


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [
        ("efficientnet_b4", 1e-5, 0.1),
        ("efficientnet_b5", 1e-3, 0.01),
        ("tf_efficientnet_b4", 1e-3, 0.1),
        ("efficientnet_lite0", 1e-5, 0.1),
    ],
)
def test_every_norm_has_the_rows_constants(name, eps, momentum):
    norms = [m for m in meta(name).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(eps, momentum)}


def test_squeezed_channels_come_from_the_input_of_the_block():
    squeezed = [body.se.gate.fc1.out_channels for _, body in bodies(meta("efficientnet_b0"))]
    assert squeezed == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]


def test_lite_has_relu6_and_no_squeeze_excitation():
    kinds = {type(m).__name__ for m in meta("efficientnet_lite0").modules()}
    assert "ReLU6" in kinds
    assert not {"SiLU", "Sigmoid", "Gate"} & kinds


def test_only_strided_convolutions_of_the_tensorflow_forms_pad_as_they_run():
    padded = [path for path, m in meta("tf_efficientnet_b0").named_modules() if isinstance(m, SameConv2d)]
    assert len(padded) == 5
    assert not any(isinstance(m, SameConv2d) for m in meta("efficientnet_b0").modules())


def test_drop_path_grows_evenly_and_stands_only_where_there_is_a_way_around():
    rates = [m.rate for m in meta("efficientnet_b0").modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.2 * i / 16 for i in (2, 4, 6, 7, 9, 10, 12, 13, 14)])
    assert not any(isinstance(m, DropPath) for m in meta("efficientnet_b0", drop_path=0.0).modules())


def test_weights_of_timm_are_refused_by_the_torchvision_forms(tmp_path):
    file = tmp_path / "tf.pth"
    torch.save(build("timm:tf_efficientnet_b0").state_dict(), file)
    with pytest.raises(WeightsMismatch, match="do not fit"):
        weights.load(meta("efficientnet_b0"), file, variant("efficientnet_b0").rules)


def test_fresh_depthwise_weights_have_the_fan_out_of_one_group():
    net = create("efficientnet_b0")
    weight = net.part("stages.5.blocks.3.body.depthwise").weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 25), rel=0.02)
    assert net.head.fc.weight.abs().max().item() <= 1 / math.sqrt(1000)


@pytest.mark.parametrize("argument", ["width", "depth"])
def test_multipliers_must_be_above_zero(argument):
    with pytest.raises(ArgumentError, match=f"{argument} = 0; it must be above 0"):
        create("efficientnet_b0", **{argument: 0})
