"""Every family is exported, compiled, copied, pickled, cast and laid out anew, and stays the same function."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

from convarium.models import names, variant
from tests.tiny import TINY, tiny


@pytest.fixture(scope="module", params=TINY)
def case(request):
    """A small network of each family in turn, two pictures and its scores; the tests leave it as it was."""
    net = tiny(request.param).eval()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, net.in_channels, net.size, net.size, generator=generator)
    with torch.no_grad():
        return net, x, net(x)


def assert_same(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal to a share of the largest score, and not all the same for both pictures."""
    scale = expected.abs().max().item()
    assert scale > 0
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance * scale)


def test_every_family_has_its_small_network():
    assert set(TINY) == {variant(name).family for name in names()}
    assert all(variant(name).family == family for family, (name, _, _) in TINY.items())


def test_the_pictures_matter(case):
    _, _, expected = case
    assert (expected[0] - expected[1]).abs().max() > 1e-3 * expected.abs().max()


def test_export(case):
    net, x, expected = case
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(net, (x,), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        assert_same(program.module()(x), expected)
        assert program.module()(torch.cat([x, x[:1]])).shape == (3, *expected.shape[1:])


def test_compile_in_one_graph(case):
    net, x, expected = case
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same(torch.compile(net, backend="eager", fullgraph=True, dynamic=False)(x), expected)


def test_deepcopy_shares_nothing(case):
    net, x, expected = case
    other = copy.deepcopy(net)
    with torch.no_grad():
        assert torch.equal(other(x), expected)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(net(x), expected)


def test_pickle(case):
    net, x, expected = case
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    other = torch.load(file, weights_only=False)
    assert other.architecture == net.architecture
    with torch.no_grad():
        assert torch.equal(other(x), expected)


def test_state_dict(case):
    net, x, expected = case
    other = copy.deepcopy(net)
    nn.init.zeros_(next(other.parameters()))
    other.load_state_dict(net.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(other(x), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits(case, dtype):
    net, x, expected = case
    with torch.no_grad():
        got = copy.deepcopy(net).to(dtype)(x.to(dtype))
    assert got.dtype == dtype
    assert_same(got.float(), expected, 0.15 if dtype == torch.bfloat16 else 0.03)


def test_channels_last(case):
    net, x, expected = case
    with torch.no_grad():
        got = copy.deepcopy(net).to(memory_format=torch.channels_last)(
            x.to(memory_format=torch.channels_last)
        )
    assert_same(got, expected, 1e-4)
