"""Figures: what they show is what the network is, and everything in them can be read."""

from __future__ import annotations

import os
import re
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from convarium.draw.difference import difference, differences
from convarium.draw.figure import content, figure, figure_of, read, save
from convarium.draw.layout import Arrow, Box, Figure, Label, faults
from convarium.draw.letters import fitted, width, wrapped
from convarium.draw.palette import DARK, LIGHT, shade
from convarium.draw.svg import svg
from convarium.draw.units import Run, Unit, flow, kind, lines
from convarium.errors import ArgumentError, UnknownName
from convarium.joins import Chain, Concat, Gate, Sum
from convarium.models import create, names, variant
from convarium.net import Head, Net, Stage

LEVELS = ("net", "stage", "block")

FAMILIES = {
    "lenet5_1998", "linear", "alexnet_2012", "nin", "vgg11", "googlenet", "se_inception_v2", "se_inception_v3",
    "resnet50", "squeezenet1_1", "resnet164_v2", "densenet_bc_100_12", "mobilenet_v1", "seresnet50", "mobilenet_v2",
    "mobilenet_v3_small", "resnet110_fixup", "efficientnet_b0", "vit_tiny_16", "clip_rn50", "convnextv2_atto",
}  # fmt: skip

ALL = names() if os.environ.get("CONVARIUM_ALL") else [name for name in names() if name in FAMILIES]


# Deep ones are counted for seconds; a few blocks show the same.
FEWER = {"resnet110_fixup": {"depth": 20}, "resnet164_v2": {"depth": 20}, "densenet_bc_100_12": {"depth": 22}}


def built(name: str) -> Net:
    with torch.device("meta"):
        return create(name, **({} if os.environ.get("CONVARIUM_ALL") else FEWER.get(name, {})))


def picture(net: Net) -> tuple[int, int, int]:
    return (net.in_channels, net.size, net.size)


def drawn(net: nn.Module, level: str = "block", side: int = 8, **options) -> Figure:
    return figure(net, (3, side, side), "net", level, **options)


def texts(fig: Figure) -> list[str]:
    return [label.text for label in fig.labels]


def small(*blocks: nn.Module, **head: nn.Module) -> Net:
    """A network of one stage of 8 channels on pictures of 8 pixels."""
    stem = Chain(conv=nn.Conv2d(3, 8, 3, padding=1), norm=nn.BatchNorm2d(8), act=nn.ReLU())
    end = Head(**(head or {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "fc": nn.Linear(8, 5)}))
    return Net(stem, [Stage(blocks)], end, in_channels=3, classes=5, size=8)


def conv() -> Chain:
    return Chain(conv=nn.Conv2d(8, 8, 3, padding=1), norm=nn.BatchNorm2d(8), act=nn.ReLU())


@pytest.fixture(scope="module")
def resnet():
    return read(built("resnet50"), (3, 224, 224))


@pytest.mark.parametrize("name", ALL)
def test_nothing_overlaps_and_no_arrow_crosses_a_box(name):
    net = built(name)
    whole = read(net, picture(net))
    for level in LEVELS:
        assert faults(figure_of(whole, name, level, note=variant(name).paper)) == [], level


def test_every_family_is_among_the_networks_that_are_looked_at():
    assert {variant(name).family for name in FAMILIES} == {variant(name).family for name in names()}


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet10t"])
@pytest.mark.parametrize("level", LEVELS)
def test_a_foreign_network_can_be_read_too(name, level):
    net = built(name)
    fig = figure(net, picture(net), name, level)
    assert faults(fig) == []
    assert "how the parts are joined is not known" in " ".join(texts(fig))


def test_the_checks_see_what_is_wrong():
    boxes = [Box(0, 0, 50, 20, name="a"), Box(60, 0, 50, 20, name="b"), Box(120, 0, 50, 20, name="c")]
    crossing = Arrow(((50, 10), (120, 10)), ("a", "c"))
    labels = [Label(25, 10, "much too wide", within="a"), Label(27, 12, "on it"), Label(5, 60, "out")]
    found = " | ".join(faults(Figure(170, 50, boxes=boxes, arrows=[crossing], labels=labels)))
    assert "crosses box 'b'" in found
    assert "'much too wide' leaves its box 'a'" in found
    assert "texts 'much too wide' and 'on it' overlap" in found
    assert "leaves the sheet" in found
    assert faults(Figure(170, 50, boxes=boxes, arrows=[Arrow(((50, 10), (60, 10)), ("a", "b"))])) == []


