"""The report: one HTML file that holds everything, opens offline and needs no script to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from convarium.draw import charts, confidence
from convarium.judge.abstain import CoverageRisk, Threshold
from convarium.judge.calibration import Reliability, Temperature
from convarium.judge.intervals import Proportion
from convarium.judge.metrics import ClassScore, Metrics
from convarium.judge.thumbnails import PIXEL_ART, thumbnail

WIDE = 0.1
"""An interval wider than this (10 points) is called wide, in words."""

FEW = 30
"""Below this many pictures in the middle class, the report says that single classes tell little."""


@dataclass
class Shown:
    """A picture with what it is and what it was said to be.

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

    @property
    def right(self) -> bool:
        """Whether it was named rightly."""
        return self.truth == self.said


@dataclass
class Mistake(Shown):
    """A picture that was taken for something else."""


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
        verdict: whether reading pictures or computing took the time, and what to do, in a sentence.
        grid: pictures drawn by chance, right and wrong alike.
        reliability: how far confidence lies from accuracy on the pictures judged.
        temperature: what scores are divided by before these probabilities.
        curve: the share of wrong answers by coverage.
        threshold: from which confidence on a picture is answered.
        suspects: pictures whose label may be wrong, likeliest first: labelled as `truth`, likely `said`.
    """

    title: str
    summary: list[tuple[str, str]]
    history: list[dict[str, Any]]
    metrics: Metrics
    mistakes: Sequence[Shown] = field(default_factory=list)
    tree: str = ""
    recipe: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)
    verdict: str = ""
    grid: list[Shown] = field(default_factory=list)
    reliability: Reliability | None = None
    temperature: Temperature | None = None
    curve: CoverageRisk | None = None
    threshold: Threshold | None = None
    suspects: list[Shown] = field(default_factory=list)


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
        mistakes=_thumbnails(content.mistakes),
        grid=_thumbnails(content.grid),
        suspects=_thumbnails(content.suspects),
        reliability=Markup(_reliability(content.reliability)) if content.reliability else "",
        curve=Markup(_curve(content.curve, content.threshold)) if content.curve else "",
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


def _thumbnails(pictures: Sequence[Shown]) -> list[tuple[Shown, str, bool]]:
    """Each picture, its data URI, and whether its pixels are to be seen."""
    return [(shown, thumbnail(shown.picture), max(shown.picture.size) <= PIXEL_ART) for shown in pictures]


def _reliability(found: Reliability) -> str:
    ranges = []
    for b in found.bins:
        a = b.accuracy
        told = (b.confidence, a.value, a.low, a.high) if a else (None, None, None, None)
        ranges.append(confidence.Range(b.low, b.high, b.count, *told))
    return confidence.reliability_diagram(ranges)


def _curve(found: CoverageRisk, chosen: Threshold | None) -> str:
    mark = found.at(chosen.value) if chosen else None
    return confidence.coverage_risk_chart(found.coverages, found.risks, mark)


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
