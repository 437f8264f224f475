"""A grid of pictures with what they are and what they were said to be, as one PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from convarium.data.splits import rank
from convarium.draw.letters import fitted
from convarium.errors import ArgumentError
from convarium.judge.thumbnails import PIXEL_ART, reduced
from convarium.storage import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "predictions.png"
"""Of the file in a run's folder."""

SHOWN = 24
"""Pictures in a grid."""

CELL, TEXT = 1.45, 0.48
"""Side of a picture and height of the text below it, in inches."""

RIGHT, WRONG = "#1a7f37", "#c0231c"
"""Colours of frame and text; a tick and a cross, a thin and a dashed frame say the same without colour."""

DPI = 150


def drawn(keys: Sequence[str], count: int = SHOWN, seed: int = 0) -> list[int]:
    """Pictures to show, drawn by chance from all, not only from the mistakes.

    Args:
        keys: of the pictures.
        count: how many to draw; fewer where there are fewer.
        seed: of the draw, which depends on nothing but it and the keys.

    Returns:
        Their places in `keys`, in the order drawn.
    """
    return sorted(range(len(keys)), key=lambda i: (rank(seed, keys[i]), keys[i]))[:count]


def title(truth: str, said: str) -> str:
    """What stands below a picture: its class, or what it was said to be above what it was."""
    return truth if truth == said else f"said {said}\nwas {truth}"


def grid(
    pictures: Sequence[Image.Image], titles: Sequence[str], right: Sequence[bool], columns: int = 6
) -> Figure:
    """The pictures in rows, each with its title and whether it was named rightly.

    Args:
        pictures: N, of any size and mode, at least one.
        titles: N, of one or two lines, in any script; what is too long ends in an ellipsis.
        right: N, whether each was named rightly.
        columns: pictures in a row.

    Returns:
        matplotlib's figure, which belongs to no window.

    Raises:
        ArgumentError: no picture, or not as many titles and verdicts.
    """
    if not pictures or not len(pictures) == len(titles) == len(right) or columns < 1:
        raise ArgumentError(
            f"{len(pictures)} pictures, {len(titles)} titles and {len(right)} verdicts in {columns} columns; "
            "want as many of each, at least one"
        )
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from convarium.draw.plot_theme import plain

    across = min(columns, len(pictures))
    down = -(-len(pictures) // across)
    gap = 0.14
    width = gap + across * (CELL + gap)
    height = gap + down * (CELL + TEXT + gap)
    with plain():
        sheet = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(sheet)
        family = _families("".join(titles))
        for place, (picture, words, good) in enumerate(zip(pictures, titles, right, strict=True)):
            row, column = divmod(place, across)
            left = gap + column * (CELL + gap)
            top = height - gap - row * (CELL + TEXT + gap)
            axes = sheet.add_axes((left / width, (top - CELL) / height, CELL / width, CELL / height))
            pixels = max(picture.size) <= PIXEL_ART
            small = reduced(picture).convert("RGBA")
            axes.imshow(np.asarray(small), interpolation="nearest" if pixels else "antialiased")
            axes.set_anchor("C")
            axes.set_xticks([])
            axes.set_yticks([])
            colour = RIGHT if good else WRONG
            axes.spines[:].set(color=colour, linewidth=1.2 if good else 3, capstyle="butt")
            axes.spines[:].set_linestyle("-" if good else (0, (2, 1)))
            mark = "\N{CHECK MARK}" if good else "\N{BALLOT X}"
            lines = [fitted(line, 8, CELL * 72) for line in f"{mark} {words}".split("\n")[:2]]
            sheet.text(
                (left + CELL / 2) / width,
                (top - CELL - 0.07) / height,
                "\n".join(_plain(line) for line in lines),
                ha="center",
                va="top",
                size=8,
                color=colour,
                family=family,
            )
    return sheet


def write_grid(path: Path, figure: Figure) -> None:
    """Write a grid as PNG, in one step; the same bytes for the same figure.

    Args:
        path: the file to make or replace.
        figure: as `grid` drew it.

    Raises:
        RunError: it cannot be written.
    """
    from convarium.draw.plot_theme import plain

    def save(temporary: Path) -> None:
        with plain():
            figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None})

    write(path, save)


def _plain(line: str) -> str:
    """A line without what no font can draw: control characters and bytes that were no UTF-8."""
    return "".join(
        c if c >= " " and not "\ud800" <= c <= "\udfff" else "\N{REPLACEMENT CHARACTER}" for c in line
    )


def _families(text: str) -> list[str]:
    """The usual font, and those installed here that have the letters it lacks, as few as will do."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    found = ["DejaVu Sans"]
    lacking = {ord(c) for c in text if c > " "} - set(get_font(findfont(found[0])).get_charmap())
    if not lacking:
        return found
    # Noto's fonts first: one for each script, and none of them for looks. The last resort draws boxes only.
    upright = [
        font
        for font in fontManager.ttflist
        if font.style == "normal"
        and font.weight in (400, "normal", "regular")
        and "Last Resort" not in font.name
    ]
    for font in sorted(upright, key=lambda f: ("Noto Sans" not in f.name, f.name)):
        try:
            has = lacking & set(get_font(font.fname).get_charmap())
        except (OSError, RuntimeError):
            continue  # a broken font file is not our matter
        if has and font.name not in found:
            found.append(font.name)
            lacking -= has
        if not lacking:
            break
    return found
