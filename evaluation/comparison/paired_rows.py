"""The table of a comparison: every run of every model, paired by case with the baseline's.

Differences are mean Dice of a model minus the baseline's, with a bootstrap interval over cases, or
over groups of cases where these are known; the mean is nnU-Net's, per label over the cases that
define it, then over labels. p values are of that same difference, by a permutation test that swaps
the two models within cases (groups), and are Holm-corrected over one family that is fixed before
looking: clean, worst_linf and worst_l2 at every budget, and all corruptions together, for every
model. All other rows have intervals only. The reduction says by what share a drop against clean is
smaller than the baseline's. Where models have several trainings, trained_again.py adds figures over
these too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation import significance
from evaluation.comparison import trained_again
from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.trained_again import TrainedAgain
from evaluation.groups import Groups
from evaluation.metrics import CALIBRATION
from evaluation.protocol import CORRUPTION
from evaluation.report.records import (
    CORRUPTIONS_MEAN,
    Drawn,
    Table,
    calibration_figures,
    mean_groups,
)
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


def columns_of(records: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """COLUMNS, and those that records have besides: calibration, of groups, of trainings."""
    calibration = [f"{m}{end}" for m in CALIBRATION for end in ("", "_low", "_high")]
    more = (*calibration, "groups", *trained_again.COLUMNS)
    return (*COLUMNS, *(c for c in more if any(c in r for r in records)))


def paired_rows(
    models: Sequence[ComparedModel], *, seed: int, groups: Groups | None = None
) -> list[dict[str, Any]]:
    """One record per run and model, with COLUMNS as keys.

    Parameters
    ----------
    models
        Over the same cases; the first is the baseline.
    seed
        Of bootstrap and permutations.
    groups
        Of cases that are not independent; records then say how many there are ("groups").
    """
    tables = [Table(m.rows) for m in models]
    cases, labels = tables[0].cases, list(tables[0].labels)
    drawn = Drawn.of(cases, groups, seed)
    again = TrainedAgain(models, cases, labels, drawn.groups, seed=seed)
    clean = [t.dice(cases, labels, [t.clean]) for t in tables]
    rows = []
    for run, keys in _groups(tables):
        dice = [t.dice(cases, labels, keys) for t in tables]
        baseline, *others = (_Arm(dice=d, clean=c) for d, c in zip(dice, clean))
        nothing = dict.fromkeys(AGAINST_BASELINE)
        figures = [nothing, *(_differences(run, arm, baseline, drawn, seed) for arm in others)]
        for number, (model, values, against) in enumerate(zip(models, dice, figures)):
            low, high = significance.interval(values, drawn.draws, coverage=drawn.coverage)
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
                    **calibration_figures(tables[number], cases, labels, keys, drawn),
                    **({} if groups is None else {"groups": groups.count(cases)}),
                }
            )
            if run[0] in TESTED:
                rows[-1] |= again.figures(number, keys, is_clean=run[0] == "clean")
    for p, corrected in (("p", "p_holm"), ("p_again", "p_again_holm")):
        significance.add_holm(rows, p=p, corrected=corrected)
    return rows


@dataclass(frozen=True)
class _Arm:
    """Dice of a run and of the clean case, (runs, cases, labels)."""

    dice: np.ndarray
    clean: np.ndarray


def _groups(tables: Sequence[Table]) -> list[tuple[RunKey, list[RunKey]]]:
    """(key of the row, runs that it averages).

    Every run but single severities, then each corruption that all tables have, then all of these.
    """
    keys = tables[0].keys
    corruptions = [k for k in keys if k[0] == CORRUPTION and all(k in t.keys for t in tables)]
    groups = [(key, [key]) for key in keys if key[0] != CORRUPTION]
    return [*groups, *mean_groups(corruptions)]


def _differences(
    run: RunKey, arm: _Arm, baseline: _Arm, drawn: Drawn, seed: int
) -> dict[str, float]:
    mean = significance.mean_over_cases
    draws, coverage = drawn.draws, drawn.coverage
    low, high = significance.difference_interval(arm.dice, baseline.dice, draws, coverage=coverage)
    figures = {
        "difference": mean(arm.dice) - mean(baseline.dice),
        "difference_low": low,
        "difference_high": high,
    }
    if run[0] != "clean":
        share, low, high = significance.drop_reduction(
            arm.clean, arm.dice, baseline.clean, baseline.dice, draws, coverage=coverage
        )
        figures |= {"reduction": share, "reduction_low": low, "reduction_high": high}
    if run[0] in TESTED:
        figures["p"] = significance.swap_test(
            arm.dice, baseline.dice, seed=seed, groups=drawn.groups
        )
    return figures
