"""Receptive fields beside the gradient oracle, family by family and operator by operator."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from convarium.costs.field import Field, Fields
from convarium.costs.trace import trace
from convarium.joins import Chain, Concat, Gate, Sum
from convarium.models import create, names, variant
from convarium.net import Net
from tests.oracle import gates_off, measured, prepare

ALL = bool(os.environ.get("CONVARIUM_ALL"))

# The smallest row of each convolutional family, or the one whose field is known from elsewhere; the last plane that
# does not depend on the size of the picture.
PLANES = {
    "lenet5_1998": "stages",
    "alexnet_2012": "stages",
    "zfnet": "stages",
    "nin": "head.act",
    "nin_imagenet": "head.act",
    "vgg16": "stages",
    "googlenet_2014": "stages",
    "inception_v2": "stages",
    "inception_v3": "stages",
    "plain20": "stages",
    "resnet20": "stages",
    "resnet18": "stages",
    "resnet50": "stages",
    "resnet50_v1": "stages",
    "resnet18d": "stages",
    "squeezenet1_1": "head.act",
    "wrn_16_8": "stages",
    "resnetv2_50": "stages",
    "densenet_bc_100_12": "stages",
    "mobilenet_v1_025": "stages",
    "seresnet18": "stages",
    "se_inception_v2": "stages",
    "mobilenetv2_035": "stages",
    "mobilenet_v3_small": "stages",
    "efficientnet_b0": "stages",
    "tf_efficientnet_b0": "stages",
    "convnext_atto": "stages",
    "convnextv2_atto": "stages",
    "clip_rn50": "image.stages",
}


def empty(name: str) -> Net:
    with torch.device("meta"):
        return create(name)


def fields(net: nn.Module, *shapes: tuple[int, ...], path: str = "") -> Fields | None:
    return trace(net, *shapes).fields[path]


def oracle(net: nn.Module, path: str, channels: int = 3, least: int = 64) -> Field:
    """Both sides measured."""
    prepare(net)
    rows, columns = (measured(net, path, axis, channels, least) for axis in (0, 1))
    return Field(*zip(rows, columns, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PLANES)
def test_family(name):
    net = empty(name)
    found = fields(net, (1, net.in_channels, net.size, net.size), path=PLANES[name])
    with gates_off(net):
        assert found.without_gates == oracle(
            net, PLANES[name], net.in_channels, min(variant(name).least, net.size)
        )


@pytest.mark.skipif(not ALL, reason="set CONVARIUM_ALL=1 for all networks")
@pytest.mark.parametrize("name", [n for n in names() if variant(n).family not in ("vit", "linear", "clip")])
def test_every_network(name):
    net = empty(name)
    # TensorFlow's padding depends on the size: the oracle's pictures are powers of two.
    side = 512 if name.startswith("tf_") else net.size
    found = fields(net, (1, net.in_channels, side, side), path="stages")
    with gates_off(net):
        assert found.without_gates == oracle(
            net, "stages", net.in_channels, min(variant(name).least, net.size)
        )


@pytest.mark.parametrize(
    ("name", "path", "size"),
    [
        ("vgg16", "head", 212),  # its last pool is the head's first part
        ("resnet18", "stages", 435),
        ("resnet50_v1", "stages", 483),
        ("resnet101_v1", "stages", 1027),
        ("resnet50", "stages", 427),
        ("inception_v2", "stages", 699),
        ("inception_v3", "stages", 1311),
        ("mobilenet_v1", "stages", 315),
    ],
)
def test_published(name, path, size):
    """Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019, table 1."""
    net = empty(name)
    found = trace(net, (1, 3, net.size, net.size)).fields
    sizes = {f.without_gates.size for p, f in found.items() if f and f.without_gates and p.startswith(path)}
    assert (size, size) in sizes


def whole() -> Field:
    return Field((None, None), (0, 0), (0, 0))


@pytest.mark.parametrize(
    "name", ["resnet18", "vgg11", "seresnet18", "convnext_atto", "vit_tiny_16", "clip_rn50"]
)
def test_scores_see_the_whole_picture(name):
    net = empty(name)
    assert fields(net, (1, 3, net.size, net.size)) == Fields(whole(), whole())


# ------------------------------------------------------------------------------------------------ operators


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def after(function, shape: tuple[int, ...] = (1, 4, 48, 60)) -> Fields | None:
    """The field of a function of a picture."""
    return fields(Function(function), shape)


def plain(field: Field) -> Fields:
    return Fields(field, field)


LAYERS = [
    nn.Conv2d(3, 2, (3, 5), (2, 1), (0, 2), dilation=(1, 2)),
    nn.Conv2d(3, 2, 4, 3, 1),
    nn.Conv2d(3, 3, 3, groups=3, padding="same"),
    nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect"),
    nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 2, 3)),
    nn.Sequential(nn.AvgPool2d((1, 2)), nn.ZeroPad2d((3, 0, 2, 1)), nn.Conv2d(3, 2, 2)),
    nn.Sequential(nn.Conv2d(3, 2, 3, 2, 1), nn.PixelUnshuffle(2), nn.Conv2d(8, 2, 3)),
    Sum(nn.Conv2d(3, 3, 5, 2, 2), Function(lambda x: x[:, :, ::2, ::2])),
    Sum(nn.Conv2d(3, 3, 3, 2), Function(lambda x: x[:, :, 1:-1:2, 1:-1:2])),
    Chain(a=Concat(a=nn.Conv2d(3, 2, (1, 7), padding=(0, 3)), b=nn.Identity()), b=nn.AvgPool2d(2)),
    Function(lambda x: F.conv2d(x.transpose(2, 3), torch.ones(1, 3, 3, 5), stride=(1, 2)).transpose(2, 3)),
    Function(lambda x: F.conv2d(torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2]], 1), torch.ones(1, 6, 3, 3))),
    Function(lambda x: F.avg_pool2d(x, 3, 1, 1).flatten(2).transpose(1, 2).mT.unflatten(2, x.shape[2:])),
]


@pytest.mark.parametrize("layer", LAYERS, ids=range(len(LAYERS)))
def test_layers(layer):
    net = nn.Sequential(layer)
    found = fields(net, (1, 3, 64, 96))
    assert found == plain(oracle(net, "0"))


@st.composite
def stacks(draw) -> nn.Module:
    """A few convolutions, pools, sums and concatenations in turn."""

    def window() -> nn.Module:
        kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
        stride = draw(st.sampled_from([1, 1, 2, (2, 1)]))
        padding = draw(st.integers(0, min(kernel) // 2))
        if draw(st.booleans()):
            return nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans()))
        return nn.Conv2d(3, 3, kernel, stride, padding, draw(st.integers(1, 2)))

    def odd() -> nn.Module:
        kernel = draw(st.sampled_from([1, 3, 5]))
        return nn.Conv2d(3, 3, kernel, padding=kernel // 2)

    kinds = {
        "window": window,
        "sum": lambda: Sum(odd(), draw(st.sampled_from([None, nn.ReLU()]))),
        "concat": lambda: Chain(a=Concat(a=odd(), b=odd()), b=nn.Conv2d(6, 3, 1)),
    }
    chosen = draw(st.lists(st.sampled_from([*kinds, "window"]), min_size=1, max_size=5))
    return nn.Sequential(nn.Sequential(*(kinds[kind]() for kind in chosen)))


@settings(max_examples=300 if ALL else 30, deadline=None)
@given(stacks())
def test_any_stack(net):
    assert fields(net, (1, 3, 256, 256)) == plain(oracle(net, "0", least=128))


def test_strides_of_a_plane_of_one_pixel_are_kept():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1))
    assert fields(net, (1, 3, 2, 2)) == plain(Field((7, 7), (4, 4), (-3, -3)))


def test_a_pool_over_everything_is_whole_only_if_every_pixel_counts():
    assert after(lambda x: x.mean((2, 3))) == plain(whole())
    assert after(lambda x: F.avg_pool2d(x, (48, 60))) == plain(whole())
    assert after(lambda x: x[:, :, ::2, 6:].mean((2, 3))) == plain(Field((47, 54), (0, 0), (0, 6)))
    assert after(lambda x: x.mean(2)) == plain(Field((None, 1), (0, 1), (0, 0)))


def test_channels_shuffled_between_unlike_branches():
    """ShuffleNet: each half of the shuffled channels holds both branches."""

    def joined(x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        return torch.cat([left, F.avg_pool2d(right, 3, 1, 1)], 1)

    def by_hand(x: Tensor) -> Tensor:
        return x.view(1, 2, 2, 48, 60).transpose(1, 2).reshape(1, 4, 48, 60)

    def by_hand_8(x: Tensor) -> Tensor:
        return x.view(1, 2, 4, 48, 60).transpose(1, 2).reshape(1, 8, 48, 60)

    for shuffled in (by_hand, lambda x: F.channel_shuffle(x, 2)):
        both = plain(Field((3, 3), (1, 1), (-1, -1)))
        assert after(lambda x, shuffled=shuffled: shuffled(joined(x))[:, :2]) == both
        twice = plain(Field((5, 5), (1, 1), (-2, -2)))
        assert after(lambda x, shuffled=shuffled: joined(shuffled(joined(x)))) == twice
    assert after(lambda x: joined(x)[:, 2:]) is None  # one branch alone
    # Unlike already before they are joined once more: no longer alike in pairs.
    assert after(lambda x: by_hand_8(torch.cat([joined(x), joined(x)], 1))[:, :4]) is None


def test_tokens_are_patches_and_attention_sees_all():
    def tokens(x: Tensor) -> Tensor:
        return F.conv2d(x, torch.ones(6, 4, 12, 12), stride=12).flatten(2).transpose(1, 2)

    assert after(tokens) == plain(Field((12, 12), (12, 12), (0, 0)))
    assert after(lambda x: F.scaled_dot_product_attention(*[tokens(x)] * 3)) == plain(whole())
    with_class = torch.ones(1, 1, 6)
    assert after(lambda x: torch.cat([with_class, tokens(x)], 1)) is None
    assert after(lambda x: torch.cat([with_class, tokens(x)], 1).mean(1)) == plain(whole())

    def by_hand(x: Tensor) -> Tensor:
        q = torch.cat([with_class, tokens(x)], 1)
        return ((q @ q.mT).softmax(-1) @ q)[:, 0]

    assert after(by_hand) == plain(whole())


def test_attention_in_windows_sees_its_window():
    def windows(x: Tensor) -> Tensor:
        tokens = x.unflatten(3, (5, 12)).unflatten(2, (4, 12)).permute(0, 2, 4, 3, 5, 1).reshape(20, 144, 4)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return mixed.mean(1).reshape(1, 4, 5, 4).permute(0, 3, 1, 2)

    assert after(windows) == plain(Field((12, 12), (12, 12), (0, 0)))


LOCAL = Field((3, 3), (1, 1), (0, 0))


@pytest.mark.parametrize(
    "gated",
    [
        lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),
        lambda x: x.mean((2, 3), keepdim=True).sigmoid().expand_as(x) * x,
        lambda x: x.mul_(F.adaptive_avg_pool2d(x, 1)),
        lambda x: x * x.mean(2, keepdim=True) * x.mean(3, keepdim=True),
        lambda x: torch.addcmul(
            torch.ones(6, 1, 1), x, torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True)
        ),
        lambda x: F.group_norm(x, 2),
        lambda x: F.instance_norm(x),
        lambda x: F.batch_norm(x, None, None, training=True),
    ],
)
def test_gates_and_statistics(gated):
    assert after(lambda x: gated(F.conv2d(x, torch.ones(6, 4, 3, 3)))) == Fields(whole(), LOCAL)


def test_the_gate_join_is_known_though_it_is_no_pooled_factor():
    net = Gate(nn.Sequential(nn.Conv2d(3, 3, 5, padding=2), nn.Sigmoid()))
    assert fields(net, (1, 3, 16, 16)) == Fields(
        Field((5, 5), (1, 1), (-2, -2)), Field((1, 1), (1, 1), (0, 0))
    )


def test_what_is_added_is_no_gate():
    assert after(lambda x: x + x.mean((2, 3), keepdim=True)) == plain(whole())


def set_slices(x: Tensor) -> Tensor:
    out = torch.zeros_like(x)
    out[:, :, ::2] = x[:, :, 1::2]
    return out


def written_view(x: Tensor) -> Tensor:
    x = x * 2
    x[:, :2].add_(x.mean())
    return x


def stale_view(x: Tensor) -> Tensor:
    x = x * 2
    view = x[:, :2]
    x += x.mean()
    return view


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll(3, 2),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.conv_transpose2d(x, torch.ones(4, 2, 2, 2), stride=2),
        lambda x: F.adaptive_avg_pool2d(x, 7),
        lambda x: torch.cat([x, F.avg_pool2d(x, 3, 1, 1)], 1)[:, 4:],
        lambda x: x[:, :, torch.tensor([5, 3, 1])],
        lambda x: x.reshape(1, 4, 45, 64),
        lambda x: x.cumsum(2),
        lambda x: x.sort(2)[0],
        lambda x: F.grid_sample(x, torch.zeros(1, 5, 5, 2), align_corners=False),
        lambda x: x.flip(2) + x,
        lambda x: x + x.transpose(2, 3).reshape(x.shape),
        set_slices,
        written_view,
        stale_view,
    ],
)
def test_what_cannot_be_followed_is_none(function):
    assert after(function) is None


def test_what_does_not_come_from_a_picture_has_no_field():
    assert fields(nn.Linear(4, 4), (2, 4)) is None
    assert after(lambda x: torch.ones(3)) is None


def test_a_second_input_is_no_picture_unless_it_has_four_dimensions():
    both = Function(lambda x, y: F.max_pool2d(x, 2) + y)
    one = plain(Field((2, 2), (2, 2), (0, 0)))
    assert fields(both, (1, 4, 8, 8), (4, 1, 1)) == one
    assert fields(both, (1, 4, 8, 8), (1, 4, 4, 4)) is None
