"""Fast gradient sign method (Goodfellow et al. 2015): one step of size epsilon from the clean case.

In the L2 ball along the gradient.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult
from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.pgd import pgd
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
    """x + epsilon sign(gradient), clipped; parameters as in `pgd`.

    The clean case is the start, hence a candidate. `generator` is not drawn from.
    """
    result = pgd(
        model,
        x,
        target,
        ball,
        generator=generator,
        steps=1,
        loss=loss,
        step_size=ball.epsilon,
        random_start=False,
    )
    return result.named("fgsm")
