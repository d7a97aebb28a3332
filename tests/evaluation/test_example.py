"""Which attack of a case is shown."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from evaluation.example import StrongestAttack
from evaluation.protocol import EvaluationRun

NAN = float("nan")


@pytest.mark.parametrize(
    ("dice", "shown"),
    [([0.5, 0.2, 0.4], 1), ([NAN, 0.4, 0.6], 1), ([0.4, NAN, 0.6], 0), ([NAN, NAN, NAN], 0)],
)
def test_the_one_that_lowers_dice_most_is_shown_with_its_dice_and_the_control_never(dice, shown):
    budget = {"kind": "attack", "norm": "linf", "epsilon": Fraction(8, 255)}
    runs = [EvaluationRun(name=n, function=n, **budget) for n in ("fgsm", "pgd_linf", "segpgd")]
    control = EvaluationRun(name="noise", function="noise", **budget)
    strongest = StrongestAttack([control, *runs])
    for run, value in [(control, 0.0), *zip(runs, dice)]:
        strongest.consider(run, torch.zeros(1, 2, 2), np.zeros((2, 2)), value)
    assert strongest.found is not None and strongest.found.run is runs[shown]
    assert strongest.found.dice == pytest.approx(dice[shown], nan_ok=True)
