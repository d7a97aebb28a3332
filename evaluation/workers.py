"""The cases of a session, run by this process or shared among several.

A worker (worker_process.py) is told its cases, writes their parts into OUT and ends. What ends it
otherwise is raised here.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.environment import EVALUATING, versions
from evaluation.options import L2, LINF, Options
from evaluation.results_folder import ResultsFolder
from evaluation.session import Inputs, Session, prepare
from evaluation.worker_process import serve, started
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.progress import progress_bar

if TYPE_CHECKING:
    from evaluation.inputs import CaseSource
    from evaluation.model.interface import EvaluatedModel

WORTH_WORKERS = 1000
"""Plain predictions, below which starting processes takes longer than they save."""
_CODE = "from evaluation.workers import work_on; work_on()"
_POLL_SECONDS = 0.2


def run_todo(
    workers: int | None,
    session: Session,
    todo: Sequence[CaseSource],
    out: ResultsFolder,
    *,
    progress: bool,
) -> None:
    """Run cases and keep each in OUT, in as many processes as `count_workers` says."""
    count = count_workers(workers, session, todo)
    if count > 1:
        run_in_workers(count, session, todo, out, progress=progress)
    else:
        run_cases(session, todo, out, progress=progress)


def run_cases(
    session: Session, todo: Sequence[CaseSource], out: ResultsFolder, *, progress: bool
) -> None:
    """Run cases in this process, and keep each in OUT."""
    costs = sum(r.cost for r in session.planned.runs)
    # counted in plain predictions, so that the time left is right although attacks differ in length
    with progress_bar(
        total=costs * len(todo),
        disable=not progress,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}",
    ) as bar:
        for number, files in enumerate(todo):
            bar.set_description(f"case {number + 1}/{len(todo)} {files.identifier}")
            try:
                _run_one(session, files, out, bar.update)
            except UserError as error:
                if files.identifier in str(error):
                    raise
                raise UserError(f"case {files.identifier} ({files.place}): {error}") from error
            except Exception as error:
                error.add_note(f"while case {files.identifier} ({files.place}) was evaluated")
                raise


def _run_one(
    session: Session, files: CaseSource, out: ResultsFolder, advance: Callable[[float], object]
) -> None:
    """A function of its own, which keeps no model when it ends."""
    from evaluation.run_case import run_case

    options = session.options
    model, surrogate = session.switch_to(files)
    inputs = out.inputs_of(files)
    result = run_case(
        model,
        files,
        session.planned.runs,
        options,
        surrogate=surrogate,
        adversarial_folder=out.adversarial if options.save_adversarial else None,
        advance=advance,
    )
    out.save(files, result, _environment(model), inputs)


def count_workers(asked: int | None, session: Session, todo: Sequence[CaseSource]) -> int:
    """How many processes run the cases.

    None takes one per CPU thread for 2D configurations on a CPU, whose convolutions gain nothing
    from threads, where the work is worth their start; else one.
    """
    import torch

    if asked is None:
        slices_on_cpu = session.model.device.type == "cpu" and session.two_dimensional
        worth = sum(r.cost for r in session.planned.runs) * len(todo) >= WORTH_WORKERS
        asked = torch.get_num_threads() if slices_on_cpu and worth else 1
    return max(1, min(asked, len(todo)))


def run_in_workers(
    workers: int,
    session: Session,
    todo: Sequence[CaseSource],
    out: ResultsFolder,
    *,
    progress: bool,
) -> None:
    """Run cases in `workers` processes, which share the CPU threads and the memory for graphs.

    Where one fails, all are ended, and what it failed of is raised.
    """
    out.discard(todo)
    environment, told = _environment_of_workers(workers), call_of(session, out)
    told["options"]["graph_memory"] = session.options.graph_memory // workers
    desc = f"{workers} workers"
    with (
        ExitStack() as stack,
        progress_bar(total=len(todo), unit="case", desc=desc, disable=not progress) as bar,
    ):
        running = [
            stack.enter_context(
                started(_CODE, {**told, "cases": [c.key for c in todo[i::workers]]}, environment)
            )
            for i in range(workers)
        ]
        while running:
            time.sleep(_POLL_SECONDS)
            bar.update(sum(out.has_part(c) for c in todo) - bar.n)
            for worker in [w for w in running if w.process.poll() is not None]:
                running.remove(worker)
                error = worker.error()
                if error is not None:
                    raise error


def call_of(session: Session, out: ResultsFolder) -> dict[str, Any]:
    """What a worker is told, JSON-ready; its cases are added.

    Budgets go as fractions, since the text of a record is rounded.
    """
    options, inputs = session.options, session.inputs
    assert inputs is not None  # a network that is given is in this process's memory
    exact = {
        "epsilons": [str(e) for e in options.budgets(LINF)],
        "epsilons_l2": [str(e) for e in options.budgets(L2)],
    }
    return {
        "inputs": {k: None if v is None else str(v) for k, v in vars(inputs).items()},
        "options": options.record() | exact,
        "output_folder": str(out.path),
        "settings_sha256": session.settings_sha256,
        "call": out.call,
    }


def work_on() -> None:
    """What a worker does: the cases that `run_in_workers` names."""
    serve(_work)


def _work(call: dict[str, Any]) -> None:
    options = Options.from_record(call["options"])
    inputs = Inputs(**{k: v and Path(v) for k, v in call["inputs"].items()})
    session = prepare(inputs, options, num_parts=1, part_id=0)
    if session.settings_sha256 != call["settings_sha256"]:
        raise UserError(
            f"{inputs.model_folder} has changed while the model was evaluated: a worker found "
            "another model there than this call; run the same command again"
        )
    keys = set(call["cases"])
    todo = [c for c in session.share if c.key in keys]
    out = ResultsFolder(call["output_folder"], session.settings_sha256, call=call["call"])
    with out.claimed(session.settings, todo):
        run_cases(session, todo, out, progress=False)
        session.model_files.check()


def _environment_of_workers(workers: int) -> dict[str, str]:
    import torch

    threads = str(max(1, torch.get_num_threads() // workers))
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
    }
    for name in ("WORLD_SIZE", "RANK"):  # torchrun's share of the cases is divided here already
        environment.pop(name, None)
    return environment


def _environment(model: EvaluatedModel) -> dict[str, str]:
    """What a case was run with, for its part and the report."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    return {**found, **versions(EVALUATING), "device": model.device.type}
