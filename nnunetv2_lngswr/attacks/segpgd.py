"""SegPGD (Gu et al., ECCV 2022): PGD whose weights move from the right voxels to all of them,

    L_t = (1 / N) [ sum_{right} (1 - lambda_t) CE + sum_{wrong} lambda_t CE ],
    lambda_t = (t - 1) / (2 T),   t = 1 .. T.

L_t differs from step to step, so iterates are judged by the plain CE, which is twice L at lambda =
1/2.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, segpgd_loss
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.pgd import ascend
from nnunetv2_lngswr.attacks.threat_model import Ball


def segpgd(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 20,
    restarts: int = 1,
    step_size: float | None = None,
) -> AttackResult:
    """SegPGD in the ball's norm; parameters as in `pgd`."""
    return ascend(
        model,
        x,
        target,
        ball,
        name="segpgd",
        loss_at=lambda step: segpgd_loss(wrong_weight(step, steps)),
        loss_name="segpgd",
        generator=generator,
        steps=steps,
        restarts=restarts,
        step_size=step_size,
        from_random=True,
    )


def wrong_weight(step: int, steps: int) -> float:
    """lambda_t of the wrong voxels in step t = 1 .. steps: 0 at first, towards 1/2."""
    return (step - 1) / (2 * steps)
