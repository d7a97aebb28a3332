"""Files that are written whole or not at all, and JSON that is read so that a bad file is named."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nnunetv2_lngswr.utils.errors import UserError

LOCK_NAME = ".lock"
"""Of the file in a folder by which `locks.hold` holds it; it stays."""
_PARTIAL = ".partial-"
_DAY = 24 * 60 * 60


def _process_space() -> str:
    """What a process number means something in: machines and containers may share their names."""
    said = [platform.node()]
    with suppress(OSError):  # of Linux alone
        said.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        said.append(os.readlink("/proc/self/ns/pid"))
    return f"{zlib.crc32(' '.join(said).encode()):08x}"


_HOST = _process_space()
_OF_A_WRITER = re.compile(rf"{re.escape(_PARTIAL)}(?P<host>\w+)-(?P<process>\d+)-\w+-.*", re.DOTALL)


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`, for writers that take a path.

    On success it takes the place of `path`, on the disk too; on failure it is removed. Its name is
    one writer's alone and keeps the suffixes, which many writers read the format from. Permissions
    are as `open` would leave them: those of the file that was there, or else a new file's. A link
    is replaced, not followed: in a folder from a stranger it may name any file of the user.

    Parameters
    ----------
    path
        File to write; its folder is there.

    Raises
    ------
    OSError
        A full disk, no permission: the old file stays, and no temporary one.
    """
    with atomic_paths([path]) as (temporary,):
        yield temporary


@contextmanager
def atomic_paths(paths: Sequence[str | os.PathLike]) -> Iterator[list[Path]]:
    """`atomic_path` of several files that belong together: none is replaced before all are written.

    Parameters
    ----------
    paths
        Files to write, replaced in this order; their folders are there.

    Raises
    ------
    OSError
        As there: where one cannot be written, all old files stay.
    """
    targets = [Path(os.path.realpath(Path(path).parent), Path(path).name) for path in paths]
    temporaries = [path.with_name(_temporary_name(path)) for path in targets]
    for folder in dict.fromkeys(path.parent for path in targets):
        remove_leftovers_once(folder)
    try:
        yield temporaries
        for path, temporary in zip(targets, temporaries):
            _flush(temporary)
            if path.exists():
                shutil.copymode(path, temporary)
        for path, temporary in zip(targets, temporaries):
            os.replace(temporary, path)
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)
    if os.name != "nt":  # where a folder cannot be opened
        for folder in dict.fromkeys(path.parent for path in targets):
            with suppress(OSError):  # some network file systems cannot; the file is in its place
                _flush(folder)


def _temporary_name(path: Path) -> str:
    return f"{_PARTIAL}{_HOST}-{os.getpid()}-{os.urandom(4).hex()}-{path.name[-50:]}"


def write_file(path: str | os.PathLike, content: str | bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a file; whoever reads it sees the old one or the whole new one.

    Parameters
    ----------
    path
        File to write; its folder is made.
    content
        Text (written as UTF-8), bytes, or a function that writes into an open binary file.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OSError
        As `atomic_path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, open(temporary, "xb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
    return path


def holds_nothing(folder: Path) -> bool:
    """Whether a folder is absent or empty, but for a lock's file and what killed writers left."""
    if not folder.exists():
        return True
    return all(p.name == LOCK_NAME or p.name.startswith(_PARTIAL) for p in folder.iterdir())


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; a living one's file stays."""
    if os.name == "nt":  # signal 0 would end the process there
        return
    with suppress(OSError):  # not ours to mend: the writing that comes next says what is wrong
        for entry in os.scandir(folder):
            found = _OF_A_WRITER.fullmatch(entry.name)
            if found is None:
                continue
            ours = found["host"] == _HOST
            if not is_running(int(found["process"])) if ours else _is_old(entry):
                os.unlink(entry)


def _is_old(entry: os.DirEntry) -> bool:
    """Whether no writer of another machine, container or boot can be at it still."""
    return time.time() - entry.stat().st_mtime > _DAY


remove_leftovers_once = functools.cache(remove_leftovers)  # folders may hold many thousand files


def is_running(process: int) -> bool:
    """Whether this machine has a process of this number; on Windows always True."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def read_json(path: str | os.PathLike, *, needs: Sequence[str] = ()) -> dict:
    """Return the content of a JSON file.

    Parameters
    ----------
    path
        The file.
    needs
        Keys that it must have.

    Raises
    ------
    UserError
        It is damaged or lacks one of these keys; names the path.
    OSError
        It is not there, or cannot be read.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error})") from None
    missing = [key for key in needs if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}")
    return content


def _flush(path: Path) -> None:
    """Have a file or folder on the disk."""
    # Windows flushes only what is open for writing
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
