"""Networks rewritten for inference agree with the plain ones; features are computed once and kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from convarium.data.preprocessing import Preprocessing
from convarium.deploy import fused, halves, job, kept
from convarium.models import create
from tests.tiny import TINY, tiny


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / a.norm())


def pictures(net, count=2):
    return torch.randn(count, net.in_channels, net.size, net.size)


@pytest.mark.parametrize("family", [family for family in TINY if family != "clip"])
def test_every_family_folded_and_fused_gives_the_same(family):
    net = tiny(family).eval()
    x = pictures(net)
    graph = fused.traced(net)
    if graph is None:
        pytest.skip("its forward cannot be traced, so it runs as it is")
    with torch.inference_mode():
        expected = net(x)
        folded = fused.folded(graph)
        assert difference(expected, folded(x)) < 1e-5
        assert difference(expected, fused.with_onednn(folded)(x)) < 1e-5


def test_norms_behind_convolutions_are_gone_and_sums_are_computed_with_them():
    net = create("resnet18", size=32, classes=3).eval()
    graph = fused.with_onednn(fused.folded(fused.traced(net)))
    kinds = {type(module) for module in graph.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.ReLU, nn.Conv2d}
    assert "+" not in graph.code


def chosen(net, count=10**6, **options):
    """The way in which rows of a trunk are computed, tried on four pictures; and these."""
    some = torch.randint(0, 256, (4, net.in_channels, net.size, net.size), dtype=torch.uint8).numpy()
    look = Preprocessing(net.size, "L" if net.in_channels == 1 else "RGB")
    trunk = halves.trunk(net).eval()
    found = halves.chosen(trunk, look, torch.device("cpu"), some, count, **options)
    with torch.inference_mode():
        return found, some, trunk(look.normalise(torch.from_numpy(some))).flatten(1)


def test_rows_of_a_trunk_by_the_way_that_was_chosen():
    net = create("resnet18", size=32, classes=3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found, some, expected = chosen(net, exact=True)
    assert found.name.endswith("fp32")
    assert difference(expected, torch.from_numpy(found.ready(some)[0])) < 1e-5
    assert halves.difference(found) < 1e-5
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_would_not_pay_runs_as_it_is():
    assert chosen(create("lenet5"), count=9)[0].name == "plain"


def test_the_way_that_was_taken_before_is_taken_again_where_it_can_be():
    net = create("resnet18", size=32, classes=3)
    assert chosen(net, name="folded-fp32")[0].name == "folded-fp32"
    assert chosen(net, name="float32, of an earlier version", exact=True)[0].name.endswith("fp32")


def test_rows_in_16_bits_that_are_too_far_off_are_computed_in_float32(monkeypatch):
    net = create("lenet5")
    modes, choose = [], job.choose

    def spied(subject, pictures, count, mode):
        modes.append(mode)
        return choose(subject, pictures, count, mode)

    monkeypatch.setattr(halves, "choose", spied)
    monkeypatch.setattr(halves, "difference", lambda found: 0.5)
    chosen(net)
    assert modes == ["auto", "exact"]


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "vgg11", "mobilenetv2_035", "timm:resnet10t"])
def test_trunk_and_tail_are_the_network_in_two(name):
    net = create(name, classes=5).eval()
    x = pictures(net)
    with torch.inference_mode():
        assert torch.equal(net(x), halves.tail(net)(halves.trunk(net)(x)))


def rows(*names):
    return {name: np.full(3, len(name), np.float32) for name in names}


def test_kept_rows_are_found_again(tmp_path):
    store = kept.Kept(tmp_path / "features")
    assert store.find(["a"]) == {}
    assert store.add(rows("a", "bb")) == "" and store.add(rows("ccc")) == ""
    found = store.find(["a", "ccc", "none"])
    assert found.keys() == {"a", "ccc"} and found["ccc"].tolist() == [3, 3, 3]


def test_a_damaged_file_is_as_if_it_were_absent(tmp_path):
    store = kept.Kept(tmp_path)
    store.add(rows("a"))
    store.add(rows("bb"))
    first = sorted(tmp_path.iterdir())[0]
    first.write_bytes(first.read_bytes()[:40])
    assert len(store.find(["a", "bb"])) == 1


def test_a_file_whose_numbers_changed_is_as_if_it_were_absent(tmp_path):
    store = kept.Kept(tmp_path)
    store.add(rows("a"))
    file = next(tmp_path.iterdir())
    content = bytearray(file.read_bytes())
    content[-3] ^= 0x80
    file.write_bytes(content)
    assert store.find(["a"]) == {}


def test_where_nothing_can_be_kept_it_is_said(tmp_path):
    (tmp_path / "file").touch()
    assert "file stands where a folder is needed" in kept.Kept(tmp_path / "file" / "x").add(rows("a"))


def test_other_weights_have_another_identity():
    net = create("lenet5")
    before = kept.identity(net, {"size": 28})
    assert before == kept.identity(net, {"size": 28}) != kept.identity(net, {"size": 32})
    with torch.no_grad():
        next(net.parameters())[0] += 1e-3
    assert kept.identity(net, {"size": 28}) != before
