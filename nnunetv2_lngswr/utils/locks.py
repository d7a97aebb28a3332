"""Holding a folder or a file, so that a second call on it is refused and told who is at work.

The system lets go of a lock when the last process that has it open ends, however that ends. So a
lock is never stale, and its file stays: one that was removed could be held by two. Commands that we
run keep the locks that we hold (`inherited`): when we are killed, the next call waits for their
end.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import LOCK_NAME, is_running

# so long the commands of a killed call may take to end (processes.PATIENCE_SECONDS)
PATIENCE_SECONDS = 15.0
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_CANNOT = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_FAR = 1 << 30  # of the byte that Windows locks: nobody else may read a locked one

_held: dict[tuple[Path, int], int] = {}
"""File descriptors of the locks of this process, by lock file and thread."""


@contextmanager
def hold(folder_or_file: str | os.PathLike, what: str) -> Iterator[None]:
    """Hold a folder, or a file, against other calls, in other processes and on other hosts.

    The same thread may hold it again.

    Parameters
    ----------
    folder_or_file
        A folder is made where there is nothing of this name, and the lock's file (.lock) lies in
        it. A file's (.NAME.lock) lies beside it.
    what
        Who holds it, such as 'lngswr benchmark', for the second one's message.

    Raises
    ------
    UserError
        It is held; says by whom (what, process, host, since when, command).
    OSError
        The lock's file cannot be written.
    """
    file = _lock_file(Path(os.path.realpath(folder_or_file)))
    key = file, threading.get_ident()
    if key in _held:
        yield
        return
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _acquire(descriptor, folder_or_file)
        _write(descriptor, _record(what))
        _held[key] = descriptor
        try:
            yield
        finally:
            del _held[key]
            _write(descriptor, None)
    finally:
        os.close(descriptor)  # lets go, unless a command of ours still has it


def inherited() -> tuple[int, ...]:
    """Return the file descriptors that a command has to keep open to hold what we hold."""
    return tuple(_held.values())


def _lock_file(path: Path) -> Path:
    if path.is_file():
        return path.with_name(f".{path.name}.lock")
    path.mkdir(parents=True, exist_ok=True)
    return path / LOCK_NAME


def _acquire(descriptor: int, place: str | os.PathLike) -> None:
    # by a clock that nobody sets
    end = time.monotonic() + PATIENCE_SECONDS
    while not _locked(descriptor, place):
        holder = _read(descriptor)
        if time.monotonic() > end or not _was_killed(holder):
            raise UserError(
                f"{place} is in use by {_described(holder)}: wait until that has ended, or end it"
            )
        time.sleep(0.1)


def _locked(descriptor: int, place: str | os.PathLike) -> bool:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno not in _CANNOT:
            raise
        warnings.warn(
            f"{place} lies on a file system without locks ({error.strerror}): "
            "two calls on it at once would not be noticed",
            stacklevel=5,
        )
    return True


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _record(what: str) -> dict[str, Any]:
    return {
        "what": what,
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
    }


def _write(descriptor: int, record: dict[str, Any] | None) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if record is not None:
        os.write(descriptor, (json.dumps(record) + "\n").encode())


def _read(descriptor: int) -> dict[str, Any]:
    """What the holder has written; {} while it is at it."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        record = json.loads(os.read(descriptor, 1 << 16))
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _was_killed(holder: dict[str, Any]) -> bool:
    """Whether the holder is gone, or going, and only what it had started still has to end."""
    if not holder:  # between its lock and its record, or between that and its end
        return True
    return holder.get("host") == platform.node() and not is_running(int(holder.get("pid", 0)))


def _described(holder: dict[str, Any]) -> str:
    if not holder:
        return "another call"
    what, command = holder.get("what"), holder.get("command")
    process = f"process {holder.get('pid')} on {holder.get('host')}"
    return f"{what} ({process}, since {holder.get('since')}: {command})"
