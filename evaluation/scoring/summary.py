"""summary.json of `lngswr score`: means with intervals, paired differences, lesions, calibration.

Means are nnU-Net's (significance.py): per label over the cases that define it, then over labels.
Intervals are over resampled patients with all their cases, the same patients for every model, so
that differences are paired; without groups every case counts as a patient. p values are of the
differences of foreground means, by the test of `lngswr compare`, which swaps the two models within
patients, and are Holm-corrected over one family that is fixed before looking: every measure of
every model but the first. Differences per label have intervals only.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from evaluation import significance
from evaluation.calibration import (
    BINS,
    BOX,
    COUNT,
    SUM_P,
    SUM_Y,
    WHOLE,
    brier_score,
    expected_calibration_error,
)
from evaluation.environment import SCORING, versions
from evaluation.metrics import EMPTY_MASK_RULE, Label
from evaluation.report.records import Drawn
from evaluation.rows import MEAN_LABEL, never_there
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.options import ScoreOptions
from evaluation.scoring.predictions import Inputs
from evaluation.scoring.table import ScoreTable

SCHEMA_VERSION = 1
COMMAND = "lngswr score"

Record = dict[str, Any]


def build_summary(
    table: ScoreTable,
    *,
    inputs: Inputs,
    labels: LabelSet,
    options: ScoreOptions,
    grouped: bool,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The content of summary.json.

    Parameters
    ----------
    table
        All scores.
    inputs
        The files.
    labels
        What was scored.
    options
        How.
    grouped
        Whether patients were given.
    notes
        What a reader has to know besides.
    """
    patients = len(set(table.groups))
    of_case = np.unique(np.array(table.groups, dtype=object), return_inverse=True)[1]
    drawn = Drawn.of_numbers(len(table.cases), of_case if grouped else None, options.seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": COMMAND,
        "models": [
            {"name": m.name, "folders": [str(f.absolute()) for f in m.folders]}
            for m in inputs.models
        ],
        "cases": len(table.cases),
        "patients": patients if grouped else None,
        "labels": {
            "dataset_json": labels.dataset_json,
            "scored": {str(label): table.names[label] for label in table.labels},
            "ignored": labels.ignore_label,
        },
        "options": asdict(options),
        "metrics": {
            "length_unit": table.units.length,
            "volume_unit": table.units.volume,
            "empty_mask_rule": EMPTY_MASK_RULE,
            "mean": "per label over cases where defined, then over labels (nnU-Net's)",
            "intervals": significance.method("patients" if grouped else "cases"),
            **({"p": _tests_said(grouped)} if len(inputs.models) > 1 else {}),
        },
        "results": _results(table, drawn, options.seed),
        "lesions": _lesions(table, drawn),
        "calibration": _calibration(table, drawn),
        "notes": [*inputs.notes, *notes, *_notes(table, patients, grouped)],
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """{package or 'python': version} that scores depend on."""
    own, *others = versions(["nnunetv2_lngswr", *SCORING]).items()
    return dict([own, ("python", platform.python_version()), *others])


def _tests_said(grouped: bool) -> str:
    over = "patients" if grouped else "cases"
    return (
        f"of the difference of foreground means, by a permutation test that swaps the two models "
        f"within {over}; p_holm: Holm-corrected over all measures of all models"
    )


def _results(table: ScoreTable, drawn: Drawn, seed: int) -> list[Record]:
    """One record per model, label (and their mean) and measure, against the first model."""
    records = []
    for m, model in enumerate(table.models):
        for measure in table.measures:
            values, baseline = table.values(m, measure), table.values(0, measure)
            for at, named in _scopes(table):
                record: Record = {"model": model, **named, "measure": measure}
                record |= _mean(values[:, at], drawn)
                if m > 0:
                    record |= _difference(values[:, at], baseline[:, at], drawn)
                    if record["label"] == MEAN_LABEL:
                        record |= _test(values, baseline, drawn, seed)
                records.append(record)
    significance.add_holm(records)
    return records


def _scopes(table: ScoreTable) -> list[tuple[slice, Record]]:
    """Columns of a (cases, labels) array, and what they are."""
    every: list[tuple[slice, Record]] = [
        (slice(None), {"label": MEAN_LABEL, "label_name": "foreground mean"})
    ]
    return every + [
        (slice(i, i + 1), {"label": str(label), "label_name": table.names[label]})
        for i, label in enumerate(table.labels)
    ]


def _mean(values: np.ndarray, drawn: Drawn) -> Record:
    low, high = significance.interval(values, drawn.draws, coverage=drawn.coverage)
    return {
        "mean": significance.mean_over_cases(values),
        "mean_low": low,
        "mean_high": high,
        "cases": int((~np.isnan(values)).any(1).sum()),
    }


def _difference(values: np.ndarray, baseline: np.ndarray, drawn: Drawn) -> Record:
    low, high = significance.difference_interval(
        values, baseline, drawn.draws, coverage=drawn.coverage
    )
    mean = significance.mean_over_cases
    return {
        "difference": mean(values) - mean(baseline),
        "difference_low": low,
        "difference_high": high,
    }


def _test(values: np.ndarray, baseline: np.ndarray, drawn: Drawn, seed: int) -> Record:
    """p of the difference of means, not yet corrected; nan where one of them is undefined."""
    defined = not any(np.isnan(v).all() for v in (values, baseline))
    p = significance.swap_test(values, baseline, seed=seed, groups=drawn.groups)
    return {"p": p if defined else np.nan, "p_holm": np.nan}


def _lesions(table: ScoreTable, drawn: Drawn) -> list[Record]:
    """All cases' lesions counted together, per model and label."""
    records = []
    for m, model in enumerate(table.models):
        counts = [
            table.values(m, column)
            for column in ("matched_lesions", "reference_lesions", "predicted_lesions")
        ]
        for i, label in enumerate(table.labels):
            matched, reference, predicted = (c[:, i] for c in counts)
            shares = {
                "sensitivity": (matched, reference),
                "precision": (matched, predicted),
                "f1": (2 * matched, reference + predicted),
            }
            records.append(
                {
                    "model": model,
                    "label": str(label),
                    "label_name": table.names[label],
                    "reference": int(reference.sum()),
                    "predicted": int(predicted.sum()),
                    "matched": int(matched.sum()),
                    **_ratios(shares, drawn),
                }
            )
    return records


def _ratios(shares: Mapping[str, tuple[np.ndarray, np.ndarray]], drawn: Drawn) -> Record:
    """{name: sum of parts over sum of wholes, with its interval}; (cases,) each."""
    record: Record = {}
    for name, (part, whole) in shares.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            record[name] = float(np.divide(part.sum(), whole.sum()))
            samples = (drawn.draws @ part) / (drawn.draws @ whole)
            record |= _ends(name, samples, drawn.coverage)
    return record


def _calibration(table: ScoreTable, drawn: Drawn) -> list[Record]:
    """All cases' voxels in one reliability diagram, per model and label."""
    records = []
    nothing = np.zeros((2, BINS, 4))
    for m, model in enumerate(table.models if table.calibration else ()):
        for label in table.labels:
            sums = np.stack([of.get(label, nothing) for of in table.calibration[m]])
            records.append(
                {
                    "model": model,
                    "label": str(label),
                    "label_name": table.names[label],
                    **_pooled(sums[:, WHOLE], drawn, ""),
                    **_pooled(sums[:, BOX], drawn, "_box"),
                    "bins": _bins(sums[:, WHOLE].sum(0)),
                    "bins_box": _bins(sums[:, BOX].sum(0)),
                }
            )
    return records


def _pooled(sums: np.ndarray, drawn: Drawn, suffix: str) -> Record:
    """ECE and Brier score of the voxels of all cases; sums: (cases, BINS, 4)."""
    samples = np.tensordot(drawn.draws, sums, 1)
    record: Record = {}
    for name, of in (("ece", expected_calibration_error), ("brier", brier_score)):
        record[name + suffix] = float(of(sums.sum(0)))
        record |= _ends(name + suffix, of(samples), drawn.coverage)
    return record


def _bins(sums: np.ndarray) -> list[Record]:
    """Of a reliability diagram: (BINS, 4)."""
    with np.errstate(invalid="ignore"):
        mean, frequency = (sums[:, column] / sums[:, COUNT] for column in (SUM_P, SUM_Y))
    return [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "voxels": int(sums[b, COUNT]),
            "mean_probability": float(mean[b]),
            "frequency": float(frequency[b]),
        }
        for b in range(BINS)
    ]


def _ends(name: str, samples: np.ndarray, coverage: float) -> Record:
    low, high = significance.percentiles(samples, coverage)
    return {f"{name}_low": low, f"{name}_high": high}


def _notes(table: ScoreTable, patients: int, grouped: bool) -> list[str]:
    notes = []
    if not grouped:
        notes.append(
            "intervals take every case for a patient of its own; where patients have several, they "
            "are too narrow: give --groups"
        )
    if patients < 2:
        notes.append("one patient or case: its intervals say nothing")
    absent = [label for label in table.labels if _is_absent(table, label)]
    if absent:
        said = ", ".join(f"{table.names[label]} ({label})" for label in absent)
        notes.append(
            f"{said} is in no label and no prediction, and leaves the foreground means; "
            "nnU-Net's foreground mean is nan then"
        )
    return [*notes, *filter(None, [never_there(table.rows())])]


def _is_absent(table: ScoreTable, label: Label) -> bool:
    at = table.labels.index(label)
    return all(np.isnan(table.values(m, "dice")[:, at]).all() for m in range(len(table.models)))
