"""A process that works for this one: how it is started, what ends it, and how it says so.

It imports our packages and nnU-Net from where this process has them, by file location, and looks
for everything else where its own Python does first: a user's `statistics.py` on this process's path
is not the library's. It is told what to do in a line on stdin, which stays open: its end is that of
this process, and with it the worker ends too, however this process was ended. What ended the worker
comes back on its stdout; what it and its libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from nnunetv2_lngswr.utils.command_line import leave
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.processes import ended_with_us

BAD_INPUT, SYSTEM_ERROR, INTERRUPTED, ORPHANED = 2, 3, 130, 4
"""Exit statuses of a worker."""
_PACKAGES = ("nnunetv2", "nnunetv2_lngswr", "evaluation")
_IMPORT_BY_PLACE = """
import importlib.util, json, os, sys
packages, path = json.loads(sys.argv[1])
sys.path += [p for p in path if p not in sys.path]
for name, file in packages.items():
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[os.path.dirname(file)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
"""
_PR_SET_PDEATHSIG = 1


class Worker:
    """A process that was started by `started`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        self.process = process
        # read as it comes: a full pipe would stop the worker
        self._report, self._said = _Reader(process.stdout), _Reader(process.stderr)

    def error(self) -> BaseException | None:
        """What ended a worker that has ended; None for a good end."""
        if self.process.returncode == 0:
            return None
        return error_of(self.process.returncode, self._report.text(), self._said.text())


@contextmanager
def started(code: str, call: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Worker]:
    """A worker that runs `code`, in which `serve` hears `call`; it ends when the block does.

    Parameters
    ----------
    code
        Python.
    call
        JSON-ready.
    environment
        All of the worker's variables.
    """
    with (
        subprocess.Popen(
            command(code),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
        ) as process,
        ended_with_us(process),
    ):
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended: why is in what it said
            process.stdin.write(json.dumps({**call, "parent": os.getpid()}) + "\n")
            process.stdin.flush()
        yield Worker(process)


def command(code: str) -> list[str]:
    """Python's words to run `code` with our packages from where this process has them."""
    places = {n: sys.modules[n].__file__ for n in _PACKAGES if n in sys.modules}
    found = {n: os.path.abspath(file) for n, file in places.items() if file is not None}
    path = [os.path.abspath(p) for p in sys.path if p]
    # -P: without the working directory, where a user's modules may lie
    words = [sys.executable, "-P", "-c", f"{_IMPORT_BY_PLACE}\n{code}"]
    return [*words, json.dumps([found, path])]


def serve(work: Callable[[dict[str, Any]], None]) -> None:
    """What a worker does: `work` with the call on stdin. Errors go back; then the process ends."""
    # a call in the background has it ignored, and ends us by it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no report
    call = json.loads(sys.stdin.readline())
    end_with(call["parent"], sys.stdin)
    try:
        work(call)
    except UserError as error:
        _end(report, BAD_INPUT, [str(error)])
    except OSError as error:
        sys.stderr.write(traceback.format_exc())
        names = [None if n is None else os.fsdecode(n) for n in (error.filename, error.filename2)]
        _end(report, SYSTEM_ERROR, [error.errno, error.strerror or str(error), *names])
    except KeyboardInterrupt:
        leave(INTERRUPTED)


def end_with(parent: int, lifeline: IO[str]) -> None:
    """End this process when its parent does, also where that was killed.

    Parameters
    ----------
    parent
        Process number.
    lifeline
        What the parent alone has the other end of, and writes no more into.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            os._exit(ORPHANED)

    def wait() -> None:
        # not lifeline.read(), whose lock the end of this interpreter would wait for
        while os.read(lifeline.fileno(), 1):
            pass
        os._exit(ORPHANED)

    threading.Thread(target=wait, daemon=True).start()


def error_of(status: int, report: str, said: str) -> BaseException:
    """What is raised for a worker that ended with `status` != 0.

    Parameters
    ----------
    status
        As of subprocess.Popen.
    report
        What it wrote last, for us.
    said
        All that it and its libraries printed.
    """
    if status == INTERRUPTED:
        return KeyboardInterrupt()
    with suppress(ValueError):  # no report: it was killed while it wrote it
        if status == BAD_INPUT:
            return UserError(*json.loads(report))
        if status == SYSTEM_ERROR:
            number, text, filename, other = json.loads(report)
            if number is None:
                return OSError(text)
            return OSError(number, text, filename, None, other)
    if status in (-signal.SIGTERM, -getattr(signal, "SIGKILL", 9)):
        return UserError(
            f"a worker was ended by signal {-status}, which the system sends where memory runs "
            "out; finished cases are kept: run the same command again, with fewer --workers if "
            "it was the memory"
        )
    return RuntimeError(
        f"a worker ended with status {status}; finished cases are kept. It said:\n{said.strip()}"
    )


class _Reader(threading.Thread):
    """Reads a stream to its end."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__(daemon=True)
        self._stream, self._parts = stream, []
        self.start()

    def run(self) -> None:
        with suppress(ValueError, OSError):  # closed by us
            self._parts.append(self._stream.read())

    def text(self) -> str:
        """All of it; waits for the end."""
        self.join()
        return "".join(self._parts)


def _end(report: IO[str], status: int, arguments: list[Any]) -> None:
    with report:
        json.dump(arguments, report)
    sys.exit(status)
