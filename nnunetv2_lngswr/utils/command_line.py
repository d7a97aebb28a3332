"""How a command ends: one line for what the user has to mend, a traceback for what we have to.

Every command line of the project runs in `run_main`, so that all of them end alike. Exit status 2:
UserError, CommandError, and what the system refuses (a full disk, no permission, no memory, a file
that is not there). 130: Ctrl-C. 128 + n: signal n, SIGTERM or SIGHUP, which batch systems,
containers and a closed terminal send. Anything else, a plain ValueError of NumPy or torch too, is
taken for a bug.
"""

from __future__ import annotations

import atexit
import errno
import os
import platform
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import nnunetv2_lngswr
from nnunetv2_lngswr.utils.errors import CommandError, Ended, UserError, is_out_of_memory, shortened
from nnunetv2_lngswr.utils.names import printable
from nnunetv2_lngswr.utils.processes import suspended_with_us

BAD_INPUT, BUG = 2, 1
_ENDING = ("SIGTERM", "SIGHUP")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.EPIPE)


def run_main(prog: str, function: Callable[[], int], *, output: str | Path | None = None) -> int:
    """Run a command and say on stderr why it ended, where it did not end well.

    Parameters
    ----------
    prog
        The command as the user called it, such as 'lngswr compare'.
    function
        Parses, works, prints; returns the exit status.
    output
        The folder that the command writes, if there is one: named beside what the system refused.

    Returns
    -------
    int
        What `function` returns; 2 for what the user has to mend, 130 for Ctrl-C, 128 + n for a
        signal and 1 for a bug.
    """
    came: list[int] = []
    try:
        with _ended_by_signals(came), suspended_with_us():
            return function()
    except (Exception, KeyboardInterrupt) as error:
        # an import that a signal cuts off may fail of something else: NumPy "more than once"
        number = came[0] if came else getattr(error, "number", signal.SIGINT)
        if came or isinstance(error, KeyboardInterrupt):
            said, status = _interrupted(output, number), 128 + number
        elif isinstance(error, (UserError, CommandError)):
            said, status = str(error), BAD_INPUT
        elif isinstance(error, OSError) and is_users(error):
            said, status = _refusal(error, output), BAD_INPUT
        elif is_out_of_memory(error):
            said, status = _too_large(error, output), BAD_INPUT
        else:
            sys.stderr.write(printable(traceback.format_exc()))
            said, status = _please_report(), BUG
    # only here, where the exception no longer keeps a progress bar open on this line
    print(f"{prog}: {printable(said)}", file=sys.stderr)
    return status


def leave(status: int) -> NoReturn:
    """End this process, as `sys.exit`, with what `run_main` returned.

    After a signal without Python's own end: where an import of a C++ library was cut off, as
    torch's, that aborts now and then, with another status and alarming words.
    """
    if status > 128:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def _ended_by_signals(came: list[int]) -> Iterator[None]:
    """Raise `Ended` at SIGTERM and SIGHUP, and KeyboardInterrupt at SIGINT even if it was ignored.

    It is in a background job of a script. SIGHUP that is ignored stays so: that is what nohup is
    for. Their numbers go into `came`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        came.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else Ended(number)

    defaults = [n for n in _signals(_ENDING) if signal.getsignal(n) == signal.SIG_DFL]
    heard: dict[int, Any] = dict.fromkeys(defaults, end)
    if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.default_int_handler):
        heard[signal.SIGINT] = end
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signals(names: tuple[str, ...]) -> list[int]:
    """Those of them that this system has."""
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def is_users(error: OSError) -> bool:
    """Whether the user can mend it: a full disk, no permission, a file that is not a library's."""
    if error.errno in _REFUSED:
        return True
    if error.errno is None or not isinstance(error.filename, (str, bytes, os.PathLike)):
        return False
    path = Path(os.path.abspath(os.fsdecode(error.filename)))
    return not any(path.is_relative_to(place) for place in _library_folders())


def _library_folders() -> set[str]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {sysconfig.get_path(n) for n in names} | {str(Path(nnunetv2_lngswr.__file__).parent)}


def _interrupted(output: str | Path | None, number: int) -> str:
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    if output is None:
        return f"{how}; what is done is kept: the same call goes on"
    if not os.path.exists(output):
        return f"{how}; nothing was written"
    return f"{how}; what is done is kept in {output}: run the same command again to go on"


def _refusal(error: OSError, output: str | Path | None) -> str:
    if output is None:
        return f"{error}; what is done is kept: once that is mended the same call goes on"
    # the second is of a file that could not take another's place
    place = error.filename2 or error.filename or output
    advice = "free space and run" if error.errno in _FULL else "once that is mended run"
    said = f"{place}: {error.strerror or error}"
    return f"{said}; what is done is kept: {advice} the same command again"


def _too_large(error: BaseException, output: str | Path | None) -> str:
    kept = "what is done is kept" if output is None else f"what is done is kept in {output}"
    return (
        f"out of memory ({shortened(str(error), 200) or type(error).__name__}); {kept}: free some, "
        "take a smaller --window-batch-size, --graph-memory or batch where the command has one, "
        "and run it again"
    )


def _please_report() -> str:
    versions = f"nnunetv2_lngswr {nnunetv2_lngswr.__version__}, Python {platform.python_version()}"
    return f"this should not have happened; please report it with the lines above ({versions})"
