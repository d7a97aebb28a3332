"""How commands end: one line for what a user has to mend, a traceback for a bug."""

import errno
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch

import nnunetv2_lngswr
from nnunetv2_lngswr.utils.command_line import run_main
from nnunetv2_lngswr.utils.errors import CommandError, Ended, UserError, blamed_on

LIBRARY = Path(sysconfig.get_path("purelib"))


def raises(error):
    def function():
        raise error

    return function


def test_what_the_command_returns_is_the_exit_status(capsys):
    assert run_main("lngswr", lambda: 3) == 3
    assert capsys.readouterr().err == ""


def test_argparse_ends_the_command_itself():
    with pytest.raises(SystemExit):
        run_main("lngswr", raises(SystemExit(2)))


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (UserError("epsilon must be >= 0"), 2, "lngswr: epsilon must be >= 0\n"),
        (CommandError("nnUNetv2_train failed"), 2, "lngswr: nnUNetv2_train failed\n"),
        (
            KeyboardInterrupt(),
            130,
            "lngswr: interrupted; what is done is kept: the same call goes on\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.png"),
            2,
            "lngswr: [Errno 28] No space left on device: 'x.png'; what is done is kept: "
            "once that is mended the same call goes on\n",
        ),
    ],
)
def test_what_the_user_has_to_mend_is_one_line(error, status, said, capsys):
    assert run_main("lngswr", raises(error)) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "p: OUT: No space left on device; what is done is kept: "
            "free space and run the same command again\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", "a.nii.gz"),
            "p: a.nii.gz: No such file or directory; what is done is kept: "
            "once that is mended run the same command again\n",
        ),
        (
            KeyboardInterrupt(),
            "p: interrupted; what is done is kept in OUT: run the same command again to go on\n",
        ),
    ],
)
def test_a_command_with_an_output_folder_names_it(error, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUT").mkdir()
    run_main("p", raises(error), output="OUT")
    assert capsys.readouterr().err == said


def test_an_interrupted_call_that_has_written_nothing_keeps_nothing(capsys, tmp_path):
    run_main("p", raises(KeyboardInterrupt()), output=tmp_path / "OUT")
    assert capsys.readouterr().err == "p: interrupted; nothing was written\n"


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EFBIG]
)
def test_what_the_system_refuses_is_the_users_wherever_it_is(number, capsys):
    assert run_main("p", raises(OSError(number, "refused", str(LIBRARY / "shim.py")))) == 2
    assert run_main("p", raises(OSError(number, "refused"))) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=repr,
)
def test_no_memory_is_no_bug_nor_a_files_fault(error, capsys):
    assert run_main("lngswr", raises(error), output="OUT") == 2
    said = capsys.readouterr().err
    assert said.startswith("lngswr: out of memory (") and said.count("\n") == 1
    assert "what is done is kept in OUT" in said
    with pytest.raises(type(error)), blamed_on("plans.json is bad"):
        raise error


def test_texts_of_files_move_no_cursor(capsys):
    assert run_main("lngswr", raises(UserError("label \x1b]0;owned\x07\x1b[2J\u202ea\nb"))) == 2
    assert capsys.readouterr().err == "lngswr: label  ]0;owned  [2J a\nb\n"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast together"),
        KeyError("dice"),
        AssertionError(),
        RuntimeError("CUDA error"),
        OSError("cannot identify image file"),
        FileNotFoundError(errno.ENOENT, "No such file", str(LIBRARY / "lost.json")),
    ],
    ids=repr,
)
def test_a_bug_shows_its_traceback_and_asks_for_a_report(error, capsys):
    assert run_main("lngswr", raises(error)) == 1
    *before, last = capsys.readouterr().err.splitlines()
    assert before[0].startswith("Traceback")
    assert type(error).__name__ in before[-1]
    assert last.startswith("lngswr: ") and "please report" in last
    assert nnunetv2_lngswr.__version__ in last


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_what_fails_since_a_signal_cut_it_off_is_no_bug(name, status, capsys):
    def cut_off():
        try:
            os.kill(os.getpid(), getattr(signal, name))
            time.sleep(10)
        except KeyboardInterrupt:
            # as NumPy, tried again by a module that imports it
            raise ImportError("cannot load module more than once per process") from None

    assert run_main("lngswr", cut_off) == status
    how = "interrupted" if name == "SIGINT" else f"ended by {name}"
    said = capsys.readouterr().err
    assert said == f"lngswr: {how}; what is done is kept: the same call goes on\n"


def test_a_command_within_another_knows_the_signal_that_the_outer_one_heard(capsys):
    assert run_main("inner", raises(Ended(signal.SIGTERM))) == 143
    assert capsys.readouterr().err.startswith("inner: ended by SIGTERM;")
    assert run_main("inner", raises(KeyboardInterrupt())) == 130


# a library that an import left half made, whose end is Python's
ABORTING = """
import atexit, os, sys
from nnunetv2_lngswr.utils.command_line import leave

class Library:
    def __del__(self, abort=os.abort):
        abort()

library = Library()
atexit.register(print, "tidied")
print("said")
leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize(("status", "known"), [(143, 143), (130, 130), (2, -signal.SIGABRT)])
def test_after_a_signal_no_library_can_abort(status, known):
    words = [sys.executable, "-c", ABORTING, str(status)]
    # what is printed waits to be flushed
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == known and done.stdout.split() == ["said", "tidied"]
