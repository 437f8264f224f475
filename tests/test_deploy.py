"""Networks rewritten for inference agree with the plain ones; features are computed once and kept."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from convarium.data.preprocessing import Preprocessing
from convarium.deploy import fused, halves, kept, ways
from convarium.deploy.agreement import compare
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


def chosen(net, count=10**4, bands=False, **options):
    """The way in which rows of a trunk are computed, tried on four pictures; and these, and what the trunk gives."""
    some = torch.randint(0, 256, (4, net.in_channels, net.size, net.size))
    some = some.to(torch.float32 if bands else torch.uint8)
    mode = "F" if bands else "L" if net.in_channels == 1 else "RGB"
    look = Preprocessing(net.size, mode, bands=net.in_channels if bands else None)
    trunk = halves.trunk(net).eval()
    found = halves.chosen(trunk, look, torch.device("cpu"), some.numpy(), count, 4, **options)
    with torch.inference_mode():
        return found, some.numpy(), trunk(look.normalise(some)).flatten(1)


NETS = {
    "grey": lambda: create("lenet5"),
    "a map": lambda: create("squeezenet1_1", size=64, classes=3),
    "tokens": lambda: tiny("vit"),
    "bands": lambda: create("resnet20", in_channels=5, classes=3),
}


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("name", ["plain", "folded-fp32", "openvino-fp32", "onnxruntime-fp32"])
def test_rows_of_a_trunk_are_the_same_in_every_way(kind, name):
    net = NETS[kind]()
    way = next(way for way in ways.ways(SimpleNamespace(device=torch.device("cpu"))) if way.name == name)
    if missing := way.missing():
        pytest.skip(missing)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    found, some, expected = chosen(net, name=name, bands=kind == "bands")
    assert found.name == name and not found.notes
    for count in (4, 3):  # three fill a batch of four
        rows = torch.from_numpy(found.ready(some[:count])[0])
        assert rows.shape == expected[:count].shape and difference(expected[:count], rows) < 1e-5
    assert halves.difference(found) < 1e-5 and net.training
    assert all(torch.equal(before[key], tensor) for key, tensor in net.state_dict().items())


def test_what_would_not_pay_runs_as_it_is():
    assert chosen(create("lenet5"), count=8)[0].name == "plain"


def test_a_way_that_is_gone_is_told_and_another_taken():
    found, _, _ = chosen(create("lenet5"), name="float32, of an earlier version", count=8)
    assert found.name == "plain"
    assert "began with float32, of an earlier version, which cannot be taken" in found.notes[0]


def test_whoever_is_told_of_a_trial_may_stop_it():
    def stop(name):
        raise KeyboardInterrupt(name)

    with pytest.raises(KeyboardInterrupt, match="folded-fp32"):
        chosen(create("resnet20"), name="folded-fp32", on_trial=stop)


@pytest.mark.parametrize(
    ("numbers", "factor", "refused"),
    [
        ("float32", 1 + 5e-6, ""),
        ("float32", 1 + 5e-5, "features differ by 5.0e-05, allowed is 1e-05"),
        ("bfloat16", 1.09, ""),
        ("bfloat16", 1.11, "features differ by 1.1e-01, allowed is 1e-01"),
        ("bfloat16", float("nan"), "features differ by inf"),
        ("float16", 1.0, "features above 65,504 would be lost"),
    ],
)
def test_kept_features_are_judged_by_themselves(numbers, factor, refused):
    rows = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    found = compare((rows, rows), (rows * np.float32(factor), rows), numbers, None)
    assert found.refused.removeprefix("refused: ").startswith(refused) and bool(found.refused) == bool(
        refused
    )


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
