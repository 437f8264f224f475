"""Fixup: the recipe of the paper, rule by rule, and what it does to a deep net's signal."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import convarium.models.fixup  # noqa: F401
from convarium.models import create
from convarium.models.fixup import Bias, Scale, ScaledConv2d


def blocks(net):
    return [block for stage in net.stages for block in stage.blocks]


def parts(block, kind):
    return [module for module in block.modules() if isinstance(module, kind)]


def spread(net):
    """Standard deviation of the stem's output and of each stage's, for one batch of noise."""
    with torch.no_grad():
        return [out.std().item() for out in net.trunk(torch.randn(2, 3, 32, 32)).values()]


def unscaled(depth, **more):
    """The same net without norms, drawn by He's rule alone, its last layers not at zero."""
    net = create("resnet110_fixup", depth=depth, **more)
    for module in parts(net, ScaledConv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


def test_it_has_no_norm_and_110_layers():
    net = create("resnet110_fixup")
    assert parts(net, nn.modules.batchnorm._NormBase) == []
    assert len(parts(net, nn.Conv2d)) + len(parts(net, nn.Linear)) == 110


def test_parameters_are_those_of_the_layers_and_five_scalars_a_block():
    net = create("resnet110_fixup")
    layers = sum(
        p.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear) for p in m.parameters()
    )
    assert sum(p.numel() for p in net.parameters()) == layers + 54 * 5 + 2


def test_rule_1_the_classifier_and_the_last_layer_of_each_block_start_at_zero():
    net = create("resnet110_fixup", depth=20)
    assert not net.head.fc.weight.any()
    assert not net.head.fc.bias.any()
    assert all(not parts(block, nn.Conv2d)[-1].weight.any() for block in blocks(net))


@pytest.mark.parametrize("depth", [20, 110])
def test_rule_2_first_layers_are_scaled_by_the_root_of_the_number_of_blocks(depth):
    net = create("resnet110_fixup", depth=depth)
    number = len(blocks(net))
    for stage, width in zip(net.stages, (16, 32, 64), strict=True):
        drawn = torch.cat([parts(block, nn.Conv2d)[0].weight.flatten() for block in stage.blocks])
        expected = (2 / (9 * width)) ** 0.5 * number**-0.5
        assert drawn.std().item() == pytest.approx(expected, rel=0.05)


def test_rule_3_each_block_has_four_biases_at_zero_and_a_multiplier_at_one():
    for block in blocks(create("resnet110_fixup", depth=20)):
        assert [bias.bias.item() for bias in parts(block, Bias)] == [0] * 4
        assert [scale.weight.item() for scale in parts(block, Scale)] == [1]


def test_activations_at_the_start_keep_their_size_through_110_layers():
    stem, *stages = spread(create("resnet110_fixup"))
    # What remains is the loss by zero channels: half of the channels are new at each of two changes.
    assert all(stem / 4 < size < stem * 2 for size in stages)


def test_activations_without_the_rules_explode_with_depth():
    shallow, deep = spread(unscaled(20)), spread(unscaled(110))
    assert deep[-1] > 1e3 * shallow[-1]
    assert deep[-1] > 1e6 * deep[0]


def test_a_gradient_reaches_the_first_layer_after_one_step():
    net = create("resnet110_fixup", depth=56)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = torch.randn(4, 3, 32, 32), torch.arange(4)
    sizes = []
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        sizes.append(net.stem.conv.weight.grad.norm().item())
        optimiser.step()
    assert sizes[0] == 0  # the classifier is zero, so nothing comes back yet
    assert 1e-4 < sizes[1] < 1e3
    assert 1e-4 < sizes[2] < 1e3


def test_the_change_of_shape_shares_its_first_bias_and_adds_zeros_after():
    net = create("resnet110_fixup", depth=8)
    block = blocks(net)[1]
    x = torch.rand(1, 16, 4, 4)
    with torch.no_grad():
        block.bias1a.bias.fill_(0.5)
        out = block(x)  # the body's last layer is zero, so this is the shortcut
    assert torch.equal(out[:, :16], x[:, :, ::2, ::2] + 0.5)
    assert not out[:, 16:].any()


def test_it_learns_to_tell_brightness_in_a_few_steps():
    net = create("resnet110_fixup", depth=20, classes=2)
    # The authors give the scalars a tenth of the learning rate; the gradient is clipped as there is no norm.
    scalars = [p for p in net.parameters() if p.numel() == 1]
    others = [p for p in net.parameters() if p.numel() > 1]
    groups = [{"params": others}, {"params": scalars, "lr": 0.01}]
    optimiser = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    y = torch.arange(16) % 2
    x = torch.randn(16, 3, 16, 16) * 0.5 + (2.0 * y - 1).view(-1, 1, 1, 1)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)  # all classes alike at the start
    assert losses[-1] < 0.1 * losses[0]


def losses(net, steps, rate=0.2):
    """Of SGD steps on scans of handwritten digits; scalars learn ten times slower, as in section 4.1."""
    digits = load_digits()
    pictures = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    scalars = [p for p in net.parameters() if p.numel() == 1]
    others = [p for p in net.parameters() if p.numel() > 1]
    groups = [{"params": others}, {"params": scalars, "lr": rate / 10}]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randint(len(labels), (64,), generator=generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(pictures[some]), labels[some])
        loss.backward()
        optimizer.step()
        yield loss.item()


def test_110_layers_train_without_normalisation_where_he_alone_diverges():
    torch.manual_seed(0)
    fixed = list(losses(create("resnet110_fixup", in_channels=1, size=8), steps=44))
    assert fixed[0] == pytest.approx(math.log(10), abs=1e-4)
    assert sum(fixed[-5:]) / 5 < 1.8
    torch.manual_seed(0)
    assert not all(map(math.isfinite, losses(unscaled(110, in_channels=1, size=8), steps=8)))
