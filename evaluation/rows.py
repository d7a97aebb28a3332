"""Rows of results: one per case x run x label, as a finished case leaves them.

A run is the clean case, an attack with its norm and epsilon, a corruption with its severity (kind
'shift'), or `worst_linf` / `worst_l2`: per case and budget the run of that norm with the lowest
foreground Dice. The label 'mean' is the case's foreground mean. Which columns a row has,
report/cases_table.py says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.options import L2, LINF

MEAN_LABEL = "mean"

Row = Mapping[str, Any]
RunKey = tuple[str, str, str, str, Any]  # kind, attack, norm, epsilon_text, severity


def run_key(row: Row) -> RunKey:
    """What names the run of a row, in every case."""
    return row["kind"], row["attack"], row["norm"], row["epsilon_text"], row["severity"]


def part_key(row: Row) -> str:
    """Of the row's case, the name of its files in OUT/parts."""
    case, fold = row["case"], row["fold"]
    return f"{case}.fold{fold.replace('+', '-')}" if fold else case


def never_there(rows: Sequence[Row]) -> str:
    """What must be said of labels that are in no ground truth, and yet predicted; empty of none."""
    there: dict[str, int] = {}
    found: dict[str, str] = {}
    for row in (r for r in rows if r["label"] != MEAN_LABEL):
        there[row["label"]] = there.get(row["label"], 0) + (row["reference_voxels"] or 0)
        if row["predicted_voxels"]:
            found[row["label"]] = row["label_name"]
    names = [f"{name} ({label})" for label, name in found.items() if not there[label]]
    if not names:
        return ""
    return (
        f"{', '.join(names)}: in no ground truth of these cases, but predicted; its Dice is then 0 "
        "and, as in nnU-Net's mean, counts as a whole label in the foreground means where it was "
        "predicted, and in their differences and drops"
    )


def is_noise(row: Row) -> bool:
    """Whether the row is of the noise control, which is no attack."""
    return row["attack"] in ("noise", "noise_linf", "noise_l2")


def with_worst(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One case's rows, followed by its worst_linf and worst_l2 at every budget.

    Runs without a budget (ssah) are in no ball and do not take part. A foreground mean of nan
    (nothing there, nothing found) is no success of an attack.
    """
    worst = []
    budgets = _foreground_means_by_budget(rows)
    for norm in (LINF, L2):
        for (n, _), candidates in budgets.items():
            # the control alone is no attack
            if n != norm or all(is_noise(c) for c in candidates):
                continue
            chosen = min(candidates, key=_dice_or_inf)
            new = {"kind": "worst", "attack": f"worst_{norm}", "source": chosen["attack"]}
            worst += [{**row, **new} for row in rows if run_key(row) == run_key(chosen)]
    return [*(dict(r) for r in rows), *worst]


def _foreground_means_by_budget(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """{(norm, epsilon text): the foreground-mean rows of its attacks}."""
    budgets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "attack" and row["label"] == MEAN_LABEL and row["epsilon"] is not None:
            budgets.setdefault((row["norm"], row["epsilon_text"]), []).append(row)
    return budgets


def _dice_or_inf(row: Row) -> float:
    return math.inf if math.isnan(row["dice"]) else row["dice"]