def test_the_row_names_the_end_points_with_their_shapes_and_costs(resnet):
    fig = content(resnet, "resnet50", "net")[1]
    found = texts(fig)
    assert [t for t in found if t in ("input", "stem", "stage0", "stage1", "stage2", "stage3", "fc")] == [
        "input", "stem", "stage0", "stage1", "stage2", "stage3", "fc",
    ]  # fmt: skip
    assert {"64×56×56", "2048×7×7", "6 × Bottleneck", "pre_logits", "logits", "7.10 M params"} <= set(found)
    assert "1.46 G MACs · 36 %" in found


def test_maps_grow_with_the_roots_of_side_and_channels(resnet):
    boxes = {box.name.split(":")[1]: box for box in content(resnet, "resnet50", "net")[1].boxes}
    assert boxes["stage0"].h / boxes["stage2"].h == pytest.approx(2.0)  # 56 and 14 pixels
    assert boxes["stage2"].w / boxes["stage0"].w == pytest.approx(2.0)  # 1024 and 256 channels
    assert boxes["stage2"].shade > boxes["stem"].shade > 0


def test_blocks_alike_are_drawn_once_and_the_first_one_apart(resnet):
    fig = content(resnet, "resnet50", "stage")[1]
    found = texts(fig)
    assert [t for t in found if t.startswith("× ")] == ["× 2", "× 3", "× 5", "× 2"]
    assert found.count("+ x") == 4
    assert "+ 1×1 conv, 512, /2" in found


def test_dense_layers_are_folded_though_each_is_given_more():
    net = built("densenet121")
    found = texts(content(read(net, picture(net)), "densenet121", "stage")[1])
    assert {"× 6", "× 12", "× 24", "× 16", "256 → 1024 channels"} <= set(found)


def test_a_block_of_each_kind_is_drawn(resnet):
    fig = content(resnet, "resnet50", "block")[1]
    assert sum(box.role == "panel" for box in fig.boxes) == 2
    assert sum(box.role == "plus" for box in fig.boxes) == 2
    assert texts(fig).count("identity") == 1
    assert "one of 12 such among 16 blocks" in " ".join(texts(fig))


def test_a_sum_joins_both_ways_at_its_sign():
    fig = drawn(small(Sum(conv(), act=nn.ReLU())))
    (sign,) = [box for box in fig.boxes if box.role == "plus"]
    comes = [arrow for arrow in fig.arrows if arrow.ends[1] == sign.name]
    assert len(comes) == 2
    assert [arrow.role for arrow in comes].count("accent") == 1
    assert len([arrow for arrow in fig.arrows if arrow.ends[0] == sign.name]) == 1


def test_branches_end_at_a_bar_divided_as_their_channels():
    branches = {"a": nn.Conv2d(8, 6, 1), "b": nn.Identity(), "c": nn.Conv2d(8, 2, 3, padding=1)}
    fig = drawn(small(Concat(**branches), pool=nn.AdaptiveAvgPool2d(1)))
    (bar,) = [box for box in fig.boxes if box.role == "bar"]
    assert len([arrow for arrow in fig.arrows if arrow.ends[1] == bar.name]) == 3
    pieces = [box.w / bar.w for box in fig.boxes if box.role.startswith("piece")]
    assert pieces == pytest.approx([6 / 16, 8 / 16, 2 / 16])
    assert "concat, 16" in texts(fig)


def test_a_gate_stands_beside_the_way_that_it_weighs():
    gate = Gate(Chain(pool=nn.AdaptiveAvgPool2d(1), fc=nn.Conv2d(8, 8, 1), act=nn.Sigmoid()))
    fig = drawn(small(Chain(conv=conv(), se=gate)))
    (sign,) = [box for box in fig.boxes if box.role == "times"]
    (pool,) = [label for label in fig.labels if label.text == "global average pool"]
    assert pool.x > sign.x + sign.w
    assert len([arrow for arrow in fig.arrows if arrow.ends[1] == sign.name]) == 2


