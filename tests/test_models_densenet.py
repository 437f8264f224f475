"""DenseNet: tables of the paper, order of concatenation, older names, recomputation that changes nothing."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet

import convarium.models.densenet as densenet
from convarium.errors import ArgumentError
from convarium.joins import Chain
from convarium.models import create, variant, weights
from convarium.net import Net, meta_call
from tests.reference import build, randomise

SMALL = {"depths": (2, 3, 2, 2), "growth": 8, "classes": 5}


def small_pair(**arguments) -> tuple[Net, DenseNet]:
    """A small net of ours and torchvision's with the same randomised weights."""
    theirs = DenseNet(growth_rate=8, block_config=(2, 3, 2, 2), num_init_features=16, num_classes=5)
    randomise(theirs)
    ours = create("densenet121", **SMALL, **arguments)
    weights.fit(ours, weights.rename(copy.deepcopy(theirs.state_dict()), densenet.PUBLISHED))
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "millions"),
    [("densenet_bc_100_12", 0.8), ("densenet_bc_250_24", 15.3), ("densenet_bc_190_40", 25.6)],
)
def test_cifar_nets_have_the_parameters_and_layers_of_table_2(name, millions):
    with torch.device("meta"):
        net = create(name)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions
    # Counted as the paper counts: all convolutions and the linear layer.
    layers = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.split("_")[2])


@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201", "densenet161"])
def test_imagenet_nets_have_the_layers_and_sides_of_table_1(name):
    with torch.device("meta"):
        net = create(name)
    layers = [part for part in net.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert len(layers) == int(name.removeprefix("densenet"))
    points = meta_call(net, "trunk", (1, 3, 224, 224))
    assert [out.shape[-1] for out in points.values()] == [56, 56, 28, 14, 7]


def test_outputs_gradients_and_statistics_equal_torchvisions_in_training_mode():
    ours, theirs = small_pair()
    x = torch.randn(4, 3, 64, 64)
    expected = theirs(x)
    actual = ours(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    expected.square().sum().backward()
    actual.square().sum().backward()
    gradients = weights.rename({n: p.grad for n, p in theirs.named_parameters()}, densenet.PUBLISHED)
    for path, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[path], rtol=1e-4, atol=1e-4)
    statistics = weights.rename(dict(theirs.named_buffers()), densenet.PUBLISHED)
    for path, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, statistics[path])


def test_a_reversed_concatenation_loads_and_gives_another_output():
    ours, theirs = small_pair()
    ours.eval(), theirs.eval()
    x = torch.randn(1, 3, 64, 64)
    for part in ours.modules():
        if isinstance(part, densenet.DenseLayer):
            part._modules = dict(reversed(part._modules.items()))
    with torch.no_grad():
        assert not torch.allclose(ours(x), theirs(x), rtol=1e-2)


def test_names_of_older_files_fit():
    ours, theirs = small_pair()
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
        for name, value in theirs.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    renamed = weights.rename(older, densenet.PUBLISHED)
    assert weights.differences(ours, renamed) == []
    assert torch.equal(
        renamed["stages.0.blocks.1.new.conv2.weight"], theirs.features.denseblock1.denselayer2.conv2.weight
    )


def test_timms_names_give_timms_output():
    theirs = build("timm:densenet121", num_classes=5).eval()
    randomise(theirs)
    ours = create("densenet121", classes=5).eval()
    weights.fit(ours, weights.rename(theirs.state_dict(), variant("densenet121").rules["timm"]))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputation_gives_the_same_outputs_gradients_and_statistics(dropout):
    usual, _ = small_pair(dropout=dropout)
    saving = create("densenet121", **SMALL, dropout=dropout, recompute=True)
    weights.fit(saving, {n: v.clone() for n, v in usual.state_dict().items()})
    x = torch.randn(2, 3, 64, 64)
    results = []
    for net in (usual, saving):
        torch.manual_seed(5)  # the same units are dropped
        mine = x.clone().requires_grad_()
        out = net(mine)
        out.square().sum().backward()
        results.append((out, mine.grad, [p.grad for p in net.parameters()], list(net.buffers())))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)
    # Batch norms see a batch once, although their forward runs twice.
    counters = [v.item() for n, v in saving.state_dict().items() if n.endswith("num_batches_tracked")]
    assert set(counters) == {1}


def kept_for_backward(net: Net, x: torch.Tensor) -> int:
    """Elements that the forward pass keeps for the backward pass, each memory once."""
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = net(x).sum()
    total = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in kept.values())
    loss.backward()
    return total


def test_recomputation_keeps_less_and_grows_with_depth_not_its_square():
    x = torch.randn(2, 3, 16, 16)

    def kept(n: int, recompute: bool) -> int:
        return kept_for_backward(create("densenet_bc_100_12", depth=6 * n + 4, recompute=recompute), x)

    saving = [kept(n, True) for n in (4, 8, 12)]
    usual = [kept(n, False) for n in (4, 8, 12)]
    assert saving[2] < usual[2] / 2
    # Twice the step, twice the memory; the usual way's second step costs visibly more than its first.
    assert (saving[2] - saving[1]) / (saving[1] - saving[0]) < 1.15
    assert (usual[2] - usual[1]) / (usual[1] - usual[0]) > 1.2


def test_recomputation_restores_the_norms_also_when_the_backward_pass_fails():
    saving = create("densenet121", **SMALL, recompute=True)
    loss = saving(torch.randn(2, 3, 64, 64)).sum()
    handle = saving.part("stages.1.blocks.1.new.norm1").register_forward_hook(_fail)
    with pytest.raises(RuntimeError, match="stopped here"):
        loss.backward()
    handle.remove()
    norms = [part for part in saving.modules() if isinstance(part, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert {norm.num_batches_tracked.item() for norm in norms} == {1}


def _fail(*_: object) -> None:
    raise RuntimeError("stopped here")


def test_recomputation_names_the_part_in_which_an_error_arose():
    saving = create("densenet121", **SMALL, recompute=True)
    saving.part("stages.1.blocks.1.new.conv2").register_forward_hook(_fail)
    with pytest.raises(RuntimeError) as caught:
        saving(torch.randn(2, 3, 64, 64))
    assert caught.value.__notes__ == ["in part stages.1.blocks.1.new.conv2"]


def test_recomputation_changes_no_path_and_is_a_chain():
    with torch.device("meta"):
        usual, saving = create("densenet121"), create("densenet121", recompute=True)
    assert list(saving.state_dict()) == list(usual.state_dict())
    assert all(isinstance(stage.blocks, Chain) for stage in saving.stages)


def test_gradients_reach_every_parameter_of_a_cifar_net_with_recomputation():
    net = create("densenet_bc_100_12", depth=16, recompute=True)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_depth_that_is_not_6n_plus_4_is_refused():
    with pytest.raises(ArgumentError, match=r"depth = 41; it must be 6n \+ 4: 10, 16, 22"):
        create("densenet_bc_100_12", depth=41)


def test_a_picture_under_29_pixels_is_refused():
    with pytest.raises(ArgumentError, match="28 pixels; at least 29 are needed"):
        create("densenet121", size=28)
