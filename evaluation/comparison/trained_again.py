"""Figures that cover training again: over trainings and groups, of models trained several times.

Those of the rows that are tested. Differences and shares of the drop are paired by seed where both
models have the seed. Without groups each case is drawn by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.replicates import paired_by_seed
from evaluation.report.records import Table
from evaluation.rows import RunKey
from evaluation.trainings import (
    Estimate,
    TwoLevelDraws,
    difference_figure,
    estimate,
    mean_figure,
    reduction_figure,
)

COLUMNS = (
    "trainings",
    "dice_again_low",
    "dice_again_high",
    # against the baseline, over the trainings that are compared
    "paired_trainings",
    "difference_again",
    "difference_again_low",
    "difference_again_high",
    "se_trainings",
    "se_groups",
    "reduction_again",
    "reduction_again_low",
    "reduction_again_high",
    "p_again",
    "p_again_holm",
)
NO_SPREAD = 1e-6
"""Dice. Where few trainings happen to agree, a test of training again would be one of the groups:
over all it keeps its level, but not where this happens (benchmarks/interval_coverage.py)."""


class TrainedAgain:
    """What is the same for all rows of a comparison.

    Parameters
    ----------
    models
        The first is the baseline.
    cases, labels
        The order of values.
    groups
        (cases,), the number of each case's group; None: each case by itself.
    seed
        Of the draws.
    """

    def __init__(
        self,
        models: Sequence[ComparedModel],
        cases: Sequence[str],
        labels: Sequence[str],
        groups: np.ndarray | None,
        *,
        seed: int,
    ) -> None:
        self._replicates = [m.replicates for m in models]
        self._tables = [[Table(r.rows) for r in m.replicates] for m in models]
        self._cases, self._labels = list(cases), list(labels)
        numbers = np.arange(len(cases)) if groups is None else groups
        self._draws = TwoLevelDraws.of(numbers, seed=seed)
        # of one group alone nothing is known of others
        self.applies = self._draws.count_of_groups > 1 and any(len(t) > 1 for t in self._tables)

    def figures(self, model: int, keys: Sequence[RunKey], *, is_clean: bool) -> dict[str, Any]:
        """Of one model in one row, COLUMNS as keys; empty where it was trained once.

        Parameters
        ----------
        model
            Its number.
        keys
            The runs that the row averages.
        is_clean
            The row is of the clean case, which has no drop.
        """
        tables = self._tables[model]
        if not self.applies or len(tables) < 2:
            return {}
        dice = self._values(model, keys)
        own = estimate(mean_figure(dice), [len(dice)], self._draws, paired=True)
        found: dict[str, Any] = dict.fromkeys(COLUMNS)
        found |= {
            "trainings": len(tables),
            "dice_again_low": max(own.low, 0.0),
            "dice_again_high": min(own.high, 1.0),
        }
        if model:
            found |= self._against_baseline(model, dice, keys, is_clean)
        return found

    def _against_baseline(
        self, model: int, dice: np.ndarray, keys: Sequence[RunKey], is_clean: bool
    ) -> dict[str, Any]:
        chosen = paired_by_seed(self._replicates[model], self._replicates[0])
        if chosen is None:
            return {}
        mine, its, paired = chosen
        counts = [len(mine), len(its)]
        arms = dice[mine], self._values(0, keys)[its]
        of = estimate(difference_figure(*arms), counts, self._draws, paired=paired)
        found = {
            "paired_trainings": len(mine) if paired else 0,
            "difference_again": of.value,
            "difference_again_low": max(of.low, -1.0),
            "difference_again_high": min(of.high, 1.0),
            "se_trainings": of.se_trainings,
            "se_groups": of.se_groups,
            "p_again": of.p if of.se_trainings > NO_SPREAD else None,
        }
        if not is_clean:
            clean = self._values(model)[mine], self._values(0)[its]
            share = reduction_figure(clean[0], arms[0], clean[1], arms[1])
            reduced: Estimate = estimate(share, counts, self._draws, paired=paired)
            found |= {
                "reduction_again": reduced.value,
                "reduction_again_low": reduced.low,
                "reduction_again_high": reduced.high,
            }
        return found

    def _values(self, model: int, keys: Sequence[RunKey] | None = None) -> np.ndarray:
        """(trainings, runs, cases, labels): Dice of `keys`; of the clean case without."""
        tables = self._tables[model]
        return np.stack(
            [t.dice(self._cases, self._labels, [t.clean] if keys is None else keys) for t in tables]
        )
