"""MobileNets: what the rows cannot say; equality in training, rounding, padding, and real weights."""

from __future__ import annotations

import csv
import tarfile

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.v2 import functional as pictures

from convarium.errors import ArgumentError, WeightsMismatch
from convarium.models import (
    create,
    variant,
    weights,
)
from convarium.models.mobile_parts import SameConv2d, bodies
from convarium.models.parts import DropPath, divisible
from convarium.net import meta_call
from tests.reference import pair, randomise


def fitted(name, theirs, publisher, **arguments):
    """Our network with the weights of theirs."""
    ours = create(name, **arguments)
    rules = variant(name).rules[publisher]
    weights.fit(ours, weights.rename(theirs.state_dict(), rules(ours) if callable(rules) else rules))
    return ours


def timm_v1(**arguments):
    from timm.models.efficientnet import _gen_mobilenet_v1

    return _gen_mobilenet_v1("mobilenetv1_100", **arguments)


def assert_same_training(ours, theirs, size=64):
    """Outputs, gradients and running statistics of one step agree, each to 1e-4 of its largest value."""
    x = torch.randn(4, 3, size, size)
    for net in (ours, theirs):
        for part in net.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        net.train()(x).square().mean().backward()
    named = {n: p.grad for n, p in ours.named_parameters()}
    expected = list(theirs.parameters())
    assert len(named) == len(expected)
    # The sums of all gradients by shape: the order of parameters differs, the values must not.
    total = sum(g.square().sum() for g in named.values())
    torch.testing.assert_close(total, sum(p.grad.square().sum() for p in expected), rtol=1e-4, atol=0)
    head = named["head.fc.weight"]
    torch.testing.assert_close(head, expected[-2].grad, rtol=1e-4, atol=1e-4 * head.abs().max().item())
    stem = named["stem.conv.weight"]
    torch.testing.assert_close(stem, expected[0].grad, rtol=1e-3, atol=1e-3 * stem.abs().max().item())
    torch.testing.assert_close(dict(ours.named_buffers())["stem.norm.running_var"], list(theirs.buffers())[1])


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenetv2_035", "mobilenet_v2", "mobilenet_v3_small"])
def test_gradients_and_statistics_of_training_are_the_references(name):
    ours, theirs = pair(name)
    assert_same_training(ours, theirs)


@pytest.mark.parametrize("width", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("padding", ["torch", "same"])
def test_v1_of_any_width_and_padding_equals_timms(width, padding):
    theirs = timm_v1(channel_multiplier=width, pad_type="same" if padding == "same" else "").eval()
    randomise(theirs)
    ours = fitted(f"mobilenet_v1_{100 * width:03.0f}", theirs, "timm", padding=padding).eval()
    x = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_v2_with_same_padding_equals_timms():
    import timm

    theirs = timm.create_model("mobilenetv2_035", pad_type="same").eval()
    randomise(theirs)
    ours = fitted("mobilenetv2_035", theirs, "timm", padding="same").eval()
    x = torch.randn(2, 3, 64, 49)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize(("name", "width"), [("mobilenet_v2", 1.4), ("mobilenet_v3_small", 0.75)])
def test_other_widths_equal_torchvisions(name, width):
    import torchvision

    theirs = torchvision.models.get_model(name, weights=None, width_mult=width).eval()
    randomise(theirs)
    ours = fitted(name, theirs, "torchvision", width=width).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [
        (8.4, 8),
        (11.2, 16),
        (5.6, 8),
        (12, 16),
        (33.6, 32),
        (18, 24),
        (22.4, 24),
        (44.8, 48),
        (1, 8),
        (88, 88),
    ],
)
def test_channels_are_rounded_to_eights_and_lose_at_most_a_tenth(channels, rounded):
    assert divisible(channels) == rounded


def test_v2_of_width_035_has_the_published_channels():
    with torch.device("meta"):
        net = create("mobilenetv2_035")
    assert [p.channels for p in net.end_points.values()] == [16, 8, 8, 16, 24, 32, 56, 112, 1280, 1000]


def test_squeezed_channels_of_v3_come_from_the_expanded_ones():
    with torch.device("meta"):
        net = create("mobilenet_v3_large")
    squeezed = [body.se.gate.fc1.out_channels for _, body in bodies(net) if "se" in body._modules]
    assert squeezed == [24, 32, 32, 120, 168, 168, 240, 240]


@pytest.mark.parametrize(
    ("name", "eps", "momentum"),
    [("mobilenet_v1", 1e-5, 0.1), ("mobilenet_v2", 1e-5, 0.1)]
    + [("mobilenet_v3_large", 1e-3, 0.01), ("mobilenet_v3_small", 1e-3, 0.01)],
)
def test_every_norm_has_the_families_constants(name, eps, momentum):
    with torch.device("meta"):
        net = create(name)
    assert {(m.eps, m.momentum) for m in net.modules() if isinstance(m, nn.BatchNorm2d)} == {(eps, momentum)}


