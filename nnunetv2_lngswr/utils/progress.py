"""Progress that a log stays readable with: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

LOG_SECONDS = 60.0
"""How long a log waits for its next line; work that takes less writes none."""
_ONE_LINE_UP = "\x1b[A"  # tqdm's way back from a bar below another


def progress_bar(
    iterable: Iterable | None = None,
    *,
    total: float | None = None,
    unit: str = "it",
    disable: bool = False,
    **more: Any,
) -> tqdm:
    """Return tqdm, set for where stderr goes.

    On a terminal it is tqdm's bar. Elsewhere (a file, a batch system's log) it writes at most a
    line a minute and nothing for what takes less than that.

    Parameters
    ----------
    iterable, total, unit
        As tqdm's.
    disable
        Show nothing.
    **more
        Others of tqdm's arguments, such as `desc`.
    """
    more |= {"total": total, "unit": unit, "disable": disable}
    if disable or sys.stderr.isatty():
        return tqdm(iterable, **more)
    slow = {"mininterval": LOG_SECONDS, "miniters": 1, "delay": LOG_SECONDS}
    return _Lines(iterable, **more, **slow, file=_Log(sys.stderr))


class _Lines(tqdm):
    """A bar of which new words alone are no reason for a line."""

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        super().set_description(desc, refresh=False)

    def set_postfix(self, ordered_dict: Any = None, refresh: bool | None = True, **values) -> None:
        super().set_postfix(ordered_dict, refresh=False, **values)


class _Log:
    """A file for tqdm in which every state of the bar is a line of its own."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, text: str) -> None:
        line = text.replace(_ONE_LINE_UP, "").strip("\r\n ")
        if line:
            self.file.write(f"{line}\n")

    def flush(self) -> None:
        self.file.flush()
