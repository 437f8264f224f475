"""Charts by matplotlib: their figures, their labels, their bytes."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from convarium.draw import plot_theme
from convarium.draw.history import HUMAN_PERCENT, WINNERS
from convarium.draw.plot_accuracy import Point, accuracy, front, labels
from convarium.draw.plot_layers import MOST_BARS, Depth, Layer, field, folded, layers, share_of
from convarium.draw.plot_theme import THEMES, Chart, image, plain
from convarium.draw.plots import history, table
from convarium.errors import ArgumentError, UnknownName


def points(count: int = 30) -> list[Point]:
    """Networks along a curve with some scatter, as real ones lie: crowded where good ones are."""
    random = np.random.default_rng(7)
    found = []
    for number in range(count):
        macs = 10 ** random.uniform(8, 10.5)
        top1 = 85 - 30 * (1e8 / macs) ** 0.4 - random.uniform(0, 8)
        weights = "torchvision IMAGENET1K_V1" if number % 3 else ""
        size = int(10 ** random.uniform(6, 8.7))
        family = f"family{number % 9}"
        found.append(
            Point(f"network_{number}", family, round(macs), size, top1, weights, "here", "published")
        )
    return found


def stack(names: dict[str, tuple[int, int]]) -> list[Layer]:
    """Layers by path, each with its parameters and operations."""
    return [
        Layer(path, ".".join(path.split(".")[: 2 if path.startswith("stages") else 1]), "3x3, 8", "", *figures)
        for path, figures in names.items()
    ]  # fmt: skip


LAYERS = stack(
    {
        "stem.conv": (100, 5000),
        "stem.norm": (10, 0),
        "stages.0.blocks.0.conv": (200, 4000),
        "stages.0.blocks.1.conv": (300, 3000),
        "head.fc": (1390, 1390),
    }
)
DEPTHS = [
    Depth(name, layer, f"stages.{layer}", "3x3, 8", size, size, 64)
    for name, sizes in {"plain": (3, 5, 9, 41), "strided": (3, 11, 27, 203), "tokens": (8, None)}.items()
    for layer, size in enumerate(sizes, start=1)
]


KINDS = ("accuracy", "history", "layers", "field")


def chart_of(kind: str, theme: str = "light") -> Chart:
    if kind == "accuracy":
        return accuracy(points(), theme)
    if kind == "history":
        return history(WINNERS, theme)
    if kind == "layers":
        return layers("a net", LAYERS, "Counted here.", theme)
    return field(DEPTHS, "Padding included.", theme)


@pytest.fixture(scope="module")
def drawn() -> dict[str, Chart]:
    return {kind: chart_of(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def again() -> dict[str, Chart]:
    return {kind: chart_of(kind) for kind in KINDS}


def print_of(content: bytes) -> str:
    """A short print, whose difference is quickly shown."""
    return hashlib.sha256(content).hexdigest()


def boxes(chart: Chart) -> list[tuple[str, Bbox]]:
    """Every text that is seen with its place in pixels, at the resolution of a PNG."""
    figure = chart.figure
    with plain():
        figure.set_dpi(plot_theme.DPI)
        figure.canvas.draw()
        hidden = set()
        for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if not low <= tick.get_loc() <= high or not axis.axes.axison:
                    hidden |= {tick.label1, tick.label2}
        found = [
            (text.get_text(), text.get_window_extent())
            for text in figure.findobj(Text)
            if text.get_text().strip() and text.get_visible() and text not in hidden
        ]
        figure.set_dpi(100)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_covers_another_or_leaves_the_page(drawn, kind):
    texts = boxes(drawn[kind])
    page = drawn[kind].figure.get_size_inches() * plot_theme.DPI
    assert len(texts) > 12
    for text, box in texts:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page[0] and box.y1 <= page[1], text
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        apart = a.x1 <= b.x0 + 0.5 or b.x1 <= a.x0 + 0.5 or a.y1 <= b.y0 + 0.5 or b.y1 <= a.y0 + 0.5
        assert apart, f"{one!r} covers {other!r}"


@pytest.mark.parametrize(
    ("kind", "form"), [*((kind, form) for kind in KINDS for form in ("svg", "png")), ("history", "pdf")]
)
def test_the_same_chart_gives_the_same_bytes(drawn, again, kind, form):
    content = image(drawn[kind], form)
    assert print_of(content) == print_of(image(again[kind], form))
    assert content.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[form])


def test_an_svg_needs_no_font_and_no_other_file(drawn):
    svg = image(drawn["history"], "svg").decode()
    assert "<text" not in svg and "font-family" not in svg
    assert "dc:date" not in svg and "Matplotlib" not in svg
    ids = [part.split('"')[0] for part in svg.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_ground_is_the_themes_paper(theme):
    with Image.open(io.BytesIO(image(history(WINNERS, theme), "png"))) as picture:
        paper = THEMES[theme].paper
        assert "#{:02x}{:02x}{:02x}".format(*picture.convert("RGB").getpixel((3, 3))) == paper


def test_the_users_settings_of_matplotlib_change_nothing_and_come_back(drawn):
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "svg.hashsalt": "other"}):
        assert print_of(image(history(WINNERS), "svg")) == print_of(image(drawn["history"], "svg"))
        assert matplotlib.rcParams["font.size"] == 20 and matplotlib.rcParams["svg.hashsalt"] == "other"


def test_what_the_font_lacks_is_told():
    chart = history(WINNERS, title="花")
    image(chart, "png")
    assert chart.notes == ["the chart's font has no 花; boxes stand for them"]


def test_a_title_as_long_as_a_path_stays_on_the_page():
    chart = layers("runs/" + "long" * 40 + "$x$", LAYERS, "Counted here.")
    width = chart.figure.get_size_inches()[0] * plot_theme.DPI
    assert all(box.x1 <= width for _, box in boxes(chart))


def test_unknown_forms_and_themes_are_errors(drawn):
    with pytest.raises(ArgumentError, match="svg, png, pdf, not as 'jpg'"):
        image(drawn["history"], "jpg")
    with pytest.raises(UnknownName, match="no theme is called 'drak'; did you mean dark"):
        history(WINNERS, "drak")


# Accuracy and operations


def test_no_label_covers_a_bubble():
    chart = accuracy(points())
    axes = chart.figure.axes[0]
    names = {point.name for point in points()}
    written = {text: box for text, box in boxes(chart) if text in names}
    chart.figure.set_dpi(plot_theme.DPI)
    bubbles = [
        (*axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0])), line.get_markersize() / 2)
        for line in axes.lines
        if line.get_marker() == "o"
    ]
    assert len(bubbles) == 2 * len(points())
    for text, box in written.items():
        for x, y, radius in bubbles:
            gap = math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))
            assert gap >= radius * plot_theme.DPI / 72, text


def test_names_without_room_are_told_in_the_notes_and_on_the_page():
    near = [replace(point, macs=10**9 + i, top1_percent=75 + i / 1e3) for i, point in enumerate(points(20))]
    chart = accuracy(near)
    texts = [text.get_text() for text in chart.figure.findobj(Text)]
    left_out = [point.name for point in near if point.name not in texts]
    assert left_out and chart.notes[0].startswith(f"No room for {len(left_out)} of 20 names: ")
    assert all(name in chart.notes[0] for name in left_out)
    page = " ".join(texts)
    assert all(name in page for name in left_out)


def test_every_bubble_is_inside_and_its_area_is_its_parameters():
    few = [
        replace(points()[0], name=f"n{i}", parameters=p) for i, p in enumerate((10**6, 4 * 10**6, 9 * 10**8))
    ]
    chart = accuracy([replace(point, top1_percent=60 + 5 * i) for i, point in enumerate(few)])
    axes = chart.figure.axes[0]
    rings = [line for line in axes.lines if line.get_marker() == "o" and line.get_color() == "none"]
    sizes = sorted(line.get_markersize() for line in rings)
    assert sizes[1] == pytest.approx(2 * sizes[0]) and sizes[2] == pytest.approx(30 * sizes[0])
    for line in rings:
        x, y = axes.transData.transform((line.get_xdata()[0], line.get_ydata()[0]))
        radius = line.get_markersize() / 2 * chart.figure.dpi / 72
        assert axes.bbox.x0 <= x - radius and x + radius <= axes.bbox.x1
        assert axes.bbox.y0 <= y - radius and y + radius <= axes.bbox.y1


def test_the_front_has_what_no_other_beats():
    base = points(1)[0]
    figures = [(5, 70), (2, 60), (2, 65), (9, 80), (7, 70), (9, 79)]
    some = [replace(base, macs=macs, top1_percent=top1) for macs, top1 in figures]
    assert front(some) == [2, 0, 3]


def test_one_network_with_two_sets_of_weights_is_named_by_both():
    base = replace(points(1)[0], name="torchvision:resnet50", weights="torchvision IMAGENET1K_V1")
    other = replace(base, weights="torchvision IMAGENET1K_V2")
    assert labels([base, other]) == ["resnet50 V1", "resnet50 V2"]
    assert labels([base]) == ["resnet50"]


def test_one_point_alone_is_drawn():
    assert image(accuracy(points(1)), "png")


def test_the_footer_tells_which_weights_the_accuracies_belong_to():
    footer = " ".join(text.get_text() for text in accuracy(points(9)).figure.texts)
    assert (
        "torchvision IMAGENET1K_V1 (6)" in footer
        and "papers and publishers' pages (3, open circles)" in footer
    )


# The challenge's winners


def test_the_winners_are_those_of_the_published_results():
    assert [(w.year, w.team, w.top5_error_percent, w.layers) for w in WINNERS] == [
        (2010, "NEC-UIUC", 28.191, None),
        (2011, "XRCE", 25.77, None),
        (2012, "SuperVision", 16.422, 8),
        (2013, "Clarifai", 11.743, 8),
        (2014, "GoogLeNet", 6.656, 22),
        (2015, "MSRA", 3.567, 152),
        (2016, "Trimps-Soushen", 2.991, None),
        (2017, "WMW", 2.251, 154),
    ]
    assert HUMAN_PERCENT == 5.1
    assert all(winner.source and bool(winner.layers) == bool(winner.layers_source) for winner in WINNERS)


def test_a_bar_is_as_high_as_its_error(drawn):
    bars = drawn["history"].figure.axes[1].patches
    assert [bar.get_height() for bar in bars] == [winner.top5_error_percent for winner in WINNERS]


# Layers


def test_a_norm_stands_with_the_layer_before_it():
    rows = folded(LAYERS)
    assert [row.path for row in rows] == [layer.path for layer in LAYERS if layer.macs]
    assert (rows[0].parameters, rows[0].macs) == (110, 5000)


def test_a_norm_that_stands_alone_joins_a_layer_that_stands_alone():
    bare = [Layer("conv1", "conv1", "", "", 9, 90), Layer("bn1", "bn1", "", "", 2, 0)]
    block = [Layer("layer1.conv", "layer1", "", "", 9, 90), Layer("bn2", "bn2", "", "", 2, 0)]
    assert [(row.path, row.parameters) for row in folded([*bare, *block])] == [
        ("conv1", 11),
        ("layer1.conv", 9),
        ("bn2", 2),
    ]


def test_parts_that_are_not_run_stay_by_themselves():
    aux = stack({"head.fc": (10, 10), "aux.conv": (500, 0), "aux.norm": (9, 0), "aux.fc": (700, 0)})
    assert [row.parameters for row in folded(aux)] == [10, 500, 9, 700]


@pytest.mark.parametrize("blocks", [60, 300])
def test_many_layers_are_folded_and_nothing_is_lost(blocks):
    many = stack(
        {
            f"stages.{stage}.blocks.{block}.conv{conv}": (stage + block + conv, 7)
            for stage in range(4)
            for block in range(blocks // 4)
            for conv in range(3)
        }
    )
    rows = folded(many)
    assert len(rows) <= MOST_BARS or blocks == 60
    assert sum(row.parameters for row in rows) == sum(layer.parameters for layer in many)
    assert sum(row.macs for row in rows) == 7 * len(many)
    assert rows[0].kind.endswith(" layers")


def test_bars_and_shares_are_those_of_the_layers(drawn):
    left, right = drawn["layers"].figure.axes[:2]
    widths = [bar.get_width() for bar in right.patches if bar.get_height() == pytest.approx(0.144)]
    assert widths == pytest.approx([5e-6, 4e-6, 3e-6, 1.39e-6])
    assert "69.5 %" in [text.get_text() for text in left.texts]  # 1390 of 2000


@pytest.mark.parametrize(
    ("share", "text"), [(0.8937, "89.4 %"), (1, "100.0 %"), (0.001, "0.1 %"), (0.0002, "< 0.1 %"), (0, "")]
)
def test_shares_in_words(share, text):
    assert share_of(share) == text


# Receptive fields


def test_lines_grow_and_end_at_the_last_field(drawn):
    axes = drawn["field"].figure.axes[0]
    steps = [list(line.get_ydata()) for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert steps == [[3, 5, 9, 41], [3, 11, 27, 203], [8, 64]]
    texts = [text.get_text() for text in drawn["field"].figure.texts]
    # A narrower branch at the end does not take back what a wider one has seen.
    narrow = field([*DEPTHS[:4], replace(DEPTHS[3], layer=5, field_rows_px=30, field_columns_px=30)], "")
    assert "plain  41 px" in [text.get_text() for text in narrow.figure.texts]
    assert {"plain  41 px", "strided  203 px", "tokens  all"} <= set(texts)


def test_too_many_networks_for_one_chart_are_an_error():
    rows = [replace(DEPTHS[0], network=f"net{number}") for number in range(8)]
    with pytest.raises(ArgumentError, match="8 networks are too many for one chart; give at most 7"):
        field(rows, "")


# Tables


def test_a_table_has_every_field_and_reads_back():
    rows = list(csv.DictReader(io.StringIO(table(WINNERS))))
    assert [row["year"] for row in rows] == [str(year) for year in range(2010, 2018)]
    assert rows[2]["more_data_percent"] == "15.315" and rows[0]["layers"] == ""
    assert rows[0]["network"] == "SIFT, LBP, SVM"
