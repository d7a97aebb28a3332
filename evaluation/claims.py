"""Who is at work in OUT: one claim per process, which the system lets go of when the process ends.

A claim is a file that its process keeps locked (.running/ID.lock) and one that says whose it is
(.running/ID.json). Parts of one evaluation, on any host, and their workers lie side by side.
Whoever has other settings, or the same cases, is refused and told who is at work. All this is read
and written by one process at a time, which holds OUT/.lock for a moment; that file stays.
"""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

MUTEX, FOLDER = ".lock", ".running"
# the first is held for a moment, but for the removal of many files over a network
_MUTEX_SECONDS, _ORPHANS_SECONDS = 600.0, 15.0


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Of one process."""

    call: str
    """Shared by a call of `evaluate` and its workers."""
    worker: bool = False
    settings: str
    """SHA-256 of what is evaluated."""
    cases: Sequence[str]
    """Keys of what it evaluates."""
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=platform.node)
    since: str = field(default_factory=_now)
    """For people: nothing is decided by it."""

    def excludes(self, other: Claim) -> bool:
        """Whether the two may not be at work at once."""
        if self.call == other.call:
            return False
        return self.settings != other.settings or not set(self.cases).isdisjoint(other.cases)


class Claims:
    """Those on one OUT.

    Parameters
    ----------
    out
        OUT, which need not exist.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / FOLDER
        # one object, so that who holds it may take it again
        self._mutex = FileLock(out / MUTEX, timeout=_MUTEX_SECONDS)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For a moment nobody else makes, reads or removes claims, or replaces results."""
        try:
            self._mutex.acquire()
        except Timeout:
            raise UserError(
                f"{self.out / MUTEX} is held by another process for {_MUTEX_SECONDS:.0f} s; "
                "end that, or choose another folder (-o)"
            ) from None
        try:
            yield
        finally:
            self._mutex.release()

    def refuse(self, mine: Claim) -> None:
        """UserError where somebody who is at work excludes `mine`; call it `alone`.

        Workers whose call was killed are waited for: they are ending.
        """
        end = time.monotonic() + _ORPHANS_SECONDS
        while True:
            living = self.living()
            excluding = [c for c in living if mine.excludes(c)]
            if not excluding:
                return
            callers = {c.call for c in living if not c.worker}
            if time.monotonic() > end or any(c.call in callers for c in excluding):
                raise UserError(self._said(mine, excluding[0]))
            time.sleep(0.1)

    def living(self) -> list[Claim]:
        """Those of processes that run; what others left is removed. Call it `alone`."""
        found = []
        for path in sorted(self.folder.glob("*.lock")):
            says = path.with_suffix(".json")
            lock = FileLock(path)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if says.is_file():
                    found.append(Claim(**read_json(says)))
                continue
            lock.release()  # Windows removes no file that is open
            says.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        return found

    def make(self, claim: Claim) -> FileLock:
        """Write a claim, which `drop` removes; call it `alone`."""
        self.folder.mkdir(exist_ok=True)
        lock = FileLock(self.folder / f"{uuid.uuid4().hex}.lock")
        try:
            lock.acquire(timeout=0)
            says = Path(lock.lock_file).with_suffix(".json")
            write_file(says, json.dumps(asdict(claim)) + "\n")
        except BaseException:
            self.drop(lock)
            raise
        return lock

    def drop(self, lock: FileLock) -> None:
        """Remove a claim that `make` made; call it `alone`."""
        path = Path(lock.lock_file)
        lock.release()
        with suppress(OSError):  # what is left counts for nothing: it is not locked
            path.with_suffix(".json").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _said(self, mine: Claim, other: Claim) -> str:
        what = "with other settings"
        if mine.settings == other.settings:
            shared = [key for key in mine.cases if key in set(other.cases)]
            what = f"with the same settings and cases ({shared[0]}{', ...' * (len(shared) > 1)})"
        return (
            f"{self.out} is in use by process {other.pid} on {other.host} since {other.since}, "
            f"{what}: wait until that has ended, end it, or choose another folder (-o)"
        )
