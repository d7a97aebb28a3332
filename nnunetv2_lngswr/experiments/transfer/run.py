"""The benchmark from its options to its tables."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.devices import default_device
from nnunetv2_lngswr.experiments.transfer.cells import Cell, plan_cells
from nnunetv2_lngswr.experiments.transfer.data_sets import DataSet, read_data_sets
from nnunetv2_lngswr.experiments.transfer.models import TrainedModel, read_models
from nnunetv2_lngswr.experiments.transfer.options import Options
from nnunetv2_lngswr.experiments.transfer.report import write_report
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import holds_nothing, read_json, write_file
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.output_folder import output_folder
from nnunetv2_lngswr.utils.processes import run_command

MARKER = "benchmark.json"
KIND = "transfer"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A benchmark, as far as it is decided before anything is written."""

    output: Path
    models: Sequence[TrainedModel]
    data_sets: Sequence[DataSet]
    cells: Sequence[Cell]
    options: Options


def benchmark_transfer(
    models: Sequence[str | Path],
    data_sets: Sequence[str],
    output: str | Path,
    options: Options | None = None,
    *,
    say: Say = lambda line: None,
) -> Path:
    """Evaluate every model on every data set, and write what is lost on the way.

    Parameters
    ----------
    models
        Folders, TRAINER__PLANS__CONFIGURATION; only read.
    data_sets
        nnU-Net's names of data sets in nnUNet_raw, among them those of the models.
    output
        Folder for everything; the same one goes on.
    options
        Folds, attacks, ...; None: the defaults.
    say
        Receives each line for the user.

    Returns
    -------
    Path
        `output`, with transfer.md, transfer.json and transfer.png.

    Raises
    ------
    UserError
        No models, data sets that do not go together (`cells.plan_cells`), an `output` of something
        else, of other settings, or in use by another call.
    CommandError
        An evaluation failed.
    """
    options, folder = options or Options(), output_folder(output)
    read = read_data_sets(data_sets)
    trained = read_models(models, options)
    plan = Plan(
        output=folder,
        models=trained,
        data_sets=read,
        cells=plan_cells(trained, read, options),
        options=options,
    )
    _check_place(plan)
    if options.dry_run:
        _run(plan, say)
        return folder
    with hold(folder, f"lngswr benchmark {KIND}"):
        _check_place(plan)
        write_file(folder / MARKER, json.dumps(_record(plan), indent=1) + "\n")
        _run(plan, say)
        write_report(folder, plan.cells, options)
    return folder


def _check_place(plan: Plan) -> None:
    """Refuse a folder of something else, or of a call that asked for something else."""
    read_only = [m.folder for m in plan.models] + [d.folder for d in plan.data_sets]
    for folder in read_only:
        if plan.output.is_relative_to(os.path.realpath(folder)):
            raise UserError(
                f"{plan.output} lies in {folder}, which is only read: choose another -o"
            )
    marker = plan.output / MARKER
    if not marker.is_file():
        if not holds_nothing(plan.output):
            raise UserError(f"{plan.output} exists and is no benchmark: choose another -o")
        return
    there, here = read_json(marker, needs=("evaluation",)), _record(plan)
    changed = ", ".join(key for key in here if there.get(key) != here[key])
    if changed:
        raise UserError(
            f"{plan.output} is of a call with another {changed} ({MARKER} there): "
            "choose another folder with -o"
        )


def _record(plan: Plan) -> dict[str, Any]:
    """What results depend on, JSON-ready; groups and names of labels only change the report."""
    models = [
        {
            "folder": str(m.folder),
            "checkpoint": plan.options.checkpoint,
            "checkpoint_sha256": dict(m.checkpoint_sha256),
        }
        for m in plan.models
    ]
    return {
        "benchmark": KIND,
        "models": models,
        "data_sets": [d.name for d in plan.data_sets],
        "evaluation": plan.options.evaluation,
    }


def _run(plan: Plan, say: Say) -> None:
    device = plan.options.device or default_device()
    environment = _environment(plan, device)
    for cell in plan.cells:
        folder = cell.folder(plan.output)
        if (folder / "summary.json").is_file():
            _refuse_other_cases(cell, folder)
            if not _changed_since(cell, folder / "summary.json"):
                say(f"{cell.name}: done before")
                continue
        command = _command(cell, folder, device, plan.options)
        if plan.options.dry_run:
            say("$ " + shlex.join(command))
            continue
        # of its progress bar: in a log, a line a minute
        log, show = plan.output / "logs" / f"{cell.name}.log", r"\d%\|"
        run_command(command, log, environment=environment, say=say, show=show)


def _changed_since(cell: Cell, summary: Path) -> bool:
    """Whether an image or a label was written after it: `lngswr evaluate` then looks closer."""
    ended = summary.stat().st_mtime
    return any(file.stat().st_mtime > ended for file in cell.files)


def _refuse_other_cases(cell: Cell, folder: Path) -> None:
    done = set(read_json(folder / "summary.json", needs=("cases",))["cases"])
    if done != set(cell.cases):
        raise UserError(
            f"{folder} is of {len(done)} cases of {cell.data_set.name}, which now has "
            f"{len(cell.cases)} to evaluate, {len(done ^ set(cell.cases))} of them others: remove "
            "that folder, or choose another -o"
        )


def _command(cell: Cell, folder: Path, device: str, options: Options) -> list[str]:
    command = ["lngswr", "evaluate", "-m", str(cell.model.folder), "-f", str(cell.fold)]
    command += ["-chk", options.checkpoint]
    if not cell.own:
        command += ["-i", str(cell.data_set.images), "-l", str(cell.data_set.labels)]
    command += [*options.evaluation, "-device", device]
    if cell.groups is not None:
        command.append(f"--groups={cell.groups}")
    if options.trust_checkpoint:
        command.append("--trust-checkpoint")
    return [*command, "-o", str(folder)]


def _environment(plan: Plan, device: str) -> Mapping[str, str]:
    found = {"MPLBACKEND": "Agg", "nnUNet_raw": str(plan.data_sets[0].folder.parent)}
    if device == "cpu":
        found["nnUNet_compile"] = "f"
    return found
