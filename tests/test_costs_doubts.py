"""What is not certain of a cost: unknown operators, counters that disagree, values asked for, fields not known."""

from __future__ import annotations

import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.costs.cost import Cost, cost
from convarium.errors import ArgumentError
from convarium.models import create


def empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return create(name)


def at(counted: Cost, path: str):
    return next(row for row in counted.rows if row.path == path)


class Functional(nn.Module):
    """A convolution, two products and a linear layer that are no modules, and a sort that is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(5, 3, 3, 3))
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.conv2d(x, self.kernel).flatten(2).transpose(1, 2)
        mixed = torch.einsum("ntc,nsc->nts", tokens, tokens) @ tokens
        return F.linear(mixed, self.last.weight)


def test_functional_code_is_counted_by_operators_alone():
    counted = cost(Functional(), (3, 6, 6))
    assert counted.macs == 5 * 16 * 27 + 2 * 16 * 16 * 5 + 16 * 5 * 2
    assert counted.rows[0].folded is None and counted.rows[0].status == "operators only"
    assert counted.status == "complete"
    assert counted.notes == (
        "counted by operators only, for want of a formula: Functional, the network itself",
    )


class Inverse(nn.Module):
    """Ends in an operator of which nobody says what it costs."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.inv(x)


def test_an_operator_that_is_not_known_makes_the_figure_partial_and_is_named():
    counted = cost(nn.Sequential(nn.Conv2d(3, 4, 1), Inverse()), (3, 6, 6))
    assert counted.status == "partial" and counted.rows[0].status == at(counted, "1").status == "partial"
    assert at(counted, "0").status == "agreed"
    assert counted.macs == 4 * 36 * 3
    assert any(note.startswith("not counted: linalg_inv") and note.endswith("in 1") for note in counted.notes)
    assert "> 432" in counted.tree()


class Wrong(nn.Linear):
    """A leaf that says it costs what it does not."""

    def macs(self, x: tuple[int, ...]) -> int:
        return 1


def test_counters_that_disagree_are_shown():
    counted = cost(nn.Sequential(nn.Flatten(), Wrong(27, 2)), (3, 3, 3))
    assert counted.status == "partial" and counted.rows[0].status == "disagrees"
    assert counted.notes == (
        "the counters disagree in 1: 1 MACs by its formula, 54 by the operators that ran",
        "no receptive field of the last plane: no part gives a plane or tokens",
    )
    assert "! 54" in counted.tree() and "! 54" in str(counted)


class Twice(nn.Conv2d):
    """A convolution with another forward: the formula of nn.Conv2d is not its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x)


def test_a_formula_belongs_to_the_forward_that_it_was_made_for():
    row = at(cost(nn.Sequential(Twice(3, 4, 3)), (3, 6, 6)), "0")
    assert (row.folded, row.macs, row.status) == (None, 2 * 4 * 16 * 27, "operators only")


class Asks(nn.Module):
    """Its path depends on the values of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x) if x.sum() > 0 else x


def test_a_network_that_asks_for_values_is_unavailable_and_not_zero():
    counted = cost(Asks(), (3, 3, 3))
    assert counted.status == "unavailable" and counted.macs is None and counted.flops is None
    assert counted.params == 12 and "values" in counted.notes[0]
    assert "?" in counted.tree() and json.loads(counted.to_json())["macs"] is None


def test_what_is_not_counted_is_no_zero_activations():
    counted = cost(Asks(), (3, 3, 3))
    assert counted.activations is counted.activation_bytes is counted.rows[1].activations is None
    whole = json.loads(counted.to_json())
    assert (whole["activations"], whole["activation_bytes"]) == (None, None)
    assert [line.split()[-1] for line in counted.tree().splitlines()[1:3]] == ["?", "?"]
    assert counted.table("leaf").count("?") == 6


