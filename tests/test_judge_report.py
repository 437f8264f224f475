"""The report: one file, complete, safe and honest in words."""

from __future__ import annotations

import base64
import io
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from convarium.judge import Metrics, measure
from convarium.judge.abstain import coverage_risk, fit_threshold
from convarium.judge.calibration import fit_temperature, reliability
from convarium.judge.report import Mistake, ReportContent, Shown, duration, judgement, render, setting, share
from convarium.judge.thumbnails import THUMBNAIL, thumbnail

NASTY = "<script>alert('x')</script>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and visible text, and whether every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


def judged(classes: list[str], right: int, wrong: int) -> Metrics:
    """Metrics of `right` pictures named rightly and `wrong` ones named as the class after."""
    count = len(classes)
    labels = np.arange(right + wrong) % count
    said = np.where(np.arange(right + wrong) < right, labels, (labels + 1) % count)
    return measure(np.eye(count)[said] * 0.9 + 0.1 / count, labels, classes)


def mistake(name: str = "a.png", picture: Image.Image | None = None, **given: Any) -> Mistake:
    fields: dict[str, Any] = {
        "truth": "1",
        "said": "7",
        "probability": 0.98,
        "truth_probability": 0.01,
        **given,
    }
    return Mistake(picture or Image.new("L", (8, 8), 200), name, **fields)


def content(**given: Any) -> ReportContent:
    fields: dict[str, Any] = {
        "title": "LeNet-5 on digits",
        "summary": [("model", "lenet5")],
        "history": [{"epoch": 1, "train_loss": 1.0, "val_loss": 1.1, "train_top1": 0.5, "val_top1": 0.4}],
        "metrics": judged([str(i) for i in range(10)], 355, 5),
        "mistakes": [mistake()],
        "tree": "net\n└── head",
        "recipe": {"lr": 0.1, "ema": None},
        "times": {"training": 75.0},
        **given,
    }
    return ReportContent(**fields)


@pytest.mark.parametrize("classes", [2, 10, 20, 21, 120])
@pytest.mark.parametrize("epochs", [0, 1, 90])
def test_page_is_well_formed(classes: int, epochs: int) -> None:
    history = [{"epoch": e, "train_loss": 1 / e, "val_top1": math.nan} for e in range(1, epochs + 1)]
    metrics = judged([f"c{i}" for i in range(classes)], 300, 60)
    page = Page(render(content(metrics=metrics, history=history)))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs} <= set(ids)


def test_page_reaches_for_nothing_outside() -> None:
    html = render(content())
    for tag, attrs in Page(html).tags:
        assert tag not in ("link", "iframe", "base")
        assert "href" not in attrs
        assert (attrs.get("src") or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?://", html)


def test_everything_given_is_shown() -> None:
    shown = content(notes=["Class sparrow has no picture."], damaged=[("b/кошка.jpg", "empty file")])
    page = Page(render(shown))
    for words in (
        "LeNet-5 on digits",
        "lenet5",
        "└── head",
        "1 min 15 s",
        "sparrow",
        "b/кошка.jpg",
        "empty file",
    ):
        assert words in page.text
    assert "98.6" in page.text
    assert "355 of 360 pictures" in page.text


def test_names_in_any_script_are_shown_and_never_run() -> None:
    names = [NASTY, "قطة", "Кошка", "猫" * 80]
    shown = content(
        title=NASTY,
        summary=[(NASTY, NASTY)],
        metrics=judged(names, 20, 4),
        mistakes=[mistake(NASTY, truth=NASTY, said="قطة")],
        tree=NASTY,
        recipe={NASTY: NASTY},
        notes=[NASTY],
        damaged=[(NASTY, NASTY)],
        times={NASTY: 1.0},
    )
    page = Page(render(shown))
    assert [tag for tag, _ in page.tags].count("script") == 1
    for name in names:
        assert name in page.text


def test_a_mistake_says_what_was_said_and_what_was_true() -> None:
    text = " ".join(Page(render(content())).text.split())
    assert "said 7 (98 %)" in text
    assert "was 1 (1 %)" in text


def test_small_pictures_are_enlarged_in_squares_and_large_ones_are_not() -> None:
    shown = content(mistakes=[mistake("small.png"), mistake("large.png", Image.new("RGB", (800, 600)))])
    images = {attrs["title"]: attrs for tag, attrs in Page(render(shown)).tags if tag == "img"}
    assert images["small.png"].get("class") == "pixels"
    assert "class" not in images["large.png"]
    assert images["large.png"]["alt"] == "large.png: said 7, was 1"


def test_no_mistake_is_told_apart_from_none_kept() -> None:
    perfect = content(metrics=judged(["a", "b"], 40, 0), mistakes=[])
    assert "There were none among the 40 pictures" in Page(render(perfect)).text
    assert "5 pictures were named wrongly; none was kept" in Page(render(content(mistakes=[]))).text


def test_a_wide_interval_is_called_wide() -> None:
    assert "wide, 30 points, because the pictures are few" in judgement(judged(["a", "b"], 19, 4))
    assert "wide" not in judgement(judged(["a", "b"], 1900, 40))


def test_a_class_without_pictures_shows_a_dash() -> None:
    metrics = measure(np.eye(3)[[0, 1]], np.array([0, 1]), ["a", "b", "none"])
    pattern = r'<tr><th scope="row" data-v="2">.*?</tr>'
    row = re.search(pattern, render(content(metrics=metrics)), re.DOTALL)
    assert row is not None
    assert row.group().count("–") == 3
    assert "no picture" in row.group()


def test_many_classes_are_listed_weakest_first() -> None:
    metrics = judged([f"c{i}" for i in range(30)], 290, 10)
    html = render(content(metrics=metrics))
    recalls = [float(v) for v in re.findall(r'<td data-v="([\d.]+)">[\d.]+\xa0%</td><td class="bar">', html)]
    assert len(recalls) == 30
    assert recalls == sorted(recalls)


SECTIONS = {"grid", "suspects", "confidence"}


def trusted() -> dict[str, Any]:
    """What the sections on confidence show, from 60 pictures of two classes."""
    p = np.tile([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]], (20, 1))
    labels = np.tile([0, 1, 1], 20)
    return {
        "reliability": reliability(p, labels),
        "temperature": fit_temperature(np.log(p), labels),
        "curve": coverage_risk(p, labels),
        "threshold": fit_threshold(p, labels, risk=0.01),
    }


