"""Files of weights into networks of other classes, of other channels, and without a classifier."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import create, front, names, registry, variant
from convarium.models.adapt import classifiers, dealt_out
from convarium.models.published import find
from convarium.net import meta_call
from tests.reference import build, randomise

# The smallest of each kind of head: linear, of several linears, a convolution before the pool, radial basis.
KINDS = ["resnet20", "lenet5", "nin", "lenet5_1998"]


@pytest.fixture
def saved(tmp_path):
    """A function that makes a network of random weights and its file."""

    def make(name: str, **arguments):
        net = randomise(create(name, **arguments)).eval()
        file = tmp_path / f"{name}.pth"
        torch.save(net.state_dict(), file)
        return net, file

    return make


@pytest.mark.parametrize("family", sorted({variant(n).family for n in names()} - {"clip"}))
def test_without_classes_a_network_of_every_family_ends_in_its_features(family):
    row = min((variant(n) for n in names() if variant(n).family == family), key=lambda r: r.parameters)
    with torch.device("meta"):
        whole, net = create(row.name), create(row.name, classes=0)
    assert (net.classes, net.head.classifier) == (0, "")
    cut = {path.split(".")[0] if path.startswith("aux") else path for path in classifiers(whole)}
    kept = {n for n in whole.state_dict() if not any(n.startswith(f"{path}.") for path in cut)}
    assert set(net.state_dict()) == kept
    out = meta_call(net, "forward", (2, net.in_channels, net.size, net.size))
    assert out.shape == (2, out.shape[1])
    assert list(net.end_points)[-2:] == ["pre_logits", "logits"]


@pytest.mark.parametrize("name", ["resnet20", "lenet5", "lenet5_1998"])
def test_features_are_what_the_classifier_of_the_whole_network_saw(name, saved):
    whole, file = saved(name)
    net = create(name, classes=0, weights=file).eval()
    x = torch.randn(2, whole.in_channels, whole.size, whole.size)
    with torch.no_grad():
        assert torch.equal(net(x), whole.features(x)["pre_logits"])


def test_auxiliary_classifiers_go_with_the_classifier(saved):
    whole, file = saved("googlenet", classes=3)
    net = create("googlenet", classes=0, weights=file).eval()
    assert net.taps == () and len(net.aux) == 0
    assert net.auxiliary(torch.zeros(1, 3, 64, 64))[1] == []


def test_a_publishers_file_and_a_file_without_classifier_load_without_classes(tmp_path):
    theirs = randomise(build("torchvision:resnet18"))
    torch.save(theirs.state_dict(), tmp_path / "whole.pth")
    torch.save({n: t for n, t in theirs.state_dict().items() if "fc." not in n}, tmp_path / "backbone.pth")
    whole, backbone = (
        create("resnet18", classes=0, weights=tmp_path / f) for f in ("whole.pth", "backbone.pth")
    )
    assert all(torch.equal(t, backbone.state_dict()[n]) for n, t in whole.state_dict().items())


def test_a_real_backbone_loads_without_classes(shared):
    file = shared / "weights/mobilenetv2_035_backbone_imagenet.safetensors"
    net = create("mobilenetv2_035", padding="same", classes=0, weights=file).eval()
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)


def test_a_network_without_classes_is_built_anew_from_its_architecture():
    net = create("resnet20", classes=0)
    again = registry.build_empty(net.architecture)
    assert set(again.state_dict()) == set(net.state_dict())
    assert again.classes == 0


def test_two_towers_cannot_lose_their_common_space():
    with pytest.raises(ArgumentError, match="classes = 0 is not for a Clip"), torch.device("meta"):
        create("clip_vit_b_32", classes=0)


@pytest.mark.parametrize("name", KINDS)
def test_another_number_of_classes_gets_a_fresh_classifier_and_the_files_rest(name, saved):
    whole, file = saved(name)
    torch.manual_seed(7)
    net = create(name, classes=7, weights=file)
    (classifier,) = classifiers(net)
    for key, value in whole.state_dict().items():
        if not key.startswith(f"{classifier}."):
            assert torch.equal(net.state_dict()[key], value)
    fresh = create(name, classes=7).get_submodule(classifier).state_dict()
    for key, value in net.get_submodule(classifier).state_dict().items():
        assert value.shape == fresh[key].shape and value.isfinite().all()
    assert net(torch.zeros(1, net.in_channels, net.size, net.size)).shape == (1, 7)


def test_the_fresh_classifier_is_drawn_by_the_row(saved):
    _, file = saved("nin")
    weight = create("nin", classes=40, weights=file).head.fc.weight  # normal, deviation 0.05
    assert weight.std().item() == pytest.approx(0.05, rel=0.05)


def test_fresh_auxiliary_classifiers_keep_what_stands_before_their_last_layer(saved):
    whole, file = saved("googlenet", classes=3)
    net = create("googlenet", classes=4, weights=file)
    assert torch.equal(net.aux[1].fc1.weight, whole.aux[1].fc1.weight)
    assert net.aux[1].fc.weight.shape == (4, 1024)


def test_a_file_of_as_many_classes_as_asked_for_is_loaded_whole(saved):
    whole, file = saved("resnet20", classes=7)
    net = create("resnet20", classes=7, weights=file)
    assert torch.equal(net.head.fc.weight, whole.head.fc.weight)


@pytest.mark.parametrize("name", [*KINDS, "googlenet"])
def test_without_a_number_asked_for_a_network_gets_the_files_classes(name, saved, caplog):
    whole, file = saved(name, classes=3)
    net = create(name, weights=file)
    assert net.classes == net.architecture["arguments"]["classes"] == 3
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in net.state_dict().items())
    assert registry.build_empty(net.architecture).state_dict().keys() == net.state_dict().keys()
    assert caplog.messages == [
        f"{name} from {file.name}: 3 classes as in the file, not {variant(name).classes}"
    ]


def test_a_larger_sets_file_gets_a_fresh_classifier_for_the_rows_own_number(saved, caplog):
    _, file = saved("resnet20", classes=17)
    assert create("resnet20", classes=10, weights=file).head.fc.weight.shape == (10, 64)
    assert caplog.messages == [
        "resnet20 from resnet20.pth: head.fc drawn fresh, to be trained (the file scores 17 classes)"
    ]


def test_a_file_without_classifier_gets_one_where_classes_are_asked_for(tmp_path, caplog):
    theirs = randomise(build("torchvision:resnet18")).state_dict()
    torch.save({n: t for n, t in theirs.items() if "fc." not in n}, tmp_path / "backbone.pth")
    assert create("resnet18", classes=1000, weights=tmp_path / "backbone.pth").head.fc.weight.shape == (
        1000,
        512,
    )
    assert caplog.messages[-1].endswith("head.fc drawn fresh, to be trained (the file has none)")
    with pytest.raises(WeightsMismatch, match="missing    head.fc.weight"):
        create("resnet18", weights=tmp_path / "backbone.pth")


@pytest.mark.parametrize(("classes", "scores"), [(None, 21_841), (5, 5), (1000, 1000)])
def test_published_weights_of_a_larger_set(classes, scores, tmp_path, monkeypatch):
    theirs = randomise(build("timm:convnext_atto", num_classes=21_841))
    torch.save(theirs.state_dict(), tmp_path / "in22k.pth")
    record = replace(find("convnext_tiny", "timm:convnext_tiny.fb_in22k"), model="convnext_atto")
    monkeypatch.setattr(front.published, "find", lambda name, reference: record)
    monkeypatch.setattr(front.download, "fetch", lambda known: tmp_path / "in22k.pth")
    net = create("convnext_atto", weights="timm:convnext_tiny.fb_in22k", classes=classes)
    assert net.classes == scores and net.head.fc.weight.shape[0] == scores
    assert torch.equal(net.head.fc.weight, theirs.state_dict()["head.fc.weight"]) == (classes is None)


@pytest.mark.parametrize("arguments", [{}, {"in_channels": 3}, {"classes": 7, "in_channels": 3}])
def test_channels_are_adapted_only_where_others_were_asked_for(arguments, saved):
    _, file = saved("resnet20", classes=7, in_channels=4)
    with pytest.raises(WeightsMismatch, match="stem.conv.weight: file"):
        create("resnet20", weights=file, **arguments)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:resnet18"])
def test_networks_of_other_libraries_are_adapted_through_the_same_front(name, tmp_path):
    theirs = randomise(build(name)).state_dict()
    torch.save(theirs, tmp_path / "whole.pth")
    net = create(name, classes=5, in_channels=1, weights=tmp_path / "whole.pth")
    assert (net.classes, net.in_channels) == (5, 1)
    assert torch.equal(net.state_dict()["layer1.0.conv1.weight"], theirs["layer1.0.conv1.weight"])


def test_another_number_of_classes_excuses_no_other_tensor(saved):
    _, file = saved("resnet20")
    state = torch.load(file)
    state["stages.0.blocks.0.body.conv1.weight"] = torch.zeros(8, 16, 3, 3)
    torch.save(state, file)
    with pytest.raises(WeightsMismatch, match="1 tensors do not fit:\n! shape +stages.0.blocks.0.body.conv1"):
        create("resnet20", classes=7, weights=file)


@pytest.mark.parametrize("channels", [1, 2, 4, 6, 8])
def test_a_grey_picture_repeated_gives_the_same_first_activations(channels, saved):
    whole, file = saved("resnet20")
    net = create("resnet20", in_channels=channels, weights=file).eval()
    grey = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            net.stem(grey.expand(2, channels, 32, 32)), whole.stem(grey.expand(2, 3, 32, 32))
        )


def test_channels_of_a_grey_file_share_its_weights(saved):
    whole, file = saved("lenet5")
    net = create("lenet5", in_channels=3, weights=file)
    third = whole.stages[0].blocks[0].conv.weight / 3
    assert torch.equal(net.stages[0].blocks[0].conv.weight, third.expand(6, 3, 5, 5))


def test_channels_are_dealt_out_in_turn():
    weight = torch.tensor([3.0, 6.0, 12.0]).view(1, 3, 1, 1)
    assert dealt_out(weight, 4).flatten().tolist() == [1.5, 6, 12, 1.5]
    assert dealt_out(weight, 2).flatten().tolist() == [15, 6]
    assert dealt_out(weight, 1).flatten().tolist() == [21]


def test_classes_channels_and_features_go_together(tmp_path):
    theirs = randomise(build("torchvision:mobilenet_v3_small"))
    torch.save(theirs.state_dict(), tmp_path / "tv.pth")
    net = create("mobilenet_v3_small", classes=5, in_channels=4, weights=tmp_path / "tv.pth")
    assert net(torch.zeros(2, 4, 64, 64)).shape == (2, 5)
    assert isinstance(net.head.fc, nn.Linear)
    features = create("mobilenet_v3_small", classes=0, in_channels=1, weights=tmp_path / "tv.pth").eval()
    assert features(torch.zeros(2, 1, 64, 64)).shape == (2, 1024)