class Detector(nn.Module):
    """Chooses places by their values, as networks for detection do, and then goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.choice = Chooses()
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.last(self.choice(x))


class Chooses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1)[x.amax(1) > 0]


def test_what_ran_before_a_network_asked_for_values_is_counted():
    counted = cost(Detector(), (3, 8, 8))
    assert counted.status == "partial" and counted.macs == at(counted, "body").macs == 4 * 36 * 27
    assert {path: at(counted, path).status for path in ("", "body", "choice", "last")} == {
        **{"": "partial", "body": "agreed", "choice": "partial", "last": "not run"}
    }
    assert at(counted, "last").macs is at(counted, "last").activations is None
    assert "> 3,888" in counted.tree().splitlines()[1]
    first, second = counted.notes
    assert first.startswith("counted only until it stopped: Detector") and "in part choice" in first
    assert "values" in first and second == "not reached: last (10 parameters)"


@pytest.mark.parametrize(
    "function", [lambda x: x.numpy(), lambda x: x.tolist(), lambda x: x.nonzero(), lambda x: float(x.sum())]
)
def test_every_way_to_ask_for_values_is_known(function):
    assert cost(Does(function), (3, 4, 4)).status == "unavailable"


class Does(nn.Module):
    """One function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_an_error_of_the_networks_own_is_not_taken_for_it(kind):
    def fails(x: Tensor) -> Tensor:
        raise kind("the metadata is missing")

    with pytest.raises(ArgumentError, match="in the network itself: .*the metadata is missing"):
        cost(Does(fails), (3, 4, 4))


@pytest.mark.parametrize("told", [lambda self: 5, lambda self, x: x.numel(), lambda self, *shapes: 1e9])
def test_another_method_of_the_name_is_not_taken_for_a_formula(told):
    kind = type("Own", (nn.Conv2d,), {"macs": told})
    counted = cost(nn.Sequential(kind(3, 4, 3)), (3, 6, 6))
    assert (counted.status, counted.rows[0].folded, counted.notes) == ("complete", 4 * 16 * 27, ())


def test_weights_are_counted_by_formula_too():
    assert cost(
        nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.Conv2d(6, 4, 1)), (4, 5, 5)
    ).notes == ("no receptive field of the last plane: it is not followed through conv_transpose2d in 0",)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    net[0].bias = nn.Parameter(torch.zeros(1, 4, 2)[0, :, 0])
    assert cost(net, (3, 6, 6)).rows[0].status == "agreed"
    net[0].weight = nn.Parameter(torch.zeros(4, 3, 3, 2))  # somebody's, of another kernel
    counted = cost(net, (3, 6, 6))
    assert counted.status == "partial" and at(counted, "0").status == "disagrees"
    assert (
        "the counters disagree in 0: 112 weights and biases by its formula, 76 in its tensors"
        in counted.notes
    )


def test_weights_made_of_other_tensors_have_no_formula():
    net = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    assert not any("disagree" in note for note in cost(net, (3, 6, 6)).notes)


# ------------------------------------------------------------------------------------------------ no field


class Two(nn.Module):
    """Two planes of unlike fields, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": self.a(x), "b": self.b(x)}


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), "no part gives a plane or tokens"),
        (Two(), "the network gives 2 tensors whose fields differ"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2)), "not followed through .* in 1$"),
        (Does(lambda x: F.interpolate(x, (5, 7), mode="bilinear")), "bilinear.* in the network itself$"),
    ],
)
def test_where_there_is_no_receptive_field_it_is_said_why(net, why):
    counted = cost(net, (3, 8, 8))
    assert counted.receptive_field is None
    (note,) = (note for note in counted.notes if note.startswith("no receptive field of the last plane: "))
    assert re.search(why, note)


def test_attention_of_torch_has_a_formula():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, kdim=3, vdim=5, add_zero_attn=True)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = x.new_zeros(7, 2, 8), x.new_zeros(4, 2, 3), x.new_zeros(4, 2, 5)
            return self.attention(q + x.sum(), k, v)[0]

    counted = cost(Net(), (3, 4, 4))
    assert at(counted, "attention").status == "agreed"
    assert counted.macs == 2 * (7 * 64 + 4 * 24 + 4 * 40 + 2 * 7 * 5 * 8 + 7 * 64)
    assert not counted.notes  # out_proj is not called, but used
