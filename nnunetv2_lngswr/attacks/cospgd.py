"""CosPGD (Agnihotri et al., ICML 2024): PGD on mean_i stopgrad(cos(p_i, onehot y_i)) CE_i.

Each voxel is weighted by its own cosine. The weight fades where the attack has won, so the value of
this loss does not rank iterates; they are judged by CE.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult
from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.pgd import pgd
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
    """CosPGD in the ball's norm; parameters as in `pgd`."""
    result = pgd(
        model,
        x,
        target,
        ball,
        generator=generator,
        steps=steps,
        restarts=restarts,
        loss="cospgd",
        step_size=step_size,
    )
    return result.named("cospgd")
