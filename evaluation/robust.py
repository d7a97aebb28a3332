"""The robustness evaluation of an nnU-Net v2 model folder.

`evaluate(...)` for notebooks, `python -m evaluation.robust` (also `lngswr evaluate`) for shells:

    python -m evaluation.robust -m MODEL_FOLDER -i IMAGES -l LABELS -o OUT

Every case goes through every run (clean, attacks at every budget, corruptions at every severity);
OUT gets cases.csv, summary.json, report.md, report.html, curves.png, examples.png and
corruptions.png. Without -i and -l, each fold's validation cases are evaluated by the model that has
not seen them.

This module only wires, from folder to report: session.py decides (inputs.py which cases,
protocol.py which runs), workers.py runs the cases (run_case.py one), results_folder.py keeps what
is finished, and report/ writes. torch is imported once it is needed, so that `--help` answers at
once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation import command_line, model_options
from evaluation.conditions import Condition, failures, find_runs, parse_conditions
from evaluation.options import MOST_WORKERS, Options, with_new_names
from nnunetv2_lngswr.utils.command_line import leave, run_main
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.values import shown

if TYPE_CHECKING:
    from evaluation.results_folder import ResultsFolder
    from evaluation.session import Session

_INPUTS = ("images", "labels", "previous_stage")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What `evaluate` returns."""

    folder: Path
    """The output folder, OUT."""
    finished: bool
    """Whether every case is done and the report written; False for a part that ends before
    others."""
    summary: Mapping[str, Any]
    """As summary.json; empty until finished."""
    failures: Sequence[str] = ()
    """A line for every condition of `fail_if` that holds; empty until finished."""

    def rows(self) -> list[dict[str, Any]]:
        """cases.csv, numbers as numbers."""
        from evaluation.report.cases_table import read_cases

        return read_cases(self.folder / "cases.csv")


def evaluate(
    model_folder: str | Path,
    output_folder: str | Path,
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    previous_stage: str | Path | None = None,
    num_parts: int | None = None,
    part_id: int | None = None,
    workers: int | None = 1,
    overwrite: bool = False,
    progress: bool = True,
    fail_if: Sequence[str] = (),
    **options: Any,
) -> Evaluation:
    """Evaluate a model folder.

    Finished cases in OUT are not repeated. On a CPU with as many threads and workers, cases.csv
    gets the same bytes as without an interruption.

    Parameters
    ----------
    model_folder
        TRAINER__PLANS__CONFIGURATION, by any trainer.
    output_folder
        OUT.
    images, labels
        Folders in nnU-Net's format; without both, the validation cases of each fold.
    previous_stage
        Folder of the previous stage's segmentations, of a cascade.
    num_parts, part_id
        Take only cases part_id, part_id + num_parts, ...; default: WORLD_SIZE and RANK, as torchrun
        sets them. The part that ends last writes the report.
    workers
        Processes, up to 512, that share this call's cases and threads. None, the command's default,
        takes one per thread for 2D configurations on a CPU where the work is worth their start.
    overwrite
        Replace results of other settings in OUT.
    progress
        Show a progress bar.
    fail_if
        Conditions such as 'worst_linf@4/255<60', see conditions.py; they change no result.
    **options
        The fields of `options.Options`: attacks, epsilons, steps, corruptions, ...

    Raises
    ------
    UserError
        Bad input, before anything is written.
    OSError
        What the system refuses, such as a full disk; finished cases are kept.
    """
    _check_workers(workers)
    places = {"images": images, "labels": labels, "previous_stage": previous_stage}
    given, conditions = Options(**with_new_names(options)), parse_conditions(fail_if)
    session = _prepare(model_folder, places, given, num_parts, part_id, output_folder)
    find_runs(conditions, session.planned.runs)  # before hours of work
    return _evaluated(session, conditions, output_folder, workers, overwrite, progress)


