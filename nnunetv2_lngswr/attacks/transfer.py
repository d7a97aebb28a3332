"""Transfer: the perturbation is made on a surrogate model and judged on the attacked one.

White-box attacks that do no more than transfer point to masked gradients. The surrogate must see the same preprocessed case (same plans'
spacing and normalisation); `evaluation.model.folder.SegmentationModel.same_preprocessing` checks that.
"""

from __future__ import annotations

from typing import Any

import torch

from nnunetv2_lngswr.attacks.base import AttackResult, BestIterate, DifferentiableModel
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.pgd import pgd
from nnunetv2_lngswr.attacks.segpgd import segpgd
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.names import lookup

SOURCES = {"pgd": pgd, "segpgd": segpgd}


def transfer(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    surrogate: DifferentiableModel,
    attack: str = "pgd",
    **options: Any,
) -> AttackResult:
    """`attack`: pgd or segpgd, run on `surrogate` with `options` (steps, restarts, ...) in the ball's norm. One forward pass on `model`;
    the surrogate's evaluations are in `extras['surrogate_queries']`. The clean case is no candidate: the result is what transfers."""
    made = lookup(SOURCES, attack, "transfer attack")(
        surrogate, x, target, ball, generator=generator, **options
    )
    search = BestIterate(x, target, ball)
    search.evaluate(model, made.perturbed, lambda z: cross_entropy(z, target))
    settings = {k: v for k, v in made.settings.items() if k not in ("norm", "epsilon")}
    return search.result(
        "transfer",
        settings={"attack": attack, **settings},
        extras={"surrogate_queries": made.queries},
    )
