"""What charts are made of: labels that keep clear of everything, hues that every eye can tell apart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convarium.draw import plot_labels
from convarium.draw.plot_theme import THEMES

# Of Machado et al. 2009, table 1, severity 1: linear RGB as protan, deutan and tritan eyes see it.
BLIND = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    shares = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    shares = XYZ @ light.clip(0, 1) / XYZ.sum(1)
    bent = np.where(shares > 0.008856, np.cbrt(shares), 7.787 * shares + 16 / 116)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_hues_stay_apart_for_every_eye_and_from_the_paper(theme):
    hues = [*theme.hues, theme.other]
    for eye in BLIND:
        seen = [lab(eye @ linear(hue)) for hue in hues]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15
    paper = (XYZ @ linear(theme.paper))[1]
    for colour, least in [*((hue, 2) for hue in hues), (theme.ink, 7), (theme.soft, 4.5)]:
        light = (XYZ @ linear(colour))[1]
        assert (max(light, paper) + 0.05) / (min(light, paper) + 0.05) >= least


NUMBER = st.integers(0, 600).map(float)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(NUMBER, NUMBER, st.floats(1, 40)), max_size=25))
def test_placed_labels_are_clear_of_everything(discs):
    sizes = [(60.0, 10.0)] * len(discs)
    strokes = [(0.0, 0.0, 600.0, 500.0)]
    room = (0.0, 0.0, 600.0, 600.0)
    found = plot_labels.place(discs, sizes, range(len(discs)), room, strokes)
    for index, label in found.items():
        left, bottom, right, top = label.box
        assert (right - left, top - bottom) == pytest.approx(sizes[index])
        assert left >= 0 and bottom >= 0 and right <= 600 and top <= 600
        for x, y, radius in discs:
            assert math.hypot(max(left - x, 0, x - right), max(bottom - y, 0, y - top)) >= radius
        along = np.linspace(0, 1, 400)[:, None] * (600, 500)
        assert not ((along > (left, bottom)) & (along < (right, top))).all(1).any()
    for one, other in itertools.combinations(found.values(), 2):
        a, b = one.box, other.box
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_leader_leads_from_the_point_to_the_label():
    crowd = [
        (300.0, 300.0, 6.0),
        (280.0, 300.0, 8.0),
        (320.0, 300.0, 8.0),
        (300.0, 320.0, 8.0),
        (300.0, 280.0, 8.0),
    ]
    label = plot_labels.place(crowd, [(80.0, 12.0)] * 5, [0], (0, 0, 600, 600))[0]
    (x0, y0), (x1, y1) = label.leader
    assert math.hypot(x0 - 300, y0 - 300) == pytest.approx(6)
    assert label.box[0] <= x1 <= label.box[2] and label.box[1] <= y1 <= label.box[3]