def estimate(
    model_folder: str | Path,
    output_folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    num_parts: int | None = None,
    part_id: int | None = None,
    fail_if: Sequence[str] = (),
    **arguments: Any,
) -> dict[str, Any]:
    """What `evaluate` with these arguments would do, and a guess at time and memory.

    It takes one prediction and one gradient on the first case; cases of another size take another
    time. Nothing is written.

    Parameters
    ----------
    model_folder, output_folder, overwrite, num_parts, part_id, fail_if, **arguments
        As `evaluate`.

    Returns
    -------
    dict
        'cases', 'share' and 'finished': keys of all cases, this part's, and those in OUT; 'runs':
        titles; 'shifts_left_out': {name: why}; 'prediction_seconds',
        'gradient_seconds', 'seconds_per_case', 'seconds', 'peak_memory_bytes', 'device'.

    Raises
    ------
    UserError
        As `evaluate`.
    """
    places = {k: arguments.pop(k, None) for k in _INPUTS}
    given, conditions = Options(**with_new_names(arguments)), parse_conditions(fail_if)
    session = _prepare(model_folder, places, given, num_parts, part_id, output_folder)
    find_runs(conditions, session.planned.runs)
    finished = []
    if output_folder is not None:
        from evaluation.results_folder import ResultsFolder

        out = ResultsFolder(output_folder, session.settings_sha256)
        out.check(session.settings, overwrite=overwrite)
        todo = out.unfinished(session.share, session.settings)
        finished = [c.key for c in session.share if c not in todo]
    from evaluation.cost_estimate import estimate_cost

    return estimate_cost(session, finished)


def main(argv: Sequence[str] | None = None, *, prog: str = command_line.PROG) -> int:
    """The command. Exit status: 0 done, 1 where a --fail-if holds, else as `run_main` has it, with
    the reason on stderr."""
    arguments = command_line.parse(sys.argv[1:] if argv is None else argv, prog=prog)
    return run_main(prog, lambda: _run(prog, **arguments), output=arguments["output_folder"])


def _run(
    prog: str,
    *,
    output_folder: str,
    dry_run: bool,
    progress: bool,
    workers: int | None,
    **arguments: Any,
) -> int:
    model_folder = model_options.take_model_folder(arguments)
    arguments |= command_line.split_steps(arguments["steps"])
    if dry_run:
        command_line.print_estimate(estimate(model_folder, output_folder, **arguments))
        return 0
    done = evaluate(model_folder, output_folder, progress=progress, workers=workers, **arguments)
    if not done.finished:
        print(f"this part is done; the part that ends last writes the report into {done.folder}")
        return 0
    from evaluation.results_folder import OUTPUTS

    print((done.folder / "report.md").read_text(encoding="utf-8").split("\n## ", 1)[0].rstrip())
    written = ", ".join(n for n in OUTPUTS if (done.folder / n).is_file())
    print(f"\nwritten to {done.folder}: {written}")
    for line in done.failures:
        print(f"{prog}: --fail-if {line}", file=sys.stderr)
    return 1 if done.failures else 0


def _check_workers(workers: int | None) -> None:
    if workers is not None:
        if not isinstance(workers, int) or isinstance(workers, bool) or workers < 1:
            raise UserError(f"workers must be an integer >= 1, got {shown(workers)}")
        if workers > MOST_WORKERS:
            raise UserError(f"workers must be at most {MOST_WORKERS}, got {shown(workers)}")


def _prepare(
    model_folder: str | Path,
    places: Mapping[str, str | Path | None],
    options: Options,
    num_parts: int | None,
    part_id: int | None,
    output_folder: str | Path | None,
) -> Session:
    from evaluation.session import Inputs, prepare

    for place in (model_folder, *places.values()):
        if output_folder and place and os.path.realpath(place) == os.path.realpath(output_folder):
            raise UserError(f"{output_folder} is read by this very call: choose another -o")
    paths = {k: None if v is None else Path(v) for k, v in places.items()}
    inputs = Inputs(model_folder=Path(model_folder), **paths)
    return prepare(inputs, options, num_parts=num_parts, part_id=part_id)


