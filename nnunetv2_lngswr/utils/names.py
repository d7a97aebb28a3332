"""Names: looked up in a table, with the nearest ones when it is not there; and those of files."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from nnunetv2_lngswr.utils.errors import UserError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """table[name].

    Raises
    ------
    UserError
        Not there; the text names the nearest entries, or all of them when none is near.
    """
    if name in table:
        return table[name]
    raise UserError(f"unknown {what} {name!r}; {did_you_mean(name, table)}")


def did_you_mean(name: str, known: Iterable[str], *, cutoff: float = 0.5, what: str = "") -> str:
    """'did you mean A or B?', or all that is known (known `what`: ...) where nothing is near."""
    known = list(known)
    if "," in name:
        return f"separate several by spaces, not commas{what and ' (' + what + ')'}"
    near = difflib.get_close_matches(name, known, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known{what and ' ' + what}: {', '.join(known)}"


def some_names(names: Sequence[str], shown: int = 5, *, between: str = ", ") -> str:
    """'a, b, c, d, e and 2 more'."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return between.join(names[:shown]) + more


def printable(text: str) -> str:
    """Without what moves a terminal's cursor, reverses text or is no character; lines stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


def printable_page(path: str | os.PathLike) -> str:
    """What a text file says, as it may be shown on a terminal."""
    return printable(Path(path).read_text(encoding="utf-8")).rstrip()


def is_utf8(path: str | os.PathLike) -> bool:
    """Whether a file's name is, as far as it is given.

    Others, such as Latin-1 on an old disk, end the process where ITK is given them, and cannot be
    written into a report or a table.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def refuse_no_utf8(path: str | os.PathLike) -> None:
    """Refuse a file or folder of such a name.

    Raises
    ------
    UserError
        Names it, with its odd bytes as \\udcXX.
    """
    if not is_utf8(path):
        raise UserError(f"{ascii(os.fspath(path))} has a name that is no UTF-8: rename it")
