"""Markdown: tables, and texts from files that shall be read as they are, not as markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*\[\]]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none
# whose backslash not every renderer takes
_ENTITIES = {"|": "&#124;", "~": "&#126;", "$": "&#36;"}


def markdown_table(columns: Sequence[object], body: Sequence[Sequence[object]]) -> str:
    """A table with a heading, one line per row of `body`; bars and line breaks in cells are no
    table's."""
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def escaped(text: str) -> str:
    """A text from a file within a sentence: no markup, no HTML, no line break."""
    plain = _MARKUP.sub(r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))
    for character, entity in _ENTITIES.items():
        plain = plain.replace(character, entity)
    return plain


def escaped_items(lines: Iterable[str]) -> list[str]:
    """Items of a list with what is in them as text, and the other lines as they are."""
    return [f"- {escaped(line[2:])}" if line.startswith("- ") else line for line in lines]


def code(text: str) -> str:
    """A name from a file as a code span, in which nothing is markup."""
    text = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if text.startswith("`") or text.endswith("`") or not text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _cell(content: object) -> str:
    return " ".join(str(content).splitlines()).replace("|", "\\|")
