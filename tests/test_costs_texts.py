"""A cost as text: trees, tables, CSV, JSON, Markdown."""

from __future__ import annotations

import csv
import io
import json

import pytest
import torch
from torch import nn

from convarium.costs.cost import Cost, cost
from convarium.models import create


def empty(name: str) -> nn.Module:
    with torch.device("meta"):
        return create(name)


def at(counted: Cost, path: str):
    return next(row for row in counted.rows if row.path == path)


LENET5 = """\
                                          output  parameters     MACs    FLOPs  activations  field
Net                                           10      61,706  416,520  833,040       14,602  whole
├─ stages                             16 x 5 x 5       2,572  357,600  715,200       14,184  16 /4
│  ├─ 0.blocks.0                     6 x 14 x 14         156  117,600  235,200       10,584   6 /2
│  │  ├─ conv  Conv2d 5x5, pad 2x2   6 x 28 x 28         156  117,600  235,200        4,704   5 /1
│  │  ├─ act  ReLU                   6 x 28 x 28                                      4,704   5 /1
│  │  └─ pool  MaxPool2d 2x2 /2      6 x 14 x 14                                      1,176   6 /2
│  └─ 1.blocks.0                      16 x 5 x 5       2,416  240,000  480,000        3,600  16 /4
│     ├─ conv  Conv2d 5x5           16 x 10 x 10       2,416  240,000  480,000        1,600  14 /2
│     ├─ act  ReLU                  16 x 10 x 10                                      1,600  14 /2
│     └─ pool  MaxPool2d 2x2 /2       16 x 5 x 5                                        400  16 /4
└─ head                                       10      59,134   58,920  117,840          418  whole
   ├─ flatten  Flatten                       400                                             16 /4
   ├─ fc1  Linear                            120      48,120   48,000   96,000          120  whole
   ├─ act1  ReLU                             120                                        120  whole
   ├─ fc2  Linear                             84      10,164   10,080   20,160           84  whole
   ├─ act2  ReLU                              84                                         84  whole
   └─ fc  Linear                              10         850      840    1,680           10  whole

1 MAC = one multiply and one add; FLOPs = 2 x MACs; convolutions, linears, attention products"""

STAGES = """\
part           output  params  % params     MACs    FLOPs  % MACs  activations  field  FLOP/byte
stages.0  6 x 14 x 14     156       0.3  117,600  235,200    28.2       10,584   6 /2        2.8
stages.1   16 x 5 x 5   2,416       3.9  240,000  480,000    57.6        3,600  16 /4       11.5
head               10  59,134      95.8   58,920  117,840    14.1          418  whole        0.5
total              10  61,706     100.0  416,520  833,040   100.0       14,602  whole        2.3

1 MAC = one multiply and one add; FLOPs = 2 x MACs; convolutions, linears, attention products"""


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


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (nn.Conv2d(3, 4, 3, (1, 2)), "Conv2d 3x3 /1x2 "),
        (nn.Conv2d(3, 4, 3, (2, 2)), "Conv2d 3x3 /2 "),
        (nn.Conv2d(3, 4, 3, padding="same"), "Conv2d 3x3, pad same "),
        (nn.Conv2d(3, 4, 3, padding="valid"), "Conv2d 3x3 "),
    ],
)
def test_settings_of_a_leaf_in_short(leaf, said):
    line = cost(nn.Sequential(leaf), (3, 8, 8)).tree().splitlines()[2]
    assert f"0  {said}" in line


def test_flops_and_the_rule_stand_in_every_text(lenet5):
    for text in (lenet5.tree(), lenet5.table(), lenet5.to_markdown(), str(lenet5)):
        assert "FLOPs" in text.splitlines()[0] and "833,040" in text
        assert "1 MAC = one multiply and one add; FLOPs = 2 x MACs" in text
    assert "MAC" not in lenet5.tree(columns=("output", "params"))


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
