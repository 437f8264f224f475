"""What stands around a figure: title, legend, notes; and what its shades mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from convarium.draw.anatomy import Part
from convarium.draw.layout import Box, Figure, Label
from convarium.draw.letters import fitted, width, wrapped
from convarium.draw.palette import SHADES, shade
from convarium.draw.units import Unit, total
from convarium.draw.words import amount, form

MARGIN = 28.0
SMALL = 10.5
"""Size of small print."""


@dataclass(frozen=True)
class Basis:
    """What a share is a share of.

    Args:
        of: the whole.
        macs: of the whole; None where they are not counted, and shares are of the parameters.
        parameters: of the whole.
    """

    of: str
    macs: int | None
    parameters: int

    @property
    def unit(self) -> str:
        """What the shares are of, in a word."""
        return "parameters" if self.macs is None else "multiply-accumulates"

    def share(self, macs: int | None, parameters: int) -> float:
        """The part's share, 0 to 1."""
        if self.macs is None:
            return parameters / self.parameters if self.parameters else 0.0
        return (macs or 0) / self.macs if self.macs else 0.0

    def shade(self, macs: int | None, parameters: int) -> int:
        """The class of its share, for `Box.shade`."""
        return shade(self.share(macs, parameters))

    def words(self, macs: int | None, parameters: int) -> list[str]:
        """Parameters and multiply-accumulates with the share, in small print; empty where there are none."""
        percent = f"{100 * self.share(macs, parameters):.0f} %"
        percent = "< 1 %" if percent == "0 %" else percent
        found = []
        if parameters:
            found.append(f"{amount(parameters)} param{'s' * (parameters > 1)}")
            if self.macs is None:
                found[0] += f" · {percent}"
        if self.macs is not None and macs:
            found.append(f"{amount(macs)} MACs · {percent}")
        return found


def basis_of(part: Part, name: str) -> Basis:
    """Shares of a part; of its parameters where a part below it is not counted."""
    return Basis(name, part.macs, part.parameters)


def told(part: Part | Unit, prefix: str = "") -> str:
    """What a box tells to the pointer: path, kind, output, parameters, multiply-accumulates."""
    if isinstance(part, Unit):
        leaves = [leaf for leaf in part.leaves if not leaf.idle]
        head = [f"{leaf.path}: {leaf.kind}" for leaf in leaves]
    else:
        head = [f"{part.path or 'the whole'}: {part.kind}"]
    shape = form(part.shape)
    lines = [prefix, *head, f"output {shape}" if shape else "", f"{part.parameters:,} parameters"]
    if part.macs is not None:
        lines.append(f"{part.macs:,} multiply-accumulates")
    return "\n".join(filter(None, lines))


def paths(parts: Sequence[Part | Unit]) -> tuple[str, ...]:
    """Paths of parts, of units those of their leaves, that after which it is named first."""
    found: list[str] = []
    for part in parts:
        leaves = part.leaves if isinstance(part, Unit) else (part,)
        main = part.main if isinstance(part, Unit) else part
        found += [main.path, *(leaf.path for leaf in leaves if leaf is not main)]
    return tuple(found)


def sums(parts: Sequence[Part | Unit]) -> tuple[int | None, int]:
    """Multiply-accumulates and parameters of several parts together."""
    return total([part.macs for part in parts]), sum(part.parameters for part in parts)


def framed(body: Figure, title: str, below: Sequence[str], legend: Figure, notes: Sequence[str]) -> Figure:
    """A figure with its title above and its legend and notes below.

    Args:
        body: drawn from (0, 0) on.
        title: in large print.
        below: lines under the title.
        legend: drawn from (0, 0) on.
        notes: sentences in small print, broken where the sheet ends.
    """
    sheet = Figure(width=max(body.width, legend.width, 480.0) + 2 * MARGIN, title=title)
    room = sheet.width - 2 * MARGIN
    y = MARGIN + 8
    sheet.labels.append(Label(MARGIN, y, fitted(title, 20, room, bold=True), 20, "start", bold=True))
    y += 24
    for line in below:
        for piece in wrapped(line, 11.5, room):
            sheet.labels.append(Label(MARGIN, y, piece, 11.5, "start", "soft"))
            y += 17
    y += 14
    sheet.place(body, MARGIN + (room - body.width) / 2, y)
    y += body.height + 26
    sheet.place(legend, MARGIN, y)
    y += legend.height + (8 if legend.height else 0)
    for note in notes:
        for piece in wrapped(note, SMALL, room, most=4):
            sheet.labels.append(Label(MARGIN, y + 6, piece, SMALL, "start", "soft"))
            y += 15
    sheet.height = y + MARGIN - 8
    sheet.told = ". ".join(filter(None, [title, *below, *notes]))
    return sheet


def stacked(figures: Mapping[str, Figure]) -> Figure:
    """Figures below one another, each under its name."""
    whole = Figure(width=max(figure.width for figure in figures.values()))
    for name, figure in figures.items():
        whole.height += 30 if whole.height else 0
        whole.labels.append(Label(0, whole.height + 8, name, 14, "start", bold=True))
        whole.place(figure, 0, whole.height + 30)
        whole.height += 30 + figure.height
    return whole


def ramp(basis: Basis) -> Figure:
    """The legend of the shades."""
    legend = Figure(height=20.0)
    text = f"Share of {basis.of}’s {basis.unit}:"
    legend.labels.append(Label(0, 7, text, SMALL, "start", "soft"))
    x = width(text, SMALL) + 10
    limits = [f"{100 * limit:.0f}" for limit in SHADES]
    names = [f"< {limits[0]} %", *(f"{a}–{b}" for a, b in zip(limits, limits[1:], strict=False))]
    for number, name in enumerate([*names, f"≥ {limits[-1]} %"], start=1):
        legend.boxes.append(Box(x, 1, 22, 12, "swatch", shade=number, corner=2))
        legend.labels.append(Label(x + 27, 7, name, SMALL, "start", "soft"))
        x += 27 + width(name, SMALL) + 12
    legend.width = x
    return legend
