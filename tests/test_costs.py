"""The cost of a network: formulas against operators part by part, shared parts, what is partial, texts and tables."""

from __future__ import annotations

import csv
import io
import json
import os
import random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convarium.costs.cost import Cost, cost
from convarium.errors import ArgumentError, UnknownName
from convarium.models import create, names, variant

BY_SIZE = sorted(names(), key=lambda name: -variant(name).parameters)
SMALLEST = {variant(name).family: name for name in BY_SIZE}.values()
# One of each family is counted always; the others together take a minute.
ALWAYS = {*SMALLEST, "resnet50", "vgg16", "lenet5_1998", "inception_v3"}


def empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return create(name)


def at(counted: Cost, path: str):
    return next(row for row in counted.rows if row.path == path)


# ------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("name", names())
def test_formulas_and_operators_agree_in_every_part(name):
    if name not in ALWAYS and not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("one of each family is counted; all where CONVARIUM_ALL=1 is set")
    row, counted = variant(name), cost(empty(name))
    assert [(part.path, part.folded) for part in counted.rows] == [
        (part.path, part.macs) for part in counted.rows
    ]
    assert {part.status for part in counted.rows} <= {"agreed", "not run"}
    assert counted.status == "complete" and counted.params == row.parameters
    assert counted.macs and counted.flops == 2 * counted.macs
    if row.macs is not None:  # publishers count with other rules and round
        assert counted.macs == pytest.approx(row.macs, rel=0.02)


@pytest.mark.parametrize("name", ["timm:resnet10t", "torchvision:vgg11", "timm:vit_tiny_patch16_224"])
def test_networks_of_other_libraries_are_counted_as_torch_counts_them(name):
    from torch.utils.flop_counter import FlopCounterMode

    net = empty(name).eval()
    counted = cost(net)
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        net(torch.empty(1, *counted.picture, device="meta"))
    assert counted.status == "complete"
    assert counted.flops == theirs.get_total_flops()
    assert counted.params == variant(name).parameters


def test_timm_networks_drawn_by_lot_are_counted_or_named_partial():
    if not os.environ.get("CONVARIUM_ALL"):
        pytest.skip("100 networks of timm, three minutes: counted where CONVARIUM_ALL=1 is set")
    import timm

    for name in random.Random(2026).sample(sorted(timm.list_models()), 100):
        counted = cost(empty(f"timm:{name}"))
        doubts = any("not counted" in note or "disagree" in note for note in counted.notes)
        assert counted.status == ("partial" if doubts else "complete"), name
        assert counted.macs, name


# ------------------------------------------------------------------------------------------------ sizes


def test_another_size_batch_and_number_type():
    net = empty("resnet18")
    once, more = cost(net, (3, 96, 160)), cost(net, (3, 96, 160), batch=3, dtype="bfloat16")
    assert once.rows[0].shape == more.rows[0].shape == (1000,)
    assert at(once, "stages").shape == (512, 3, 5)
    assert (more.macs, more.activations) == (3 * once.macs, 3 * once.activations)
    assert more.activation_bytes == 2 * more.activations and once.activation_bytes == 4 * once.activations
    assert more.params == once.params


def test_the_picture_is_the_networks_own_where_none_is_given():
    assert cost(empty("lenet5")).picture == (1, 28, 28)
    assert cost(nn.Conv2d(3, 4, 3)).picture == (3, 224, 224)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"picture": (3, 4, 4)}, "cannot run on 1x3x4x4"),
        ({"batch": 0}, "batch = 0"),
        ({"dtype": "float31"}, "float32"),
    ],
)
def test_what_cannot_be_counted_is_told(arguments, said):
    with pytest.raises((ArgumentError, UnknownName), match=said):
        cost(nn.Conv2d(3, 4, 7), **arguments)


def test_a_network_is_left_as_it_was():
    net = create("lenet5").train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    cost(net, batch=2)
    assert all(module.training for module in net.modules())
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in before.items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# ------------------------------------------------------------------------------------------------ figures


def test_the_figures_of_a_convolution():
    row = at(cost(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), (3, 10, 10), batch=2), "0")
    assert (row.params, row.macs, row.activations) == (8 * 27 + 8, 2 * 800 * 27, 1600)
    assert row.moved == 4 * (600 + 1600 + 224)
    assert row.intensity == row.flops / row.moved
    assert row.fields.with_gates.size == (3, 3) and row.fields.with_gates.start == (-1, -1)


def test_what_is_done_in_place_writes_no_new_tensor():
    parts = cost(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.ReLU()), (3, 4, 4)).rows
    assert [row.activations for row in parts] == [48, 0, 0, 48]


def test_the_receptive_field_is_that_of_the_last_plane():
    found = cost(empty("seresnet50")).receptive_field
    assert found.without_gates.size == (427, 427) and found.without_gates.stride == (32, 32)
    assert found.with_gates.whole


def test_parts_that_a_picture_does_not_reach_are_told():
    counted = cost(empty("clip_vit_b_32"))
    assert at(counted, "text").status == "not run" and at(counted, "text").shape is None
    assert counted.notes == ("not called for a picture: text (63,428,096 parameters)",)


# ------------------------------------------------------------------------------------------------ doubts


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


# ------------------------------------------------------------------------------------------------ shared


def test_shared_parts_have_their_parameters_once_and_their_work_at_each_place():
    one = nn.Conv2d(3, 3, 3, padding=1)
    counted = cost(nn.Sequential(nn.Sequential(one), nn.Sequential(one, one)), (3, 4, 4))
    work = 3 * 16 * 27
    assert counted.params == at(counted, "0").params == at(counted, "1").params == 84
    assert counted.macs == counted.rows[0].folded == 3 * work
    assert (at(counted, "0").macs, at(counted, "1").macs) == (work, 2 * work)
    total = counted.table("leaf").splitlines()[-1].split()
    assert total[0] == "total" and "84" in total and f"{3 * work:,}" in total


