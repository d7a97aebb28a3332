"""CosPGD (Agnihotri et al., ICML 2024): PGD on mean_i stopgrad(cos(p_i, onehot y_i)) CE_i, each voxel weighted by its own cosine.

The weight fades where the attack has won, so the value of this loss does not rank iterates; they are judged by CE.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.base import AttackResult, DifferentiableModel
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cospgd_loss
from nnunetv2_lngswr.attacks.pgd import ascend
from nnunetv2_lngswr.attacks.threat_model import Ball


def cospgd(
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
    """CosPGD in the ball's norm; step size as in `pgd`."""
    return ascend(
        model,
        x,
        target,
        ball,
        name="cospgd",
        loss_at=lambda step: cospgd_loss,
        loss_name="cospgd",
        generator=generator,
        steps=steps,
        restarts=restarts,
        step_size=step_size,
        from_random=True,
    )
