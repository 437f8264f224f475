"""AlexNet and ZFNet: the sizes of their papers, and what differs between the two AlexNets."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import convarium.models.alexnet as alexnet
from convarium.errors import ArgumentError
from convarium.models import create, variant, weights
from convarium.net import meta_call
from tests.reference import randomise


def planes(name: str) -> dict[str, tuple[int, ...]]:
    """Maps and sides of the outputs of all leaves, by path, at the network's own size."""
    with torch.device("meta"):
        net = create(name)
    shapes: dict[str, tuple[int, ...]] = {}
    handles = [
        part.register_forward_hook(lambda _, __, out, path=path: shapes.update({path: tuple(out.shape[1:])}))
        for path, part in net.named_modules()
        if path and not any(part.children())
    ]
    meta_call(net, "forward", (1, 3, net.size, net.size))
    for handle in handles:
        handle.remove()
    return shapes


def test_alexnet_2012_has_the_sizes_of_section_3_5():
    shapes = planes("alexnet_2012")
    assert shapes["stem.conv.conv"] == (96, 55, 55)
    assert shapes["stem.pool"] == (96, 27, 27)
    assert shapes["stages.0.blocks.0.conv"] == (256, 27, 27)
    assert shapes["stages.1.downsample"] == (256, 13, 13)
    assert shapes["stages.1.blocks.0.conv"] == (384, 13, 13)
    assert shapes["stages.1.blocks.1.conv"] == (384, 13, 13)
    assert shapes["stages.1.blocks.2.conv"] == (256, 13, 13)
    assert shapes["head.pool"] == shapes["head.average"] == (256, 6, 6)
    assert shapes["head.fc1"] == shapes["head.fc2"] == (4096,)


def test_alexnet_2012_has_the_neurons_that_the_paper_counts():
    # "186,624-64,896-64,896-43,264-4096-4096-1000". Its count for the first layer, 253,440, is 96 maps of no
    # whole side; 55 x 55 gives 290,400.
    shapes = planes("alexnet_2012")
    paths = ["stages.0.blocks.0.conv", *(f"stages.1.blocks.{i}.conv" for i in range(3))]
    paths += ["head.fc1", "head.fc2", "head.fc"]
    counts = [torch.Size(shapes[path]).numel() for path in paths]
    assert counts == [186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]


def test_the_columns_meet_in_the_third_convolution_only():
    with torch.device("meta"):
        net = create("alexnet_2012")
    convs = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert [conv.groups for conv in convs] == [1, 2, 1, 2, 2]
    kernels = [tuple(conv.weight.shape[1:]) for conv in convs]
    assert kernels == [(3, 11, 11), (48, 5, 5), (256, 3, 3), (192, 3, 3), (192, 3, 3)]


def test_one_column_has_more_parameters():
    with torch.device("meta"):
        net = create("alexnet_2012", columns=1)
    assert sum(p.numel() for p in net.parameters()) == 62_378_344


def test_response_norm_is_the_formula_of_section_3_3():
    x = torch.randn(1, 8, 1, 1) * 30
    a = x.flatten()
    expected = torch.stack(
        [
            a[i] / (2 + 1e-4 * sum(a[j] ** 2 for j in range(max(0, i - 2), min(7, i + 2) + 1))) ** 0.75
            for i in range(8)
        ]
    )
    torch.testing.assert_close(alexnet.response_norm()(x).flatten(), expected)


def test_zfnet_has_the_sizes_of_figure_3():
    shapes = planes("zfnet")
    assert shapes["stem.conv.conv"] == (96, 110, 110)
    assert shapes["stem.pool"] == shapes["stem.norm"] == (96, 55, 55)
    assert shapes["stages.0.blocks.0.conv"] == (256, 26, 26)
    assert shapes["stages.1.downsample.pool"] == (256, 13, 13)
    assert shapes["stages.1.blocks.0.conv"] == (384, 13, 13)
    assert shapes["stages.1.blocks.1.conv"] == (384, 13, 13)
    assert shapes["stages.1.blocks.2.conv"] == (256, 13, 13)
    assert shapes["head.pool"] == (256, 6, 6)
    assert shapes["head.fc1"] == shapes["head.fc2"] == (4096,)


def test_zfnet_pools_before_it_normalises_and_alexnet_after():
    with torch.device("meta"):
        zfnet, alexnet_2012 = create("zfnet"), create("alexnet_2012")
    order = {name: i for i, (name, _) in enumerate(zfnet.named_modules())}
    assert order["stem.pool"] < order["stem.norm"]
    order = {name: i for i, (name, _) in enumerate(alexnet_2012.named_modules())}
    assert order["stem.conv.norm"] < order["stem.pool"]


@pytest.mark.parametrize("name", ["alexnet_2012", "zfnet"])
def test_pooling_to_six_changes_nothing_at_the_published_size(name):
    net = create(name, hidden=8, widths=(8, 8, 8, 8, 8)).eval()
    x = torch.randn(1, 3, net.size, net.size)
    with torch.no_grad():
        expected = net(x)
        net.head.average = nn.Identity()
        assert torch.equal(net(x), expected)


def test_alexnet_2012_starts_with_the_biases_of_section_5():
    net = create("alexnet_2012", hidden=8, widths=(8, 8, 8, 8, 8), classes=3)
    ones = {path for path, p in net.named_parameters() if path.endswith("bias") and (p == 1).all()}
    zeros = {path for path, p in net.named_parameters() if path.endswith("bias") and (p == 0).all()}
    assert ones == {f"{path}.bias" for path in alexnet.BIAS_ONE}
    assert zeros == {"stem.conv.conv.bias", "stages.1.blocks.0.conv.bias", "head.fc.bias"}
    assert 0.005 < net.part("head.fc1").weight.std() < 0.02


@pytest.mark.parametrize("name", ["alexnet_2012", "alexnet", "zfnet"])
def test_every_parameter_of_a_narrow_net_gets_a_gradient(name):
    net = create(name, hidden=8, widths=(8, 8, 8, 8, 8), classes=3)
    net(torch.randn(2, 3, 96, 96)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_gradients_equal_torchvisions_in_training_mode():
    theirs = torchvision.models.alexnet(dropout=0.0)
    randomise(theirs)
    row = variant("alexnet")
    ours = create("alexnet", dropout=0.0)
    weights.fit(ours, weights.rename(theirs.state_dict(), row.rules["torchvision"]))
    x = torch.randn(2, 3, 64, 64)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    expected = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, row.rules["torchvision"])
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("name", "least"), [("alexnet_2012", 67), ("alexnet", 63), ("zfnet", 47)])
def test_a_picture_too_small_is_refused_and_the_least_one_is_not(name, least):
    with torch.device("meta"):
        net = create(name, size=least)
        with pytest.raises(ArgumentError, match=f"{least - 1} pixels; at least {least} are needed"):
            create(name, size=least - 1)
    assert meta_call(net, "forward", (1, 3, least, least)).shape == (1, 1000)
