"""Cases shared among processes, as nnU-Net's -np: spawned, each with one case at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from nnunetv2_lngswr.utils.errors import CommandError
from nnunetv2_lngswr.utils.progress import progress_bar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    processes: int,
    progress: bool,
    done: int = 0,
) -> list[Result]:
    """[function(job) for job in jobs], with a progress bar.

    Parameters
    ----------
    function, jobs
        What is done; with several processes both must pickle.
    processes
        1: in this one.
    progress
        Whether to show the bar.
    done
        How many jobs were done before, for the bar.

    Raises
    ------
    CommandError
        A process was ended from outside, as a system does that is short of memory.
    Exception
        The first in the order of the jobs; the other processes are ended.
    """
    total = done + len(jobs)
    with progress_bar(total=total, initial=done, unit="case", disable=not progress) as bar:
        if processes == 1:
            found = []
            for job in jobs:
                found.append(function(job))
                bar.update()
            return found
        return _in_processes(function, jobs, processes, bar.update)


def _in_processes(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    processes: int,
    finished: Callable[[], object],
) -> list[Result]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_leave_interrupts_to_parent,
    )
    try:
        found = []
        for result in pool.map(function, jobs):
            found.append(result)
            finished()
        return found
    except BrokenProcessPool:
        raise CommandError(
            f"one of {processes} processes was ended from outside, probably since memory is short: "
            "choose fewer (-np); what is done is kept. A script that asks for several processes "
            "must do so under if __name__ == '__main__':"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
            # one join is not enough: where the pool's thread reaps the child, it returns too early
            while child.is_alive():
                child.join(0.1)


def _leave_interrupts_to_parent() -> None:
    """A terminal tells all processes of a Ctrl-C; and whoever's parent is gone ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent) -> None:
    parent.join()
    os._exit(1)
