"""Bad inputs as rows of tables: how each is made, the command that gets it, what it must answer.

A row holds where the command ends with exit status 2 and one line on stderr that begins with the
program's name and has every text of `says`, without a traceback, and with all files as they were.
"""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

SECONDS = 20
FOREIGN = os.fsdecode(b"c\xff\xe9")
"""A name as Latin-1 disks have them, which is no UTF-8."""
NO_SUCH_NAMES = "" if sys.platform == "linux" else "this system's names are UTF-8"
NOBODY = 65534
_SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One bad input."""

    name: str
    argv: tuple[str, ...]
    """Words of the command; ROOT in them stands for the row's folder."""
    says: tuple[str, ...]
    """Texts that the line must have; ROOT as there."""
    spoil: Callable[[Path], object] = lambda root: None
    """Makes the input bad, in a folder that is the row's own."""
    environ: Mapping[str, str] = field(default_factory=dict)
    """Variables that are set; ROOT as above."""
    refused: Path | str = ""
    """What the row needs that only a user without rights is refused; relative to ROOT."""
    leaves: str = ""
    """What may be there afterwards, such as cases that were good; relative to ROOT."""
    skip: str = ""
    """Why the row cannot be tried here."""


def bad(name: str, argv: Sequence[str], *says: str, **more) -> Bad:
    """A row, in the order in which it is read."""
    return Bad(name=name, argv=tuple(argv), says=says, **more)


def rows(table: Sequence[Bad]) -> list:
    """What pytest.mark.parametrize takes."""
    found, names = [], [row.name for row in table]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"names of rows must differ: {twice}"
    for row in table:
        marks = [pytest.mark.skip(reason=row.skip)] if row.skip else []
        found.append(pytest.param(row, id=row.name, marks=marks))
    return found


def _is_torchs(warned: warnings.WarningMessage) -> bool:
    """What torch says to torchvision, which nnU-Net imports when it looks for a trainer."""
    folder = str(Path(torch.__file__).parent)
    return issubclass(warned.category, FutureWarning) and warned.filename.startswith(folder)


def complaints(row: Bad, root: Path, main: Callable, capfd, monkeypatch) -> list[str]:
    """What is wrong with how a command answers a bad input; empty where it is as it should be."""
    row.spoil(root)
    monkeypatch.chdir(root)
    for name, value in row.environ.items():
        monkeypatch.setenv(name, value.replace("ROOT", str(root)))
    before = tree(root)
    capfd.readouterr()
    with warnings.catch_warnings(record=True) as warned, _without_rights(row, root):
        warnings.simplefilter("always")
        status, asked = _status(main, [word.replace("ROOT", str(root)) for word in row.argv])
    said = capfd.readouterr().err
    shown = [w for w in warned if not issubclass(w.category, _SILENT) and not _is_torchs(w)]
    wrong = [f"warned: {w.category.__name__}: {w.message}" for w in shown]
    if status != 2:
        wrong.append(f"status {status}")
    wrong += _of_text(said, asked, [text.replace("ROOT", str(root)) for text in row.says])
    after = tree(root)
    changed = [p for p in sorted({*before, *after}) if before.get(p) != after.get(p)]
    if row.leaves:
        changed = [p for p in changed if p in before or not Path(p).is_relative_to(row.leaves)]
    return [*wrong, *(f"changed: {path}" for path in changed[:5])]


def tree(root: Path) -> dict[str, tuple]:
    """{path: what is there}, links not followed.

    Locks stay where they were once held, by design; in a folder that was there before.
    """
    found = {}
    for folder, folders, files in os.walk(root):
        for name in {*folders, *files} - {".lock"}:
            path = Path(folder) / name
            kind = stat.S_IFMT(path.lstat().st_mode)
            content = os.readlink(path) if path.is_symlink() else _hash(path)
            found[str(path.relative_to(root))] = (kind, content)
    return found


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


class _TooLong(BaseException):
    """No Exception, which the commands would answer themselves."""


def _status(main: Callable, argv: list[str]) -> tuple[object, bool]:
    """(exit status, whether argparse said it, which shows the usage first)."""

    def stop(number, frame):
        raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    # the suite's own limit goes on afterwards
    left, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        return main(argv), False
    except SystemExit as ended:
        return ended.code, True
    except _TooLong:
        return f"none after {SECONDS} s", False
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def _of_text(said: str, asked: bool, says: Sequence[str]) -> list[str]:
    if "Traceback" in said:
        last = [line for line in said.splitlines() if line and not line.startswith(" ")][-2]
        where = [line.strip() for line in said.splitlines() if line.startswith("  File")][-3:]
        return [f"traceback: {last}", *where]
    lines = said.splitlines()
    if asked and lines[:1] and lines[0].startswith("usage: "):
        lines = [line for line in lines if ": error: " in line]
    if len(lines) != 1:
        return [f"{len(lines)} lines: {said!r}"]
    wrong = [f"does not say {text!r}: {lines[0]}" for text in says if text not in lines[0]]
    if not lines[0].startswith(("lngswr", "nnUNetv2_train")):
        wrong.append(f"does not begin with the program's name: {lines[0]}")
    return wrong


@contextmanager
def _without_rights(row: Bad, root: Path) -> Iterator[None]:
    """As a user who may not what root may, for rows about rights."""
    if not row.refused:
        yield
        return
    path = root / row.refused
    mode = path.stat().st_mode
    path.chmod(0o555 if path.is_dir() else 0)
    root_user = os.geteuid() == 0
    try:
        if root_user:
            os.seteuid(NOBODY)
        yield
    finally:
        if root_user:
            os.seteuid(0)
        path.chmod(mode)
