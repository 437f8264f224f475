"""How wide a text is before any font is known: never less than in the widest of the usual sans-serif fonts."""

from __future__ import annotations

FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif'
"""What a figure asks for; whichever of them is there, no text is wider than `width` says."""

# The advance of a character in parts of the font size: the larger one of DejaVu Sans and Verdana, rounded up.
_ADVANCES = {
    0.36: " 'IJ\\fijl·′",
    0.40: "!,.[]t²",
    0.46: '"()-/:;r|',
    0.53: "*?`sz–‖°",
    0.62: "FLPTYacekovxy",
    0.65: "$0123456789ES_bdghnpqu{}√µ",
    0.70: "ABCKRVXZ",
    0.76: "HNU",
    0.84: "#&+<=>DGOQ^w~×→±÷≈≤≥≠",
}
_ADVANCE = {letter: advance for advance, letters in _ADVANCES.items() for letter in letters}
_WIDEST = 1.0  # an em: @, %, M, m, W, a dash, and any character of other scripts
_BOLD = 1.21  # the most by which a bold letter of DejaVu Sans exceeds the table


def width(text: str, size: float, bold: bool = False) -> float:
    """An upper bound of a text's width.

    Args:
        text: one line, in any script.
        size: of the font, in the figure's units.
        bold: whether it is set in bold.

    Returns:
        Units of the figure.
    """
    return sum(_ADVANCE.get(letter, _WIDEST) for letter in text) * size * (_BOLD if bold else 1.0)


def fitted(text: str, size: float, room: float, bold: bool = False) -> str:
    """The text, or as much of it as the room holds with an ellipsis behind."""
    if width(text, size, bold) <= room:
        return text
    while text and width(text + "…", size, bold) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def wrapped(text: str, size: float, room: float, most: int = 3) -> list[str]:
    """The text in lines that the room holds, broken at spaces; what is beyond the last line is left out.

    Args:
        text: words divided by spaces.
        size: of the font, in the figure's units.
        room: width of a line, in the same.
        most: lines.

    Returns:
        At most `most` lines, none of them empty.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width(longer, size) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    kept = lines[:most]
    if len(lines) > most:
        kept[-1] += "…"
    return [fitted(line, size, room) for line in kept]
