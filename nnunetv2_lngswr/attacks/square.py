"""Square attack (Andriushchenko et al., ECCV 2020), Linf, any dimension: random search without gradients.

A gain against PGD that vanishes here was masked gradients. Start: stripes of +-epsilon (constant along the first window axis). Each query adds
+-2 epsilon on a random cube, per channel, and keeps it when the CE rises. The cube's share of the voxels is p, halved on the
published schedule, scaled to the number of queries. Every query is a forward pass over the whole case.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.base import (
    AttackResult,
    BestIterate,
    DifferentiableModel,
    check_steps,
    project_onto_ball,
)
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.threat_model import Ball, Norm
from nnunetv2_lngswr.utils.errors import UserError

# (queries out of 10000, divisor of p)
SCHEDULE = (
    (10, 1),
    (50, 2),
    (200, 4),
    (500, 8),
    (1000, 16),
    (2000, 32),
    (4000, 64),
    (6000, 128),
    (8000, 256),
    (10000, 512),
)


def square(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 200,
    restarts: int = 1,
    p_init: float = 0.8,
) -> AttackResult:
    """`steps`: queries per restart after the first. ValueError for an L2 ball and for p_init outside (0, 1]."""
    check_steps(steps, restarts)
    if ball.norm is not Norm.LINF:
        raise UserError(f"square is implemented for linf, got {ball.norm.value}")
    if not 0 < p_init <= 1:
        raise UserError(f"p_init must be in (0, 1], got {p_init}")
    search = BestIterate(x, target, ball)
    reach = ball.epsilon * ball.scale.reshape(*ball.scale.shape, *[1] * (x.ndim - 2)).to(x.device)
    for _ in range(restarts):
        stripes = list(x.shape)
        # axes of length 1 (the slice axis of a 2D case) cannot carry stripes
        stripes[next((a for a in range(2, x.ndim) if x.shape[a] > 1), 2)] = 1
        best = project_onto_ball(x + reach * _signs(stripes, x, generator), x, ball)
        best_value = search.evaluate(model, best, lambda z: cross_entropy(z, target))
        for query in range(steps):
            side = _side(p_init / _divisor(query, steps), x)
            candidate = best.clone()
            for case in range(len(x)):
                region = [slice(None)]
                for n in x.shape[2:]:
                    width = min(side, n)
                    start = int(torch.randint(0, n - width + 1, (), generator=generator))
                    region.append(slice(start, start + width))
                signs = _signs([x.shape[1], *[1] * (x.ndim - 2)], x, generator)
                candidate[case][tuple(region)] += 2 * reach[case] * signs
            candidate = project_onto_ball(candidate, x, ball)
            value = search.evaluate(model, candidate, lambda z: cross_entropy(z, target))
            better = value > best_value
            best = torch.where(better.reshape(-1, *[1] * (x.ndim - 1)), candidate, best)
            best_value = torch.where(better, value, best_value)
    return search.result(
        "square", settings={"steps": steps, "restarts": restarts, "p_init": p_init}
    )


def _signs(shape, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (torch.randint(0, 2, tuple(shape), generator=generator) * 2 - 1).to(x)


def _divisor(query: int, queries: int) -> int:
    at = int(query / queries * 10000)
    return next(d for limit, d in SCHEDULE if at <= limit)


def _side(p: float, x: torch.Tensor) -> int:
    """Side of a cube that holds the share p of the voxels, over the axes longer than 1."""
    sizes = [n for n in x.shape[2:] if n > 1]
    voxels = 1
    for n in sizes:
        voxels *= n
    return max(round((p * voxels) ** (1 / max(len(sizes), 1))), 1)
