"""convarium chart: what is gathered for each kind, where it is written, and what is refused."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torchvision
import typer
from PIL import Image
from torch import Tensor, nn

from convarium.cli import chart
from convarium.costs.cost import cost
from convarium.errors import ArgumentError, RunError, UnknownName, UserError
from convarium.models import names, variant

VERB = typer.Typer()
VERB.command()(chart.run)


@pytest.fixture
def draw(capfd, monkeypatch, tmp_path):
    """Standard output and standard error of `convarium chart`, run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[str, str]:
        typer.main.get_command(VERB)([str(argument) for argument in arguments], standalone_mode=False)
        said = capfd.readouterr()
        return said.out, said.err

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# Where it goes


def test_without_a_name_the_picture_has_the_kinds(draw, tmp_path):
    out, err = draw("history")
    assert (out, err) == ("history.svg\n", "")
    assert (tmp_path / "history.svg").read_bytes().startswith(b"<?xml")


def test_a_picture_and_a_table(draw, tmp_path):
    out, _ = draw(
        "history", "-o", "winners.png", "--csv", "Победители.csv", "--theme", "dark", "--title", "Итог"
    )
    assert out == "Победители.csv\nwinners.png\n"
    with Image.open("winners.png") as picture:
        assert picture.getpixel((2, 2))[:3] == (0x16, 0x19, 0x1B) and picture.info["Title"] == "Итог"
    assert rows(Path("Победители.csv").read_text("utf-8"))[5]["network"] == "ResNet"


def test_a_table_alone_is_printed_and_nothing_is_drawn(draw, tmp_path):
    out, err = draw("history", "--csv", "-")
    assert [row["top5_error_percent"] for row in rows(out)][:3] == ["28.191", "25.77", "16.422"]
    assert err == "" and list(tmp_path.iterdir()) == []


