"""The paper that matplotlib's charts are drawn on: colours, title and footer, and the bytes of the file.

Nothing of matplotlib's global state is left changed, and a user's own matplotlibrc changes no chart.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from convarium.errors import ArgumentError, unknown_name

FORMATS = ("svg", "png", "pdf")

_FONT = "DejaVu Sans"  # comes with matplotlib

DPI = 160
"""Dots per inch of a PNG; a chart 10 inches wide has 1600 pixels."""


@dataclass(frozen=True)
class Theme:
    """Colours of a page, as the report has them.

    Args:
        paper: the ground.
        ink: text that matters.
        soft: text beside it.
        line: grid lines.
        accent: the first of two things compared.
        second: the second.
        hues: for groups; any two stay apart for the colour-blind (protan, deutan and tritan), and from `other`.
        other: groups beyond the hues.
    """

    paper: str
    ink: str
    soft: str
    line: str
    accent: str
    second: str
    hues: tuple[str, ...]
    other: str


THEMES = {
    "light": Theme(
        paper="#fcfbf8",
        ink="#23272b",
        soft="#666b70",
        line="#e3e0d8",
        accent="#1f6f78",
        second="#b8601d",
        hues=("#1f6f78", "#c8742a", "#24305e", "#86bd8b", "#7a1f26", "#b57ad0", "#4a50d8"),
        other="#8d8f92",
    ),
    "dark": Theme(
        paper="#16191b",
        ink="#e4e2dc",
        soft="#9ca3a6",
        line="#2e3437",
        accent="#63b9bf",
        second="#e59a5c",
        hues=("#63b9bf", "#e59a5c", "#dfe58a", "#a8492c", "#b889dd", "#5f62e8", "#c9f5e0"),
        other="#7d8488",
    ),
}


@dataclass
class Chart:
    """A drawn chart.

    Args:
        figure: matplotlib's.
        title: of the chart.
        notes: what a reader should know that the picture cannot show, as labels that found no room.
    """

    figure: Figure
    title: str
    notes: list[str]


def theme_of(name: str) -> Theme:
    """The theme of a name.

    Raises:
        UnknownName: there is none.
    """
    if name not in THEMES:
        raise unknown_name("theme", name, THEMES)
    return THEMES[name]


@contextmanager
def plain() -> Iterator[None]:
    """While inside, matplotlib's own settings hold, with text drawn as outlines; the user's come back after."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from font")  # `image` tells of it once
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "convarium",  # the names of an SVG's parts, which are random otherwise
                "svg.fonttype": "path",  # a viewer without the font would move the labels
                "pdf.fonttype": 42,
                "text.hinting": "none",  # the same widths at every resolution
                "text.parse_math": False,  # a "$" in a name is a "$"
                "font.family": _FONT,
                "font.size": 9,
            }
        )
        yield


class Sheet:
    """A page with room for axes, measured in inches from the left and the bottom.

    Args:
        width: in inches.
        height: in inches, without the footer, which makes the page longer.
        theme: its colours.
        title: at the top left.
        subtitle: a line below it.
        footer: sources and rules, wrapped below the axes.
    """

    def __init__(
        self, width: float, height: float, theme: Theme, title: str, subtitle: str, footer: str
    ) -> None:
        self.theme = theme
        self.width = width
        self.figure = Figure(figsize=(width, height), dpi=100, facecolor=theme.paper)
        FigureCanvasAgg(self.figure)
        lines = self._wrapped(footer, 7.5, width - 0.7)
        self.foot = 0.3 + 0.15 * len(lines)
        self.height = height + self.foot
        self.figure.set_size_inches(width, self.height)
        self.top = self.height - 0.85
        self._headline(self.height - 0.42, title, 13, theme.ink, "bold")
        self._headline(self.height - 0.67, subtitle, 9, theme.soft)
        for number, line in enumerate(lines):
            self.text(0.35, self.foot - 0.18 - 0.15 * number, line, size=7.5, color=theme.soft)

    def text(self, x: float, y: float, text: str, **settings: Any) -> Any:
        """A line of text at a place in inches; `settings` are matplotlib's."""
        return self.figure.text(
            x / self.width, y / self.height, text, **{"color": self.theme.ink, **settings}
        )

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Axes between these edges in inches, in the theme's colours, with a quiet frame."""
        box = (left / self.width, bottom / self.height)
        axes = self.figure.add_axes(
            (*box, (right - left) / self.width, (top - bottom) / self.height), facecolor="none"
        )
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(self.theme.soft)
        axes.tick_params(colors=self.theme.soft, length=0, labelsize=9)
        axes.xaxis.label.set_color(self.theme.ink)
        axes.yaxis.label.set_color(self.theme.ink)
        return axes

    def _headline(self, y: float, text: str, size: float, color: str, weight: str = "normal") -> None:
        """A line at the left, smaller where it is too long for the page."""
        wide = measure(text, size, weight)[0]
        fitted = size * min(1, (self.width - 0.7) / max(wide, 0.01))
        self.text(0.35, y, text, size=fitted, color=color, weight=weight)

    def _wrapped(self, text: str, size: float, room: float) -> list[str]:
        """The text in lines of at most `room` inches."""
        lines: list[str] = []
        for paragraph in text.split("\n"):
            line, wide = "", 0.0
            for word in paragraph.split():
                more = measure(f"{word} ", size)[0]
                if line and wide + more > room:
                    lines.append(line)
                    line, wide = "", 0.0
                line, wide = f"{line} {word}".lstrip(), wide + more
            lines.append(line)
        return lines


@lru_cache(maxsize=4096)
def measure(text: str, size: float, weight: str = "normal") -> tuple[float, float]:
    """Width and height in inches of a text.

    Args:
        text: one line.
        size: of the font in points.
        weight: "normal" or "bold".

    Returns:
        Width and height.
    """
    figure = Figure(dpi=100)
    box = figure.text(0, 0, text, fontsize=size, fontweight=weight).get_window_extent(
        FigureCanvasAgg(figure).get_renderer()
    )
    return box.width / 100, box.height / 100


def image(chart: Chart, form: str) -> bytes:
    """A chart as the bytes of a file; the same chart gives the same bytes.

    Args:
        chart: as the functions of `plots` draw it.
        form: "svg", "png" or "pdf".

    Returns:
        The file's content; where the font lacks letters, boxes stand for them and `chart.notes` says so.

    Raises:
        ArgumentError: no such format.
    """
    if form not in FORMATS:
        raise ArgumentError(f"charts are drawn as {', '.join(FORMATS)}, not as {form!r}")
    facts: dict[str, Any] = {
        "svg": {"Date": None, "Creator": "Convarium", "Title": chart.title},
        "png": {"Software": None, "Title": chart.title},
        "pdf": {"CreationDate": None, "Creator": "Convarium", "Producer": None, "Title": chart.title},
    }[form]
    file = io.BytesIO()
    with plain():
        chart.figure.savefig(
            file, format=form, dpi=DPI, metadata=facts, facecolor=chart.figure.get_facecolor()
        )
    if missing := _missing(chart.figure):
        chart.notes.append(f"the chart's font has no {' '.join(missing)}; boxes stand for them")
    return file.getvalue()


def _missing(figure: Figure) -> list[str]:
    """Letters of the figure that the font does not have."""
    letters = {letter for text in figure.findobj(Text) for letter in text.get_text()}
    known = get_font(findfont(_FONT)).get_charmap()
    return sorted(letter for letter in letters if ord(letter) not in known and letter != "\n")
