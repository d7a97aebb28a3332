"""What a file system may refuse, refused in this process: the n-th write, or every one."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_watching = []


def _hear(event, arguments):
    for watch in _watching:
        watch(event, arguments)


sys.addaudithook(_hear)  # cannot be taken off again


class Writes:
    """Counts what takes room in a folder: opening for writing, new names, flushing."""

    def __init__(self, folder, error, *, fail_at=None):
        self.folder, self.error, self.fail_at, self.count = Path(folder), error, fail_at, 0

    def __call__(self, event, arguments):
        opened = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if opened or event == "os.mkdir":
            self.write(arguments[0])
        if event == "os.rename":
            self.write(arguments[1])

    def write(self, path):
        if isinstance(path, int) or not Path(os.fsdecode(path)).is_relative_to(self.folder):
            return
        self.count += 1
        if self.fail_at is None or self.count == self.fail_at:
            raise OSError(self.error, os.strerror(self.error), os.fsdecode(path))


@contextmanager
def refused(folder, error, *, fail_at=None):
    """Writes into `folder` fail with `error`: the `fail_at`-th alone, or all of them."""
    writes, sync = Writes(folder, error, fail_at=fail_at), os.fsync

    def fsync(file):
        # os.readlink names the file of a descriptor on Linux
        writes.write(os.readlink(f"/proc/self/fd/{file}"))
        sync(file)

    os.fsync = fsync
    _watching.append(writes)
    try:
        yield writes
    finally:
        _watching.remove(writes)
        os.fsync = sync