def named(picture: str, truth: str, said: str) -> Shown:
    return Shown(Image.new("L", (8, 8)), picture, truth, said, 0.9, 0.1)


def headings(page: Page) -> set[str]:
    return {attrs["id"] or "" for tag, attrs in page.tags if tag == "h2"}


def test_sections_appear_only_where_there_is_something() -> None:
    assert not SECTIONS & headings(Page(render(content())))
    whole = content(grid=[named("a", "1", "1")], suspects=[named("b", "1", "2")], **trusted())
    assert headings(Page(render(whole))) >= SECTIONS
    for name, value in trusted().items():
        assert "confidence" in headings(Page(render(content(**{name: value}))))


def test_confidence_is_told_in_words_and_drawn() -> None:
    page = Page(render(content(**trusted())))
    text = " ".join(page.text.split())
    assert "Confidence differs from accuracy by 33.3 points on average (95 %:" in text
    assert "divided by a temperature of" in text
    assert "Answers with a probability above 0.650 cover 66.7 %" in text
    drawings = [attrs["aria-label"] or "" for tag, attrs in page.tags if tag == "svg"]
    assert any(told.startswith("Accuracy by confidence") for told in drawings)
    assert any("66.7 % answered, 0.0 % wrong" in told for told in drawings)


def test_the_grid_shows_right_and_wrong_with_marks() -> None:
    shown = content(grid=[named("a.png", "cat", "cat"), named("b.png", "cat", "dog")])
    html = render(shown)
    assert html.count("✓") == html.count("✗") == html.count('<li class="bad">') == 1
    assert "said dog (90 %) was cat" in " ".join(Page(html).text.split())


def test_a_suspect_says_its_label_and_what_is_likelier() -> None:
    text = " ".join(Page(render(content(suspects=[named("b.png", "cat", "dog")]))).text.split())
    assert "labelled cat (10 %) likely dog (90 %) b.png" in text


def test_a_verdict_needs_no_times() -> None:
    assert "Data-bound: 71 %" in Page(render(content(verdict="Data-bound: 71 %", times={}))).text


def test_names_in_the_new_sections_are_never_run() -> None:
    page = Page(render(content(grid=[named(NASTY, NASTY, "قطة")], suspects=[named(NASTY, NASTY, NASTY)])))
    assert [tag for tag, _ in page.tags].count("script") == 1


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr", "HSV"]
)
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (900, 30)])
def test_thumbnails_of_every_mode(mode: str, size: tuple[int, int]) -> None:
    kind, data = thumbnail(Image.new(mode, size)).removeprefix("data:image/").split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        small.load()
        assert small.format == kind.upper()
        assert max(small.size) <= THUMBNAIL
        if max(size) <= THUMBNAIL:
            assert small.size == size


def test_16_bits_are_stretched_not_clipped() -> None:
    picture = Image.fromarray(np.array([[1000, 2000], [3000, 5000]], dtype=np.uint16))
    data = thumbnail(picture).split(",")[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as small:
        assert list(np.asarray(small).ravel()) == [0, 63, 127, 255]


def test_thumbnails_leave_the_given_picture_alone() -> None:
    picture = Image.new("RGB", (900, 600))
    thumbnail(picture)
    assert picture.size == (900, 600)


def test_thumbnails_carry_no_metadata() -> None:
    picture = Image.new("L", (8, 8))
    picture.info = {"exif": b"Exif\0\0secret", "comment": b"secret", "Author": "secret"}
    assert b"secret" not in base64.b64decode(thumbnail(picture).split(",")[1])


@pytest.mark.parametrize(
    ("probability", "text"),
    [(0.984, "98 %"), (0.9996, "> 99 %"), (1.0, "100 %"), (0.0001, "< 1 %"), (0.0, "0 %"), (None, "–")],
)
def test_share_never_rounds_to_certainty(probability: float | None, text: str) -> None:
    assert share(probability) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.84 s"), (12.34, "12.3 s"), (59.97, "1 min 0 s"), (200, "3 min 20 s"), (7512, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "yes"),
        (5e-4, "0.0005"),
        (0.1 + 0.2, "0.3"),
        (("a", 2), "a, 2"),
        ({"x": 1}, "x 1"),
        ([], "none"),
    ],
)
def test_settings_are_plain(value: object, text: str) -> None:
    assert setting(value) == text
