"""Auto-PGD on the soft Dice of the whole case: the attack that finds what CE misses.

CE goes on raising voxels that are wrong already; soft Dice over the case sees overlap, a
temperature keeps its gradient alive where probabilities saturate, and larger radii first
(2 epsilon -> 1.5 epsilon -> epsilon, Croce et al. 2023) lead out of poor maxima. By default the
temperature is a multiple of the case's mean decision margin, so that multiplying all logits by a
number changes nothing, as in the DLR loss of AutoAttack (Croce & Hein 2020).

Shapes: x (B, C, *spatial), one ball per case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nnunetv2_lngswr.attacks.apgd import ascend_in_stages, fixed_settings
from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate
from nnunetv2_lngswr.attacks.case_dice import case_dice_loss
from nnunetv2_lngswr.attacks.geometry import project_onto_ball, random_start
from nnunetv2_lngswr.attacks.losses import (
    SCALE_FREE_TEMPERATURE,
    SegmentationTarget,
    soft_dice_loss,
)
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.errors import UserError


def apgd_dice(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 40,
    restarts: int = 1,
    temperature: float = SCALE_FREE_TEMPERATURE,
    scale_free: bool = True,
    radius_schedule: bool = True,
    absent_labels: bool = False,
    start: torch.Tensor | None = None,
) -> AttackResult:
    """Auto-PGD on soft Dice in the ball's norm.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    steps, restarts
        Steps of each restart over all stages. The first restart is from `start`, or from a random
        point without it; the second from the clean case; the others from random points.
    temperature, scale_free
        As in `losses.soft_dice_loss`.
    radius_schedule, absent_labels
        False: one stage at epsilon. True: go after labels too that a case lacks (`case_dice`).
    start
        (B, C, *spatial), such as another attack's `perturbed`, to go on from; projected into the
        ball. It is a candidate itself, and larger radii first would leave it behind.

    Returns
    -------
    AttackResult
        `extras['step_sizes']` as `apgd`.

    Raises
    ------
    UserError
        A temperature, steps or restarts that are not positive, or a start of another shape or with
        values that are not finite.
    """
    loss = (case_dice_loss if absent_labels else soft_dice_loss)(temperature, scale_free=scale_free)
    start_in = _starts(x, start, generator)
    best = BestIterate(x, target, ball)
    if start is not None and radius_schedule:  # one stage judges its start anyway
        best.evaluate(model, start_in(0, ball), loss)
    budget = {"steps": steps, "restarts": restarts}
    sizes = ascend_in_stages(
        best, model, loss, loss, start_in=start_in, radius_schedule=radius_schedule, **budget
    )
    settings = {
        **budget,
        "loss": "scale_free_dice" if scale_free else "soft_dice",
        "temperature": temperature,
        **_settings(radius_schedule, absent_labels, given=start is not None),
    }
    return best.result("apgd_dice", settings=settings, extras={"step_sizes": sizes})


def _settings(radius_schedule: bool, absent_labels: bool, *, given: bool) -> dict[str, Any]:
    return {
        "start": "given" if given else "random",
        **fixed_settings(radius_schedule),
        **({"absent_labels": True} if absent_labels else {}),
    }


def _starts(
    x: torch.Tensor, given: torch.Tensor | None, generator: torch.Generator
) -> Callable[[int, Ball], torch.Tensor]:
    """(restart from 0, ball) -> where it begins."""
    if given is not None and (given.shape != x.shape or not bool(given.isfinite().all())):
        raise UserError(
            f"start must be finite and of the shape of the case {tuple(x.shape)}, "
            f"got {tuple(given.shape)}"
        )

    def start_in(restart: int, ball: Ball) -> torch.Tensor:
        if restart == 1:
            return x
        if restart == 0 and given is not None:
            return project_onto_ball(given, x, ball)
        return random_start(x, ball, generator)

    return start_in
