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
from evaluation.report.norms import NORMS_WITH_UNIT
from evaluation.report.records import CORRUPTION_MEANS
from evaluation.rows import is_noise

Record = Mapping[str, Any]
Panel = dict[str, Any]

CLEAN = "clean"
WORST_NAME = "worst of all"
X_TITLES = {"linf": "epsilon", "l2": "epsilon, root mean square per voxel"}
_DRAWN = (*METRICS, *CALIBRATION)


def evaluation_panels(results: Sequence[Record]) -> list[Panel]:
    """Dice over epsilon for every norm, attacks without a budget, corruptions by severity.

    Parameters
    ----------
    results
        Of summary.json.
    """
    clean = next(r for r in results if r["kind"] == CLEAN)
    panels = [_norm_panel(results, clean, norm) for norm in NORMS_WITH_UNIT]
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
    """One line per model under the worst attack and under every other, bars for what has no budget.

    Panels of lines name their `attacks`, the worst first, each with its role; their series say
    which they are of. The page shows the worst until others are asked for.

    Parameters
    ----------
    models
        {name: records of its runs}, with Dice of the comparison and the other metrics.
    """
    panels = [_models_norm_panel(models, norm) for norm in NORMS_WITH_UNIT]
    means = {n: [r for r in of if r["kind"] in CORRUPTION_MEANS] for n, of in models.items()}
    free = {
        n: [r for r in of if r["kind"] == "attack" and not r["epsilon_text"]]
        for n, of in models.items()
    }
    panels += [
        _models_bars(free, "attacks", "Attacks without a budget"),
        _models_bars(means, "corruptions", "Corruptions, mean of severities"),
    ]
    return [p for p in panels if p["series"]]


def _models_norm_panel(models: Mapping[str, Sequence[Record]], norm: str) -> Panel:
    """The worst of a norm, and its attacks; all models have the same."""
    roles: dict[str, str] = {}
    x: list[str] = ["0"]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, records in models.items():
        clean = next(r for r in records if r["kind"] == CLEAN)
        chosen = [r for r in records if r["norm"] == norm and r["epsilon_text"]]
        chosen = sorted(chosen, key=lambda r: r["kind"] != "worst")
        # of noise alone there is no worst
        budgets = [r["epsilon_text"] for r in chosen if r["kind"] == "worst"]
        x = ["0", *budgets]
        by_run = {(r["attack"], r["epsilon_text"]): r for r in chosen}
        for attack in dict.fromkeys(r["attack"] for r in chosen if budgets):
            of = [by_run.get((attack, budget)) for budget in budgets]
            first = next(r for r in chosen if r["attack"] == attack)
            shown = WORST_NAME if first["kind"] == "worst" else attack
            roles[shown] = _role(first)
            found.setdefault(shown, []).append(
                {"name": name, "attack": shown, "role": "model", **_series([clean, *of])}
            )
    return {
        "kind": "lines",
        "switch": "models",
        "title": f"Worst of all {NORMS_WITH_UNIT[norm]} attacks",
        "title_of_others": f"{NORMS_WITH_UNIT[norm]} attacks",
        "attacks": [list(of) for of in roles.items()],
        "x_title": X_TITLES[norm],
        "x": x,
        "series": [series for of in found.values() for series in of],
    }


def _models_bars(models: Mapping[str, Sequence[Record]], switch: str, title: str) -> Panel:
    """A bar per model and record; all models have the same."""
    return {
        "kind": "bars",
        "switch": switch,
        "title": title,
        "x_title": "",
        "x": [r["attack"] for r in next(iter(models.values()))],
        "series": [
            {"name": name, "role": "model", **_series(records)}
            for name, records in models.items()
            if records
        ],
    }


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
        "title": f"{NORMS_WITH_UNIT[norm]} attacks",
        "x_title": X_TITLES[norm],
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