def units(part) -> list[tuple[str, str, str]]:
    return [(item.before, item.text, item.behind) for item in flow(part) if isinstance(item, Unit)]


def test_a_norm_stands_with_the_convolution_that_it_follows_or_leads():
    after = read(small(Chain(a=nn.Conv2d(8, 8, 1), b=nn.BatchNorm2d(8), c=nn.ReLU())), (3, 8, 8))
    assert units(after.find("stages.0.blocks.0")) == [("", "1×1 conv, 8", "BN · ReLU")]
    before = read(small(Chain(b=nn.BatchNorm2d(8), c=nn.ReLU(), a=nn.Conv2d(8, 8, 1))), (3, 8, 8))
    assert units(before.find("stages.0.blocks.0")) == [("BN · ReLU", "1×1 conv, 8", "")]


def test_many_parts_alike_in_a_block_are_one_frame():
    whole = read(small(Chain({str(i): conv() for i in range(5)})), (3, 8, 8))
    (run,) = flow(whole.find("stages.0.blocks.0"))
    assert isinstance(run, Run)
    assert len(run.parts) == 5
    assert "× 5" in texts(content(whole, "net", "block")[1])


@pytest.mark.parametrize(("form", "said"), [("a", "sum of 32"), ("b", "× 32")])
def test_many_ways_alike_are_one(form, said):
    with torch.device("meta"):
        block = create("resnext50_32x4d", form=form).part("stages.0.blocks.1")
    fig = figure(block, (256, 8, 8), "path", "block")
    assert said in texts(fig)
    assert "identity" in texts(fig)
    assert faults(fig) == []


def test_a_part_alone_can_be_drawn(resnet):
    fig = content(resnet, "resnet50", "block", "stages.2.blocks.0.shortcut")[1]
    assert "1×1 conv, 1024, /2" in texts(fig)
    only = content(resnet, "resnet50", "stage", "stages.1")[1]
    assert [box.name for box in only.boxes if box.role == "panel"] == ["stages.1:panel"]


@pytest.mark.parametrize(
    ("level", "part", "error"),
    [("nets", None, UnknownName), ("block", "stages.9", UnknownName), ("stage", "stem.conv", UnknownName),
     ("net", "stem", ArgumentError)],
)  # fmt: skip
def test_what_does_not_exist_is_refused_with_what_does(resnet, level, part, error):
    with pytest.raises(error, match="stage|net"):
        content(resnet, "resnet50", level, part)


def test_clip_has_two_towers_on_one_sheet():
    net = built("clip_vit_b_32")
    found = texts(figure(net, picture(net), "clip"))
    assert {"image", "text", "77×512", "50×768"} <= set(found)


def test_kinds_and_lines_say_what_a_block_is(resnet):
    block = resnet.find("stages.1.blocks.0")
    assert kind(block) == "Bottleneck"
    assert lines(block) == ["1×1 conv, 128", "3×3 conv, 128, /2", "1×1 conv, 512", "+ 1×1 conv, 512, /2"]


def test_the_difference_marks_what_only_one_has_and_what_is_not_alike():
    one, two = small(Sum(conv())), small(Sum(Chain(**conv()._modules, more=nn.Conv2d(8, 8, 1))))
    fig = difference((one, (3, 8, 8), "one"), (two, (3, 8, 8), "two"), "block")
    marked = {(box.name[0], box.name.rpartition(".")[2]): box.mark for box in fig.boxes if box.role == "unit"}
    assert marked == {("0", "conv"): "", ("1", "conv"): "", ("1", "more"): "only"}
    stage = difference((one, (3, 8, 8), "one"), (two, (3, 8, 8), "two"), "stage")
    assert {box.mark for box in stage.boxes if box.name.endswith("blocks.0")} == {"changed"}
    assert faults(fig) == faults(stage) == []
    assert "blocks.body.more: 1×1 conv, 8 only in two." in texts(fig)


def test_a_network_does_not_differ_from_itself(resnet):
    assert differences(resnet, resnet, "a", "b") == ["No part differs."]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ("resnet20", "plain20", "blocks"),
        ("vgg11", "vgg11_bn", "blocks.norm: BN only in vgg11_bn (one of 8 such)."),
        ("resnet18", "seresnet18", "blocks.body.se: gate only in seresnet18 (one of 8 such)."),
    ],
)
def test_differences_are_told_in_words(one, two, said):
    parts = [read(net, picture(net)) for net in (built(one), built(two))]
    assert any(said in line for line in differences(*parts, one, two))


