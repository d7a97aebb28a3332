"""OUT is held by what runs in it: parts side by side, others refused, the dead forgotten."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from evaluation.claims import Claim, Claims
from evaluation.inputs import CaseFiles
from evaluation.results_folder import ResultsFolder
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.tiny import run

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from evaluation.claims import Claim, Claims
claims = Claims(Path(sys.argv[1]))
with claims.alone():
    kept = claims.make(
        Claim(call="c", worker=sys.argv[2] == "worker", settings="aa", cases=["case0"])
    )
print("held", flush=True)
time.sleep(60)
"""
SETTINGS = {"steps": 1}


def case(number):
    images = (Path(f"case{number}_0000.nii.gz"),)
    return CaseFiles(
        identifier=f"case{number}", folds=None, images=images, label=Path(f"case{number}.nii.gz")
    )


@pytest.fixture
def holder(tmp_path):
    """Starts another process that has a claim on tmp_path with settings aa and case0."""
    started = []

    def start(kind="call"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), kind],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def claimed(out, settings="aa", cases=(1,), call=None, **more):
    return ResultsFolder(out, settings, call=call).claimed(SETTINGS, [*map(case, cases)], **more)


def test_parts_of_one_evaluation_are_side_by_side_and_others_are_refused(tmp_path, holder):
    process = holder()
    who = f"{tmp_path} is in use by process {process.pid} on .* since 2"
    with claimed(tmp_path), claimed(tmp_path, cases=(2, 3)):
        with (
            pytest.raises(
                UserError, match=r"in use by process \d+ on .*, with other settings: wait"
            ),
            claimed(tmp_path, settings="bb", cases=(4,), overwrite=True),
        ):
            pass
        with (
            pytest.raises(UserError, match=rf"{who}.*settings and cases \(case0\): wait"),
            claimed(tmp_path, cases=(0,)),
        ):
            pass
        with (
            pytest.raises(UserError, match=r"\(case2, ...\)"),
            claimed(tmp_path, cases=(2, 3, 4)),
        ):
            pass
        with claimed(tmp_path, cases=(0,), call="c"):  # a worker of that process
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".running", "settings.json"]


def test_the_claim_of_a_killed_process_counts_no_more(tmp_path, holder):
    kill(holder())
    with claimed(tmp_path, settings="bb", cases=(0,)):
        assert len([*(tmp_path / ".running").glob("*.json")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "settings.json"]


def test_workers_that_outlive_their_call_are_waited_for(tmp_path, holder):
    process = holder("worker")
    threading.Timer(0.5, process.kill).start()
    started = time.monotonic()
    with claimed(tmp_path, settings="bb", cases=(0,)):
        assert time.monotonic() - started > 0.3


def test_two_at_once_with_different_settings_and_one_is_refused(tmp_path):
    """As often as one may look: nobody ever removes what another has claimed."""
    refused, at_work, seen = [], [], []

    def call(number):
        settings = {"steps": number}
        out = ResultsFolder(tmp_path, str(number))
        try:
            with out.claimed(settings, [case(number)], overwrite=True):
                at_work.append(number)
                time.sleep(0.01)
                seen.append((list(at_work), out.holds(settings)))
                at_work.remove(number)
        except UserError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) + len(refused) == 12 and seen
    assert all(len(others) == 1 and holds for others, holds in seen)
    assert all("with other settings" in said for said in refused)


def test_a_claim_says_who_it_is_of(tmp_path):
    claims = Claims(tmp_path)
    with claims.alone():
        lock = claims.make(Claim(call="c", settings="aa", cases=["case0"]))
        (found,) = claims.living()
        assert (found.pid, found.host) == (os.getpid(), os.uname().nodename) and found.since
        claims.drop(lock)
        assert claims.living() == []
    assert [p.name for p in tmp_path.iterdir()] == [".lock"]


def test_an_evaluation_is_refused_where_another_is_at_work(world, finished, tmp_path, holder):
    process = holder()
    for overwrite in (False, True):
        with pytest.raises(UserError, match=f"in use by process {process.pid}"):
            run(world, tmp_path, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", ".running"]
