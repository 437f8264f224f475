"""Inception v3 against torchvision, v2 against the paper's figure 5, and both with gated modules."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError
from convarium.joins import Gate
from convarium.models import create, inception_v2, inception_v3, variant, weights
from tests.reference import build, pair, randomise

# v2, figure 5: where the row stands, output side and channels as printed; below, where they do not add up.
FIGURE_5 = {
    "convolution 7x7": ("stem.conv1", 112, 64),
    "max pool 1": ("stem.pool1", 56, 64),
    "convolution 3x3": ("stem.conv3", 56, 192),
    "max pool 2": ("stem.pool2", 28, 192),
    "3a": ("stages.0.blocks.0", 28, 256),
    "3b": ("stages.0.blocks.1", 28, 320),
    "3c": ("stages.1.downsample", 28, 576),
    "4a": ("stages.1.blocks.0", 14, 576),
    "4b": ("stages.1.blocks.1", 14, 576),
    "4c": ("stages.1.blocks.2", 14, 576),
    "4d": ("stages.1.blocks.3", 14, 576),
    "4e": ("stages.2.downsample", 14, 1024),
    "5a": ("stages.2.blocks.0", 7, 1024),
    "5b": ("stages.2.blocks.1", 7, 1024),
    "avg pool": ("head.pool", 1, 1024),
}
AFTER_THEIR_STRIDE = {"3c": (14, 576), "4e": (7, 1024)}
FROM_THEIR_FILTERS = {"4c": (14, 608), "4d": (14, 608), "4e": (7, 1056)}

# v3, table 1 and torchvision: side and channels of each module's output.
V3 = {
    "stem": (35, 192),
    "stages.0": (35, 288),
    "stages.1.downsample": (17, 768),
    "stages.1": (17, 768),
    "stages.2.downsample": (8, 1280),
    "stages.2": (8, 2048),
}


@cache
def on_meta(name: str, **arguments):
    """The network without memory, built once for all tests, which leave it as it was."""
    with torch.device("meta"):
        return create(name, **arguments)


@pytest.fixture(scope="module")
def v3():
    """Ours and torchvision's with the same weights, without dropout; built once, for it takes seconds."""
    ours, theirs = pair("inception_v3", dropout=0.0)
    theirs.dropout.p = 0.0
    return ours, theirs


def shapes(net: nn.Module, size: int) -> dict[str, tuple[int, int]]:
    """Side and channels of what each inner part gives, by its path, for parts that give planes."""
    seen = {}

    def note(path, out):
        if out.ndim == 4:
            seen[path] = (out.shape[2], out.shape[1])

    handles = [
        part.register_forward_hook(lambda _, __, out, path=path: note(path, out))
        for path, part in net.named_modules()
        if path
    ]
    net.eval()(torch.empty(1, 3, size, size, device="meta"))
    for handle in handles:
        handle.remove()
    return seen


def rows_of_v2(**arguments) -> dict[str, tuple[int, int]]:
    seen = shapes(on_meta("inception_v2", **arguments), 224)
    return {row: seen[path] for row, (path, _, _) in FIGURE_5.items()}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_figure_5_with_its_filters_contradicts_its_outputs_in_4c_4d_4e():
    printed = {row: (side, channels) for row, (_, side, channels) in FIGURE_5.items()}
    assert rows_of_v2() == {**printed, **AFTER_THEIR_STRIDE, **FROM_THEIR_FILTERS}


def test_figure_5_with_narrower_projections_has_its_outputs():
    printed = {row: (side, channels) for row, (_, side, channels) in FIGURE_5.items()}
    assert rows_of_v2(projection=96) == {**printed, **AFTER_THEIR_STRIDE}


@pytest.mark.parametrize("row", inception_v2.TABLE)
def test_figure_5_filters(row):
    n1, reduce, n3, reduce_double, n_double, pool, projection = inception_v2.TABLE[row]
    module = on_meta("inception_v2").part(FIGURE_5[row][0])
    widths = {name: m.out_channels for name, m in module.named_modules() if isinstance(m, nn.Conv2d)}
    table = {
        "branch1x1.conv": n1,
        "branch3x3.reduce.conv": reduce,
        "branch3x3.conv.conv": n3,
        "branch_double.reduce.conv": reduce_double,
        "branch_double.conv1.conv": n_double,
        "branch_double.conv2.conv": n_double,
        "branch_pool.project.conv": projection,
    }
    assert widths == {name: width for name, width in table.items() if width}
    kinds = {"avg": nn.AvgPool2d, "max": nn.MaxPool2d}
    assert isinstance(module.branch_pool.pool, kinds[pool])


def test_figure_5_has_fewer_parameters_than_the_paper_says():
    assert count(on_meta("inception_v2", separable=False)) == 11_285_224
    assert count(on_meta("inception_v2", projection=96)) < count(on_meta("inception_v2")) < 13.6e6


