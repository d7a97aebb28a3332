"""Transfer: the perturbation is made on a surrogate model and judged on the attacked one.

White-box attacks that do no more than transfer point to masked gradients. The surrogate must see
the same preprocessed case (same plans' spacing and normalisation); an evaluation checks that when
it loads the surrogate's folder.
"""

from __future__ import annotations

from typing import Any

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.models import DifferentiableModel
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
    """What an attack on the surrogate does to the model, at one forward pass on the model.

    The clean case is no candidate: the result is what transfers.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    surrogate
        The model that the perturbation is made on.
    attack
        `pgd` or `segpgd`, in the ball's norm.
    options
        Of that attack: steps, restarts, ...

    Returns
    -------
    AttackResult
        With the surrogate's evaluations in `extras['surrogate_queries']`.
    """
    source = lookup(SOURCES, attack, "transfer attack")
    made = source(surrogate, x, target, ball, generator=generator, **options)
    best = BestIterate(x, target, ball)
    best.evaluate(model, made.perturbed, cross_entropy)
    best.non_finite += made.non_finite
    settings = {k: v for k, v in made.settings.items() if k not in ("norm", "epsilon")}
    return best.result(
        "transfer",
        settings={"attack": attack, **settings},
        extras={"surrogate_queries": made.queries},
    )
