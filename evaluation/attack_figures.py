"""What one attack's history on one case tells of its strength; report/strength.py judges it."""

from __future__ import annotations

import math

from nnunetv2_lngswr.attacks import AttackResult

NON_FINITE = "non_finite"
"""In extras: evaluations whose loss or gradient was not finite; absent where there were none."""
LATE_FALL = "late_fall"
"""In extras: fall of the lowest Dice over the last quarter of the steps; absent where undefined."""


def figures_of(found: AttackResult) -> dict[str, float]:
    """For the extras of one case, the first of the result."""
    figures: dict[str, float] = {}
    if int(found.non_finite[0]):
        figures[NON_FINITE] = int(found.non_finite[0])
    late_fall = float(found.late_fall[0])
    if math.isfinite(late_fall):
        figures[LATE_FALL] = late_fall
    return figures
