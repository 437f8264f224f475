"""Networks of timm and torchvision in the dress of ours."""

from __future__ import annotations

import copy
import pickle

import pytest
import timm
import torch
import torchvision
from torch import nn

from convarium.errors import ArgumentError, UnknownName
from convarium.models import foreign, weights
from convarium.models.foreign import build_empty, create
from tests.reference import randomise

# name, and a size at which it runs in a moment
SOME = [
    ("timm:resnet10t", 64),
    ("timm:vit_tiny_patch16_224", 32),
    ("timm:convnext_atto", 64),
    ("timm:levit_128s", 224),
    ("torchvision:resnet18", 64),
    ("torchvision:squeezenet1_1", 64),
    ("torchvision:mobilenet_v3_small", 64),
    ("torchvision:densenet121", 64),
    ("torchvision:vit_b_32", 32),
    ("torchvision:googlenet", 64),
]


@pytest.mark.parametrize(("name", "size"), SOME)
def test_answers_where_a_net_is_asked(name, size):
    net = create(name, classes=7, in_channels=4, size=size).eval()
    assert (net.classes, net.in_channels, net.size) == (7, 4, size)
    with torch.no_grad():
        x = torch.randn(2, 4, size, size)
        scores, points = net(x), net.features(x)
    assert scores.shape == (2, 7)
    assert torch.equal(points["logits"], scores)
    told = net.end_points
    assert list(told) == list(points)
    assert list(points)[0] == "stage0" and list(points)[-2:] == ["pre_logits", "logits"]
    assert told["logits"].channels == 7
    for point, out in points.items():
        assert told[point].channels in out.shape[1:]
        if out.ndim == 4:
            assert told[point].stride in (1, 2, 4, 8, 16, 32, 64)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:mobilenet_v3_small"])
def test_without_classes_it_gives_features(name):
    net = create(name, classes=0, size=64).eval()
    x = torch.randn(2, 3, 64, 64)
    assert net(x).shape == (2, net.end_points["pre_logits"].channels)
    assert torch.equal(net.features(x)["pre_logits"], net(x))


def test_pre_logits_are_what_the_classifier_is_given():
    net = create("timm:resnet10t", classes=7, size=64).eval()
    points = net.features(torch.randn(2, 3, 64, 64))
    assert torch.equal(net.head(points["pre_logits"]), points["logits"])


def test_computes_what_the_library_does_by_the_librarys_names():
    theirs = randomise(timm.create_model("resnet10t", num_classes=5)).eval()
    ours = build_empty({"name": "timm:resnet10t", "arguments": {"classes": 5, "in_channels": 3, "size": 176}})
    assert all(p.is_meta for p in ours.parameters())
    weights.fit(ours, theirs.state_dict())
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs(x))


def test_can_be_built_again_from_its_architecture():
    net = create("timm:vit_tiny_patch16_224", classes=3, size=32, drop_path_rate=0.1)
    again = build_empty(net.architecture)
    assert again.architecture == net.architecture
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in net.state_dict().items()
    }


def test_tables_that_files_do_not_hold_are_there_after_building_empty():
    state = torch.random.get_rng_state()
    net = build_empty({"name": "timm:levit_128s", "arguments": {"classes": 3, "in_channels": 3, "size": 224}})
    assert not any(b.is_meta for b in net.buffers())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copies_compute_the_same_and_share_nothing(copied):
    net = create("timm:resnet10t", size=64).eval()
    other = copied(net)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(net(x), other(x))
    nn.init.zeros_(other.head.weight)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    assert other.head is not net.head


def test_states_inside_another_module_keep_the_librarys_names():
    task = nn.ModuleDict({"model": create("timm:resnet10t", size=64)})
    state = task.state_dict()
    assert "model.conv1.0.weight" in state
    task.load_state_dict(state)


def test_the_head_can_be_replaced():
    net = create("torchvision:mobilenet_v3_small", classes=7, size=64).eval()
    net.head = nn.Linear(1024, 2)
    assert net(torch.randn(1, 3, 64, 64)).shape == (1, 2)
    assert net.net.classifier[3] is net.head


def test_parts_have_the_librarys_paths():
    net = create("torchvision:resnet18")
    assert isinstance(net.part("layer1.0"), torchvision.models.resnet.BasicBlock)
    with pytest.raises(UnknownName, match="did you mean layer4.1"):
        net.part("layer4.9")


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_an_unknown_argument_is_refused_by_name(name):
    with pytest.raises(ArgumentError, match=f"{name} takes no argument 'width'; it takes classes"):
        create(name, width=2)


def test_wrong_names_suggest_near_ones():
    with pytest.raises(UnknownName, match="did you mean timm:resnet10t"):
        create("timm:resnet10")
    with pytest.raises(UnknownName, match="did you mean torchvision:resnet18"):
        create("torchvision:resnet17")


def test_a_size_that_cannot_work_is_refused():
    with pytest.raises(ArgumentError, match="size = 100"):
        create("torchvision:vit_b_32", size=100)
    with pytest.raises(ArgumentError, match="cannot work with pictures of 8 pixels"):
        create("torchvision:squeezenet1_1", size=8)


def test_a_row_says_what_the_library_tells():
    row = foreign.variant("torchvision:resnet18")
    assert (row.parameters, row.classes, row.size, row.top1) == (11_689_512, 1000, 224, 69.758)
    row = foreign.variant("timm:resnet10t")
    theirs = sum(p.numel() for p in timm.create_model("resnet10t").parameters())
    assert (row.parameters, row.size, row.top1) == (theirs, 176, None)


def test_only_these_prefixes_are_foreign():
    assert foreign.is_foreign("timm:resnet10t") and not foreign.is_foreign("resnet50")
    assert not foreign.is_foreign("openai:RN50")
    assert len(foreign.names("timm")) > 1000 and "torchvision:raft_large" not in foreign.names("torchvision")
