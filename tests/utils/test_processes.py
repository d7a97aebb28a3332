"""Commands that are run for the user: found beside this Python, and ended with us at Ctrl-C.

The processes are real ones.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nnunetv2_lngswr.utils.errors import CommandError
from nnunetv2_lngswr.utils.processes import beside_python, call_command, run_command

ROOT = Path(__file__).resolve().parents[2]
# a training: it notes its process, and that it could tidy up
CHILD = """
import os, signal, sys, time
from pathlib import Path
if {deaf}: signal.signal(signal.SIGINT, signal.SIG_IGN)
note = Path({note!r})
note.with_suffix(".new").write_text(str(os.getpid()))
note.with_suffix(".new").rename(note)
try: time.sleep(120)
finally: note.with_suffix(".tidy").touch()
"""
OURS = """
import sys
from pathlib import Path
from nnunetv2_lngswr.utils import processes as commands
commands.PATIENCE_SECONDS = (0.5, {patience})
command = ["python", "-c", {child!r}]
try:
    if {logged}: commands.run_command(command, Path({log!r}), environment=dict(), say=print)
    else: commands.call_command(command)
except KeyboardInterrupt: sys.exit(130)
"""


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("who", ["terminal", "one process", "one process, deaf child"])
def test_no_command_outlives_ctrl_c(tmp_path, who, logged):
    note, deaf = tmp_path / "note", "deaf" in who
    code = OURS.format(
        child=CHILD.format(deaf=deaf, note=str(note)),
        logged=logged,
        log=str(tmp_path / "log"),
        patience=1 if deaf else 60,
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not note.exists():
            assert ours.poll() is None
            time.sleep(0.05)
        # a terminal sends it to the whole group
        (os.killpg if who == "terminal" else os.kill)(ours.pid, signal.SIGINT)
        assert ours.wait(100) == 130
        assert not alive(int(note.read_text()))
        assert note.with_suffix(".tidy").exists() != deaf
    finally:
        if ours.poll() is None:
            os.killpg(ours.pid, signal.SIGKILL)


def test_exit_statuses(tmp_path):
    assert call_command(["python", "-c", "raise SystemExit(7)"]) == 7
    with pytest.raises(CommandError, match=r"python failed \(exit status 7\)"):
        run_command(
            ["python", "-c", "raise SystemExit(7)"],
            tmp_path / "log",
            environment={},
            say=lambda line: None,
        )


def test_a_log_is_read_meanwhile_and_keeps_what_an_earlier_call_said(tmp_path):
    log, meanwhile = tmp_path / "log", []

    def read_at(line: str) -> None:
        meanwhile.append(log.read_text() if log.exists() else "")

    for word in ("first", "second"):
        command = ["python", "-c", f"print('{word}')"]
        run_command(command, log, environment={}, say=read_at, show=word)
    assert [line for line in log.read_text().splitlines() if line[0] != "$"] == ["first", "second"]
    assert meanwhile[1].endswith("first\n") and meanwhile[3].endswith("second\n")


def test_commands_are_those_of_this_environment():
    assert beside_python("python") == sys.executable
    with pytest.raises(ValueError, match="no-such-command was found neither beside"):
        beside_python("no-such-command")
