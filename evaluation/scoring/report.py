"""report.md of `lngswr score`: summary.json in words and tables.

Names of models, cases, labels and folders come from files and are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.calibration import BINS, MARGIN
from evaluation.metrics import EMPTY_MASK_RULE, METRICS
from evaluation.report.formats import interval_text, number_text, percent_text
from evaluation.report.intervals import few_said
from evaluation.rows import MEAN_LABEL
from evaluation.scoring.measures import (
    CALIBRATION,
    LESIONS,
    VOLUME,
    Units,
    measure_text,
    measure_title,
)
from nnunetv2_lngswr.utils.markdown import escaped, markdown_table

LOWEST = 5
"""Cases of each model that are named."""

Record = Mapping[str, Any]
Summary = Mapping[str, Any]


def report_text(summary: Summary, rows: Sequence[Record]) -> str:
    """The content of report.md.

    Parameters
    ----------
    summary
        Of `build_summary`.
    rows
        Of cases.csv.
    """
    sections = [
        _title(summary),
        _scores(summary),
        _labels(summary),
        _volumes(summary),
        _lesions(summary),
        _calibration(summary),
        _lowest(summary, rows),
        _how(summary),
    ]
    return "\n\n".join(s for s in sections if s) + "\n"


def _title(summary: Summary) -> str:
    cases, patients = summary["cases"], summary["patients"]
    of = f"{cases} case{'s' if cases != 1 else ''}"
    if patients is not None:
        of += f" of {patients} patient{'s' if patients != 1 else ''}"
    first, *others = _models(summary)
    dice = _find(summary, first, MEAN_LABEL, "dice")
    baseline = escaped(first)
    said = [f"{of}. Foreground Dice: {baseline} **{measure_text(dice)}**"]
    for name in others:
        record = _find(summary, name, MEAN_LABEL, "dice")
        difference = measure_text(record, "difference")
        said.append(f"{escaped(name)} **{measure_text(record)}**, {difference} against {baseline}")
    pictures = "scores.png" + (", reliability.png" if summary["calibration"] else "")
    lines = [
        f"# Scores of {', '.join(map(escaped, _models(summary)))}",
        "",
        "; ".join(said) + ".",
        "",
        f"Mean [95% bootstrap interval over {_unit_of_draws(summary)}]. Pictures: {pictures}; "
        "every figure per case: cases.csv.",
    ]
    few = few_said(patients or cases, _unit_of_draws(summary), tested=bool(others))
    lines += ["", few] if few else []
    return "\n".join(lines)


def _scores(summary: Summary) -> str:
    lines = ["## Scores", "", _table(summary, METRICS)]
    first, *others = _models(summary)
    if others:
        measures = [r["measure"] for r in _of(summary, others[0], MEAN_LABEL)]
        tested = [r for r in summary["results"] if r.get("p", math.nan) == r.get("p")]  # not nan
        columns = [""]
        for name in others:
            columns += [f"{escaped(name)} - {escaped(first)}", "p", "p (Holm)"]
        body = [
            [
                measure_title(measure, _units(summary)),
                *(
                    cell
                    for name in others
                    for cell in _difference(_find(summary, name, MEAN_LABEL, measure))
                ),
            ]
            for measure in measures
        ]
        lines += [
            "",
            f"Differences to {escaped(first)}, foreground means, paired by case. p: by a "
            f"permutation test that swaps the two models within {_unit_of_draws(summary)}; "
            f"Holm-corrected over all {len(tested)} differences of this table.",
            "",
            markdown_table(columns, body),
        ]
    return "\n".join(lines)


def _difference(record: Record) -> list[str]:
    """Its cells: the difference, p and the corrected p."""
    return [measure_text(record, "difference"), *(number_text(record[k]) for k in ("p", "p_holm"))]


def _labels(summary: Summary) -> str:
    labels = summary["labels"]["scored"]
    if len(labels) < 2:
        return ""
    return "\n".join(["## Per label", "", _table(summary, METRICS, list(labels))])


def _volumes(summary: Summary) -> str:
    said = (
        "Predicted minus labelled volume: the signed error is the bias, the absolute one its size; "
        "relative to the labelled volume where there is one."
    )
    table = _table(summary, VOLUME, list(summary["labels"]["scored"]))
    return "\n".join(["## Volume", "", said, "", table])


def _lesions(summary: Summary) -> str:
    iou = summary["options"]["lesion_iou"]
    said = (
        "Lesions are connected components; a predicted one counts where its IoU with a labelled "
        f"one is at least {iou:g}, each lesion once. All cases counted together:"
    )
    columns = ("", "label", "lesions", "predicted", "matched", "F1", "sensitivity", "precision")
    body = [
        [
            escaped(r["model"]),
            escaped(r["label_name"]),
            *(r[k] for k in ("reference", "predicted", "matched")),
            *(interval_text(r, k) for k in ("f1", "sensitivity", "precision")),
        ]
        for r in summary["lesions"]
    ]
    means = _table(summary, LESIONS, list(summary["labels"]["scored"]))
    lines = ["## Lesions", "", said, "", markdown_table(columns, body)]
    return "\n".join([*lines, "", "Mean over cases:", "", means])


def _calibration(summary: Summary) -> str:
    if not summary["calibration"]:
        return ""
    said = (
        f"Of each label's probability, in {BINS} bins; 0 is best. *Near the object*: within the "
        f"box around prediction and label, {MARGIN} voxels wider on every side, since over whole "
        "images easy background hides everything else. Voxels of all cases together:"
    )
    columns = ("", "label", "ECE", "Brier", "ECE near the object", "Brier near the object")
    body = [
        [
            escaped(r["model"]),
            escaped(r["label_name"]),
            *(_plain_interval(r, k) for k in CALIBRATION),
        ]
        for r in summary["calibration"]
    ]
    means = _table(summary, CALIBRATION, list(summary["labels"]["scored"]))
    lines = ["## Calibration", "", said, "", markdown_table(columns, body)]
    return "\n".join([*lines, "", "Mean over cases:", "", means])


def _lowest(summary: Summary, rows: Sequence[Record]) -> str:
    body = []
    for name in _models(summary):
        of = [r for r in rows if r["model"] == name and r["label"] == MEAN_LABEL]
        defined = [r for r in of if r["dice"] == r["dice"]]  # not nan
        for row in sorted(defined, key=lambda r: r["dice"])[:LOWEST]:
            numbers = [percent_text(row["dice"]), number_text(row["hd95_mm"])]
            volumes = [number_text(row[k]) for k in ("reference_volume", "predicted_volume")]
            body.append([escaped(name), escaped(row["case"]), *numbers, *volumes])
    units = _units(summary)
    volume = f"volume ({units.volume})"
    columns = ("", "case", "Dice", f"HD95 ({units.length})", f"labelled {volume}", "predicted")
    return "\n".join(["## Lowest Dice", "", markdown_table(columns, body)])


def _how(summary: Summary) -> str:
    options, labels = summary["options"], summary["labels"]
    units = _units(summary)
    source = labels["dataset_json"] or "none was given: those found in the files"
    names = ", ".join(f"{name} ({label})" for label, name in labels["scored"].items())
    ignored = "" if labels["ignored"] is None else f"; voxels of {labels['ignored']} do not count"
    lines = [
        "## How it was scored",
        "",
        f"Dice and IoU as nnUNetv2_evaluate_folder; HD95 in {units.length}, NSD at "
        f"{options['tolerance_mm']:g} {units.length}, volumes in {units.volume}. Means are per "
        f"label over the cases that define it, then over labels. {EMPTY_MASK_RULE}",
        "",
        *(f"- {escaped(m['name'])}: {_folders(m)}" for m in summary["models"]),
        f"- labels: {escaped(names)}{ignored}; dataset.json: {escaped(source)}",
        f"- seed {options['seed']}",
        *(f"- {escaped(note)}" for note in summary["notes"]),
        f"- {escaped(', '.join(f'{k} {v}' for k, v in summary['environment'].items()))}",
    ]
    return "\n".join(lines)


def _folders(model: Record) -> str:
    return escaped(", ".join(model["folders"]))


def _table(summary: Summary, measures: Sequence[str], labels: Sequence[str] = (MEAN_LABEL,)) -> str:
    """Models, and labels where they are given, by measures."""
    with_label = labels != (MEAN_LABEL,)
    columns = ["", *(["label"] if with_label else [])]
    columns += [measure_title(m, _units(summary)) for m in measures]
    body = []
    for label in labels:
        for name in _models(summary):
            found = [_find(summary, name, label, m) for m in measures]
            named = [escaped(found[0]["label_name"])] if with_label else []
            body.append([escaped(name), *named, *map(measure_text, found)])
    return markdown_table(columns, body)


def _plain_interval(record: Record, what: str) -> str:
    return measure_text({"measure": what, **record}, what)


def _find(summary: Summary, model: str, label: str, measure: str) -> Record:
    return next(r for r in _of(summary, model, label) if r["measure"] == measure)


def _of(summary: Summary, model: str, label: str) -> list[Record]:
    return [r for r in summary["results"] if (r["model"], r["label"]) == (model, label)]


def _models(summary: Summary) -> list[str]:
    return [m["name"] for m in summary["models"]]


def _units(summary: Summary) -> Units:
    of = summary["metrics"]
    return Units(length=of["length_unit"], volume=of["volume_unit"])


def _unit_of_draws(summary: Summary) -> str:
    return "cases" if summary["patients"] is None else "patients"
