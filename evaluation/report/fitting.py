"""Texts of a figure that nothing is cut off of: measured, and broken into lines where they are
longer than their place.

Names of trainers, data sets, cases and labels are the user's, and as long as file names may be.
"""

from __future__ import annotations

from matplotlib import style
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

plain_texts = style.context(["default", {"text.parse_math": False}])
"""Decorator of what draws: a name with dollar signs is no formula, and nothing is of another size
because something in this process, such as nnU-Net's progress.png, has set seaborn's."""

_POINTS = 72  # in an inch


def text_width(text: str, size: float) -> float:
    """Inches of one line; `size` in points."""
    font = FontProperties(size=size)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / _POINTS


def fitted(text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches, broken at spaces, else anywhere.

    Parameters
    ----------
    text
        What to write; its own line breaks stay.
    width
        Of the place, in inches.
    size
        Of the font, in points.
    """
    lines: list[str] = []
    for given in text.split("\n"):
        line = ""
        for word in given.split(" "):
            together = f"{line} {word}" if line else word
            if text_width(together, size) <= width:
                line = together
                continue
            lines += [line] if line else []
            *pieces, line = _pieces(word, width, size)
            lines += pieces
        lines.append(line)
    return "\n".join(lines)


def legend_label(name: str, width: float, size: float) -> str:
    """`fitted`; a legend leaves out what begins with an underscore."""
    text = fitted(name, width, size)
    return f" {text}" if text.startswith("_") else text


def lines_of(text: str) -> int:
    """How many lines a text has."""
    return text.count("\n") + 1


def _pieces(word: str, width: float, size: float) -> list[str]:
    """The word in pieces of at most `width`, of one character at least."""
    pieces = [""]
    for character in word:
        if pieces[-1] and text_width(pieces[-1] + character, size) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces
