"""Runs a suite of attacks (suites.py) as one attack.

Each member is run on the cases that can still fall, those whose Dice is not 0, or on those of them
that lack a label, and the best point of all is returned. Points of different members are judged by
one loss, the scale-free soft Dice. Shapes: x (B, C, *spatial), one ball per case.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate
from nnunetv2_lngswr.attacks.case_dice import lacks_a_label
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, get_loss
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.registry import run_attack
from nnunetv2_lngswr.attacks.suites import DICE_AFTER, SUITES, Member
from nnunetv2_lngswr.attacks.threat_model import Ball

JUDGE = "scale_free_dice"


def ensemble(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    suite: str,
) -> AttackResult:
    """The best point of all members of a suite.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    suite
        A name of `suites.SUITES`.

    Returns
    -------
    AttackResult
        Its histories hold the clean case, then every candidate of each member and the best point
        after it; nan for cases that were not run. `extras['dice_after_NAME']`, (B,): the lowest
        Dice after that member.
    """
    best, judge = BestIterate(x, target, ball), get_loss(JUDGE)
    best.evaluate(model, x, judge)
    extras = {}
    for member in SUITES[suite]:
        asked = best.best_dice != 0  # an undefined one can fall
        if member.absent_only:
            asked = asked & lacks_a_label(target).to(asked.device)
            # a label that falls in one step says nothing of how far the others have converged
            best.late_fall_of = (len(best.history), best.forwards + best.gradients)
        can_fall = asked.nonzero().flatten()
        if len(can_fall):
            best.evaluate(model, _run(member, model, best, can_fall, generator), judge)
        extras[DICE_AFTER + member.name] = best.best_dice
    settings = {"suite": suite, "loss": JUDGE, "steps": None, "restarts": None}
    return best.result(suite, settings=settings, extras=extras)


def _run(
    member: Member,
    model: DifferentiableModel,
    best: BestIterate,
    where: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """The best points (B, C, *spatial), with the member's in the cases with these indices.

    What it took and saw is counted in `best`.
    """
    at = where.to(best.x.device)
    found = run_attack(
        member.attack,
        model,
        best.x[at],
        best.target.cases(where),
        best.ball.cases(where),
        generator=generator,
        **member.options,
        **({"start": best.best[at]} if member.goes_on else {}),
    )
    before = best.forwards + best.gradients
    best.judged_at += [before + at for at in found.judged_at]
    best.forwards += found.forwards
    best.gradients += found.gradients
    best.non_finite[where] += found.non_finite
    best.history += _of_all_cases(found.loss_history, where, len(best.x))
    best.dice_history += _of_all_cases(found.dice_history, where, len(best.x))
    points = best.best.clone()
    points[at] = found.perturbed
    return points


def _of_all_cases(history: torch.Tensor, where: torch.Tensor, cases: int) -> torch.Tensor:
    """(evaluations, n) of the cases `where` as (evaluations, cases); nan in the others."""
    whole = torch.full((len(history), cases), float("nan"), dtype=torch.float64)
    whole[:, where] = history
    return whole
