"""The report: one HTML file that holds everything, opens offline and needs no script to be read."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from convarium.draw import charts
from convarium.judge.intervals import Proportion
from convarium.judge.metrics import ClassScore, Metrics

THUMBNAIL = 256
"""Longest side of an embedded picture, in pixels; shown at half of it, so sharp on dense screens."""

PIXEL_ART = 96
"""Pictures up to this many pixels on their longest side are enlarged in squares, not blurred."""

WIDE = 0.1
"""An interval wider than this (10 points) is called wide, in words."""

FEW = 30
"""Below this many pictures in the middle class, the report says that single classes tell little."""


@dataclass
class Mistake:
    """A picture that was taken for something else.

    Args:
        picture: the picture, of any size and mode.
        name: its file name or place.
        truth: its class.
        said: the class it was said to be.
        probability: what the network gave to `said`, 0 to 1.
        truth_probability: what it gave to `truth`, 0 to 1.
    """

    picture: Image.Image
    name: str
    truth: str
    said: str
    probability: float
    truth_probability: float


@dataclass
class ReportContent:
    """All that a report shows.

    Args:
        title: what was trained on what.
        summary: facts as (what, value), in the order shown.
        history: one mapping an epoch, as `draw.charts.learning_curves` takes it.
        metrics: the verdict on held-out pictures.
        mistakes: the worst first.
        tree: the network as text.
        recipe: how it was trained.
        notes: what a reader must know before he trusts the figures.
        damaged: (file, reason) of each picture left out.
        times: seconds by phase.
    """

    title: str
    summary: list[tuple[str, str]]
    history: list[dict[str, Any]]
    metrics: Metrics
    mistakes: list[Mistake] = field(default_factory=list)
    tree: str = ""
    recipe: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)


def render(content: ReportContent) -> str:
    """The report as one HTML file.

    Args:
        content: what to show; all text is escaped, so names may hold anything.

    Returns:
        The page, with its style, charts and pictures inside.
    """
    metrics = content.metrics
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, charts.STYLE.parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, setting=setting, share=share, percent=percent)
    names = [score.name for score in metrics.classes]
    return environment.get_template("report.html.j2").render(
        content=content,
        metrics=metrics,
        top1_bar=Markup(_accuracy_bar(metrics.top1, "top-1 accuracy", metrics)),
        top5_bar=Markup(_accuracy_bar(metrics.top5, "top-5 accuracy")) if metrics.top5 else "",
        judgement=judgement(metrics),
        curves=Markup(charts.learning_curves(content.history)) if content.history else "",
        best=charts.best_epoch(content.history),
        confusion=Markup(charts.confusion(metrics.confusion, names)),
        as_matrix=len(names) <= charts.MATRIX,
        rows=[_class_row(score, metrics) for score in _ordered(metrics)],
        few=median(score.count for score in metrics.classes) < FEW,
        mistakes=[(m, thumbnail(m.picture), max(m.picture.size) <= PIXEL_ART) for m in content.mistakes],
        total=sum(content.times.values()),
    )


def judgement(metrics: Metrics) -> str:
    """The accuracy in a sentence or two, with a warning where few pictures make it vague."""
    top1 = metrics.top1
    low, high = (f"{100 * end:.{top1.digits}f}" for end in (top1.low, top1.high))
    text = (
        f"{top1.correct:,} of {top1.count:,} pictures were named rightly. With 95 % confidence, the accuracy "
        f"on all pictures of this kind lies between {low} and {high} % (Wilson interval)."
    )
    width = top1.high - top1.low
    if width > WIDE:
        text += (
            f" That interval is wide, {100 * width:.0f} points, because the pictures are few: four times as "
            "many would about halve it. Differences smaller than this mean little."
        )
    return text


def thumbnail(picture: Image.Image) -> str:
    """A picture as a data URI, at most `THUMBNAIL` pixels a side, without its metadata.

    Args:
        picture: any size and mode.

    Returns:
        PNG for small or transparent pictures, JPEG for the rest.
    """
    if picture.mode.startswith(("I", "F")):
        # More than 8 bits: stretch what is there over black to white, as Pillow itself would clip it.
        values = np.asarray(picture, dtype=np.float64)
        values = np.nan_to_num(values - np.nanmin(values))
        picture = Image.fromarray((255 * values / (values.max() or 1)).astype(np.uint8))
    clear = "A" in picture.getbands() or "transparency" in picture.info
    picture = picture.convert("RGBA" if clear else "L" if picture.mode in ("1", "L") else "RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    picture.info = {}
    small = clear or max(picture.size) <= PIXEL_ART
    target = io.BytesIO()
    picture.save(target, "PNG" if small else "JPEG", **({"optimize": True} if small else {"quality": 85}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(target.getvalue()).decode()}"


def share(probability: float | None) -> str:
    """A probability in whole percent that never rounds to a certainty it is not; a dash for None."""
    if probability is None:
        return "–"
    if 0 < probability < 0.005:
        return "< 1 %"
    if 0.995 <= probability < 1:
        return "> 99 %"
    return f"{100 * probability:.0f} %"


def percent(score: float | None) -> str:
    """A score in percent with one digit; a dash for None."""
    return "–" if score is None else f"{100 * score:.1f}\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """A time as a person says it: "0.84 s", "12.3 s", "3 min 20 s", "2 h 05 min"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def setting(value: object) -> str:
    """A value of a recipe as text without Python's punctuation."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {setting(part)}" for key, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(setting, value)) or "none"
    return str(value)


def _accuracy_bar(p: Proportion, name: str, metrics: Metrics | None = None) -> str:
    mark = None
    if metrics is not None and len(metrics.classes) > 1:
        most = max(score.count for score in metrics.classes)
        mark = (most / p.count, f"always the largest class: {share(most / p.count)}")
    return charts.interval(p.value, p.low, p.high, f"{name} {p}", mark)


def _ordered(metrics: Metrics) -> list[ClassScore]:
    """The classes in their order where all are seen at once, else the least recalled first."""
    if len(metrics.classes) <= charts.MATRIX:
        return list(metrics.classes)
    return sorted(metrics.classes, key=lambda score: (score.recall is None, score.recall, score.index))


def _class_row(score: ClassScore, metrics: Metrics) -> tuple[ClassScore, Markup, str]:
    """A class, its recall as a bar with interval, and that interval in words."""
    if not score.count:
        return score, Markup(""), "no picture"
    p = Proportion.of(metrics.confusion[score.index][score.index], score.count)
    told = f"{100 * p.low:.1f} to {100 * p.high:.1f}"
    return score, Markup(charts.interval(p.value, p.low, p.high, f"{score.name}: recall {p}")), told