def test_svg_is_one_file_that_a_screen_reader_can_tell(resnet):
    name = 'a<b>&"c"'
    text = svg(figure(small(Sum(conv())), (3, 8, 8), name), "auto")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    title, told = root.find(f"{space}title"), root.find(f"{space}desc")
    assert root.get("role") == "img"
    assert title is not None and title.text == name
    assert root.get("aria-labelledby") == f"{title.get('id')} {told.get('id') if told is not None else ''}"
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"<script|@import|href|url\(", text)
    hovers = [element.text or "" for element in root.iter(f"{space}title")]
    assert any("stages.0" in text and "parameters" in text for text in hovers)


def test_a_theme_is_the_only_one_in_its_file():
    fig = drawn(small(conv()), "net")
    light, dark = svg(fig, "light"), svg(fig, "dark")
    assert LIGHT.paper in light and DARK.paper not in light and "<style>" not in light
    assert DARK.paper in dark and "<style>" not in dark


def test_names_in_any_script_and_control_signs_stay_in_xml():
    fig = figure(small(conv()), (3, 8, 8), "网络\x00 сеть شبكة")
    root = ElementTree.fromstring(svg(fig))
    assert faults(fig) == []
    assert root[0].text == "网络 сеть شبكة"


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_files_are_the_same_byte_for_byte(tmp_path, ending):
    fig = drawn(small(Sum(conv())), "block")
    for name in ("one", "two"):
        save(fig, tmp_path / f"{name}.{ending}")
    content_of = [(tmp_path / f"{name}.{ending}").read_bytes() for name in ("one", "two")]
    assert content_of[0] == content_of[1]
    assert content_of[0][:4] in (b"<svg", b"\x89PNG", b"%PDF")


def test_png_is_the_same_layout_twice_as_sharp(tmp_path):
    from PIL import Image

    fig = drawn(small(Sum(conv())), "block")
    save(fig, tmp_path / "dark.png", "dark")
    with Image.open(tmp_path / "dark.png") as found:
        assert found.size == pytest.approx((2 * fig.width, 2 * fig.height), abs=2)
        assert found.convert("RGB").getpixel((2, 2)) == tuple(bytes.fromhex(DARK.paper[1:]))
        (box,) = [b for b in fig.boxes if b.role == "unit"]
        inside = found.convert("RGB").getpixel((int(2 * box.x + 8), int(2 * (box.y + box.h) - 8)))
    assert inside == tuple(bytes.fromhex(DARK.shades[box.shade - 1][1:]))


@pytest.mark.parametrize("font", ["DejaVuSans.ttf", "DejaVuSans-Bold.ttf"])
def test_no_letter_is_wider_than_the_table_says(font):
    from pathlib import Path

    import matplotlib
    from matplotlib.ft2font import FT2Font, LoadFlags

    face = FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", font)))
    face.set_size(1000, 72)
    flags = LoadFlags.NO_HINTING | LoadFlags.NO_SCALE
    for letter in [*map(chr, range(32, 127)), *"×·→√±–—…²′"]:
        em = face.load_char(ord(letter), flags=flags).linearHoriAdvance / 65536 / 1000
        assert width(letter, 1.0, "Bold" in font) >= em - 1e-3, letter


def test_texts_are_broken_and_cut_to_their_room():
    assert fitted("stage", 10, 200) == "stage"
    assert width(fitted("a very long name of a network", 10, 80), 10) <= 80
    assert fitted("a very long name of a network", 10, 80).endswith("…")
    assert all(width(line, 10) <= 60 for line in wrapped("one two three four five six", 10, 60))
    assert len(wrapped("one two three four five six seven eight nine", 10, 60, most=2)) == 2


def test_shares_fall_into_classes():
    assert [shade(share) for share in (None, 0.0, 0.01, 0.02, 0.07, 0.1, 0.39, 0.4, 1.0)] == [
        0, 0, 1, 2, 3, 4, 5, 6, 6,
    ]  # fmt: skip
