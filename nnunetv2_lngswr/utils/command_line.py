"""How a command ends: one line for what the user has to mend, a traceback for what we have to.

Every command line of the project runs in `run_main`, so that all of them end alike. Exit status 2:
UserError, CommandError, and what the system refuses (a full disk, no permission, a file that is not
there). 130: Ctrl-C. Anything else, a plain ValueError of NumPy or torch too, is taken for a bug.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path

import nnunetv2_lngswr
from nnunetv2_lngswr.utils.errors import CommandError, UserError

BAD_INPUT, INTERRUPTED, BUG = 2, 130, 1
_FULL = (errno.ENOSPC, errno.EDQUOT)
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
        What `function` returns; 2 for what the user has to mend, 130 for Ctrl-C and 1 for a bug.
    """
    try:
        return function()
    except (UserError, CommandError) as error:
        said, status = str(error), BAD_INPUT
    except KeyboardInterrupt:
        said, status = _interrupted(output), INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and is_users(error):
            said, status = _refusal(error, output), BAD_INPUT
        else:
            sys.stderr.write(traceback.format_exc())
            said, status = _please_report(), BUG
    # only here, where the exception no longer keeps a progress bar open on this line
    print(f"{prog}: {said}", file=sys.stderr)
    return status


def is_users(error: OSError) -> bool:
    """Whether the user can mend it: a full disk, no permission, or a file that is not a library's."""
    if error.errno in _REFUSED:
        return True
    if error.errno is None or not isinstance(error.filename, (str, bytes, os.PathLike)):
        return False
    path = Path(os.path.abspath(os.fsdecode(error.filename)))
    return not any(path.is_relative_to(place) for place in _library_folders())


def _library_folders() -> set[str]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return {sysconfig.get_path(n) for n in names} | {str(Path(nnunetv2_lngswr.__file__).parent)}


def _interrupted(output: str | Path | None) -> str:
    if output is None:
        return "interrupted; what is done is kept: the same call goes on"
    return f"interrupted; what is done is kept in {output}: run the same command again to go on"


def _refusal(error: OSError, output: str | Path | None) -> str:
    if output is None:
        return f"{error}; what is done is kept: once that is mended the same call goes on"
    place = output if error.filename is None else error.filename
    advice = "free space and run" if error.errno in _FULL else "then run"
    said = f"{place}: {error.strerror or error}"
    return f"{said}; what is done is kept: {advice} the same command again"


def _please_report() -> str:
    versions = f"nnunetv2_lngswr {nnunetv2_lngswr.__version__}, Python {platform.python_version()}"
    return f"this should not have happened; please report it with the lines above ({versions})"
