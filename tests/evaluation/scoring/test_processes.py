"""Laws of the processes that share cases: order, the first error, and none is left."""

import multiprocessing
import os
import signal
import time

import pytest

from evaluation.scoring import options
from evaluation.scoring.processes import run_jobs
from nnunetv2_lngswr.utils.errors import CommandError, UserError


def slow_first(number):
    time.sleep(0.3 if number == 0 else 0)
    return number, os.getpid()


def bad_second(number):
    if number == 1:
        raise UserError("the second")
    time.sleep(60 if number > 1 else 0)


def killed(number):
    os.kill(os.getpid(), signal.SIGKILL)


def test_results_come_in_order_from_other_processes():
    found = run_jobs(slow_first, range(6), processes=2, progress=False)
    assert [number for number, _ in found] == [*range(6)]
    assert os.getpid() not in {process for _, process in found}
    here = run_jobs(slow_first, range(3), processes=1, progress=False)
    assert here == [(number, os.getpid()) for number in range(3)]


def test_an_error_ends_what_others_are_at():
    began = time.monotonic()
    with pytest.raises(UserError, match="the second"):
        run_jobs(bad_second, range(4), processes=2, progress=False)
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_process_that_is_killed_is_said_and_not_waited_for():
    with pytest.raises(CommandError, match="-np"):
        run_jobs(killed, range(4), processes=2, progress=False)
    assert not multiprocessing.active_children()


def test_a_script_gets_more_than_its_own_process_only_where_it_asks(monkeypatch):
    # spawned processes import the script that calls, and run it again
    monkeypatch.setenv("nnUNet_def_n_proc", "2")
    monkeypatch.setattr(options, "_cores", lambda: 4)
    assert options.ScoreOptions().processes_for(9) == 1
    assert options.ScoreOptions(processes=None).processes_for(9) == 2
    assert options.ScoreOptions(processes=3).processes_for(2) == 2
