"""ResNet, WideResNet, ResNeXt and ResNet-D: what is special to them."""

from __future__ import annotations

import pytest
import torch

import convarium.models.resnet  # noqa: F401
from convarium.errors import ArgumentError
from convarium.models import create, variant, weights
from convarium.models.residual import Bottleneck, ZeroNorm, shortcut
from convarium.models.resnet import PathBottleneck, in_form
from tests.reference import pair, randomise


def gradients_by_our_names(theirs, rules):
    return weights.rename({name: p.grad for name, p in theirs.named_parameters()}, rules)


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "resnet18d", "resnet50d"])
def test_gradients_in_training_equal_the_reference(name):
    row = variant(name)
    ours, theirs = pair(name)
    ours.double(), theirs.double()  # so that the order of sums does not blur what is compared
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    for net in (ours, theirs):
        net.train()
        torch.nn.functional.cross_entropy(net(x), torch.tensor([1, 2])).backward()
    expected = gradients_by_our_names(theirs, row.rules[row.reference.split(":")[0]])
    for path, parameter in ours.named_parameters():
        scale = expected[path].abs().max().item()
        torch.testing.assert_close(parameter.grad, expected[path], rtol=1e-6, atol=1e-6 * scale, msg=path)


def blocks_in_three_forms(stride=2, zero_init=False):
    options = {"groups": 4, "base_width": 8, "zero_init": zero_init}
    forms = {
        form: block(32, 64, stride, shortcut("B", 32, 256, stride), **extra, **options)
        for form, block, extra in (
            ("a", PathBottleneck, {"form": "a"}),
            ("b", PathBottleneck, {"form": "b"}),
            ("c", Bottleneck, {}),
        )
    }
    randomise(forms["c"])
    for form in ("a", "b"):
        forms[form].load_state_dict(in_form(forms["c"].state_dict(), form, groups=4))
    return forms


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("form", ["a", "b"])
def test_the_forms_of_a_resnext_block_are_equal(form, training):
    blocks = blocks_in_three_forms()
    x = torch.randn(2, 32, 9, 9)
    expected = blocks["c"].train(training)(x)
    torch.testing.assert_close(blocks[form].train(training)(x), expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1


def test_the_forms_differ_where_paths_are_mixed_up():
    blocks = blocks_in_three_forms()
    swapped = in_form(blocks["c"].state_dict(), "b", groups=4)
    for rest in ("conv1.weight", "conv2.weight"):
        first, second = f"body.paths.path0.{rest}", f"body.paths.path1.{rest}"
        swapped[first], swapped[second] = swapped[second], swapped[first]
    blocks["b"].load_state_dict(swapped)
    x = torch.randn(2, 32, 9, 9)
    assert not torch.allclose(blocks["b"].eval()(x), blocks["c"].eval()(x), atol=1e-3)


@pytest.mark.parametrize("form", ["a", "b"])
def test_a_whole_resnext_can_be_written_in_each_form(form):
    small = {"depths": (1, 1, 1, 1), "groups": 4, "base_width": 16, "classes": 5}
    grouped = create("resnext50_32x4d", **small).eval()
    randomise(grouped)
    other = create("resnext50_32x4d", form=form, **small).eval()
    weights.fit(other, in_form(grouped.state_dict(), form, groups=4))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other(x), grouped(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["a", "b"])
def test_the_forms_have_as_many_parameters(form):
    with torch.device("meta"):
        net = create("resnext50_32x4d", form=form)
    assert sum(p.numel() for p in net.parameters()) == variant("resnext50_32x4d").parameters


def test_v1_and_v1_5_differ_on_the_same_weights():
    small = {"depths": (1, 1, 1, 1), "classes": 5}
    v15, v1 = create("resnet50", **small).eval(), create("resnet50_v1", **small).eval()
    randomise(v15)
    weights.fit(v1, v15.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(v1(x), v15(x), rtol=1e-2)
    assert [v1.part("stages.1.blocks.0.body")[part].stride[0] for part in ("conv1", "conv2")] == [2, 1]
    assert [v15.part("stages.1.blocks.0.body")[part].stride[0] for part in ("conv1", "conv2")] == [1, 2]


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50", "resnext50_32x4d"])
def test_zero_init_makes_each_block_its_shortcut(name):
    net = create(name, zero_init=True)
    lasts = [module for module in net.modules() if isinstance(module, ZeroNorm)]
    blocks = [block for stage in net.stages for block in stage.blocks]
    assert len(lasts) == len(blocks)
    assert all(not norm.weight.any() for norm in lasts)
    block = blocks[1]
    x = torch.rand(2, block.body.conv1.in_channels, 8, 8)
    assert torch.equal(block(x), x)  # the input is not negative, so the last ReLU leaves it


def test_without_zero_init_all_norms_start_at_one():
    norms = [m for m in create("resnet20").modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert all((norm.weight == 1).all() for norm in norms)


def test_zero_init_changes_no_name():
    assert list(create("resnet20", zero_init=True).state_dict()) == list(create("resnet20").state_dict())


def test_wide_nets_double_the_inner_width_alone():
    with torch.device("meta"):
        wide, plain = create("wide_resnet50_2"), create("resnet50")
    for index in range(4):
        ours, usual = wide.part(f"stages.{index}.blocks.0.body"), plain.part(f"stages.{index}.blocks.0.body")
        assert ours.conv2.out_channels == 2 * usual.conv2.out_channels
        assert ours.conv3.out_channels == usual.conv3.out_channels


def test_a_d_net_throws_no_pixel_away():
    with torch.device("meta"):
        net = create("resnet50d")
    striding = [
        m
        for m in net.modules()
        if isinstance(m, torch.nn.Conv2d) and m.stride[0] > 1 and m.kernel_size[0] == 1
    ]
    assert striding == []


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet50", {"form": "d"}, "form = 'd'; it must be 'a', 'b' or 'c'"),
        ("resnet50", {"shortcut": "E"}, "shortcut = 'E'; it must be one of 'A', 'B', 'C', 'D'"),
        ("resnet50", {"stem": "5x5"}, "stem = '5x5'; it must be one of '7x7', '3x3'"),
        ("resnet50", {"shortcut": "none"}, "this one has bottlenecks"),
        ("resnet50_v1", {"form": "a"}, "only form 'c' can stride its first 1x1"),
        ("resnet18", {"groups": 32}, "this net has basic blocks"),
        ("plain20", {"zero_init": True}, "needs shortcuts"),
        ("resnet20", {"depth": 21}, "depth = 21; it must be 6n [+] 2: 8, 14, 20"),
    ],
)
def test_options_that_cannot_be_are_refused(name, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        create(name, **arguments)


def test_cifar_weights_are_the_same_from_safetensors_and_pickle(shared):
    safe = create("resnet20", weights=shared / "weights/cifar10_resnet20.safetensors").state_dict()
    pickled = create("resnet20", weights=shared / "weights/resnet20-12fca82f.th").state_dict()
    assert list(safe) == list(pickled)
    assert all(torch.equal(safe[name], pickled[name]) for name in safe)


def test_cifar_weights_of_56_layers_load(shared):
    net = create("resnet56", weights=shared / "weights/cifar10_resnet56.safetensors").eval()
    assert torch.isfinite(net(torch.randn(1, 3, 32, 32))).all()
