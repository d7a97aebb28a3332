"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(columns: Sequence[object], body: Sequence[Sequence[object]]) -> str:
    """A table with a heading, one line per row of `body`; bars and line breaks in cells are no
    table's."""
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines)


def _cell(content: object) -> str:
    return " ".join(str(content).splitlines()).replace("|", "\\|")
