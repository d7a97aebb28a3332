"""Noise at the same budget: the control that every attack must beat.

Linf: a random sign per voxel times epsilon. L2: a Gaussian direction scaled to RMS epsilon. Clipped
into [min, max] like every attack.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate, check_steps
from nnunetv2_lngswr.attacks.geometry import project_onto_ball, random_direction
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.threat_model import Ball


def noise(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    restarts: int = 1,
) -> AttackResult:
    """Of `restarts` draws that of lowest Dice (1: plain noise, nothing is searched)."""
    check_steps(1, restarts)
    best = BestIterate(x, target, ball)
    for _ in range(restarts):
        step = ball.epsilon * random_direction(x, ball, generator)
        best.evaluate(model, project_onto_ball(x + step, x, ball), cross_entropy)
    return best.result("noise", settings={"restarts": restarts})
