"""Colours of figures by what they stand for, on light and on dark paper."""

from __future__ import annotations

from dataclasses import dataclass

from convarium.draw.layout import Box

SHADES = (0.02, 0.05, 0.10, 0.20, 0.40)
"""A share below the first is of class 1, below the second of class 2, and so on to class 6."""


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb.

    Args:
        paper: behind everything.
        ink: names.
        soft: figures and small print.
        quiet: small print inside boxes, on every shade.
        line: arrows.
        accent: joins: the way around, sums, gates, concatenations.
        tints: of the accent, by turns, for the pieces of a bar.
        edge: outline of boxes.
        panel: inside of panels.
        panel_edge: outline of panels.
        plain: boxes without a cost.
        shades: boxes with a cost, by class.
        only: mark of what only one of two networks has.
        changed: mark of what both have, but not alike.
    """

    paper: str
    ink: str
    soft: str
    quiet: str
    line: str
    accent: str
    tints: tuple[str, str]
    edge: str
    panel: str
    panel_edge: str
    plain: str
    shades: tuple[str, ...]
    only: str
    changed: str


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2733",
    soft="#5a6776",
    quiet="#34424f",
    line="#6f7d8c",
    accent="#c05a1c",
    tints=("#f3c7a8", "#fae6d8"),
    edge="#8fa0b2",
    panel="#f7f9fb",
    panel_edge="#dde4eb",
    plain="#ffffff",
    shades=("#f0f6fc", "#dcebf8", "#c0dbf2", "#a0caec", "#80b7e4", "#62a4da"),
    only="#1f8a5b",
    changed="#a8328f",
)

DARK = Theme(
    paper="#10151b",
    ink="#e9eef4",
    soft="#a3b0bd",
    quiet="#c9d3dd",
    line="#8795a3",
    accent="#f0975a",
    tints=("#7d4a29", "#4a3223"),
    edge="#5f6f80",
    panel="#171e26",
    panel_edge="#2a3540",
    plain="#10151b",
    shades=("#172331", "#1a3048", "#1e3f61", "#224d77", "#255b8d", "#296aa5"),
    only="#4fc492",
    changed="#e484cf",
)

JOINTS = ("plus", "times")
"""Roles of boxes that are drawn as a sign in a circle."""

THEMES = ("light", "dark", "auto")


def shade(share: float | None) -> int:
    """The class of a share of the cost: 1 to 6, or 0 where there is none.

    Args:
        share: 0 to 1; None where it is not known.
    """
    if not share:
        return 0
    return 1 + sum(share >= limit for limit in SHADES)


def outline(box: Box) -> float:
    """Width of a box's outline."""
    return 2.2 if box.mark else 1.5 if box.role in JOINTS else 1.0


def dashed(box: Box) -> bool:
    """Whether a box's outline is dashed."""
    return box.role == "frame" or (box.mark == "only" and box.role not in JOINTS)


def fill(theme: Theme, role: str, shade: int) -> str:
    """Colour of the inside of a box; "none" for a frame."""
    if shade:
        return theme.shades[shade - 1]
    return {
        "panel": theme.panel,
        "frame": "none",
        "piece0": theme.tints[0],
        "piece1": theme.tints[1],
    }.get(role, theme.plain)


def stroke(theme: Theme, role: str, mark: str = "") -> str:
    """Colour of an outline, a line or a text."""
    if mark:
        return {"only": theme.only, "changed": theme.changed}[mark]
    return {
        "ink": theme.ink,
        "soft": theme.soft,
        "quiet": theme.quiet,
        "line": theme.line,
        "accent": theme.accent,
        "plus": theme.accent,
        "times": theme.accent,
        "bar": theme.accent,
        "piece0": theme.accent,
        "piece1": theme.accent,
        "panel": theme.panel_edge,
        "frame": theme.soft,
        "only": theme.only,
        "changed": theme.changed,
    }.get(role, theme.edge)
