"""Commands, nnU-Net's and ours, run as a user would type them.

Each has a log, or its output shown as it comes.
"""

import collections
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_lngswr.utils.errors import CommandError, UserError

NOTHING = r"(?!)"  # matches no line
# Windows cannot send another process a Ctrl-C
INTERRUPT = signal.SIGTERM if os.name == "nt" else signal.SIGINT
# how long a command may take to end by itself at Ctrl-C, and then after ours
PATIENCE_SECONDS = (5.0, 15.0)


def run_command(
    command: Sequence[str | Path],
    log: Path,
    *,
    environment: Mapping[str, str],
    say: Callable[[str], None],
    show: str = NOTHING,
) -> None:
    """Run one command of this Python's environment with its output in a file.

    Parameters
    ----------
    command
        The program and its arguments.
    log
        File for its output; the folder is made.
    environment
        Added to this process's.
    say
        Receives the command, and the lines that match `show` without nnU-Net's time stamps.
    show
        Regular expression.

    Raises
    ------
    UserError
        There is no such program.
    CommandError
        It failed; with its last lines.
    """
    words = [str(part) for part in command]
    say("$ " + shlex.join(words))
    log.parent.mkdir(parents=True, exist_ok=True)
    tail = collections.deque(maxlen=12)
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            [beside_python(words[0]), *words[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        ) as process,
        ended_with_us(process),
    ):
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            file.write(line)
            tail.append(line.rstrip())
            if re.search(show, line.rstrip()):
                say("    " + re.sub(r"^\d{4}-\d\d-\d\d [\d:.]+: ", "", line.rstrip()))
    if process.returncode != 0:
        last = "\n".join("    " + line for line in tail)
        raise CommandError(
            f"{words[0]} failed (exit status {process.returncode}); "
            f"its last lines, all of them in {log}:\n{last}"
        )


def call_command(command: Sequence[str]) -> int:
    """Run one command of this Python's environment with its output shown as it comes.

    Returns
    -------
    int
        Its exit status.

    Raises
    ------
    UserError
        There is no such program.
    """
    with (
        subprocess.Popen(
            [beside_python(command[0]), *command[1:]], stdin=subprocess.DEVNULL
        ) as process,
        ended_with_us(process),
    ):
        return process.wait()


def beside_python(command: str) -> str:
    """Return the path of a command, first that of the environment that runs this, active or not.

    Raises
    ------
    UserError
        There is no such program.
    """
    if command == "python":  # some environments only have python3
        return sys.executable
    beside = shutil.which(command, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(command)
    if found is None:
        raise UserError(
            f"{command} was found neither beside {sys.executable} nor on the PATH: "
            "is nnunetv2 installed? (lngswr doctor)"
        )
    return found


_running: set[subprocess.Popen] = set()


def interrupt_running() -> None:
    """Send Ctrl-C to the commands of all threads; Python tells only the main thread of ours."""
    for process in list(_running):
        process.send_signal(INTERRUPT)


@contextmanager
def ended_with_us(process: subprocess.Popen) -> Iterator[None]:
    """At Ctrl-C (and any other exception) let no training go on in the background.

    A terminal has told the command already, and it is waited for, so that it can end its own
    workers; then it is told by us; then killed, at a second Ctrl-C at once.
    """
    _running.add(process)
    try:
        yield
    except BaseException:
        try:
            for seconds in PATIENCE_SECONDS:
                try:
                    process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(INTERRUPT)
        finally:
            process.kill()  # does nothing to one that has ended
            process.wait()
        raise
    finally:
        _running.discard(process)
