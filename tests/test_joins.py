"""The four joins compute what their docstrings say."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from convarium.joins import Chain, Concat, Gate, Sum


def test_chain_runs_its_parts_in_the_order_written():
    chain = Chain(linear=nn.Linear(2, 2, bias=False), act=nn.ReLU())
    x = torch.randn(3, 2)
    assert torch.equal(chain(x), torch.relu(chain.linear(x)))
    assert list(dict(chain.named_children())) == ["linear", "act"]


def test_chain_leaves_out_none():
    assert len(Chain(a=nn.ReLU(), b=None)) == 1


def test_sum_adds_the_shortcut_before_the_activation():
    join = Sum(nn.Linear(2, 2), act=nn.ReLU())
    x = torch.randn(3, 2)
    assert torch.equal(join(x), torch.relu(join.body(x) + x))


def test_concat_keeps_the_order_written():
    join = Concat(old=nn.Identity(), new=nn.Conv2d(2, 3, 1))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(join(x), torch.cat([x, join.new(x)], 1))


def test_gate_multiplies():
    join = Gate(nn.Sigmoid())
    x = torch.randn(2, 3)
    assert torch.equal(join(x), x * torch.sigmoid(x))


def test_an_error_carries_the_path_of_the_part_in_which_it_arose():
    net = Chain(stem=nn.Identity(), block=Sum(Chain(conv=nn.Conv2d(3, 3, 1), wrong=nn.Conv2d(4, 3, 1))))
    with pytest.raises(RuntimeError) as raised:
        net(torch.randn(1, 3, 2, 2))
    assert raised.value.__notes__ == ["in part block.body.wrong"]
