"""Features from inside: the right ones, and no more computed than they need."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import nn

from convarium import Extractor
from convarium.errors import ArgumentError, UnknownName
from convarium.models import create, front


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


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("resnet50", {"depths": (1, 1, 1, 1)}, 64),
        ("vgg11", {}, 32),
        ("densenet121", {"depths": (2, 2, 2, 2)}, 64),
        ("googlenet", {}, 64),
        ("squeezenet1_1", {}, 64),
        ("torchvision:densenet121", {}, 64),
    ],
)
def test_nothing_that_runs_after_a_part_changes_what_it_gave(name, arguments, size):
    net = front.create(name, classes=5, size=size, **arguments).eval()
    plain = copy.deepcopy(net)
    for part in plain.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    x, wanted = torch.randn(1, 3, size, size), {}

    def note(path):
        def hook(module, inputs, output):  # a hook that returned something would change the output
            if path and path not in wanted:
                wanted[path] = output.clone()

        return hook

    for path, part in plain.named_modules():
        part.register_forward_hook(note(path))
    with torch.inference_mode():
        plain(x)
        together = Extractor(net, *wanted)(x)
        assert [path for path in wanted if not torch.equal(together[path], wanted[path])] == []
        for path in list(wanted)[:: max(1, len(wanted) // 25)]:
            assert torch.equal(Extractor(net, path)(x)[path], wanted[path])


def test_of_a_part_that_runs_twice_the_first_answer_is_given():
    net = torchvision.models.resnet18(weights=None).eval()
    x = torch.randn(1, 3, 32, 32)
    alone = Extractor(net, "layer1.0.relu")(x)["layer1.0.relu"]
    assert torch.equal(Extractor(net, "layer1.0.relu", "layer2")(x)["layer1.0.relu"], alone)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "timm:resnet10t", "torchvision:densenet121"])
def test_end_points_are_those_of_features(name):
    net = front.create(name, classes=5, size=64).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        points = net.features(x)
        together = Extractor(net, *points)(x)
        for point, out in points.items():
            assert torch.equal(together[point], out)
            assert torch.equal(Extractor(net, point)(x)[point], out)


def test_pre_logits_are_had_without_the_classifier_being_run():
    net = create("resnet20").eval()
    ran = []
    net.head.fc.register_forward_hook(lambda *_: ran.append("fc"))
    assert Extractor(net, "pre_logits")(torch.randn(1, 3, 32, 32))["pre_logits"].shape == (1, 64)
    assert ran == []
    net = create("resnet20", classes=0).eval()
    assert Extractor(net, "pre_logits")(torch.randn(1, 3, 32, 32))["pre_logits"].shape == (1, 64)


def test_wrapped_networks_take_the_librarys_paths_and_their_own():
    net = front.create("timm:resnet10t", classes=5, size=64).eval()
    x = torch.randn(1, 3, 64, 64)
    found = Extractor(net, "layer1.0", "net.layer1.0")(x)
    assert torch.equal(found["layer1.0"], found["net.layer1.0"])
    with pytest.raises(UnknownName, match="stage5"):
        Extractor(net, "stage5")


def test_outputs_that_are_no_tensor_are_kept_too():
    net = nn.Sequential(nn.LSTM(4, 3), nn.Identity())
    (out, (h, c)) = Extractor(net, "0", "1")(torch.randn(2, 1, 4))["0"]
    assert out.shape == (2, 1, 3) and h.shape == c.shape == (1, 1, 3)


def test_parts_are_named_and_frozen_by_end_point():
    net = create("resnet20")
    assert net.part("stage1") is net.stages[1]
    net.freeze("stage0", "stem")
    assert not net.stages[0].training and not any(p.requires_grad for p in net.stem.parameters())
    for wrong in ("pre_logits", "logits", "stage7"):
        with pytest.raises(UnknownName, match=wrong):
            net.freeze(wrong)
