"""What the cells of evidence's tables hold: a figure with its intervals, as text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from benchmarks.trainings import ELSEWHERE, RUN_KEYS, label
from evaluation.comparison.trained_again import NO_SPREAD

READINGS = {("clean", ""): "clean", ("worst", "4/255"): "4/255", ("worst", "8/255"): "8/255"}
ATTACKED = ("4/255", "8/255")
SMALLER = tuple(f"drop smaller at {reading}" for reading in ATTACKED)
Rows = dict[str, dict[str, dict[str, Any]]]
"""Results by arm and reading."""
DiceBySeed = Mapping[int, Mapping[str, float]]
"""Of an arm's trainings, by reading."""


def rows_of(record: Mapping[str, Any]) -> Rows:
    """What a robustness.json has of clean images and under the suite."""
    rows: Rows = {}
    for result in record["results"]:
        reading = READINGS.get((result["kind"], result["epsilon_text"] or ""))
        if reading:
            rows.setdefault(result["model"], {})[reading] = result
    return rows


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def interval(row: Mapping[str, Any], of: str, digits: int = 0) -> str:
    low, high = (100 * row[f"{of}_{end}"] for end in ("low", "high"))
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def difference(row: Mapping[str, Any], of: str) -> str:
    name = f"difference{of}"
    if row[name] is None:
        return ""
    # as compare has it since: trainings that happen to agree are not tested
    agree = of and row["se_trainings"] <= NO_SPREAD
    p = None if agree else row[f"p{of}_holm"]
    said = "" if p is None else f", p {p:.2f}" if p >= 0.1 else f", p {p:.1g}"
    return f"{percent(row[name])} {interval(row, name, 1)}{said}"


def reductions(rows: Mapping[str, Mapping[str, Any]], of: str) -> list[str]:
    name = f"reduction{of}"
    found = [rows[reading] for reading in ATTACKED]
    return [
        "" if row[name] is None else f"{100 * row[name]:.0f}% {interval(row, name)}"
        for row in found
    ]


def compared_twice(its: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """The difference from vanilla on clean images and how much smaller the drop is."""
    yield twice(its["clean"], "difference", percent, 1)
    for reading in ATTACKED:
        yield twice(its[reading], "reduction", lambda share: f"{100 * share:.0f}%", 0)


def twice(row: Mapping[str, Any], name: str, said: Callable[[float], str], digits: int) -> str:
    """A figure with its interval over cases and, of several trainings, that over trainings too."""
    if row[name] is None:
        return ""
    again = f"{name}_again"
    known = row.get("trainings") and row.get(again) is not None
    # not side by side, which is a link in Markdown
    second = f"; {interval(row, again, digits)}" if known else ""
    return f"{said(row[name])} {interval(row, name, digits)}{second}"


def mean_over_seeds(values: Sequence[float]) -> str:
    """With Student's interval over the seeds alone: the cases are the same."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.isf(0.025, len(values) - 1)) * error
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def differences_by_seed(base: DiceBySeed, its: DiceBySeed) -> Iterable[str]:
    """By reading: of each seed that both have, then their means."""
    seeds = sorted(base.keys() & its.keys())
    values = [[100 * (its[seed][key] - base[seed][key]) for seed in seeds] for key in RUN_KEYS]
    yield from (", ".join(f"{value:.1f}" for value in of) for of in values)
    yield from map(mean_over_seeds, values)


def in_brackets(standard_error: float | None) -> str:
    """Nothing is known of it from one seed."""
    return "" if standard_error is None else f" ({standard_error:.1f})"


def marked(record: Mapping[str, Any], arm: str) -> str:
    """The arm's label; with * if it was trained on another machine than vanilla."""
    return label(arm) + " *" * (arm in record.get(ELSEWHERE, ()))


def mean_dice(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.mean(run[key] for run in runs) for key in RUN_KEYS}
