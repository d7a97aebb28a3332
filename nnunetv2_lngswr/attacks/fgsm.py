"""Fast gradient sign method (Goodfellow et al. 2015): one step of size epsilon from the clean case; in the L2 ball along the gradient."""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.base import AttackResult, DifferentiableModel
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, get_loss
from nnunetv2_lngswr.attacks.pgd import ascend
from nnunetv2_lngswr.attacks.threat_model import Ball


def fgsm(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    loss: str = "ce",
) -> AttackResult:
    """x + epsilon sign(gradient), clipped. The clean case is the start, hence a candidate. `generator` is not drawn from."""
    ascended = get_loss(loss)
    return ascend(
        model,
        x,
        target,
        ball,
        name="fgsm",
        loss_at=lambda step: ascended,
        loss_name=loss,
        generator=generator,
        steps=1,
        restarts=1,
        step_size=ball.epsilon,
        from_random=False,
    )
