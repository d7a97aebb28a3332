"""All cases scored, and what came of it written."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from evaluation.report.formats import csv_text
from evaluation.report.records import write_summary
from evaluation.scoring.figures import draw_reliability, draw_scores
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.options import ScoreOptions
from evaluation.scoring.page import score_page
from evaluation.scoring.predictions import Inputs
from evaluation.scoring.processes import run_jobs
from evaluation.scoring.report import report_text
from evaluation.scoring.score_case import CaseFiles, CaseScorer
from evaluation.scoring.summary import COMMAND, build_summary, environment
from evaluation.scoring.table import ScoreTable, score_table
from evaluation.scoring.unfinished import KeepingScorer, Unfinished, settings_of
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.image_files import check_whole

SUMMARY, COMPARISON = "summary.json", "compare.json"


@dataclass(frozen=True)
class Asked:
    """What is scored, and how; as `score_predictions` was asked for it."""

    inputs: Inputs
    labels: Path
    """The folder of the ground truth."""
    label_set: LabelSet
    plans: str | Path | None
    groups: Mapping[str, str] | None
    """case -> patient; None: each case is a patient of its own."""
    options: ScoreOptions


def score_into(folder: Path, asked: Asked, *, overwrite: bool, progress: bool) -> dict[str, Any]:
    """Score what an ended call has not, and write all files; returns summary.json's content.

    Raises
    ------
    UserError
        As `score_cases`, and an unfinished call with other arguments, unless `overwrite`.
    """
    settings = settings_of(
        asked.inputs, asked.labels, asked.options, asked.label_set, asked.plans, environment()
    )
    unfinished = Unfinished(folder)
    with unfinished.held(settings, overwrite=overwrite):
        table = score_cases(asked, unfinished, progress=progress)
        summary = build_summary(
            table,
            inputs=asked.inputs,
            labels=asked.label_set,
            options=asked.options,
            grouped=bool(asked.groups),
            notes=notes_on(asked),
        )
        write_scores(folder, table, summary)
        unfinished.remove()
    return summary


def score_cases(asked: Asked, unfinished: Unfinished, *, progress: bool) -> ScoreTable:
    """Score all cases but those that are kept; UserErrors as `CaseScorer` and `score_table`."""
    inputs, labels, options = asked.inputs, asked.label_set, asked.options
    cases = [_files(inputs, case, options.probabilities) for case in inputs.labels]
    kept = {files: found for files in cases if (found := unfinished.find(files)) is not None}
    todo = [files for files in cases if files not in kept]
    scorer = CaseScorer(
        reader=_reader(labels, inputs.ending, cases[0].label), options=options, labels=labels
    )
    scored = run_jobs(
        KeepingScorer(scorer=scorer, unfinished=unfinished),
        todo,
        processes=options.processes_for(len(todo)),
        progress=progress,
        done=len(kept),
    )
    found = kept | dict(zip(todo, scored))
    return score_table(
        [found[files] for files in cases],
        models=[m.name for m in inputs.models],
        groups=asked.groups,
        labels=labels,
        probabilities=options.probabilities,
    )


def check_output(folder: Path, inputs: Inputs, labels: Path) -> None:
    """Refuse a folder whose files are another's.

    Raises
    ------
    UserError
        It holds predictions or labels, the summary.json of another command, such as nnU-Net's, or a
        comparison, whose report.html has the same name.
    """
    read = [labels, *(f for m in inputs.models for f in m.folders)]
    if any(folder == f.resolve() for f in read):
        raise UserError(f"{folder} is read by this very call: choose another output folder (-o)")
    if (folder / COMPARISON).exists():
        raise UserError(
            f"{folder} holds a comparison ({COMPARISON}), whose report.html would be overwritten: "
            "choose another output folder (-o)"
        )
    summary = folder / SUMMARY
    if not summary.exists():
        return
    content = read_json(summary)
    if not isinstance(content, dict) or content.get("command") != COMMAND:
        raise UserError(
            f"{summary} is not of lngswr score and would be overwritten: choose another output "
            "folder (-o)"
        )


def notes_on(asked: Asked) -> list[str]:
    """What could have been scored and was not."""
    inputs, notes = asked.inputs, []
    beside = asked.labels.absolute().parent / "dataset.json"
    if asked.label_set.dataset_json is None and beside.is_file():
        notes.append(
            f"{beside} was not read; -djfile takes names, regions and the ignore label from it"
        )
    having = [
        m.name
        for m in inputs.models
        if all(inputs.probabilities(m.files[c]).is_file() for c in inputs.labels)
    ]
    if having and not asked.options.probabilities:
        notes.append(
            f"probabilities (.npz) lie beside the predictions of {', '.join(having)}; --npz scores "
            "their calibration"
        )
    return notes


def write_scores(folder: Path, table: ScoreTable, summary: Mapping[str, Any]) -> list[str]:
    """Write all files, summary.json last; returns their names."""
    rows = table.rows()
    # texts are made before the first of them is written; the page has the pictures in it
    texts = {"cases.csv": csv_text(table.columns, rows), "report.md": report_text(summary, rows)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SUMMARY).unlink(missing_ok=True)  # what is cut off here has none
    draw_scores(folder / "scores.png", summary, rows)
    pictures = ["scores.png"]
    reliability = folder / "reliability.png"
    if summary["calibration"]:
        draw_reliability(reliability, summary)
        pictures.append(reliability.name)
    else:
        reliability.unlink(missing_ok=True)  # of an earlier call with --npz
    drawn = {name: (folder / name).read_bytes() for name in pictures}
    texts["report.html"] = score_page(summary, rows, drawn)
    for name, text in texts.items():
        write_file(folder / name, text)
    write_summary(folder / SUMMARY, summary)
    return [*texts, *pictures, SUMMARY]


def _files(inputs: Inputs, case: str, probabilities: bool) -> CaseFiles:
    predictions = tuple(m.files[case] for m in inputs.models)
    return CaseFiles(
        identifier=case,
        label=inputs.labels[case],
        predictions=predictions,
        probabilities=tuple(map(inputs.probabilities, predictions)) if probabilities else (),
    )


def _reader(labels: LabelSet, ending: str, example: Path) -> BaseReaderWriter:
    """nnU-Net's reader of these files, which it chooses by trying them on one."""
    check_whole(example)
    wanted = {"file_ending": ending, "overwrite_image_reader_writer": str(labels.reader)}
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return determine_reader_writer_from_dataset_json(wanted, str(example), verbose=False)()
    except RuntimeError:
        raise UserError(
            f"none of nnU-Net's readers of {ending} files reads {example}; is it a label map?"
        ) from None
