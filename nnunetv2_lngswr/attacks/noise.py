"""Noise at the same budget: the control that every attack must beat.

Linf: a random sign per voxel times epsilon. L2: a Gaussian direction scaled to RMS epsilon. Clipped into [min, max] like every attack.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.base import (
    AttackResult,
    BestIterate,
    DifferentiableModel,
    check_steps,
    project_onto_ball,
    random_direction,
)
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
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
    """`restarts` draws; the one with the highest CE is returned (1: plain noise, no search)."""
    check_steps(1, restarts)
    search = BestIterate(x, target, ball)
    for _ in range(restarts):
        candidate = project_onto_ball(
            x + ball.epsilon * random_direction(x, ball, generator), x, ball
        )
        search.evaluate(model, candidate, lambda z: cross_entropy(z, target))
    return search.result("noise", settings={"restarts": restarts})
