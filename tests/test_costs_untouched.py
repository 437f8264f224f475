"""What a network's code keeps things in is after counting as it was before, wherever it lies."""

from __future__ import annotations

import functools
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import convarium
from convarium.costs.cost import cost
from convarium.costs.memory import memory
from convarium.costs.untouched import untouched
from convarium.errors import ArgumentError

PICTURE = (3, 8, 8)
FILE = {"earlier": [1]}


@dataclass
class Store:
    """An object of the user's with containers inside."""

    rows: list = field(default_factory=list)
    last: object = None


class Slotted:
    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last = "before"


class Own(dict):
    """A dictionary that does more than store."""

    def __setitem__(self, key, value) -> None:
        raise AssertionError("nobody may write here")


class Keeper(nn.Module):
    """Keeps what it sees in every way that people use."""

    shared: dict = {}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen = {"old": 1}
        self.list = ["old"]
        self.nested = {"a": [{"b": deque([1, 2], maxlen=3)}], "t": ([],)}
        self.order = OrderedDict(z=1, a=2)
        self.count = Counter(calls=7)
        self.groups = defaultdict(list, {"g": [1]})
        self.set = {"old"}
        self.own = Own(x=1)
        self.store, self.slotted, self.space = Store([1]), Slotted(), SimpleNamespace(x=[0])
        self.steps = torch.zeros(2)
        self.tensors = [torch.ones(3)]
        self.aside = [nn.Conv2d(3, 3, 1)]  # not registered

    def forward(self, x: Tensor) -> Tensor:
        self.seen["x"] = x
        self.seen.pop("old", None)
        self.list.append(x)
        self.nested["a"][0]["b"].extend([x, x])
        self.nested["a"].append(x)
        self.nested["t"][0].append(x)
        self.order.move_to_end("z")
        self.order["x"] = x
        self.count["calls"] += 1
        self.groups["new"].append(x)
        self.groups["g"].append(x)
        self.set.add(x)
        self.store.rows.append(x)
        self.store.last = self.slotted.last = x
        self.space.x[0] = x
        self.steps += 1
        self.tensors[0].mul_(5)
        self.aside[0].cache = x
        Keeper.shared["x"] = x
        FILE["earlier"].append(x)
        return self.conv(x)


def picture_of(net: Keeper) -> str:
    """Everything that it keeps, as text."""
    kept = {name: value for name, value in vars(net).items() if not name.startswith("_")}
    aside = {name: value for name, value in vars(net.aside[0]).items() if not name.startswith("_")}
    return repr((kept, net.slotted.last, aside, Keeper.shared, FILE))


@pytest.mark.parametrize("count", [cost, convarium.cost, memory])
def test_containers_of_every_kind_are_as_before(count):
    net = nn.Sequential(Keeper())
    before, inside = picture_of(net[0]), net[0].nested["a"][0]["b"]
    count(net, PICTURE)
    assert picture_of(net[0]) == before
    assert net[0].nested["a"][0]["b"] is inside and inside.maxlen == 3
    assert list(net[0].order) == ["z", "a"] and list(net[0].groups) == ["g"]


def test_they_are_as_before_after_a_failure_too():
    net = nn.Sequential(Keeper(), nn.Linear(5, 5))
    before = picture_of(net[0])
    with pytest.raises(ArgumentError):
        cost(net, PICTURE)
    assert picture_of(net[0]) == before


def test_what_hooks_hold_is_as_before():
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    maps, calls = {}, 0

    def closure(module, args, output) -> None:
        nonlocal calls
        maps["conv"] = output
        calls += 1

    def default(module, args, output, kept=[]) -> None:  # noqa: B006
        kept.append(output)

    def global_(module, args, output) -> None:
        FILE["hook"] = output

    given, store = [], Store()
    net[0].register_forward_hook(closure)
    net[0].register_forward_hook(default)
    net[0].register_forward_hook(global_)
    net[0].register_forward_hook(functools.partial(lambda kept, *rest: kept.append(rest), given))
    net[0].register_forward_pre_hook(lambda module, args: store.rows.append(args))
    cost(net, PICTURE)
    assert (maps, calls, given, store.rows) == ({}, 0, [], [])
    assert default.__defaults__ == ([],) and "hook" not in FILE


def test_what_did_not_change_is_not_written_to():
    class Watched(list):
        def __setitem__(self, index, value) -> None:
            raise AssertionError("nobody may write here")

    net = nn.Conv2d(3, 4, 3)
    net.kept, net.own = Watched([1]), Own(x=1)
    cost(net, PICTURE)
    assert (net.kept, net.own) == ([1], {"x": 1})


def test_circles_end():
    net = nn.Conv2d(3, 4, 3)
    circle: list = [net]
    circle.append(circle)
    net.circle = circle
    with untouched(net):
        circle.append(1)
    assert len(circle) == 2 and circle[1] is circle
