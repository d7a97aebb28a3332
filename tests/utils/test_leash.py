"""No command, and nothing that it has started, outlives what ends us.

The processes are real ones: ours runs a child, which runs a grandchild.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_lngswr.utils import leash
from tests.utils.running import alive, stopped, wait_until

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")
NOTE = """
import os, signal, subprocess, sys, time
from pathlib import Path
def note(name):
    (Path({folder!r}) / (name + ".new")).write_text(str(os.getpid()))
    (Path({folder!r}) / (name + ".new")).rename(Path({folder!r}) / name)
if {deaf}:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
"""
GRANDCHILD = NOTE + "note('grandchild'); time.sleep(120)"
CHILD = (
    NOTE
    + """
subprocess.Popen([sys.executable, "-c", {grandchild!r}])
note("child")
if {leave}:
    while not (Path({folder!r}) / "grandchild").exists(): time.sleep(0.05)
    sys.exit(0)
time.sleep(120)
"""
)
OURS = """
import signal, sys
from pathlib import Path
from nnunetv2_lngswr.utils import processes
from nnunetv2_lngswr.utils.command_line import run_main
processes.PATIENCE_SECONDS = (0.3, 0.2)
command = ["python", "-c", {child!r}]
def work():
    if {logged}:
        processes.run_command(command, Path({log!r}), environment=dict(), say=print)
        return 0
    return processes.call_command(command)
sys.exit(run_main("lngswr", work))
"""


@pytest.fixture
def family(tmp_path):
    """Starts all three; returns our process and {name: number} of the others."""
    started = []

    def start(*, deaf=False, logged=False, leave=False, before=None):
        folder = str(tmp_path)
        grandchild = GRANDCHILD.format(folder=folder, deaf=deaf)
        child = CHILD.format(folder=folder, deaf=deaf, leave=leave, grandchild=grandchild)
        code = OURS.format(child=child, logged=logged, log=str(tmp_path / "log"))
        ours = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            process_group=0,  # as from a shell with job control
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
        started.append(ours)
        names = ("child", "grandchild")
        wait_until(lambda: all((tmp_path / name).exists() for name in names))
        return ours, {name: int((tmp_path / name).read_text()) for name in names}

    yield start
    for ours in started:
        ours.kill()
        ours.communicate()


def all_ended(others):
    return not any(map(alive, others.values()))


@pytest.mark.parametrize(("deaf", "logged"), [(False, True), (True, False)])
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_children_and_their_children_first(family, name, status, deaf, logged):
    ours, others = family(deaf=deaf, logged=logged)
    ours.send_signal(getattr(signal, name))
    said = ours.communicate(timeout=60)[1]
    assert ours.returncode == status and all_ended(others)
    how = "interrupted" if name == "SIGINT" else f"ended by {name}"
    last = said.splitlines()[-1]  # a child may have shown its traceback
    assert last == f"lngswr: {how}; what is done is kept: the same call goes on"


@pytest.mark.parametrize("deaf", [False, True])
def test_nothing_outlives_sigkill(family, deaf):
    ours, others = family(deaf=deaf)
    ours.kill()
    ours.wait()
    wait_until(lambda: all_ended(others))


def test_a_second_ctrl_c_kills_at_once(family, tmp_path):
    ours, others = family(deaf=True)
    for _ in range(2):
        ours.send_signal(signal.SIGINT)
    assert ours.wait(60) == 130 and all_ended(others)


def test_under_nohup_sighup_stays_ignored(family):
    ours, others = family(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    ours.send_signal(signal.SIGHUP)
    os.kill(others["child"], signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        ours.wait(1)
    assert all(map(alive, others.values()))
    ours.send_signal(signal.SIGTERM)
    assert ours.wait(60) == 143 and all_ended(others)


def test_a_background_job_hears_ctrl_c(family):
    ours, others = family(before=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    ours.send_signal(signal.SIGINT)
    assert ours.wait(60) == 130 and all_ended(others)


def test_what_a_command_leaves_behind_ends_with_it(family):
    # with a log it would be waited for: it has the pipe
    ours, others = family(logged=True, leave=True)
    assert ours.wait(60) == 0 and all_ended(others)


def test_ctrl_z_suspends_and_resumes_all(family):
    ours, others = family()
    ours.send_signal(signal.SIGTSTP)
    wait_until(lambda: all(stopped(p) for p in (ours.pid, *others.values())))
    ours.send_signal(signal.SIGCONT)
    wait_until(lambda: not any(stopped(p) for p in (ours.pid, *others.values())))
    ours.send_signal(signal.SIGTSTP)
    wait_until(lambda: all(stopped(p) for p in (ours.pid, *others.values())))
    ours.kill()
    wait_until(lambda: all_ended(others))


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
    ],
)
def test_it_ends_as_the_command_does(code, status):
    words = [sys.executable, "-I", "-S", leash.__file__, "1", "1", sys.executable, "-c", code]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, process_group=0)
    assert process.wait(60) == status
    process.stdin.close()