def test_a_printed_table_is_not_mixed_with_the_pictures_name(draw):
    out, err = draw("history", "--csv", "-", "-o", "h.svg")
    assert len(rows(out)) == 8 and "h.svg" not in out and err == "h.svg\n"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["histroy"], UnknownName, "no kind of chart is called 'histroy'; did you mean history"),
        (["history", "vgg16"], ArgumentError, "history takes no names, but got vgg16"),
        (["history", "-o", "h.jpg"], ArgumentError, r"-o h.jpg: .* must end in one of .svg, .png, .pdf"),
        (["history", "-o", "none/h.svg"], ArgumentError, "there is no folder none; make it"),
        (["history", "--csv", "none/h.csv"], ArgumentError, "there is no folder none; make it"),
        (["history", "--csv", "."], ArgumentError, "--csv . is a folder; give the name of a file"),
        (["history", "--theme", "blue"], UnknownName, "no theme is called 'blue'; there are: dark, light"),
        (["history", "--all-weights"], ArgumentError, "--all-weights is for accuracy, not for history"),
        (["accuracy", "--size", "64"], ArgumentError, "--size is for layers and field, not for accuracy"),
        (["accuracy", "resn50"], UnknownName, "no network is called 'resn50'; did you mean resnet50"),
        (["accuracy", "torchvision:nosuch*"], UnknownName, "no network is called 'torchvision:nosuch.*'"),
        (["accuracy", "resnet20", "timm:resnet50_clip"], ArgumentError, "is known for resnet20, timm:resnet50_clip; "),
        (["layers"], ArgumentError, "layers takes one network, but got none"),
        (["layers", "vgg16", "vgg11"], ArgumentError, "layers takes one network, but got vgg16, vgg11"),
        (["field"], ArgumentError, "field takes at least one network"),
        (
            ["field", "vgg11", "torchvision:swin_t"],
            ArgumentError,
            r"torchvision:swin_t: the receptive field of its last plane is not known, nor that of 39 of its 40 layers "
            r"\(features.1.0.attn, .* and 36 more\): it is not followed through view in net.features.1.1.attn",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_told_before_anything_is_written(draw, tmp_path, arguments, kind, message):
    with pytest.raises(kind, match=message) as caught:
        draw(*arguments)
    assert isinstance(caught.value, UserError) and list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_an_error(draw, tmp_path, monkeypatch):
    def refused(self: Path, content: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", refused)
    with pytest.raises(RunError, match=r"cannot write h.svg: no permission to write there"):
        draw("history", "-o", "h.svg")


# Accuracy and operations


def test_our_rows_have_their_published_figures(draw):
    out, err = draw("accuracy", "resnet50", "resnet20", "mobilenet_v1", "lenet5", "--csv", "-")
    first, second = rows(out)
    assert first == {
        "name": "resnet50",
        "family": "resnet",
        "macs": "4089000000",
        "parameters": "25557032",
        "top1_percent": "76.13",
        "weights": "torchvision IMAGENET1K_V1",
        "source": variant("resnet50").source,
        "macs_source": "published",
    }
    assert second["weights"] == "" and second["source"] == "the paper's table 6"
    assert err == "left out, no accuracy on ImageNet-1k is known: resnet20, lenet5\n"


def test_operations_that_nobody_published_are_counted(draw):
    out, _ = draw("accuracy", "alexnet_2012", "--csv", "-")
    (row,) = rows(out)
    assert (row["macs_source"], row["macs"]) == ("counted by Convarium", "724406816")


def test_only_figures_on_imagenet_with_its_thousand_classes_are_compared(monkeypatch):
    monkeypatch.setattr(chart, "_counted", lambda name: 10**9)
    points = chart._points(["*"], all_weights=False)
    told = [row for row in map(variant, names()) if row.top1 is not None and row.classes == 1000]
    assert [(p.name, p.top1_percent) for p in points] == [(row.name, row.top1) for row in told]
    assert {"inception", "mobilenet"} <= {p.family for p in points} and len(points) > 60


def test_torchvisions_networks_have_their_best_weights(draw):
    out, _ = draw("accuracy", "torchvision:regnet_y_16gf", "torchvision:vit_b_16", "--csv", "-")
    regnet, vit = rows(out)
    best = torchvision.models.RegNet_Y_16GF_Weights.DEFAULT
    assert regnet["weights"] == f"torchvision {best.name}" and regnet["family"] == "regnet"
    assert float(regnet["top1_percent"]) == best.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert vit["family"] == "vit"


def test_all_weights_of_a_network_with_the_operations_at_their_size(draw):
    out, _ = draw("accuracy", "torchvision:regnet_y_16gf", "--all-weights", "--csv", "-")
    theirs = list(torchvision.models.RegNet_Y_16GF_Weights)
    assert [row["weights"] for row in rows(out)] == [f"torchvision {weights.name}" for weights in theirs]
    assert [int(row["macs"]) for row in rows(out)] == [round(w.meta["_ops"] * 1e9) for w in theirs]
    assert len({row["macs"] for row in rows(out)}) == 2  # one set is for larger pictures


def test_all_weights_of_ours_are_those_that_fit(draw):
    out, _ = draw("accuracy", "resnet50", "densenet_bc_100_12", "inception_v2", "--all-weights", "--csv", "-")
    found = [(row["name"], row["weights"], row["top1_percent"]) for row in rows(out)]
    assert found[:2] == [
        ("resnet50", "torchvision IMAGENET1K_V1", "76.13"),
        ("resnet50", "torchvision IMAGENET1K_V2", "80.858"),
    ]
    assert ("resnet50", "timm a1_in1k", "80.382") in found
    assert found[-1] == ("inception_v2", "", "74.8")


def test_networks_of_timm_have_timms_own_figures(draw):
    out, _ = draw("accuracy", "timm:resnet10t", "--csv", "-")
    (row,) = rows(out)
    assert (row["family"], row["weights"], row["macs_source"]) == ("resnet", "timm c3_in1k", "published")
    assert 60 < float(row["top1_percent"]) < 70 and int(row["parameters"]) == 5_440_000


def test_the_picture_of_accuracy_is_drawn(draw):
    out, err = draw("accuracy", "vgg1?", "resnet50", "-o", "a.png")
    assert out == "a.png\n" and err == "" and Path("a.png").stat().st_size > 10_000


# Layers and fields


def test_most_parameters_of_vgg16_are_in_three_layers(draw):
    out, _ = draw("layers", "vgg16", "--csv", "-", "-o", "l.svg")
    found = rows(out)
    assert sum(int(row["parameters"]) for row in found) == 138_357_544
    assert sum(int(row["macs"]) for row in found) == 15_470_264_320
    head = [row for row in found if row["stage"] == "head"]
    assert [int(row["parameters"]) for row in head] == [102_764_544, 16_781_312, 4_097_000]
    assert sum(int(row["parameters"]) for row in head) / 138_357_544 == pytest.approx(0.8937, abs=1e-4)
    assert sum(int(row["macs"]) for row in found if row["stage"] != "head") / 15_470_264_320 > 0.99
    assert found[0] == {
        "path": "stages.0.blocks.0.conv",
        "stage": "stages.0",
        "kind": "3x3, 64",
        "shape": "64 x 224 x 224",
        "parameters": "1792",
        "macs": "86704128",
    }


def test_what_the_counters_say_stands_in_the_footer():
    found, footer = chart._layers("googlenet", None)
    assert footer.startswith("Input 3 x 224 x 224. 1 MAC = one multiply and one add;") and "aux" in footer
    assert footer.endswith(".") and ".." not in footer
    assert sum(layer.parameters for layer in found) == variant("googlenet").parameters


def test_parameters_that_stand_beside_the_parts_are_not_lost(draw):
    out, _ = draw("layers", "vit_tiny_16", "--csv", "-")
    assert sum(int(row["parameters"]) for row in rows(out)) == variant("vit_tiny_16").parameters


def test_another_librarys_network_has_its_own_paths(draw):
    out, _ = draw("layers", "torchvision:resnet18", "--csv", "-")
    assert [row["path"] for row in rows(out)][:3] == ["conv1", "bn1", "layer1.0.conv1"]
    assert sum(int(row["parameters"]) for row in rows(out)) == 11_689_512


def test_a_gate_does_not_end_the_growth_of_a_field(draw):
    out, _ = draw("field", "efficientnet_b0", "--csv", "-")
    assert [row["field_rows_px"] for row in rows(out)][-1] == "851" and "" not in {
        r["field_rows_px"] for r in rows(out)
    }


def test_attention_sees_the_whole_picture(draw):
    out, _ = draw("field", "vit_tiny_16", "--csv", "-", "-o", "f.svg")
    assert [row["field_rows_px"] for row in rows(out)][:2] == ["16", ""]


def test_layers_without_a_field_are_left_out_and_named(monkeypatch):
    class Positions(nn.Module):
        """A convolution beside one of a constant, as that of positions."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
            self.last = nn.Conv2d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x) + self.second(x.new_zeros(4, 6, 6)))

    monkeypatch.setattr(chart, "_cost", lambda name, size: cost(Positions(), (3, 8, 8)))
    found, footer = chart._depths(["positions"], None)
    assert [row.path for row in found] == ["first", "last"]
    assert footer.endswith("Left out, no field is known: second of positions.")


def test_the_size_of_the_picture_changes_the_operations(draw):
    out, _ = draw("layers", "resnet18", "--size", "64", "--csv", "-")
    assert rows(out)[0]["shape"] == "64 x 32 x 32"


def test_fields_grow_to_what_is_known(draw):
    out, _ = draw("field", "vgg16", "resnet18", "vgg16", "--csv", "-", "-o", "f.png")
    found = rows(out)
    vgg = [int(row["field_rows_px"]) for row in found if row["network"] == "vgg16"]
    # Simonyan and Zisserman's table 1, D: two, two, three, three and three convolutions of 3x3, a pool after each.
    assert vgg == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196, 212]
    assert max(int(row["field_rows_px"]) for row in found if row["network"] == "resnet18") == 435
    assert {row["input_px"] for row in found} == {"224"}


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        ("stages.1.blocks.0.conv", "stages.1"),
        ("stem.conv", "stem"),
        ("layer1.0.conv1", "layer1"),
        ("features.3", "features.3"),
        ("fc", "fc"),
        ("", ""),
    ],
)
def test_the_stage_of_a_path(path, stage):
    assert chart._stage(path) == stage
