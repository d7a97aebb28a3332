"""Commands, nnU-Net's and ours, run as a user would type them.

Each has a log, or its output shown as it comes. None outlives us, whatever ends us, with all that
it has started (`leash`), and each keeps the locks that we hold until it has ended (`locks`).
"""

import collections
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils import leash, locks
from nnunetv2_lngswr.utils.errors import CommandError, Ended, UserError

NOTHING = r"(?!)"  # matches no line
# how long a command may take to end by itself at Ctrl-C, and then at SIGTERM; less in all than the
# ten seconds after which a container is killed
PATIENCE_SECONDS = (5.0, 2.0)
# Windows cannot send another process a Ctrl-C
INTERRUPT = signal.SIGTERM if os.name == "nt" else signal.SIGINT
_TAIL_LINES = 12
_running: set[subprocess.Popen] = set()


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
        File for its output, after that of earlier calls; the folder is made.
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
    tail = collections.deque(maxlen=_TAIL_LINES)
    with (
        open(log, "a", encoding="utf-8", buffering=1) as file,  # by lines, to be read meanwhile
        _started(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PYTHONUNBUFFERED": "1", **environment},
        ) as process,
    ):
        assert process.stdout is not None  # it is a pipe
        file.write(f"$ {shlex.join(words)}\n")
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
    with _started(command) as process:
        return process.wait()


def capture_command(command: Sequence[str], *, environment: Mapping[str, str]) -> str:
    """Run one command of this Python's environment and return what it prints.

    Parameters
    ----------
    command
        The program and its arguments.
    environment
        Added to this process's.

    Raises
    ------
    UserError
        There is no such program.
    CommandError
        It failed; with its last lines.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with _started(command, env=environment, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None  # they are pipes
        said: list[str] = []
        reader = threading.Thread(target=lambda out=process.stderr: said.extend(out))
        reader.start()
        printed = process.stdout.read()
        reader.join()
    if process.returncode != 0:
        last = "\n".join("    " + line.rstrip() for line in said[-_TAIL_LINES:])
        raise CommandError(
            f"{shlex.join(command)} failed (exit status {process.returncode}); "
            f"its last lines:\n{last}"
        )
    return printed


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


def end_running() -> None:
    """Ask the commands of all threads to end; Python tells only the main thread of a Ctrl-C."""
    for process in list(_running):
        _ask_to_end(process)


@contextmanager
def ended_with_us(process: subprocess.Popen) -> Iterator[None]:
    """At Ctrl-C (and any other exception) end a process that was started without a leash.

    A terminal has told it of Ctrl-C already, and it is waited for, so that it can end its own
    workers; then it is told by us; then killed, at a second Ctrl-C at once.
    """
    try:
        yield
    except BaseException as error:
        try:
            if not isinstance(error, KeyboardInterrupt) or isinstance(error, Ended):
                process.send_signal(INTERRUPT)
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


@contextmanager
def suspended_with_us() -> Iterator[None]:
    """At Ctrl-Z suspend the commands as well, and let them go on with us.

    A terminal tells our process group alone, and each of them is in one of its own.
    """
    if os.name == "nt" or threading.current_thread() is not threading.main_thread():
        yield
        return

    def suspend(number: int, frame: Any) -> None:
        _tell_all(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # stops here, until the terminal has us go on
        signal.signal(signal.SIGTSTP, suspend)
        _tell_all(signal.SIGCONT)

    before = signal.getsignal(signal.SIGTSTP)
    if before == signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def _tell_all(number: int) -> None:
    for process in list(_running):
        with suppress(ProcessLookupError):
            process.send_signal(number)


@contextmanager
def _started(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, **pipes: Any
) -> Iterator[subprocess.Popen]:
    """A running command, with `env` added to our environment; waits for its end.

    At Ctrl-C, SIGTERM and any other exception it is asked to end, with all that it has started, and
    waited for; at a second one it is killed.
    """
    words = [beside_python(command[0]), *command[1:]]
    how: dict[str, Any] = {
        "text": True,
        "errors": "replace",
        "env": {**os.environ, **(env or {})},
        "stdin": subprocess.PIPE,
        **pipes,
    }
    if os.name != "nt":
        patience = map(str, PATIENCE_SECONDS)
        words = [sys.executable, "-I", "-S", leash.__file__, *patience, *words]
        how |= {"process_group": 0, "pass_fds": locks.inherited()}
    process = subprocess.Popen(words, **how)
    _running.add(process)
    try:
        yield process
        process.wait()
    except BaseException:
        try:
            _ask_to_end(process)
            process.wait()
        finally:
            if process.poll() is None:
                # the leash kills all of them; Windows knows no such signal
                process.send_signal(getattr(signal, "SIGQUIT", signal.SIGTERM))
                process.wait()
        raise
    finally:
        _running.discard(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _ask_to_end(process: subprocess.Popen) -> None:
    if os.name == "nt":
        process.terminate()  # another process cannot be sent a Ctrl-C there
    elif process.stdin is not None:
        process.stdin.close()