def test_the_first_convolution_is_separable_with_multiplier_8():
    first = on_meta("inception_v2").part("stem.conv1.conv")
    assert (first.depthwise.out_channels, first.depthwise.groups) == (24, 3)
    assert count(first) == 7 * 7 * 3 * 8 + 24 * 64


def test_cadenes_names_fit_the_dense_net_with_biases():
    net = on_meta("inception_v2", separable=False, bias=True)
    ours = {name for name, _ in net.named_parameters()}
    theirs = {"last_linear.weight", "last_linear.bias"}
    units = list(inception_v2._STEM) + [
        f"inception_{module}_{branch}"
        for module, row in inception_v2.TABLE.items()
        for branch in inception_v2._BRANCHES
        if row[0] or branch not in ("1x1", "pool_proj")
    ]
    theirs |= {f"{unit}{kind}.{t}" for unit in units for kind in ("", "_bn") for t in ("weight", "bias")}
    assert set(weights.rename(dict.fromkeys(theirs, torch.empty(0)), inception_v2.CADENE)) == ours


def test_v3_sizes():
    seen = shapes(on_meta("inception_v3"), 299)
    assert {path: seen[path] for path in V3} == V3


def test_v3_training_equals_torchvision_with_all_gradients(v3):
    ours, theirs = v3[0].train(), v3[1].train()
    x = torch.randn(2, 3, 299, 299)
    expected, expected_aux = theirs(x)
    got, aux = ours.auxiliary(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    torch.testing.assert_close(aux[0], expected_aux, rtol=1e-5, atol=1e-5 * expected_aux.abs().max().item())
    (got.square().mean() + aux[0].square().mean()).backward()
    (expected.square().mean() + expected_aux.square().mean()).backward()
    gradients = {n: p.grad for n, p in theirs.named_parameters()}
    gradients = weights.rename(gradients, inception_v3.torchvision(ours))
    assert set(gradients) == {n for n, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        scale = gradients[name].abs().max().item()
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4 * scale, msg=name)


def test_v3_without_its_auxiliary_classifier_equals_torchvision_on_small_pictures(v3, monkeypatch):
    theirs = v3[1].eval()
    monkeypatch.setattr(theirs, "transform_input", True)
    with torch.device("meta"):
        ours = create("inception_v3", aux=False, transform_input=True, size=75).eval()
    weights.fit(ours, weights.rename(theirs.state_dict(), inception_v3.torchvision(ours)))
    x = torch.randn(2, 3, 75, 75)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


def test_v3_fits_timms_names():
    with torch.device("meta"):
        theirs = build("timm:inception_v3")
    net = on_meta("inception_v3", aux=False)
    renamed = weights.rename(theirs.state_dict(), variant("inception_v3").rules["timm"](net))
    assert weights.differences(net, renamed) == []


@pytest.mark.parametrize("name", ["inception_v2", "inception_v3"])
def test_se_gates_each_modules_output(name):
    net = on_meta(f"se_{name}")
    modules = [*net.stages[0].blocks, net.stages[1].downsample, *net.stages[1].blocks]
    modules += [net.stages[2].downsample, *net.stages[2].blocks]
    assert len(modules) == len(inception_v2.TABLE if name == "inception_v2" else inception_v3.MODULES)
    for module in modules:
        channels = module.module.out_channels
        assert isinstance(module.se, Gate)
        assert module.se.gate.fc1.weight.shape == (channels // 16, channels, 1, 1)


def test_se_adds_what_its_two_layers_hold():
    plain, gated = on_meta("inception_v2", separable=False), on_meta("se_inception_v2")
    widths = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]
    assert count(gated) - count(plain) == sum(2 * c * (c // 16) + c // 16 + c for c in widths)


def test_max_pooled_squeeze_is_another_function():
    nets = [create("se_inception_v2", classes=3, size=64, squeeze=kind).eval() for kind in ("avg", "max")]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(nets[0](x), nets[1](x))
    with pytest.raises(ArgumentError, match="squeeze = 'sum'; it must be 'avg' or 'max'"):
        create("se_inception_v2", squeeze="sum")


@pytest.mark.parametrize("name", ["inception_v2", "se_inception_v2"])
def test_every_parameter_gets_a_gradient(name):
    net = create(name, classes=3, size=64)
    randomise(net)
    loss = nn.functional.cross_entropy(net(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("inception_v2", 299, "size = 299; .* take a multiple of 32"),
        ("inception_v2", 16, "size = 16; .* take a multiple of 32"),
        ("inception_v3", 74, "size = 74; inception_v3 needs pictures of at least 75 pixels"),
        ("inception_v3", 298, "size = 298; .* at least 299 pixels: build it with aux=False"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name, size, message):
    with pytest.raises(ArgumentError, match=message):
        create(name, size=size)


@pytest.mark.parametrize("size", [32, 96, 416])
def test_v2_takes_multiples_of_32(size):
    net = on_meta("inception_v2", size=size)
    assert net.eval()(torch.empty(1, 3, size, size, device="meta")).shape == (1, 1000)
