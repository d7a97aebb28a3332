"""All cases together: rows of cases.csv, and the same as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics import Label, nanmean
from evaluation.rows import MEAN_LABEL
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.measures import COUNTS, Units, measure_names
from evaluation.scoring.score_case import CaseScores, Measured, nothing_measured
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Every model, case and label."""

    models: tuple[str, ...]
    cases: tuple[str, ...]
    groups: tuple[str, ...]
    """Of each case, the patient."""
    labels: tuple[Label, ...]
    names: Mapping[Label, str]
    units: Units
    measures: tuple[str, ...]
    measured: Sequence[Sequence[Mapping[Label, Measured]]]
    """[model][case]."""
    calibration: Sequence[Sequence[Mapping[Label, np.ndarray]]]
    """Likewise, `calibration_sums`; empty without probabilities."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Of cases.csv."""
        return ("model", "case", "group", "label", "label_name", *self.measures, *COUNTS)

    def values(self, model: int, column: str) -> np.ndarray:
        """(cases, labels), nan where undefined."""
        return np.array(
            [[of[label][column] for label in self.labels] for of in self.measured[model]],
            np.float64,
        ).reshape(len(self.cases), len(self.labels))

    def rows(self) -> list[dict[str, Any]]:
        """One per model, case and label, and the case's mean over its labels."""
        rows = []
        for model, of_model in zip(self.models, self.measured):
            for case, group, of_case in zip(self.cases, self.groups, of_model):
                shared = {"model": model, "case": case, "group": group}
                for label, measured in of_case.items():
                    named = {"label": str(label), "label_name": self.names[label]}
                    rows.append({**shared, **named, **measured})
                named = {"label": MEAN_LABEL, "label_name": "foreground mean"}
                rows.append({**shared, **named, **self._case_mean(of_case)})
        return rows

    def _case_mean(self, of_case: Mapping[Label, Measured]) -> Measured:
        means = {m: nanmean([of[m] for of in of_case.values()]) for m in self.measures}
        return means | {c: sum(of[c] for of in of_case.values()) for c in COUNTS}


def score_table(
    results: Sequence[CaseScores],
    *,
    models: Sequence[str],
    groups: Mapping[str, str] | None,
    labels: LabelSet,
    probabilities: bool,
) -> ScoreTable:
    """Join the cases.

    Parameters
    ----------
    results
        One per case.
    models
        Their names.
    groups
        case -> patient; None: each case is one.
    labels
        What was scored; without a dataset.json all labels that were found are.
    probabilities
        Whether calibration was scored.

    Raises
    ------
    UserError
        Nothing was found, or files of different kinds, or a case without a group.
    """
    cases = [r.identifier for r in results]
    units = {r.units for r in results}
    if len(units) > 1:
        other = next(r for r in results if r.units != results[0].units)
        raise UserError(
            f"{cases[0]} and {other.identifier} are not alike: volumes are in "
            f"{results[0].units.volume} and in {other.units.volume} (2D and 3D, or a spacing that "
            "one lacks), and have no mean; score them apart"
        )
    without = sorted(set(cases) - set(groups)) if groups is not None else []
    if without:
        raise UserError(f"{len(without)} cases have no group, {without[0]} first (--groups)")
    found = {label: of for r in results for by in r.measured for label, of in by.items()}
    scored = labels.labels if labels.labels is not None else tuple(sorted(found, key=_order))
    if not scored:
        raise UserError("labels and predictions hold nothing but background: nothing to score")
    measured = [
        [_filled(r.measured[m], scored, found) for r in results] for m in range(len(models))
    ]
    return ScoreTable(
        models=tuple(models),
        cases=tuple(cases),
        groups=tuple(cases if groups is None else (groups[c] for c in cases)),
        labels=scored,
        names={label: labels.name(label) for label in scored},
        units=results[0].units,
        measures=measure_names(probabilities=probabilities),
        measured=measured,
        calibration=[[r.calibration[m] for r in results] for m in range(len(models))]
        if probabilities
        else [],
    )


def _filled(
    of_case: Mapping[Label, Measured], labels: Sequence[Label], known: Mapping[Label, Measured]
) -> dict[Label, Measured]:
    """With the labels that only other cases have."""
    return {
        label: of_case[label] if label in of_case else nothing_measured(known[label])
        for label in labels
    }


def _order(label: Label) -> tuple[int, ...]:
    return label if isinstance(label, tuple) else (label,)
