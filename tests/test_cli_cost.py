"""convarium cost and convarium formula: what they print, what they refuse."""

from __future__ import annotations

import csv
import io
import json

import pytest
import typer
from typer.testing import CliRunner

from convarium.cli import cost, formula
from convarium.errors import ArgumentError, UnknownName


def verb(run):
    """A verb alone, as a function from its arguments to what it prints."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(run)

    def call(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments)
        if isinstance(done.exception, UnknownName | ArgumentError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return call


count = verb(cost.run)
work = verb(formula.run)

# ------------------------------------------------------------------------------------------------ cost

LENET5 = """\
lenet5  (lenet, 1998)
LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998, section II.B, in today's form
input 1 x 1 x 28 x 28, float32

               output  parameters     MACs    FLOPs  activations  field
Net                10      61,706  416,520  833,040       14,602  whole
├─ stages  16 x 5 x 5       2,572  357,600  715,200       14,184  16 /4
└─ head            10      59,134   58,920  117,840          418  whole

1 MAC = one multiply and one add; FLOPs = 2 x MACs; convolutions, linears, attention products

parameters   61,706, 247 kB
MACs         416,520
FLOPs        833,040
activations  14,602 numbers written, 58.4 kB
intensity    2.3 FLOPs a byte, leaf after leaf
field        one output of the last plane sees 16 pixels, its neighbour 4 on, the first from -2
status       complete; formulas and operators agree in every part
"""


def test_the_text_of_lenet5():
    lines = count("lenet5", "--depth", "1").splitlines(keepends=True)
    assert "".join(line for line in lines if not line.startswith("stated")) == LENET5


def test_a_stated_figure_stands_beside_with_its_source():
    line = next(line for line in count("resnet18", "--depth", "0").splitlines() if "stated" in line)
    assert "1.81 GMACs, the same" in line and "torchvision" in line
    assert "stated" not in count("resnet18", "--depth", "0", "--size", "96")


def test_gates_are_left_out_of_the_field_unless_asked_for():
    assert "sees 427 pixels" in count("seresnet50", "--depth", "0")
    assert "sees the whole picture, gates included" in count("seresnet50", "--depth", "0", "--gates")


def test_a_table_by_block():
    text = count("resnet18", "--by", "block")
    assert "stages.3.blocks.1" in text and text.count("stages.") == 8
    assert "% MACs" in text


def test_json_lines_are_the_network_and_its_parts():
    whole, *parts = map(json.loads, count("lenet5", "--json", "--batch", "2").splitlines())
    assert (whole["name"], whole["macs"], whole["batch"]) == ("lenet5", 2 * 416_520, 2)
    assert parts[0]["path"] == "" and parts[0]["macs"] == whole["macs"]
    assert {"path", "kind", "output", "params", "macs", "flops", "activations", "status"} <= set(parts[-1])


def test_one_json_object_a_csv_and_a_markdown_table():
    assert len(json.loads(count("lenet5", "--format", "json", "--by", "leaf"))["parts"]) > 8
    rows = list(csv.DictReader(io.StringIO(count("lenet5", "--format", "csv", "--by", "stage"))))
    assert [row["path"] for row in rows] == ["stages.0", "stages.1", "head"]
    assert count("lenet5", "--format", "markdown").startswith("| part | output | params |")


def test_pictures_that_are_no_squares():
    lines = count("resnet18", "--size", "64x96", "--depth", "0").splitlines()
    assert "input 1 x 3 x 64 x 96, float32" in lines and not any("stated" in line for line in lines)


def test_a_depth_holds_for_csv_and_json_too():
    rows = list(csv.DictReader(io.StringIO(count("lenet5", "--format", "csv", "--depth", "1"))))
    assert [row["path"] for row in rows] == ["", "stem", "stages", "head"]
    parts = json.loads(count("lenet5", "--format", "json", "--depth", "0"))["parts"]
    assert [part["path"] for part in parts] == [""]
    assert len(count("lenet5", "--json", "--depth", "1").splitlines()) == 5


def test_a_wrapper_is_no_level():
    tree = count("torchvision:resnet18", "--depth", "1").partition("\n\n")[2]
    assert "net  ResNet" in tree and "├─ layer1" in tree and "layer1.0" not in tree
    rows = csv.DictReader(io.StringIO(count("torchvision:resnet18", "--format", "csv", "--depth", "1")))
    assert {"", "net", "net.layer1", "net.fc"} <= (paths := {row["path"] for row in rows})
    assert "net.layer1.0" not in paths


def test_networks_of_other_libraries():
    text = count("torchvision:resnet18", "--depth", "1")
    assert "1,814,073,344" in text and "stated       1.81 GMACs, the same" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lenet6",), "did you mean lenet5"),
        (("lenet5", "--by", "layer"), "no level is called 'layer'"),
        (("lenet5", "--format", "xml"), "no format is called 'xml'"),
        (("lenet5", "--dtype", "int8"), "no number type is called 'int8'"),
        (("lenet5", "--depth", "1", "--by", "stage"), "--depth opens the tree, CSV and JSON"),
        (("lenet5", "--depth", "1", "--format", "markdown"), "--depth opens the tree, CSV and JSON"),
        (("lenet5", "--size", "28x"), "--size 28x; it must be a side in pixels as 224, or HEIGHTxWIDTH"),
        (("lenet5", "--size", "0"), "--size 0; it must be"),
        (("lenet5", "--size", "28x40"), "1x1x28x40, in part head.fc1: it is given 640 features"),
    ],
)
def test_what_cannot_be_counted_is_told(arguments, said):
    with pytest.raises((ArgumentError, UnknownName), match=said):
        count(*arguments)


# ------------------------------------------------------------------------------------------------ formula

CONV = """\
A convolution: weights, output, memory, operations.

  weights = C_out x C_in / groups x K_h x K_w + C_out
          = 64 x 3 / 1 x 7 x 7 + 64
          = 9,472

  memory of weights = weights x n_byte
                    = 9,472 x 4
                    = 37,888 bytes

  H_out = floor((H_in + 2 x padding - dilation x (K - 1) - 1) / stride) + 1
        = floor((224 + 2 x 3 - 1 x (7 - 1) - 1) / 2) + 1
        = 112 pixels

  W_out = floor((W_in + 2 x padding - dilation x (K - 1) - 1) / stride) + 1
        = floor((224 + 2 x 3 - 1 x (7 - 1) - 1) / 2) + 1
        = 112 pixels

  activations = H_out x W_out x C_out
              = 112 x 112 x 64
              = 802,816

  memory of activations = H_out x W_out x C_out x n_byte
                        = 112 x 112 x 64 x 4
                        = 3,211,264 bytes

  operations = (H_out x W_out x C_out) x (K_h x K_w x C_in / groups)
             = (112 x 112 x 64) x (7 x 7 x 3 / 1)
             = 118,013,952 MACs

  FLOPs = 2 x operations
        = 2 x 118,013,952
        = 236,027,904 FLOPs