@pytest.mark.parametrize(("size", "kernel", "side"), [(6, 3, 3), (7, 3, 4), (6, 5, 3), (5, 3, 3)])
def test_same_padding_gives_size_over_stride_rounded_up(size, kernel, side):
    assert SameConv2d(1, 1, kernel, 2)(torch.zeros(1, 1, size, size)).shape[-2:] == (side, side)


def test_same_padding_puts_an_odd_zero_to_the_right_and_below():
    conv = SameConv2d(1, 1, 3, 2)
    nn.init.ones_(conv.weight)
    # Windows start at the first pixel: 3x3 of ones, cut off at the end of four.
    assert conv(torch.ones(1, 1, 4, 4)).tolist() == [[[[9, 6], [6, 4]]]]


def test_paddings_give_the_same_shape_and_another_result():
    symmetric = create("mobilenet_v1_025").eval()
    same = create("mobilenet_v1_025", padding="same").eval()
    same.load_state_dict(symmetric.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert {n: t.shape for n, t in same.features(x).items()} == {
        n: t.shape for n, t in symmetric.features(x).items()
    }
    assert not torch.allclose(same.features(x)["stem"], symmetric.features(x)["stem"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"padding": "valid"}, "padding = 'valid'; it must be 'torch' or 'same'"),
        ({"width": 0}, "width = 0; it must be above 0"),
        ({"dropout": 1.5}, "dropout = 1.5; it must be at least 0 and below 1"),
        ({"drop_path": -0.1}, "drop_path = -0.1; it must be at least 0 and below 1"),
    ],
)
def test_values_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        create("mobilenet_v2", **arguments)


def test_any_resolution_can_be_read():
    with torch.device("meta"):
        net = create("mobilenet_v1", size=128)
    assert meta_call(net, "trunk", (1, 3, 128, 128))["stage4"].shape[-2:] == (4, 4)


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    out = DropPath(0.25).train()(torch.ones(4000, 2, 1, 1))
    assert set(out.flatten().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(out[:, 0], out[:, 1])
    assert abs(out.mean().item() - 1) < 0.05
    assert torch.equal(DropPath(0.25).eval()(out), out)


def test_drop_path_grows_from_block_to_block_where_there_is_a_way_around():
    with torch.device("meta"):
        net = create("mobilenet_v2", drop_path=0.17)
    rates = {path: round(m.rate, 9) for path, m in net.named_modules() if isinstance(m, DropPath)}
    assert rates["stages.1.blocks.1.body.drop"] == 0.02
    assert rates["stages.5.blocks.2.body.drop"] == 0.15
    assert len(rates) == 10


def test_torchvision_weights_with_folded_norms_load(shared):
    net = create("mobilenet_v2", weights=shared / "weights/mobilenet_v2_imagenet.safetensors").eval()
    assert net.stem.norm.running_mean.abs().max() == 0
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_a_backbone_loads_where_the_classifier_was_taken_off(shared):
    file = shared / "weights/mobilenetv2_035_backbone_imagenet.safetensors"
    net = create("mobilenetv2_035", padding="same")
    with pytest.raises(WeightsMismatch, match="missing +head.fc.weight"):
        weights.load(net, file, variant("mobilenetv2_035").rules)
    del net.head.fc
    assert weights.load(net, file, variant("mobilenetv2_035").rules) == "timm"
    assert net.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 1280)


def photographs(folder):
    """imagenet300: shorter side 256 by Pillow's bilinear filter, centre 224, in -1 to 1; and the classes."""
    with (folder / "labels.csv").open() as file:
        classes = {row["filename"]: int(row["class_index"]) for row in csv.DictReader(file)}
    stack, expected = [], []
    with tarfile.open(folder / "imagenet300.tar") as tar:
        for member in tar:
            name = member.name.removeprefix("imagenet300/")
            if name in classes:
                picture = Image.open(tar.extractfile(member)).convert("RGB")
                # The longer side is cut to whole pixels, not rounded, as torchvision does.
                side = min(picture.size)
                picture = picture.resize([256 * s // side for s in picture.size], Image.Resampling.BILINEAR)
                stack.append(pictures.pil_to_tensor(pictures.center_crop(picture, [224, 224])))
                expected.append(classes[name])
    return torch.stack(stack) / 127.5 - 1, torch.tensor(expected)


def test_real_weights_give_the_stated_accuracy_on_real_pictures(shared):
    file = shared / "weights/mobilenetv1_025_imagenet.safetensors"
    net = create("mobilenet_v1_025", padding="same", weights=file).eval()
    x, expected = photographs(shared / "imagenet300")
    with torch.no_grad():
        best = torch.cat([net(batch) for batch in x.split(25)]).topk(5).indices == expected[:, None]
    assert best[:, 0].sum() == 144  # 48.00 % of 300
    assert best.sum() == 213  # 71.00 %
