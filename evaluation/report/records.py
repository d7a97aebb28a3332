"""summary.json's records: rows of cases.csv as means, intervals and drops, one record per run.

Means are nnU-Net's (significance.py). The units of sizes are threat_model.py's, the empty-mask rule
is metrics.py's. A record has the run's names (kind, attack, norm, epsilon, severity), Dice with its
95% bootstrap interval over cases (over groups of cases where these are known), the drop against
clean with its own, the other metrics, and the same for every label.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import significance
from evaluation.corruption_table import is_affine
from evaluation.groups import Groups
from evaluation.metrics import CALIBRATION, METRICS, nanmean
from evaluation.protocol import CORRUPTION
from evaluation.report.cases_table import SIZES
from evaluation.report.formats import json_ready
from evaluation.rows import MEAN_LABEL, Row, RunKey, run_key
from nnunetv2_lngswr.utils.files import write_file

SCHEMA_VERSION = 1
# kinds of records, as CORRUPTION
CORRUPTION_MEAN, CORRUPTIONS_MEAN = "shift_mean", "shifts_mean"
NOT_AFFINE_MEAN = "not_affine_mean"
CORRUPTION_MEANS = (CORRUPTION_MEAN, CORRUPTIONS_MEAN, NOT_AFFINE_MEAN)
MEAN_TITLES = {
    CORRUPTIONS_MEAN: "all corruptions",
    NOT_AFFINE_MEAN: "corruptions but affine ones",
}
"""{kind: title for readers}; JSON and CSV keep the names of all versions (`mean_groups`)."""


class Table:
    """Rows as arrays.

    Parameters
    ----------
    rows
        Of cases.csv, any number of cases.

    Attributes
    ----------
    cases
        Identifiers in the order of the rows.
    labels
        {label: name} without the mean.
    keys
        The runs: clean, attacks, worst, corruptions.
    clean
        The key of the clean run.
    is_calibrated
        Whether all rows have CALIBRATION. Those of earlier versions have none, and means over the
        others alone would be of other cases than all else is.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.cases = list(dict.fromkeys(r["case"] for r in rows))
        self.labels = {r["label"]: r["label_name"] for r in rows if r["label"] != MEAN_LABEL}
        self.is_calibrated = all(r.get(m) is not None for r in rows for m in CALIBRATION)
        self._rows: dict[RunKey, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(run_key(row), []).append(row)
        order = {"clean": 0, "attack": 1, "worst": 2, CORRUPTION: 3}
        self.keys: list[RunKey] = sorted(self._rows, key=lambda k: order[k[0]])

    @property
    def clean(self) -> RunKey:
        return next(k for k in self.keys if k[0] == "clean")

    def values(self, metric: str, *keys: RunKey) -> np.ndarray:
        """(runs, cases, labels), nan where undefined: one run per key and training.

        A case that fewer trainings have than others counts in these by its mean.
        """
        where = {c: i for i, c in enumerate(self.cases)}
        columns = {k: i for i, k in enumerate(self.labels)}
        return np.concatenate([self._trainings(metric, key, where, columns) for key in keys])

    def _trainings(
        self, metric: str, key: RunKey, where: Mapping[str, int], columns: Mapping[str, int]
    ) -> np.ndarray:
        found: dict[tuple[int, int], list[float]] = {}
        for row in self._rows[key]:
            if row["label"] != MEAN_LABEL:
                at = where[row["case"]], columns[row["label"]]
                found.setdefault(at, []).append(row[metric])
        values = np.full((max(map(len, found.values())), len(where), len(columns)), np.nan)
        for (case, label), of in found.items():
            values[:, case, label] = nanmean(of)
            values[: len(of), case, label] = of
        return values

    def ordered(
        self, metric: str, cases: Sequence[str], labels: Sequence[str], keys: Sequence[RunKey]
    ) -> np.ndarray:
        """`values` of `keys`, with cases and labels in the order of `cases` and `labels`."""
        rows, columns = ({name: i for i, name in enumerate(of)} for of in (self.cases, self.labels))
        of_cases = self.values(metric, *keys)[:, [rows[c] for c in cases]]
        return of_cases[:, :, [columns[label] for label in labels]]

    def dice(
        self, cases: Sequence[str], labels: Sequence[str], keys: Sequence[RunKey]
    ) -> np.ndarray:
        """`ordered` Dice."""
        return self.ordered("dice", cases, labels, keys)

    def case_means(self, column: str, key: RunKey) -> np.ndarray:
        """(cases with this run,): a column of the foreground-mean rows, without empty fields."""
        means = [r[column] for r in self._rows[key] if r["label"] == MEAN_LABEL]
        return np.array([v for v in means if v is not None], np.float64)

    def first(self, key: RunKey) -> Row:
        """Any row of the run, for what all of them share."""
        return self._rows[key][0]


def summarise(
    rows: Sequence[Row], *, seed: int, groups: Groups | None = None
) -> list[dict[str, Any]]:
    """One record per run over all cases, in the order of the rows.

    Corruptions have besides one record per corruption over its severities (CORRUPTION_MEAN), one
    for all of them (CORRUPTIONS_MEAN) and, where some are affine maps of the intensities, one for
    the others (NOT_AFFINE_MEAN): what normalisation undoes makes a mean look better than it is.

    Parameters
    ----------
    rows
        Of cases.csv.
    seed
        Of the bootstrap; all records are over the same draws.
    groups
        Of cases that are not independent: whole groups are drawn.
    """
    table = Table(rows)
    drawn = Drawn.of(table.cases, groups, seed)
    runs = [(key, [key]) for key in table.keys]
    runs += mean_groups([key for key in table.keys if key[0] == CORRUPTION])
    return [_record(table, name, keys, drawn) for name, keys in runs]


def mean_groups(corruptions: Sequence[RunKey]) -> Iterator[tuple[RunKey, list[RunKey]]]:
    """(key of the mean, runs that it averages): each corruption's severities, then everything,
    then what is not affine."""
    for name in dict.fromkeys(key[1] for key in corruptions):
        yield (CORRUPTION_MEAN, name, "", "", None), [k for k in corruptions if k[1] == name]
    if corruptions:
        yield (CORRUPTIONS_MEAN, "all shifts", "", "", None), list(corruptions)
    felt = [key for key in corruptions if not is_affine(key[1])]
    if 0 < len(felt) < len(corruptions):
        yield (NOT_AFFINE_MEAN, "shifts but affine ones", "", "", None), felt


def headline(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The worst case that is named first: of the budget in the middle, of Linf where it was run."""
    return of_middle_budget([r for r in results if r["kind"] == "worst"])


def of_middle_budget(worst: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Of worst cases by rising budget, the one in the middle, of Linf where there is one."""
    chosen = [r for r in worst if r["norm"] == "linf"] or worst
    return chosen[len(chosen) // 2] if chosen else None


def attack_settings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How each attack was run, the same at every budget.

    Returns
    -------
    list of dict
        Per attack and norm: attack, norm, steps, restarts, loss, step_over_epsilon (the step size
        as a multiple of epsilon), and as text what `other` settings it had.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["attack"], row["norm"]
        if row["kind"] != "attack" or row["label"] != MEAN_LABEL or key in found:
            continue
        found[key] = {
            **{k: row[k] for k in ("attack", "norm", "steps", "restarts", "loss")},
            "step_over_epsilon": _step_over_epsilon(row),
            "other": ", ".join(f"{k} {v}" for k, v in _other_settings(row).items()),
        }
    return list(found.values())


def summary_text(summary: Mapping[str, Any]) -> str:
    """JSON without nan (null instead), keys in the order given."""
    return json.dumps(json_ready(summary), indent=1, allow_nan=False) + "\n"


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """`summary_text` as a file."""
    write_file(path, summary_text(summary))


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is drawn: cases, or groups of them."""

    groups: np.ndarray | None
    """(cases,), the number of each case's group; None: each case by itself."""
    draws: np.ndarray
    """(resamples, cases)."""
    coverage: float
    """Between which percentiles of the draws 95% lie."""

    @classmethod
    def of(cls, cases: Sequence[str], groups: Groups | None, seed: int) -> Drawn:
        return cls.of_numbers(len(cases), None if groups is None else groups.numbers(cases), seed)

    @classmethod
    def of_numbers(cls, cases: int, groups: np.ndarray | None, seed: int) -> Drawn:
        coverage = significance.coverage_of(cases if groups is None else int(groups.max()) + 1)
        draws = significance.resample(cases, seed=seed, groups=groups)
        return cls(groups=groups, draws=draws, coverage=coverage)


def _record(table: Table, name: RunKey, keys: list[RunKey], drawn: Drawn) -> dict[str, Any]:
    kind, attack, norm, epsilon_text, severity = name
    dice, clean = table.values("dice", *keys), table.values("dice", table.clean)
    drop_low, drop_high = significance.difference_interval(
        clean, dice, drawn.draws, coverage=drawn.coverage
    )
    record = {
        "kind": kind,
        "attack": attack,
        "norm": norm or None,
        "epsilon": table.first(keys[0])["epsilon"],
        "epsilon_text": epsilon_text or None,
        "severity": severity,
        "cases": int((~np.isnan(dice)).any((0, 2)).sum()),
        **_dice_with_interval(dice, drawn),
        "drop": significance.mean_over_cases(clean) - significance.mean_over_cases(dice),
        "drop_low": drop_low,
        "drop_high": drop_high,
    }
    for metric in METRICS:
        if metric != "dice":
            record[metric] = significance.mean_over_cases(table.values(metric, *keys))
    record |= calibration_figures(table, table.cases, list(table.labels), keys, drawn)
    record["labels"] = {
        label: {"name": name, **_dice_with_interval(dice[..., [i]], drawn)}
        for i, (label, name) in enumerate(table.labels.items())
    }
    if kind in ("attack", "worst"):
        for column in (*SIZES, "forwards", "gradients"):
            values = table.case_means(column, keys[0])
            record[f"mean_{column}"] = float(values.mean()) if values.size else None
    return record


def calibration_figures(
    table: Table,
    cases: Sequence[str],
    labels: Sequence[str],
    keys: Sequence[RunKey],
    drawn: Drawn,
) -> dict[str, float]:
    """ECE and Brier score of the mean over `keys`, with intervals; {} where they are not measured.

    Parameters
    ----------
    table, keys
        Of whose runs.
    cases, labels
        In the order of the draws.
    drawn
        Of `cases`.
    """
    if not table.is_calibrated:
        return {}
    figures = {}
    for metric in CALIBRATION:
        values = table.ordered(metric, cases, labels, keys)
        low, high = significance.interval(values, drawn.draws, coverage=drawn.coverage)
        mean = significance.mean_over_cases(values)
        figures |= {metric: mean, f"{metric}_low": low, f"{metric}_high": high}
    return figures


def _dice_with_interval(dice: np.ndarray, drawn: Drawn) -> dict[str, float]:
    low, high = significance.interval(dice, drawn.draws, coverage=drawn.coverage)
    return {"dice": significance.mean_over_cases(dice), "dice_low": low, "dice_high": high}


def _step_over_epsilon(row: Row) -> float | None:
    # budgets of 0 have no multiples
    return row["step_size"] / row["epsilon"] if row["step_size"] and row["epsilon"] else None


def _other_settings(row: Row) -> dict[str, Any]:
    columns = ("steps", "step_size", "restarts", "loss", "epsilon")
    settings = json.loads(row["settings"] or "{}")
    return {k: v for k, v in settings.items() if k not in columns and v is not None}
