"""The cases of a session, run by this process or shared among several.

A worker is a process of its own that is told its cases on stdin, writes their parts into OUT and
ends. What ends it otherwise comes back as the last line of its stderr, and is raised here.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from evaluation.options import L2, LINF, Options
from evaluation.results_folder import ResultsFolder
from evaluation.session import Inputs, Session, prepare
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.processes import ended_with_us

if TYPE_CHECKING:
    from evaluation.inputs import CaseFiles
    from evaluation.model.folder import SegmentationModel

WORTH_WORKERS = 1000
"""Plain predictions, below which starting processes takes longer than they save."""
PACKAGES = (
    "nnunetv2_lngswr",
    "nnunetv2",
    "torch",
    "numpy",
    "scipy",
    "monai",
    "batchgeneratorsv2",
    "torchattacks",
)
_COMMAND = [sys.executable, "-c", "from evaluation.workers import work_on; work_on()"]
_POLL_SECONDS = 0.2
# exit statuses of a worker
_BAD_INPUT, _SYSTEM_ERROR, _INTERRUPTED = 2, 3, 130


def run_todo(
    workers: int | None,
    session: Session,
    todo: Sequence[CaseFiles],
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
    session: Session, todo: Sequence[CaseFiles], out: ResultsFolder, *, progress: bool
) -> None:
    """Run cases in this process, and keep each in OUT."""
    from tqdm import tqdm

    from evaluation.run_case import run_case

    runs, options = session.planned.runs, session.options
    # counted in plain predictions, so that the time left is right although attacks differ in length
    with tqdm(
        total=sum(r.cost for r in runs) * len(todo),
        disable=not progress,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed} < {remaining}",
    ) as bar:
        for number, files in enumerate(todo):
            bar.set_description(f"case {number + 1}/{len(todo)} {files.identifier}")
            model, surrogate = session.models_for(files)
            result = run_case(
                model,
                files,
                runs,
                options,
                surrogate=surrogate,
                adversarial_folder=out.adversarial if options.save_adversarial else None,
                advance=bar.update,
            )
            out.save(files, result, _environment(model))


def count_workers(asked: int | None, session: Session, todo: Sequence[CaseFiles]) -> int:
    """How many processes run the cases.

    None takes one per CPU thread for 2D configurations on a CPU, whose convolutions gain nothing
    from threads, where the work is worth their start; else one.
    """
    import torch

    if asked is None:
        slices_on_cpu = session.model.device.type == "cpu" and len(session.model.patch_size) == 2
        worth = sum(r.cost for r in session.planned.runs) * len(todo) >= WORTH_WORKERS
        asked = torch.get_num_threads() if slices_on_cpu and worth else 1
    return max(1, min(asked, len(todo)))


def run_in_workers(
    workers: int, session: Session, todo: Sequence[CaseFiles], out: ResultsFolder, *, progress: bool
) -> None:
    """Run cases in `workers` processes, which share the CPU threads.

    Where one fails, all are ended, and what it failed of is raised.
    """
    from tqdm import tqdm

    out.discard(todo)
    environment, call = _environment_of_workers(workers), call_of(session, out)
    with (
        ExitStack() as stack,
        tqdm(total=len(todo), unit="case", desc=f"{workers} workers", disable=not progress) as bar,
    ):
        running = {}
        for i in range(workers):
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            text = json.dumps(call | {"cases": [c.key for c in todo[i::workers]]})
            running[_start(text, environment, errors, stack)] = errors
        while running:
            time.sleep(_POLL_SECONDS)
            bar.update(sum(out.has_part(c) for c in todo) - bar.n)
            for process, errors in list(running.items()):
                if process.poll() is None:
                    continue
                del running[process]
                if process.returncode != 0:
                    errors.seek(0)
                    raise _error_of_worker(process.returncode, errors.read())


def call_of(session: Session, out: ResultsFolder) -> dict[str, Any]:
    """What a worker is told, JSON-ready; its cases are added.

    Budgets go as fractions, since the text of a record is rounded.
    """
    options, inputs = session.options, session.inputs
    exact = {
        "epsilons": [str(e) for e in options.budgets(LINF)],
        "epsilons_l2": [str(e) for e in options.budgets(L2)],
    }
    return {
        "inputs": {k: None if v is None else str(v) for k, v in vars(inputs).items()},
        "options": options.record() | exact,
        "output_folder": str(out.path),
    }


def work_on() -> None:
    """What a worker does: the cases that `run_in_workers` names on stdin."""
    call = json.load(sys.stdin)
    try:
        options = Options.from_record(call["options"])
        inputs = Inputs(**{k: v and Path(v) for k, v in call["inputs"].items()})
        session = prepare(inputs, options, num_parts=1, part_id=0)
        keys = set(call["cases"])
        todo = [c for c in session.share if c.key in keys]
        run_cases(session, todo, ResultsFolder(call["output_folder"]), progress=False)
    except UserError as error:
        _end(_BAD_INPUT, [str(error)])
    except OSError as error:
        sys.stderr.write(traceback.format_exc())
        filename = None if error.filename is None else str(error.filename)
        _end(_SYSTEM_ERROR, [error.errno, error.strerror or str(error), filename])
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _end(status: int, arguments: Sequence[Any]) -> None:
    """With what the error is made of as the last line."""
    print(json.dumps(arguments), file=sys.stderr)
    sys.exit(status)


def _error_of_worker(status: int, said: str) -> BaseException:
    lines = said.strip().splitlines()
    if status == _BAD_INPUT:
        return UserError(*json.loads(lines[-1]))
    if status == _SYSTEM_ERROR:
        number, text, filename = json.loads(lines[-1])
        return OSError(text) if number is None else OSError(number, text, filename)
    if status == _INTERRUPTED:
        return KeyboardInterrupt()
    return RuntimeError(
        f"a worker ended with status {status}; finished cases are kept. "
        f"It said:\n{said.strip()[-2000:]}"
    )


def _start(
    text: str, environment: Mapping[str, str], errors: IO[str], stack: ExitStack
) -> subprocess.Popen[str]:
    """A worker that is told `text`, and ends when the stack does."""
    process = subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        env=environment,
        text=True,
    )
    stack.enter_context(ended_with_us(stack.enter_context(process)))
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended: why is in its errors
        process.stdin.write(text)
        process.stdin.close()
    return process


def _environment_of_workers(workers: int) -> dict[str, str]:
    import torch

    threads = str(max(1, torch.get_num_threads() // workers))
    environment = os.environ | {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    for name in ("WORLD_SIZE", "RANK"):  # torchrun's share of the cases is divided here already
        environment.pop(name, None)
    return environment


def _environment(model: SegmentationModel) -> dict[str, str]:
    """What a case was run with, for its part and the report."""
    import nnunetv2_lngswr

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {**found, "nnunetv2_lngswr": nnunetv2_lngswr.__version__, "device": model.device.type}
