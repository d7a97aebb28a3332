"""The table of cases in report.html: every metric of every run, case by case, from cases.csv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.metrics import CALIBRATION, METRICS
from evaluation.rows import MEAN_LABEL, Row, RunKey, run_key

MOST_NUMBERS = 90_000
"""In the table; labels are left to cases.csv where there are more."""
DIGITS = 9
"""Significant ones, as in cases.csv: fewer would round twice what is shown with one decimal."""
_ORDER = {"clean": 0, "worst": 1, "attack": 2, "shift": 3}


def case_table(models: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The table of one or several models.

    Parameters
    ----------
    models
        {name: rows of cases.csv}, all of the same cases. A case that a model has several times
        (seeds) is the mean, as in the comparison.

    Returns
    -------
    dict
        'cases'; 'folds', one per case; 'runs', records of their names; 'labels' [[key, name]],
        the mean first; 'all_labels', whether they are all here; 'metrics', those of any model;
        'models' and 'values' [model][run][label][metric][case], None for undefined.
    """
    every = [row for rows in models.values() for row in rows]
    cases = list(dict.fromkeys(r["case"] for r in every))
    runs = sorted(dict.fromkeys(run_key(r) for r in every), key=_place)
    names = {r["label"]: r["label_name"] for r in every}
    labels = [MEAN_LABEL, *(key for key in names if key != MEAN_LABEL)]
    metrics = [*METRICS, *(m for m in CALIBRATION if any(r.get(m) is not None for r in every))]
    numbers = len(models) * len(runs) * len(labels) * len(cases) * len(metrics)
    fits = numbers <= MOST_NUMBERS
    labels = labels if fits else labels[:1]
    folds = {r["case"]: r["fold"] or "" for r in every}
    return {
        "cases": cases,
        "folds": [folds[c] for c in cases],
        "runs": [
            dict(zip(("kind", "attack", "norm", "epsilon_text", "severity"), r)) for r in runs
        ],
        "labels": [[key, names[key]] for key in labels],
        "all_labels": fits,
        "metrics": metrics,
        "models": list(models),
        "values": [_values(rows, cases, runs, labels, metrics) for rows in models.values()],
    }


def _place(run: RunKey) -> tuple[Any, ...]:
    """Clean, worst, attacks, corruptions; then as they were run."""
    return (_ORDER[run[0]],)


def _values(
    rows: Sequence[Row],
    cases: Sequence[str],
    runs: Sequence[RunKey],
    labels: Sequence[str],
    metrics: Sequence[str],
) -> list[Any]:
    found: dict[tuple[RunKey, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((run_key(row), row["label"], row["case"]), []).append(row)
    return [
        [
            [
                [_mean(found.get((run, label, case), ()), metric) for case in cases]
                for metric in metrics
            ]
            for label in labels
        ]
        for run in runs
    ]


def _mean(rows: Sequence[Row], metric: str) -> float | None:
    defined = [r[metric] for r in rows if r.get(metric) is not None and not math.isnan(r[metric])]
    return float(f"{sum(defined) / len(defined):.{DIGITS}g}") if defined else None