def test_a_part_run_twice_counts_twice():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    counted = cost(Net(), (3, 4, 4))
    assert (counted.params, counted.macs, counted.rows[0].folded) == (12, 2 * 144, 2 * 144)


# ------------------------------------------------------------------------------------------------ texts

LENET5 = """\
                                          output  parameters     MACs  activations  field
Net                                           10      61,706  416,520       14,602  whole
├─ stages                             16 x 5 x 5       2,572  357,600       14,184  16 /4
│  ├─ 0.blocks.0                     6 x 14 x 14         156  117,600       10,584   6 /2
│  │  ├─ conv  Conv2d 5x5, pad 2x2   6 x 28 x 28         156  117,600        4,704   5 /1
│  │  ├─ act  ReLU                   6 x 28 x 28                             4,704   5 /1
│  │  └─ pool  MaxPool2d 2x2 /2      6 x 14 x 14                             1,176   6 /2
│  └─ 1.blocks.0                      16 x 5 x 5       2,416  240,000        3,600  16 /4
│     ├─ conv  Conv2d 5x5           16 x 10 x 10       2,416  240,000        1,600  14 /2
│     ├─ act  ReLU                  16 x 10 x 10                             1,600  14 /2
│     └─ pool  MaxPool2d 2x2 /2       16 x 5 x 5                               400  16 /4
└─ head                                       10      59,134   58,920          418  whole
   ├─ flatten  Flatten                       400                                    16 /4
   ├─ fc1  Linear                            120      48,120   48,000          120  whole
   ├─ act1  ReLU                             120                               120  whole
   ├─ fc2  Linear                             84      10,164   10,080           84  whole
   ├─ act2  ReLU                              84                                84  whole
   └─ fc  Linear                              10         850      840           10  whole"""

STAGES = """\
part           output  params  % params     MACs  % MACs  activations  field  FLOP/byte
stages.0  6 x 14 x 14     156       0.3  117,600    28.2       10,584   6 /2        2.8
stages.1   16 x 5 x 5   2,416       3.9  240,000    57.6        3,600  16 /4       11.5
head               10  59,134      95.8   58,920    14.1          418  whole        0.5
total              10  61,706     100.0  416,520   100.0       14,602  whole        2.3"""


@pytest.fixture(scope="module")
def lenet5() -> Cost:
    return cost(empty("lenet5"))


def test_the_tree_of_lenet5(lenet5):
    assert lenet5.tree() == LENET5


def test_the_table_of_lenet5(lenet5):
    assert lenet5.table("stage") == STAGES


def test_a_narrow_tree_keeps_to_its_width_and_its_first_columns():
    counted = cost(empty("resnet50"))
    for width in (60, 80, 100):
        lines = counted.tree(width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert {"output", "params", "MACs"} <= set(lines[0].split())
        assert "field" in lines[0] or width < 80


def test_equal_blocks_are_one_line_with_the_figures_of_all():
    counted = cost(empty("resnet20"))
    folded = next(line for line in counted.tree(3).splitlines() if "0-2 (3 alike)" in line)
    block, last = at(counted, "stages.0.blocks.0"), at(counted, "stages.0.blocks.2")
    assert f"{3 * block.macs:,}" in folded and f"{3 * block.params:,}" in folded
    assert folded.endswith(f"{last.fields.with_gates.size[0]} /1")


@pytest.mark.parametrize(
    "name", ["lenet5", "seresnet50", "torchvision:resnet18", "timm:vit_tiny_patch16_224"]
)
def test_the_parts_of_every_level_are_together_the_whole(name):
    counted = cost(empty(name))
    for by in ("stage", "block", "leaf"):
        rows = json.loads(counted.to_json(by))["parts"]
        for figure in ("params", "macs", "activations"):
            assert sum(row[figure] for row in rows) == getattr(counted, figure), (by, figure)
        assert len({row["path"] for row in rows}) == len(rows)


def test_stages_and_blocks_are_those_of_the_network():
    counted = cost(empty("resnet18"))
    stages = [row["path"] for row in json.loads(counted.to_json("stage"))["parts"]]
    assert stages == ["stem", *(f"stages.{i}" for i in range(4)), "head"]
    blocks = [row["path"] for row in json.loads(counted.to_json("block"))["parts"]]
    assert blocks == [
        "stem",
        *(f"stages.{i}.blocks.{j}" for i in range(4) for j in range(2)),
        "head",
    ]


def test_csv_has_a_line_for_every_part(lenet5):
    rows = list(csv.DictReader(io.StringIO(lenet5.to_csv())))
    assert [row["path"] for row in rows] == [row.path for row in lenet5.rows]
    conv = next(row for row in rows if row["path"] == "stages.0.blocks.0.conv")
    assert (conv["output"], conv["macs"], conv["field_start_rows"]) == ("6x28x28", "117600", "-2")


def test_json_has_totals_rule_and_parts(lenet5):
    found = json.loads(lenet5.to_json())
    assert found["flops"] == 2 * found["macs"] == 833_040 and "2 x MACs" in found["rule"]
    assert found["field_size"] == [16, 16] and len(found["parts"]) == len(lenet5.rows)


def test_markdown_is_a_table_with_the_rule(lenet5):
    lines = lenet5.to_markdown().splitlines()
    assert lines[1].startswith("| --- | ---: |") and lines[2].startswith("| stages.0 | 6 x 14 x 14 | 156 |")
    assert "FLOPs = 2 x MACs" in lines[-1]
