"""Networks rewritten for inference agree with the plain ones; features are computed once and kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from convarium.deploy import engine, fused, kept
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


def test_the_network_itself_is_left_as_it_was():
    net = create("resnet18", size=32, classes=3)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    engine.fastest(net, pictures(net, 4), count=10**9)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_what_would_not_pay_runs_as_it_is():
    net = create("lenet5").eval()
    assert engine.fastest(net, pictures(net), count=1).name == "float32"


def test_a_way_that_disagrees_is_refused(monkeypatch):
    net = create("lenet5").eval()
    wrong = ("float32, wrong", lambda: lambda x: net(x) * 1.001)
    monkeypatch.setattr(engine, "_ways", lambda *a: [wrong])
    assert engine.fastest(net, pictures(net), count=10**9).name == "float32"


def test_a_way_that_fails_is_passed_over(monkeypatch):
    def fail():
        raise RuntimeError("no such operator")

    net = create("lenet5").eval()
    monkeypatch.setattr(engine, "_ways", lambda *a: [("float32, failing", fail)])
    assert engine.fastest(net, pictures(net), count=10**9).name == "float32"


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1", "vgg11", "mobilenetv2_035", "timm:resnet10t"])
def test_trunk_and_tail_are_the_network_in_two(name):
    net = create(name, classes=5).eval()
    x = pictures(net)
    with torch.inference_mode():
        assert torch.equal(net(x), engine.tail(net)(engine.trunk(net)(x)))


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
