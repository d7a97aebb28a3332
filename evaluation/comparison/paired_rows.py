"""The table of a comparison: every run of every model, paired by case with the baseline's.

Differences are mean Dice of a model minus the baseline's, with a bootstrap interval over cases; the
mean is nnU-Net's, per label over the cases that define it, then over labels. p values are of that
same difference, by a permutation test that swaps the two models within cases, and are
Holm-corrected over one family that is fixed before looking: clean, worst_linf and worst_l2 at every
budget, and all corruptions together, for every model. All other rows have intervals only. The
reduction says by what share a drop against clean is smaller than the baseline's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import significance
from evaluation.comparison.folders import ComparedModel
from evaluation.protocol import CORRUPTION
from evaluation.report.records import CORRUPTIONS_MEAN, Table, mean_groups
from evaluation.rows import RunKey

COLUMNS = (
    "kind",
    "attack",
    "norm",
    "epsilon_text",
    "severity",
    "folder",
    "model",
    "cases",
    "dice",
    "dice_low",
    "dice_high",
    # against the baseline; empty in its own rows
    "difference",
    "difference_low",
    "difference_high",
    "reduction",
    "reduction_low",
    "reduction_high",
    "p",
    "p_holm",
)
RUN = COLUMNS[:5]
AGAINST_BASELINE = COLUMNS[COLUMNS.index("difference") :]
TESTED = ("clean", "worst", CORRUPTIONS_MEAN)


def paired_rows(models: Sequence[ComparedModel], *, seed: int) -> list[dict[str, Any]]:
    """One record per run and model, with COLUMNS as keys.

    Parameters
    ----------
    models
        Over the same cases; the first is the baseline.
    seed
        Of bootstrap and permutations.
    """
    tables = [Table(m.rows) for m in models]
    cases, labels = tables[0].cases, list(tables[0].labels)
    draws = significance.resample(len(cases), seed=seed)
    clean = [_dice(t, cases, labels, [t.clean]) for t in tables]
    rows = []
    for run, keys in _groups(tables):
        dice = [_dice(t, cases, labels, keys) for t in tables]
        baseline, *others = (_Arm(dice=d, clean=c) for d, c in zip(dice, clean))
        nothing = dict.fromkeys(AGAINST_BASELINE)
        figures = [nothing, *(_differences(run, arm, baseline, draws, seed) for arm in others)]
        for model, values, against in zip(models, dice, figures):
            low, high = significance.interval(values, draws)
            rows.append(
                {
                    **dict(zip(RUN, run)),
                    "folder": model.place,
                    "model": model.name,
                    "cases": len(cases),
                    "dice": significance.mean_over_cases(values),
                    "dice_low": low,
                    "dice_high": high,
                    **nothing,
                    **against,
                }
            )
    family = [r for r in rows if r["p"] is not None]
    for row, adjusted in zip(family, significance.holm([r["p"] for r in family])):
        row["p_holm"] = adjusted
    return rows


@dataclass(frozen=True)
class _Arm:
    """Dice of a run and of the clean case, (cases, labels)."""

    dice: np.ndarray
    clean: np.ndarray


def _dice(
    table: Table, cases: Sequence[str], labels: Sequence[str], keys: Sequence[RunKey]
) -> np.ndarray:
    """(cases, labels) in the order of `cases` and `labels`, the mean over `keys`."""
    rows, columns = ({name: i for i, name in enumerate(of)} for of in (table.cases, table.labels))
    at = np.ix_([rows[c] for c in cases], [columns[label] for label in labels])
    return table.values("dice", *keys)[at]


def _groups(tables: Sequence[Table]) -> list[tuple[RunKey, list[RunKey]]]:
    """(key of the row, runs that it averages).

    Every run but single severities, then each corruption that all tables have, then all of these.
    """
    keys = tables[0].keys
    corruptions = [k for k in keys if k[0] == CORRUPTION and all(k in t.keys for t in tables)]
    groups = [(key, [key]) for key in keys if key[0] != CORRUPTION]
    return [*groups, *mean_groups(corruptions)]


def _differences(
    run: RunKey, arm: _Arm, baseline: _Arm, draws: np.ndarray, seed: int
) -> dict[str, float]:
    mean = significance.mean_over_cases
    low, high = significance.difference_interval(arm.dice, baseline.dice, draws)
    figures = {
        "difference": mean(arm.dice) - mean(baseline.dice),
        "difference_low": low,
        "difference_high": high,
    }
    if run[0] != "clean":
        share, low, high = significance.drop_reduction(
            arm.clean, arm.dice, baseline.clean, baseline.dice, draws
        )
        figures |= {"reduction": share, "reduction_low": low, "reduction_high": high}
    if run[0] in TESTED:
        figures["p"] = significance.swap_test(arm.dice, baseline.dice, seed=seed)
    return figures