"""


def test_the_worked_example_of_a_convolution():
    said = work("conv", "--in", "3", "--out", "64", "--kernel", "7", "--stride", "2", "--size", "224")
    assert said.startswith(CONV)
    assert said.splitlines()[-1].startswith("--in, --out, --kernel, --size, --stride")


def test_without_numbers_it_is_the_example_of_the_lectures():
    assert "(default: ResNet's first, with a bias)" in work("conv").splitlines()[0]
    assert "118,013,952 MACs" in work("conv")


def test_all_formulas_are_listed_with_what_they_are_about():
    said = work().splitlines()
    assert said[0].startswith("conv ") and any(line.startswith("squeeze ") for line in said)
    assert {row["name"] for row in map(json.loads, work("--json").splitlines())} >= {
        "conv",
        "output",
        "dense",
    }


def test_layers_in_turn():
    said = work("field", "--kernel", "3,3", "--stride", "1", "--padding", "0")
    assert "size after layer 2" in said and "= 5 pixels" in said and "layer 3" not in said


@pytest.mark.parametrize(
    ("arguments", "size", "jump", "start"),
    [
        ("--kernel 3,3 --stride 1,1", 5, 1, -2),  # as the help says it
        ("--kernel 3,3,3", 7, 1, -3),
        ("--kernel 3 --stride 1,2,1 --padding 0,0,0", 9, 2, 0),
        ("--kernel 3,3 --dilation 2", 9, 1, -4),
        ("--stride 1", 13, 1, -6),
        ("", 27, 4, -13),
    ],
)
def test_what_is_not_said_of_layers_is_usual(arguments, size, jump, start):
    last = [
        json.loads(line)["value"] for line in work("field", *arguments.split(), "--json").splitlines()[-3:]
    ]
    assert last == [size, jump, start]


def test_results_as_json():
    (line,) = map(json.loads, work("dense", "--layers", "6", "--json").splitlines())
    assert line["value"] == 21 and line["numbers"] == "6 x (6 + 1) / 2"


def test_a_last_window_behind_the_picture_is_left_out():
    said = work("output", "--size", "5", "--kernel", "2", "--stride", "3", "--padding", "1")
    assert "+ 1 - 1" in said and "= 2 pixels" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("cnov", "did you mean conv"),
        ("conv --tokens 5", "conv takes no --tokens; it takes --in, --out"),
        ("conv --kernel 0", "--kernel 0; it must be"),
        ("conv --kernel a", "--kernel a; it must be one or two sides"),
        ("conv --groups 2", "groups = 2; it must divide"),
        ("conv --size 3 --padding 0", "does not fit into 3 pixels"),
        ("field --kernel 3,3 --stride 1,1,1", "2 for kernel, 3 for stride: give as many"),
        ("field --kernel 3 --stride 1,1 --padding 1,1,1", "2 for stride, 3 for padding: give as many"),
        ("stack --kernel 4", "only an odd one"),
        ("--kernel 3", "which formula"),
    ],
)
def test_numbers_that_make_no_sense_are_told(arguments, said):
    with pytest.raises((ArgumentError, UnknownName), match=said):
        work(*arguments.split())
