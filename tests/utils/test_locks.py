"""A lock: held by one, said who holds it, let go by whatever end, and its file stays."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nnunetv2_lngswr.utils import locks
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.locks import hold, inherited

ROOT = Path(__file__).resolve().parents[2]
HOLDER = """
import subprocess, sys, time
from nnunetv2_lngswr.utils.locks import hold, inherited
with hold(sys.argv[1], "a holder"):
    if sys.argv[2] == "child":
        subprocess.Popen(["sleep", "2"], pass_fds=inherited(), stdout=subprocess.DEVNULL)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts another process that holds tmp_path / "out"."""
    started = []

    def start(how="alone"):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLDER, str(tmp_path / "out"), how],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert started[0].stdout.readline() == "held\n"
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path, holder):
    first = holder()
    with pytest.raises(UserError) as refused, hold(tmp_path / "out", "a second one"):
        pass
    said = str(refused.value)
    assert str(tmp_path / "out") in said and "a holder" in said and "-c" in said
    assert f"process {first.pid} on {os.uname().nodename}, since 2" in said
    assert "\n" not in said


def test_a_lock_is_let_go_by_a_kill_and_its_file_stays(tmp_path, holder):
    first = holder()
    first.send_signal(signal.SIGKILL)
    first.wait()
    for _ in range(2):
        with hold(tmp_path / "out", "a second one"):
            assert "a second one" in (tmp_path / "out" / ".lock").read_text()
        assert (tmp_path / "out" / ".lock").read_bytes() == b""


def test_what_a_killed_holder_had_started_is_waited_for(tmp_path, holder):
    first = holder("child")
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = time.monotonic()
    with hold(tmp_path / "out", "a second one"):
        assert time.monotonic() - before > 0.5


def test_the_same_thread_may_hold_it_again_another_may_not(tmp_path):
    refused = []

    def other():
        try:
            with hold(tmp_path, "another thread"):
                pass
        except UserError as error:
            refused.append(str(error))

    with hold(tmp_path, "one"), hold(tmp_path, "one again"):
        assert len(inherited()) == 1
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused and f"process {os.getpid()}" in refused[0]
    assert inherited() == ()
    other()
    assert len(refused) == 1


def test_a_files_lock_lies_beside_it_and_a_link_is_its_folder(tmp_path):
    (tmp_path / "model.pth").write_bytes(b"m")
    with hold(tmp_path / "model.pth", "one"):
        assert (tmp_path / ".model.pth.lock").is_file()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with hold(tmp_path / "link", "one"), hold(tmp_path / "out", "one"):
        assert len(inherited()) == 1


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, holder, monkeypatch):
    holder()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    with pytest.raises(UserError, match="in use by a holder"), hold(tmp_path / "out", "second"):
        pass


def test_a_file_system_without_locks_is_said_and_worked_on(tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(locks.errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(locks, "_lock", refuse)
    with pytest.warns(UserWarning, match="without locks"), hold(tmp_path, "one"):
        pass
