"""Network in Network: sizes, and the classifier that has no linear layer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import convarium.models.nin  # noqa: F401
from convarium.errors import ArgumentError
from convarium.models import create
from convarium.net import meta_call


def maps(name: str) -> list[int]:
    with torch.device("meta"):
        net = create(name)
    return [part.out_channels for part in net.modules() if isinstance(part, nn.Conv2d)]


def test_the_cifar_net_has_nine_convolutions_of_the_published_widths():
    assert maps("nin") == [192, 160, 96, 192, 192, 192, 192, 192, 10]


def test_the_imagenet_net_has_twelve_convolutions_of_the_published_widths():
    assert maps("nin_imagenet") == [96, 96, 96, 256, 256, 256, 384, 384, 384, 1024, 1024, 1000]


@pytest.mark.parametrize(("name", "sides"), [("nin", [32, 16, 8]), ("nin_imagenet", [54, 27, 13, 6])])
def test_planes_shrink_as_published(name, sides):
    with torch.device("meta"):
        net = create(name)
    points = meta_call(net, "trunk", (1, 3, net.size, net.size))
    assert [out.shape[-1] for point, out in points.items() if point != "stem"] == sides


@pytest.mark.parametrize("name", ["nin", "nin_imagenet"])
def test_there_is_no_linear_layer(name):
    with torch.device("meta"):
        net = create(name)
    assert not any(isinstance(part, nn.Linear) for part in net.modules())


def test_a_class_score_is_the_mean_of_the_map_of_that_class():
    net = create("nin", classes=7).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        class_maps = net.head["fc"](net.features(x)["pre_logits"]).relu()
        assert class_maps.shape == (2, 7, 8, 8)
        torch.testing.assert_close(net(x), class_maps.mean((2, 3)))


def test_the_last_window_of_average_pooling_takes_the_mean_of_what_is_inside():
    with torch.device("meta"):
        net = create("nin")
    pool = net.part("stages.2.downsample.pool")
    assert torch.equal(pool(torch.ones(1, 1, 16, 16)), torch.ones(1, 1, 8, 8))


def test_dropout_stands_between_blocks_as_published():
    for name, paths in {
        "nin": ["stages.1.downsample.drop", "stages.2.downsample.drop"],
        "nin_imagenet": ["stages.3.downsample.drop"],
    }.items():
        with torch.device("meta"):
            net = create(name)
        drops = {path: part.p for path, part in net.named_modules() if isinstance(part, nn.Dropout)}
        assert drops == dict.fromkeys(paths, 0.5)


def test_other_sizes_are_averaged_over_what_is_left():
    with torch.device("meta"):
        net = create("nin")
    assert meta_call(net, "forward", (1, 3, 50, 37)).shape == (1, 10)


@pytest.mark.parametrize(("name", "least"), [("nin", 4), ("nin_imagenet", 39)])
def test_a_picture_too_small_is_refused_and_the_least_one_is_not(name, least):
    with torch.device("meta"):
        net = create(name, size=least)
        with pytest.raises(ArgumentError, match=f"at least {least} are needed"):
            create(name, size=least - 1)
    assert meta_call(net, "forward", (1, 3, least, least)).shape == (1, net.classes)
