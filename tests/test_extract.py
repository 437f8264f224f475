"""Features from inside: the right ones, and no more computed than they need."""

from __future__ import annotations

import pytest
import torch
import torchvision

from convarium import Extractor
from convarium.errors import ArgumentError, UnknownName
from convarium.models import create


def test_outputs_are_those_of_the_parts():
    net = create("resnet20").eval()
    x = torch.randn(2, 3, 32, 32)
    found = Extractor(net, "stage2", "stages.1.blocks.0", "stem")(x)
    points = net.features(x)
    assert list(found) == ["stage2", "stages.1.blocks.0", "stem"]
    assert torch.equal(found["stage2"], points["stage2"]) and torch.equal(found["stem"], points["stem"])


def test_nothing_after_the_last_part_is_computed():
    net = create("resnet20").eval()
    ran = []
    net.stages[1].register_forward_hook(lambda *_: ran.append("stage1"))
    net.head.register_forward_hook(lambda *_: ran.append("head"))
    Extractor(net, "stage0")(torch.randn(1, 3, 32, 32))
    assert ran == []
    Extractor(net, "stage0", "stage1")(torch.randn(1, 3, 32, 32))
    assert ran == ["stage1"]


def test_no_hook_is_left_behind_even_after_an_error():
    net = create("resnet20").eval()
    with pytest.raises(RuntimeError):
        Extractor(net, "stage2")(torch.randn(1, 4, 32, 32))
    assert not [m for m in net.modules() if m._forward_hooks]


def test_any_module_will_do():
    net = torchvision.models.squeezenet1_1(weights=None).eval()
    assert Extractor(net, "features.4")(torch.randn(1, 3, 64, 64))["features.4"].shape == (1, 128, 15, 15)


def test_gradients_flow_back():
    net = create("resnet20").eval()
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    Extractor(net, "stage1")(x)["stage1"].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_a_wrong_path_and_a_part_that_does_not_run_are_told():
    with pytest.raises(UnknownName, match="stages.1"):
        Extractor(create("resnet20"), "stages.11")
    with pytest.raises(ArgumentError, match="no path"):
        Extractor(create("resnet20"))
    net = create("googlenet").eval()
    with pytest.raises(ArgumentError, match="aux.0 did not run"):
        Extractor(net, "aux.0")(torch.randn(1, 3, 224, 224))
