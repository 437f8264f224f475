"""SqueezeNet: the paper's table 1, gradients as torchvision's, real weights on real pictures."""

from __future__ import annotations

import csv
import tarfile

import pytest
import torch
from PIL import Image
from torchvision.models import SqueezeNet1_1_Weights

import convarium.models.squeezenet as squeezenet
from convarium.errors import ArgumentError
from convarium.models import create, variant, weights
from convarium.net import meta_call
from tests.reference import pair


def test_squeezenet1_0_has_the_channels_and_sides_of_table_1():
    with torch.device("meta"):
        net = create("squeezenet1_0")
    fires = [part for part in net.modules() if isinstance(part, squeezenet.Fire)]
    assert [fire.squeeze.out_channels for fire in fires] == [16, 16, 32, 32, 48, 48, 64, 64]
    expand = [[branch.conv.out_channels for branch in fire.expand.children()] for fire in fires]
    assert expand == [
        [64, 64],
        [64, 64],
        [128, 128],
        [128, 128],
        [192, 192],
        [192, 192],
        [256, 256],
        [256, 256],
    ]
    # The paper pads its input so that its planes are 55, 27, 13; without, 224 pixels give one less.
    points = meta_call(net, "trunk", (1, 3, 227, 227))
    assert [out.shape[-1] for out in points.values()] == [55, 55, 27, 13]


@pytest.mark.parametrize("name", ["squeezenet1_0", "squeezenet1_1"])
def test_gradients_equal_torchvisions_in_training_mode(name):
    ours, theirs = pair(name, dropout=0.0)
    theirs.classifier[0].p = 0.0
    x = torch.randn(2, 3, 64, 64)
    ours(x).square().sum().backward()
    theirs(x).square().sum().backward()
    rules = squeezenet.torchvision_rules(ours)
    expected = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, rules)
    for path, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[path], rtol=1e-5, atol=1e-6)


def test_swapped_branches_load_and_give_another_output():
    # Both halves of an expansion give the same number of maps: only the output shows which comes first.
    ours, theirs = pair("squeezenet1_1")
    ours.eval(), theirs.eval()
    x = torch.randn(1, 3, 64, 64)
    fire = ours.part("stages.0.blocks.0.expand")
    fire._modules = dict(reversed(fire._modules.items()))
    with torch.no_grad():
        assert not torch.allclose(ours(x), theirs(x), rtol=1e-3)


def test_trained_weights_name_real_photographs(shared, tmp_path):
    file = shared / "weights" / "squeezenet1_1_imagenet.safetensors"
    pictures = shared / "imagenet300" / "imagenet300.tar"
    if not (file.is_file() and pictures.is_file()):
        pytest.skip(f"no {file.name} or {pictures.name} in {shared}")
    net = create("squeezenet1_1")
    assert weights.load(net, file, variant("squeezenet1_1").rules) == "torchvision"
    net.eval()
    with (shared / "imagenet300" / "labels.csv").open(encoding="utf-8") as table:
        labels = {row["filename"]: int(row["class_index"]) for row in csv.DictReader(table)}
    chosen = sorted(labels)[::6]
    prepare = SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms(antialias=True)
    right = 0
    with tarfile.open(pictures) as tar, torch.no_grad():
        members = {member.name.removeprefix("imagenet300/"): member for member in tar.getmembers()}
        for name in chosen:
            with Image.open(tar.extractfile(members[name])) as picture:
                scores = net(prepare(picture.convert("RGB"))[None])
            right += int(scores.argmax()) == labels[name]
    # 53.7 % of all 300 are right with these weights; chance would name none of these 50.
    assert 18 <= right <= 36


def test_depths_must_place_all_fire_modules():
    with pytest.raises(ArgumentError, match="must add up to 8 fire modules"):
        create("squeezenet1_0", depths=(3, 4))


@pytest.mark.parametrize(("name", "least"), [("squeezenet1_0", 21), ("squeezenet1_1", 17)])
def test_a_picture_too_small_is_refused_and_the_least_one_is_not(name, least):
    with torch.device("meta"):
        net = create(name, size=least)
        with pytest.raises(ArgumentError, match=f"at least {least} are needed"):
            create(name, size=least - 1)
    assert meta_call(net, "forward", (1, 3, least, least)).shape == (1, 1000)
