"""Charts: well-formed, complete, and calm where figures are missing."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from convarium.draw import charts
from convarium.draw.axes import epoch_ticks, log_ticks, nice_ticks, spread

KEYS = ("train_loss", "train_top1", "val_loss", "val_top1")


def tree(fragment: str) -> ElementTree.Element:
    """The fragment, parsed as XML, which fails where it is not well-formed."""
    return ElementTree.fromstring(f"<root>{fragment}</root>")


def text(element: ElementTree.Element) -> str:
    return " ".join(element.itertext())


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": e,
            "train_loss": 2 / e,
            "val_loss": 2.5 / e,
            "train_top1": 1 - 0.5 / e,
            "val_top1": 0.9 - 0.5 / e,
        }
        for e in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 20, 90])
def test_one_point_an_epoch_and_line(epochs: int) -> None:
    points = tree(charts.learning_curves(history(epochs))).findall(".//circle")
    assert len(points) == 4 * epochs


def test_no_point_leaves_the_drawing() -> None:
    root = tree(charts.learning_curves(history(30)))
    for point in root.findall(".//circle"):
        x, y = float(point.attrib["cx"]), float(point.attrib["cy"])
        assert charts.LEFT <= x <= charts.WIDTH - charts.RIGHT
        assert charts.TOP <= y <= charts.HEIGHT - charts.BOTTOM


@pytest.mark.parametrize("missing", [math.nan, math.inf, None])
def test_a_missing_figure_breaks_the_line_and_is_told(missing: float | None) -> None:
    rows: list[dict[str, float | None]] = [dict(row) for row in history(5)]
    rows[2]["train_loss"] = missing
    root = tree(charts.learning_curves(rows))
    line = root.find(".//path[@class='line train']")
    assert line is not None
    assert line.attrib["d"].count("M") == 2
    assert "no training figure at epoch 3" in text(root)
    assert not re.search(r"\bnan\b|\binf\b", charts.learning_curves(rows))


@pytest.mark.parametrize("rows", [[], [{}], [{"epoch": 1, "train_loss": math.nan}]])
def test_a_history_without_figures_says_so(rows: list[dict[str, float]]) -> None:
    root = tree(charts.learning_curves(rows))
    assert text(root).count("no figures were recorded") == 2


def test_a_history_without_validation_has_one_line_and_no_best() -> None:
    rows = [{k: v for k, v in row.items() if not k.startswith("val")} for row in history(5)]
    root = tree(charts.learning_curves(rows))
    assert len(root.findall(".//path")) == 2
    assert charts.best_epoch(rows) is None
    assert "best" not in text(root)


def test_best_epoch_is_the_first_of_equals() -> None:
    accuracy = [0.5, 0.9, 0.7, 0.9]
    rows = [{"epoch": e, "val_top1": a} for e, a in enumerate(accuracy, 1)]
    assert charts.best_epoch(rows) == 2
    assert "best: epoch 2" in text(tree(charts.learning_curves(rows)))


def test_best_epoch_falls_back_to_the_loss() -> None:
    assert charts.best_epoch([{"epoch": e, "val_loss": v} for e, v in enumerate([3.0, 1.0, 2.0], 1)]) == 2


def test_a_loss_over_decades_gets_a_logarithmic_axis_and_says_so() -> None:
    rows = [{"epoch": e, "train_loss": 10.0 ** (1 - e)} for e in range(1, 6)]
    assert "logarithmic axis" in text(tree(charts.learning_curves(rows)))
    assert "logarithmic axis" not in text(tree(charts.learning_curves(history(5))))


def test_a_perfect_accuracy_has_no_axis_above_100() -> None:
    ticks = tree(charts.learning_curves([{"epoch": e, "val_top1": 1.0} for e in (1, 2)]))
    assert max(float(t) for t in re.findall(r"([\d.]+) %", text(ticks))) == 100


def test_direct_labels_do_not_overlap() -> None:
    rows = [{"epoch": e, **dict.fromkeys(KEYS, 0.5)} for e in (1, 2)]
    for svg in tree(charts.learning_curves(rows)).findall(".//svg"):
        first, second = sorted(
            float(t.attrib["y"]) for t in svg.findall("text") if "end" in t.attrib["class"]
        )
        assert second - first >= charts.LABEL_ROOM


@given(st.lists(st.floats(0, 100), min_size=1, max_size=4))
def test_spread_places_keep_apart_and_inside(places: list[float]) -> None:
    moved = sorted(spread(places, 20, 0, 100))
    assert moved[0] >= -1e-6
    assert moved[-1] <= 100 + 1e-6
    assert all(b - a >= 20 - 1e-6 for a, b in zip(moved, moved[1:], strict=False))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(0.0, 5e-324)
def test_ticks_enclose_the_values_and_are_few(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(1, abs(low), span)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    assert 2 <= len(set(ticks)) <= 9


@given(st.floats(1e-9, 1e3), st.floats(30, 1e12))
def test_log_ticks_enclose_the_values_and_are_few(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert ticks[0] <= low * 1.001
    assert ticks[-1] >= low * ratio * 0.999
    assert len(ticks) <= 14


@pytest.mark.parametrize("epochs", [1, 7, 8, 90, 300, 5000])
def test_epochs_on_the_axis_are_few_and_exist(epochs: int) -> None:
    ticks = epoch_ticks(range(1, epochs + 1))
    assert 1 <= len(ticks) <= 8
    assert set(ticks) <= set(range(1, epochs + 1))


@pytest.mark.parametrize("classes", [1, 2, 10, 20])
def test_a_small_confusion_is_a_matrix_with_every_count(classes: int) -> None:
    matrix = [[100 * t + s for s in range(classes)] for t in range(classes)]
    root = tree(charts.confusion(matrix, [f"class {i}" for i in range(classes)]))
    cells = [td.text for td in root.findall(".//tbody//td")]
    assert cells == [str(n) if n else "·" for row in matrix for n in row]


def test_matrix_marks_right_and_wrong() -> None:
    root = tree(charts.confusion([[5, 1], [0, 0]], ["a", "b"]))
    kinds = [td.attrib["class"].split()[0] for td in root.findall(".//tbody//td")]
    assert kinds == ["right", "wrong", "none", "none"]


def test_a_large_confusion_is_a_ranked_list() -> None:
    matrix = [[0] * 100 for _ in range(100)]
    matrix[3][4], matrix[9][8], matrix[7][7] = 2, 5, 50
    root = tree(charts.confusion(matrix, [f"c{i}" for i in range(100)]))
    assert [text(li.find("span")).split() for li in root.findall(".//li")] == [  # type: ignore[arg-type]
        ["c9", "said", "to", "be", "c8"],
        ["c3", "said", "to", "be", "c4"],
    ]


def test_a_large_confusion_without_mistakes_says_so() -> None:
    matrix = [[int(t == s) for s in range(30)] for t in range(30)]
    assert "No two classes were confused" in charts.confusion(matrix, list(map(str, range(30))))


def test_names_are_escaped() -> None:
    for count in (2, 30):
        matrix = [[1] * count for _ in range(count)]
        names = [f'<script>"{i}"&' for i in range(count)]
        root = tree(charts.confusion(matrix, names))
        assert root.find(".//script") is None
        assert '<script>"1"&' in text(root)


def test_interval_stands_where_its_numbers_say() -> None:
    root = tree(charts.interval(0.5, 0.25, 0.75, 'half & "half"', (0.1, "guess")))
    band = root.find(".//span[@class='band']")
    assert band is not None
    assert band.attrib["style"] == "left:25.00%;width:50.00%"
    assert root[0].attrib["aria-label"] == 'half & "half"'
