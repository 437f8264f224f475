"""Charts of confidence: well-formed, inside their frame, and true to the numbers."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convarium.draw import confidence
from convarium.draw.confidence import Range, coverage_risk_chart, reliability_diagram


def tree(fragment: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<root>{fragment}</root>")


def ranges(*given: tuple[int, float, float]) -> list[Range]:
    """Ranges of equal width: (pictures, confidence, accuracy); of 0 pictures nothing is known."""
    width = 1 / len(given)
    return [
        Range(i * width, (i + 1) * width, n, c, a, max(0, a - 0.1), min(1, a + 0.1))
        if n
        else Range(i * width, (i + 1) * width, 0, None, None, None, None)
        for i, (n, c, a) in enumerate(given)
    ]


def test_only_ranges_with_pictures_have_a_point():
    root = tree(reliability_diagram(ranges((0, 0, 0), (5, 0.5, 0.4), (20, 0.9, 0.8))))
    assert len(root.findall(".//circle")) == 2
    titles = [t.text for t in root.iter("title")]
    assert titles[1] == (
        "confidence 67 to 100 %: 20 pictures, mean 90.0 %, 80.0 % right (95 %: 70.0 % to 90.0 %)"
    )


def test_a_calibrated_point_lies_on_the_line():
    root = tree(reliability_diagram(ranges((5, 0.25, 0.25), (5, 0.75, 0.75))))
    line = root.find(".//line[@class='equal']")
    x1, y1, x2, y2 = (float(line.attrib[k]) for k in ("x1", "y1", "x2", "y2"))  # type: ignore[union-attr]
    for point in root.findall(".//circle"):
        x, y = float(point.attrib["cx"]), float(point.attrib["cy"])
        assert (y - y1) * (x2 - x1) == pytest.approx((x - x1) * (y2 - y1), abs=60)  # rounding to 0.1 units


def test_the_bars_of_counts_are_as_tall_as_their_counts():
    root = tree(reliability_diagram(ranges((50, 0.25, 0.25), (100, 0.75, 0.75))))
    low, high = (float(r.attrib["height"]) for r in root.findall(".//rect"))
    assert high == pytest.approx(2 * low, abs=0.1)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=15))
def test_nothing_leaves_the_diagram(given_ranges):
    root = tree(reliability_diagram(ranges(*given_ranges)))
    for point in root.findall(".//circle"):
        assert confidence.LEFT <= float(point.attrib["cx"]) <= confidence.WIDTH - confidence.RIGHT
        assert confidence.TOP <= float(point.attrib["cy"]) <= confidence.HEIGHT - confidence.BOTTOM


def test_the_curve_has_a_mark_where_the_threshold_is():
    root = tree(coverage_risk_chart([0.5, 0.75, 1.0], [0.0, 0.1, 0.2], (0.75, 0.1)))
    assert len(root.findall(".//circle")) == 1
    assert "75.0 % answered, 10.0 % wrong" in " ".join(root.itertext())
    assert root.find(".//circle").attrib["cx"] in root.find(".//path").attrib["d"]  # type: ignore[union-attr]


def test_without_a_threshold_there_is_no_mark():
    root = tree(coverage_risk_chart([0.5, 1.0], [0.0, 0.2]))
    assert root.find(".//circle") is None


def test_a_long_curve_is_thinned_and_keeps_its_ends():
    count = 50_000
    drawing = coverage_risk_chart(
        [(i + 1) / count for i in range(count)], [0.3 * i / count for i in range(count)]
    )
    steps = tree(drawing).find(".//path").attrib["d"].split("L")  # type: ignore[union-attr]
    assert len(steps) == confidence.POINTS
    assert len(drawing) < 20_000


@pytest.mark.parametrize("risks", [[0.0, 0.0], [1.0, 1.0]])
def test_no_mistake_and_nothing_but_mistakes_can_be_drawn(risks):
    root = tree(coverage_risk_chart([0.5, 1.0], risks, (1.0, risks[1])))
    assert confidence.TOP <= float(root.find(".//circle").attrib["cy"]) <= 330 - confidence.BOTTOM  # type: ignore[union-attr]


def test_nothing_to_draw_is_calm():
    assert "no picture" in coverage_risk_chart([], [])
    assert "no picture" in reliability_diagram(ranges((0, 0, 0)))