def _evaluated(
    session: Session,
    conditions: Sequence[Condition],
    output_folder: str | Path,
    workers: int | None,
    overwrite: bool,
    progress: bool,
) -> Evaluation:
    from evaluation.results_folder import ResultsFolder

    out = ResultsFolder(output_folder, session.settings_sha256)
    summary = run_what_is_left(session, out, workers, overwrite, progress)
    failed = failures(conditions, session.planned.runs, summary) if summary else []
    return Evaluation(folder=out.path, finished=bool(summary), summary=summary, failures=failed)


def run_what_is_left(
    session: Session, out: ResultsFolder, workers: int | None, overwrite: bool, progress: bool
) -> dict[str, Any]:
    """The cases of this part that OUT does not hold, and once all are done the report.

    OUT is untouched until all files are checked.

    Returns
    -------
    dict
        The summary; empty while other parts have something to do.
    """
    from evaluation.workers import run_todo

    out.check(session.settings, overwrite=overwrite)
    todo = out.unfinished(session.share, session.settings)
    out.refuse_others(todo)
    session.check_files(todo, progress=progress)
    with out.claimed(session.settings, todo, overwrite=overwrite):
        run_todo(workers, session, todo, out, progress=progress)
        session.model_files.check()
        parts = out.finished_parts(session.cases)
        if parts is not None:
            return _write_report(session, out, parts)
        _refuse_changed(session, out)
        return {}


def _refuse_changed(session: Session, out: ResultsFolder) -> None:
    """UserError where a case that this call has run is not finished."""
    for files in session.share:
        if not out.finished(files):
            raise UserError(
                f"case {files.identifier}: {files.place} or another of its files has changed "
                "while it was evaluated; run the same command again"
            )


def _write_report(
    session: Session, out: ResultsFolder, parts: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """From all parts, in the order of the cases; several processes that do it write the same."""
    from evaluation.report import cases_table, examples, figures, markdown, records
    from evaluation.report.page.evaluation_page import evaluation_page
    from evaluation.report.summary import build_summary

    rows = [row for part in parts for row in part["rows"]]
    summary = build_summary(session, parts, rows)
    text = records.summary_text(summary)
    out.begin_report(text)
    cases_table.write_cases(out.path / "cases.csv", rows)
    corrupted = _draw_corruptions(session, out, parts)
    markdown.write_report(out.path / "report.md", summary, corrupted=corrupted)
    figures.draw_curves(out.path / "curves.png", summary)
    shown = [(c, p) for c, p in zip(session.cases, parts) if p["example"] is not None]
    if shown:
        chosen = examples.choose_examples([p["example"] for _, p in shown])
        drawn = [(title, out.load_picture(*shown[i], "example")) for title, i in chosen]
        examples.draw_examples(out.path / "examples.png", drawn)
    write_file(out.path / "report.html", evaluation_page(out.path, summary, rows))
    write_file(out.path / "summary.json", text)
    out.tidy()
    return summary


def _draw_corruptions(
    session: Session, out: ResultsFolder, parts: Sequence[Mapping[str, Any]]
) -> str | None:
    """corruptions.png; the case that it shows, or None without one.

    Parts of earlier versions keep no slice for it.
    """
    from evaluation.report.corruption_pictures import choose_corrupted, draw_corruptions

    path = out.path / "corruptions.png"
    kept = [(c, p) for c, p in zip(session.cases, parts) if p.get("corrupted")]
    if not kept:
        path.unlink(missing_ok=True)
        return None
    files, part = kept[choose_corrupted([p["corrupted"] for _, p in kept])]
    draw_corruptions(path, out.load_picture(files, part, "corrupted"))
    return files.identifier


if __name__ == "__main__":
    leave(main())
