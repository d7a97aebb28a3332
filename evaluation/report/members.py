"""What each member of a standard suite adds: the lowest Dice so far after each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.rows import MEAN_LABEL, Row
from nnunetv2_lngswr.attacks.suites import DICE_AFTER, SUITES


def dice_after_members(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One record per suite, norm and budget, in the order of the rows.

    Parameters
    ----------
    rows
        Of cases.csv, all cases.

    Returns
    -------
    list of dict
        suite, norm, epsilon_text, and `dice`: {member: mean over cases of the lowest foreground
        Dice up to it, on the preprocessed grid}, cheapest member first.
    """
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        suite = json.loads(row["settings"] or "{}").get("suite")
        if row["kind"] == "attack" and row["label"] == MEAN_LABEL and suite in SUITES:
            key = suite, row["norm"], row["epsilon_text"]
            found.setdefault(key, []).append(json.loads(row["extras"] or "{}"))
    return [
        {"suite": suite, "norm": norm, "epsilon_text": epsilon, "dice": _means(suite, extras)}
        for (suite, norm, epsilon), extras in found.items()
    ]


def _means(suite: str, cases: Sequence[dict[str, Any]]) -> dict[str, float]:
    means = {}
    for member in SUITES[suite]:
        dice = [extras.get(DICE_AFTER + member.name) for extras in cases]
        defined = [d for d in dice if d is not None and not np.isnan(d)]
        means[member.name] = float(np.mean(defined)) if defined else float("nan")
    return means
