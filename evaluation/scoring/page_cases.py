"""The table of cases in report.html of `lngswr score`: every measure of every model and case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.metrics import METRICS
from evaluation.report.page.cases import DIGITS, MOST_NUMBERS
from evaluation.rows import MEAN_LABEL
from evaluation.scoring.measures import (
    CALIBRATION,
    LESIONS,
    VOLUME,
    Units,
    measure_title,
    measure_unit,
)

_VOLUMES = {"reference_volume": "labelled volume", "predicted_volume": "predicted volume"}
_COUNTS = {
    "reference_lesions": "lesions",
    "predicted_lesions": "predicted lesions",
    "matched_lesions": "matched lesions",
}
_GROUPS = (
    ("Overlap and surfaces", METRICS, "dice"),
    ("Volumes", (*_VOLUMES, *VOLUME), "absolute_volume_error"),
    ("Lesions", (*_COUNTS, *LESIONS), "lesion_f1"),
    ("Calibration", CALIBRATION, "ece_box"),
)
"""(title, columns of cases.csv, the one that sorts) of what is shown at a time."""
_LESS_IS_BETTER = ("hd95_mm", "absolute_volume_error", *CALIBRATION)

Record = Mapping[str, Any]


def score_table_data(
    summary: Mapping[str, Any], rows: Sequence[Record], units: Units
) -> dict[str, Any]:
    """What the scripts get.

    Parameters
    ----------
    summary
        Of `build_summary`.
    rows
        Of cases.csv: all models have the same cases and labels.
    units
        Of lengths and volumes.

    Returns
    -------
    dict
        'measures' {column of cases.csv: how it is shown}; 'table': 'cases', 'patients', one per
        case, or None; 'models', 'labels' [[key, name]], the mean first; 'all_labels', whether they
        are all here; 'groups' of measures; 'values' [model][label][measure][case], None for
        undefined.
    """
    groups = [g for g in _GROUPS if g[1] != CALIBRATION or summary["calibration"]]
    measures = list(dict.fromkeys(m for _, of, _ in groups for m in of))
    models = [m["name"] for m in summary["models"]]
    patients = {r["case"]: r["group"] for r in rows}
    names = {r["label"]: r["label_name"] for r in rows}
    labels = [MEAN_LABEL, *(key for key in names if key != MEAN_LABEL)]
    fits = len(models) * len(labels) * len(measures) * len(patients) <= MOST_NUMBERS
    labels = labels if fits else labels[:1]
    found = {(r["model"], r["label"], r["case"]): r for r in rows}
    return {
        "measures": {m: _shown(m, units) for m in measures},
        "table": {
            "cases": list(patients),
            "patients": None if summary["patients"] is None else list(patients.values()),
            "models": models,
            "labels": [[key, names[key]] for key in labels],
            "all_labels": fits,
            "measures": measures,
            "groups": [{"title": t, "measures": of, "by": by} for t, of, by in groups],
            "values": [
                [
                    [[_value(found[model, label, case][m]) for case in patients] for m in measures]
                    for label in labels
                ]
                for model in models
            ],
        },
    }


def _shown(measure: str, units: Units) -> dict[str, Any]:
    if measure in _COUNTS:
        return {"title": _COUNTS[measure], "whole": True}
    if measure in _VOLUMES:
        return {"title": f"{_VOLUMES[measure]} ({units.volume})"}
    return {
        "title": measure_title(measure, units),
        "percent": measure_unit(measure, units) == "%",
        "unbounded": measure in VOLUME,
        "lessIsBetter": measure in _LESS_IS_BETTER,
    }


def _value(value: float) -> float | None:
    """With the digits of cases.csv."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{DIGITS}g}") if value == value else None  # nan is not itself
