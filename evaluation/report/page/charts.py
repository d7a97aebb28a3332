"""What report.html draws: panels of lines over the budgets, and of bars per corruption.

A panel has `x`, the texts below it, and `series`, each with `values` {metric: one per x} and, for
Dice, the interval's ends. `labels` has the same per label of the data set. Names are as in
cases.csv.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.metrics import CALIBRATION, METRICS
from evaluation.protocol import CORRUPTION
from evaluation.report.examples import NORMS
from evaluation.report.records import CORRUPTION_MEANS
from evaluation.rows import is_noise

Record = Mapping[str, Any]
Panel = dict[str, Any]

CLEAN = "clean"
WORST_NAME = "worst of all"
_DRAWN = (*METRICS, *CALIBRATION)


def evaluation_panels(results: Sequence[Record]) -> list[Panel]:
    """Dice over epsilon for every norm, attacks without a budget, corruptions by severity.

    Parameters
    ----------
    results
        Of summary.json.
    """
    clean = next(r for r in results if r["kind"] == CLEAN)
    panels = [_norm_panel(results, clean, norm) for norm in NORMS]
    free = [r for r in results if r["kind"] == "attack" and not r["epsilon_text"]]
    if free:
        panels.append(
            {
                "kind": "bars",
                "switch": "attacks",
                "title": "Attacks without a budget",
                "x_title": "",
                "x": [r["attack"] for r in free],
                "clean": _point(clean),
                "series": [{"name": "Dice", "role": "attack", **_series(free)}],
            }
        )
    panels.append(_severity_panel(results, clean))
    return [p for p in panels if p and p["series"]]


def comparison_panels(models: Mapping[str, Sequence[Record]]) -> list[Panel]:
    """One line per model under the worst attack, and its mean under each corruption.

    Parameters
    ----------
    models
        {name: records of its runs}, with Dice of the comparison and the other metrics.
    """
    panels = []
    for norm, title in NORMS.items():
        series = []
        x: list[str] = []
        for name, records in models.items():
            clean = next(r for r in records if r["kind"] == CLEAN)
            worst = [r for r in records if r["kind"] == "worst" and r["norm"] == norm]
            x = ["0", *(r["epsilon_text"] for r in worst)]
            if worst:
                series.append({"name": name, "role": "model", **_series([clean, *worst])})
        panels.append(
            {
                "kind": "lines",
                "switch": "models",
                "title": f"Worst of all {title} attacks",
                "x_title": "epsilon",
                "x": x,
                "series": series,
            }
        )
    series, names = [], []
    for name, records in models.items():
        means = [r for r in records if r["kind"] in CORRUPTION_MEANS]
        names = [r["attack"] for r in means]
        if means:
            series.append({"name": name, "role": "model", **_series(means)})
    panels.append(
        {
            "kind": "bars",
            "switch": "corruptions",
            "title": "Corruptions, mean of severities",
            "x_title": "",
            "x": names,
            "series": series,
        }
    )
    return [p for p in panels if p["series"]]


def _norm_panel(results: Iterable[Record], clean: Record, norm: str) -> Panel | None:
    chosen = [r for r in results if r["norm"] == norm and r["epsilon_text"]]
    chosen = sorted(chosen, key=lambda r: r["epsilon"])
    budgets = list(dict.fromkeys(r["epsilon_text"] for r in chosen))
    by_run = {(r["attack"], r["epsilon_text"]): r for r in chosen}
    series = []
    names = dict.fromkeys(r["attack"] for r in sorted(chosen, key=lambda r: r["kind"] != "attack"))
    for name in names:
        of = [by_run.get((name, budget)) for budget in budgets]
        first = next(r for r in of if r is not None)
        shown = WORST_NAME if first["kind"] == "worst" else name
        series.append({"name": shown, "role": _role(first), **_series([clean, *of])})
    return {
        "kind": "lines",
        "switch": "attacks",
        "title": f"{NORMS[norm]} attacks",
        "x_title": "epsilon" if norm == "linf" else "epsilon, root mean square per voxel",
        "x": ["0", *budgets],
        "series": series,
    }


def _severity_panel(results: Iterable[Record], clean: Record) -> Panel | None:
    chosen = [r for r in results if r["kind"] == CORRUPTION]
    names = list(dict.fromkeys(r["attack"] for r in chosen))
    by_run = {(r["attack"], r["severity"]): r for r in chosen}
    series = [
        {
            "name": f"severity {s}",
            "role": "severity",
            **_series([by_run.get((name, s)) for name in names]),
        }
        for s in sorted({r["severity"] for r in chosen})
    ]
    return {
        "kind": "bars",
        "switch": "corruptions",
        "title": "Corruptions, severity 1 to 5",
        "x_title": "",
        "x": names,
        "clean": _point(clean),
        "series": series,
    }


def _role(record: Record) -> str:
    if record["kind"] == "worst":
        return "worst"
    return "control" if is_noise(record) else "attack"


def _series(records: Sequence[Record | None]) -> dict[str, Any]:
    return {
        "values": {m: [None if r is None else r.get(m) for r in records] for m in _DRAWN},
        "low": [None if r is None else r["dice_low"] for r in records],
        "high": [None if r is None else r["dice_high"] for r in records],
        "labels": _of_labels(records),
    }


def _of_labels(records: Sequence[Record | None]) -> dict[str, dict[str, list[float | None]]]:
    """{label: values, low and high of Dice}; nothing where the data set has one label only."""
    labels = next((r["labels"] for r in records if r is not None and "labels" in r), {})
    if len(labels) < 2:
        return {}
    keys = {"values": "dice", "low": "dice_low", "high": "dice_high"}
    return {
        label: {
            k: [None if r is None else r["labels"][label][c] for r in records]
            for k, c in keys.items()
        }
        for label in labels
    }


def _point(record: Record) -> dict[str, Any]:
    """One value per metric, for the line of the clean case."""
    labels = record.get("labels", {})
    return {
        "values": {m: record.get(m) for m in _DRAWN},
        "labels": {k: v["dice"] for k, v in labels.items()},
    }
