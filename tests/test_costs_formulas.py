"""The formulas of counting by hand: against torch itself, against the lectures' numbers; the worked examples."""

from __future__ import annotations

import math
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convarium.costs import formulas, worked

sizes = st.integers(1, 24)
kernels = st.integers(1, 5)
steps = st.integers(1, 4)


def flops(call) -> int:
    """What torch's own counter says, two operations a multiply-accumulate."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


# ------------------------------------------------------------------------------------------------ sizes


@given(sizes, kernels, steps, st.integers(0, 3), steps)
def test_output_size_is_that_of_torch(size, kernel, stride, padding, dilation):
    expected = formulas.output_size(size, kernel, stride, padding, dilation)
    assume(size + 2 * padding > dilation * (kernel - 1))
    x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    assert F.conv1d(x, weight, None, stride, padding, dilation).shape[-1] == expected


@given(sizes, kernels, steps, st.integers(0, 2), steps, st.booleans())
def test_output_size_of_pools_rounds_as_torch_does(size, kernel, stride, padding, dilation, ceil):
    assume(padding <= kernel // 2 and size + 2 * padding > dilation * (kernel - 1))
    out = F.max_pool1d(torch.zeros(1, 1, size), kernel, stride, padding, dilation, ceil)
    assert out.shape[-1] == formulas.output_size(size, kernel, stride, padding, dilation, ceil)


def test_a_last_window_that_begins_behind_the_picture_is_left_out():
    # (5 + 2 - 2) / 3 rounded up, + 1 = 3 windows at -1, 2, 5; the third begins at 5, where the picture ends.
    assert formulas.output_size(5, 2, stride=3, padding=1, ceil_mode=True) == 2
    assert formulas.output_size(6, 2, stride=3, padding=1, ceil_mode=True) == 3


# ------------------------------------------------------------------------------------------------ counts


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.tuples(kernels, kernels),
    st.tuples(steps, steps),
    st.integers(1, 2),
    st.booleans(),
)
def test_a_convolution_is_counted_as_torch_counts_it(into, out, groups, kernel, stride, dilation, bias):
    conv = nn.Conv2d(into * groups, out * groups, kernel, stride, 1, dilation, groups, bias, device="meta")
    numbers = (conv.in_channels, conv.out_channels, kernel)
    assert formulas.convolution_weights(*numbers, groups, bias) == sum(p.numel() for p in conv.parameters())
    x = torch.empty(1, into * groups, 17, 13, device="meta")
    plane = tuple(conv(x).shape[2:])
    assert 2 * formulas.convolution_macs(*numbers, plane, groups) == flops(lambda: conv(x))


def test_a_transposed_convolution_counts_its_input_plane():
    conv = nn.ConvTranspose2d(6, 4, (3, 2), stride=2, groups=2, device="meta")
    x = torch.empty(1, 6, 5, 7, device="meta")
    assert 2 * formulas.convolution_macs(4, 6, (3, 2), (5, 7), 2) == flops(lambda: conv(x))


def test_a_linear_layer_is_counted_as_torch_counts_it():
    linear = nn.Linear(5, 3, device="meta")
    assert formulas.linear_weights(5, 3) == sum(p.numel() for p in linear.parameters())
    x = torch.empty(4, 7, 5, device="meta")
    assert 2 * formulas.linear_macs(5, 3, vectors=28) == flops(lambda: linear(x))


def test_attention_is_counted_as_torch_counts_it():
    q, k, v = torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 7, 6)
    assert 2 * formulas.attention_macs(5, 7, 8, 12) == flops(lambda: q @ k.mT @ v)


def test_the_lectures_convolutions():
    # Lecture on architectures, "computing resources": one convolution of 3 to 64 channels at 224 x 224.
    counted = {k: formulas.convolution_macs(3, 64, k, 224) for k in (11, 7, 5, 3)}
    assert counted == {11: 1_165_688_832, 7: 472_055_808, 5: 240_844_800, 3: 86_704_128}


def test_the_lectures_savings():
    assert formulas.stacked_weights(1, 5) == 18 and formulas.convolution_weights(1, 1, 5, bias=False) == 25
    assert formulas.asymmetric_weights(1, 3) == 6
    c = 256
    assert formulas.separable_weights(c, c, 3) == 9 * c + c * c
    assert formulas.separable_weights(c, c, 3) / (9 * c * c) == pytest.approx(1 / c + 1 / 9)
    assert formulas.squeeze_excite_weights(c, 16) == 2 * c * c // 16
    # K^2 C^2 / G of the part on grouped convolutions.
    assert formulas.convolution_weights(c, c, 3, groups=64, bias=False) == 9 * c * c // 64


def test_a_bottleneck_is_that_of_the_network():
    from convarium.models.residual import Bottleneck

    with torch.device("meta"):
        block = Bottleneck(256, 64, 1, None)
    weights = sum(m.weight.numel() for m in block.modules() if isinstance(m, nn.Conv2d))
    assert formulas.bottleneck_weights(256, 64) == weights


def test_dense_connections_are_those_of_the_network():
    # A layer of DenseNet sees all maps before it: k0 + k (number of layers before it) channels.
    from convarium.models import create

    with torch.device("meta"):
        stage = create("densenet121").stages[0]
    layers = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)][:6]
    seen = [1 + (m.in_channels - 64) // 32 for m in layers]
    assert sum(seen) == formulas.dense_connections(6) == 21


# ------------------------------------------------------------------------------------------------ fields


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(kernels, st.integers(1, 3), st.integers(0, 2), st.integers(1, 2)), max_size=4))
def test_a_receptive_field_is_what_the_gradient_reaches(layers):
    reach = formulas.receptive_field(layers)
    assume(reach.size < 120)
    x = torch.zeros(1, 1, 400, requires_grad=True)
    out = x
    for kernel, stride, padding, dilation in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel), None, stride, padding, dilation)
    unit = math.ceil(-reach.start / reach.stride) + 1  # one whose field does not touch the border
    assume(unit * reach.stride + reach.start + reach.size < 300)
    out[0, 0, unit].backward()
    touched = x.grad[0, 0].nonzero().flatten()
    assert touched[0] == reach.start + unit * reach.stride
    assert touched[-1] - touched[0] + 1 == reach.size


def test_two_3x3_see_as_much_as_a_5x5_and_three_as_a_7x7():
    three = (3, 1, 1)
    assert formulas.receptive_field([three] * 2).size == 5
    assert formulas.receptive_field([three] * 3) == formulas.receptive_field([(7, 1, 3)])


def test_the_field_of_a_whole_stack_is_that_of_the_trace():
    from convarium.costs.cost import cost
    from convarium.models import create

    with torch.device("meta"):
        net = create("vgg16")
    layers = [
        (m.kernel_size, m.stride, m.padding)
        if isinstance(m.kernel_size, int)
        else (m.kernel_size[0], m.stride[0], m.padding[0])
        for m in net.modules()
        if isinstance(m, nn.Conv2d | nn.MaxPool2d)
    ]
    reach, found = formulas.receptive_field(layers), cost(net).receptive_field.with_gates
    assert reach.size == found.size[0] == 212
    assert (reach.stride, reach.start) == (found.stride[0], found.start[0])


# ------------------------------------------------------------------------------------------------ examples


@pytest.mark.parametrize("name", worked.EXAMPLES)
def test_the_numbers_put_in_give_the_result(name):
    for line in worked.EXAMPLES[name]():
        sum_ = re.sub(r"(?<=\d)x(?=\d)|\bx\b", "*", line.numbers.replace(",", ""))
        value = eval(sum_, {"floor": math.floor, "ceil": math.ceil})  # noqa: S307 (the text is ours)
        assert value == pytest.approx(line.value, rel=1e-12), line
        letters = re.findall(r"[A-Za-z_]+", line.numbers)
        assert set(letters) <= {"x", "floor", "ceil"}, "a letter has no number"


def test_the_example_of_the_training_step_has_the_figures_of_vgg16():
    from convarium.models import create

    example = {line.name: line for line in worked.EXAMPLES["memory"]()}
    with torch.device("meta"):
        net = create("vgg16").eval()
    maps = []
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.Linear):
            module.register_forward_hook(lambda m, i, o: maps.append(o.numel()))
    net(torch.empty(1, 3, 224, 224, device="meta"))
    assert f"{sum(maps):,}" in example["activations"].numbers
    assert f"{sum(p.numel() for p in net.parameters()):,}" in example["weights, gradients, states"].numbers


def test_the_example_of_a_rectangular_convolution_has_both_sides():
    lines = {line.name: line.value for line in worked.conv(64, 64, (1, 7), (224, 320), groups=4, bias=False)}
    assert (lines["H_out"], lines["W_out"], lines["weights"]) == (112, 160, 64 * 16 * 7)
