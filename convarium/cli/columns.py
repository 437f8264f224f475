"""Aligned columns of text, the first to the left and the others to the right."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import category

_STEERING = ("Cc", "Zl", "Zp")  # control characters, ends of lines and paragraphs


def columns(rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Lines of a table, headings first.

    Args:
        rows: cells, as many in each row; the last column is set to the left and may be of any length.
        words: leading columns that hold words and are set to the left.
    """
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell if i == len(row) - 1 else cell.ljust(widths[i]) if i < words else cell.rjust(widths[i])
            for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    )


def brief(value: float | None, digits: int = 3) -> str:
    """A number in three digits, empty where there is none: 1234 as "1,234", 12.345 as "12.3"."""
    if value is None or value != value:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def shown(text: str) -> str:
    """A name on one line of a screen: ends of lines and other characters that steer a terminal as "\\n", "\\x1b"."""
    return "".join(c.encode("unicode_escape").decode() if category(c) in _STEERING else c for c in text)
