"""Runs one command and lets nothing of it outlive us: `python leash.py SECONDS SECONDS COMMAND ...`

A command that we started directly would go on when we are killed with SIGKILL. This stands between:
the command leads a process group, in which all that it starts is, and the group is ended when our
end of this process's standard input is closed, by us or by our death, and at SIGTERM. The group
then gets SIGINT, after some seconds SIGTERM, after some more SIGKILL; at SIGQUIT at once. What the
command leaves behind at its own end is ended too. SIGTSTP and SIGCONT are passed on.

`processes` starts it by its path, without the packages of the site. It needs process groups.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading


def main(argv: list[str]) -> int:
    """Run the command; return its exit status, or end by the signal that ended it."""
    patience, command = [float(seconds) for seconds in argv[:2]], argv[2:]
    asked, over = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # before the command starts: a background job is told to ignore SIGINT, and the command
        # would ignore it too, while a handler is not handed on. What nohup has us ignore stays so.
        signal.signal(number, lambda *_: asked.set())
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    signal.signal(signal.SIGQUIT, lambda *_: (asked.set(), over.set()))
    signal.signal(signal.SIGTSTP, lambda *_: _send(process.pid, signal.SIGSTOP))
    signal.signal(signal.SIGCONT, lambda *_: _send(process.pid, signal.SIGCONT))
    ending = (process.pid, asked, over, patience)
    threading.Thread(target=_end, args=ending, daemon=True).start()
    threading.Thread(target=_wait_for_the_end_of_input, args=(asked,), daemon=True).start()
    status = process.wait()
    over.set()
    _send(process.pid, signal.SIGKILL)
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def _wait_for_the_end_of_input(asked: threading.Event) -> None:
    while os.read(0, 1):
        pass
    asked.set()


def _end(group: int, asked: threading.Event, over: threading.Event, patience: list[float]) -> None:
    asked.wait()
    for number, seconds in zip((signal.SIGINT, signal.SIGTERM), patience):
        if not over.is_set():
            _send(group, number)
            _send(group, signal.SIGCONT)  # or a stopped one would not hear it
            over.wait(seconds)
    _send(group, signal.SIGKILL)


def _send(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in it
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
