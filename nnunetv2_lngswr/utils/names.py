"""Looking a name up in a table, with the nearest names when it is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
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
    near = difflib.get_close_matches(name, known, n=3, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known{what and ' ' + what}: {', '.join(known)}"
