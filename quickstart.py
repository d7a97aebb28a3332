"""The two commands of the README, from a fresh clone.

    python3 quickstart.py demo
    python3 quickstart.py test

Each makes its own virtual environment beside this file (.venv-demo, .venv-test), or uses it again
once it is complete, installs nnU-Net and this package into it, registers the trainers and then
runs `lngswr demo` or pytest; further arguments go to those. Your other environments are not
touched. Standard library only, and nothing that an old Python cannot parse.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Optional  # an old Python shall reach the message about its age

HERE = Path(__file__).resolve().parent

# One version known to work, named again in every command that installs more: nnU-Net needs
# torchvision (through timm), and left to itself pip takes the newest one and replaces this torch by
# that one's newest CUDA build (6 GB). Where pip is set up to find torch's CPU builds, this line
# takes one.
TORCH = "torch==2.13.0"

# a file's tests stay together, since they share what its fixtures made
SIDE_BY_SIDE = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]

USAGE = """usage: python3 quickstart.py demo [options of lngswr demo]
       python3 quickstart.py test [options of pytest]
"""


def main(argv: List[str]) -> int:
    if sys.version_info < (3, 11):
        return fail(
            "Python 3.11 or newer is needed, this is %d.%d (%s)."
            % (sys.version_info[:2] + (sys.executable,))
        )
    if not argv or argv[0] not in ("demo", "test"):
        print(USAGE, end="")
        return 0 if argv in (["-h"], ["--help"]) else 2
    what, options = argv[0], argv[1:]
    environment = HERE / (".venv-" + what)
    try:
        prepare(environment, what)
    except QuickstartError as error:
        return fail(str(error))
    if what == "demo":
        command = [str(program(environment, "lngswr")), "demo"] + options
        folder = None
    else:
        command = [str(program(environment, "python")), "-m", "pytest"] + SIDE_BY_SIDE + options
        folder = HERE
    print("$ " + " ".join(command), flush=True)
    return call(command, folder)


def hear_signals() -> None:
    """End as at Ctrl-C, children first, also when a batch system or a closed terminal says so."""

    def end(number, frame):
        raise Ended(number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # what nohup has us ignore stays ignored
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, end)


class Ended(KeyboardInterrupt):
    """By a signal, whose number is `args[0]`."""


def call(command: List[str], folder: Optional[Path]) -> int:
    """Run `command` in `folder` and return its exit status; what ends this ends it first."""
    process = subprocess.Popen(command, cwd=None if folder is None else str(folder))
    try:
        return process.wait()
    except Ended as signal_:
        process.send_signal(signal_.args[0])
        process.wait()
        raise
    except KeyboardInterrupt:  # the terminal has told it too
        process.wait()
        raise


class QuickstartError(Exception):
    """Something that the user has to mend; the text says what."""


def prepare(environment: Path, what: str) -> None:
    """Make `environment` complete, or find it complete.

    It is used again while setup.py and this file are what it was made from.

    Parameters
    ----------
    environment
        Folder of the virtual environment.
    what
        "demo" or "test".

    Raises
    ------
    QuickstartError
        A step failed, or something else is in the way.
    """
    complete = environment / "quickstart-complete"
    made_from = hashlib.sha256(
        # an environment holds the path of this folder, which may have been copied or moved
        b"".join(
            [(HERE / "setup.py").read_bytes(), Path(__file__).read_bytes(), os.fsencode(str(HERE))]
        )
    ).hexdigest()
    if complete.is_file() and complete.read_text() == made_from:
        print("Using the environment in %s." % environment, flush=True)
        return

    print(
        "Making an environment in %s (once; a few minutes and about 2 GB, more with CUDA)."
        % environment,
        flush=True,
    )
    make(environment, what)
    complete.write_text(made_from)


def make(environment: Path, what: str) -> None:
    """The steps of `prepare`, with their output in a file beside `environment`."""
    if environment.exists():
        if not (environment / "pyvenv.cfg").is_file():
            raise QuickstartError(
                "%s is in the way: it is not a virtual environment." % environment
            )
        shutil.rmtree(environment)
    log = environment.with_name(environment.name + ".log")
    step(
        log,
        "virtual environment",
        [sys.executable, "-m", "venv", str(environment)],
        "On Debian and Ubuntu: apt install python3-venv",
    )

    python = str(program(environment, "python"))
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    network = (
        "If the lines above speak of connections or of no matching distribution: "
        "this step needs pip's package index."
    )
    step(log, "PyTorch (%s)" % TORCH, pip + ["install", TORCH], network)
    # editable: the environment follows this folder, also after a git pull
    package = str(HERE) + ("[test]" if what == "test" else "")
    step(log, "nnU-Net and this package", pip + ["install", TORCH, "-e", package], network)
    step(log, "pip check", pip + ["check"], "The installed packages contradict each other.")
    if what == "test":
        # an oracle of the tests; its pins would downgrade requests and idna, which breaks other
        # packages
        step(
            log,
            "torchattacks, without what it pins",
            pip + ["install", "--no-deps", "torchattacks"],
            network,
        )
    step(log, "lngswr register", [str(program(environment, "lngswr")), "register"], "")


def step(log: Path, title: str, command: List[str], hint: str) -> None:
    """Run `command`, and say that it is alive every 20 s.

    Parameters
    ----------
    log
        File for its output.
    title
        What it does, for the user.
    command
        Program and arguments.
    hint
        What to do where it fails, or "".

    Raises
    ------
    QuickstartError
        It failed; the text has its last lines.
    """
    print("  %s ..." % title, flush=True)
    started = time.monotonic()
    with open(log, "w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=str(HERE),
            start_new_session=True,  # a group of its own, which is ended as a whole
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=20)
                    break
                except subprocess.TimeoutExpired:
                    print("    still at it, %.0f s" % (time.monotonic() - started), flush=True)
        except BaseException:  # Ctrl-C: leave no pip behind that goes on installing
            terminate(process)
            process.wait()
            raise
    if status != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-15:]
        told = "\n".join("    " + line for line in lines)
        raise QuickstartError(
            "%s failed (exit status %d); its last lines, all of them in %s:\n%s\n%s"
            % (" ".join(command), status, log, told, hint)
        )
    print("    done, %.0f s" % (time.monotonic() - started), flush=True)


def terminate(process: "subprocess.Popen") -> None:
    """End a process and what it has started; pip starts compilers."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()


def program(environment: Path, name: str) -> Path:
    """A program of a virtual environment."""
    return environment / ("Scripts" if os.name == "nt" else "bin") / name


def fail(message: str) -> int:
    print("quickstart: " + message, file=sys.stderr)
    return 1


if __name__ == "__main__":
    hear_signals()
    try:
        sys.exit(main(sys.argv[1:]))
    except Ended as ended:
        sys.exit(128 + ended.args[0])
    except KeyboardInterrupt:
        sys.exit(130)
