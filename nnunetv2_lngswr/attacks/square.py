"""Square attack (Andriushchenko et al., ECCV 2020), Linf, any dimension: no gradients.

A gain against PGD that vanishes here was masked gradients. Start: stripes of +-epsilon (constant
along the first window axis). Each query adds +-2 epsilon on a random cube, per channel, and keeps
it when the CE rises. The cube's share of the voxels is p, halved on the published schedule, scaled
to the number of queries. Every query is a forward pass over the whole case.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate, check_steps
from nnunetv2_lngswr.attacks.geometry import like_cases, like_channels, project_onto_ball
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.terms import Norm
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.errors import UserError

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
"""(up to so many queries out of 10000, divisor of p): section 4.1 and the authors' code."""


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
    """The square attack.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    steps
        Queries per restart after the first.
    restarts
        Independent runs; the best iterate of all is returned.
    p_init
        The first cube's share of the voxels.

    Raises
    ------
    UserError
        An L2 ball, or `p_init` outside (0, 1].
    """
    check_steps(steps, restarts)
    if ball.norm is not Norm.LINF:
        raise UserError(f"square is implemented for linf, got {ball.norm.value}")
    if not 0 < p_init <= 1:
        raise UserError(f"p_init must be in (0, 1], got {p_init}")
    best = BestIterate(x, target, ball)
    reach = ball.epsilon * like_channels(ball.scale, x)
    for _ in best.unsolved(restarts):
        held = project_onto_ball(x + reach * _stripes(x, generator), x, ball)
        held_value = best.evaluate(model, held, cross_entropy)
        for query in range(steps):
            if best.solved:
                break
            side = _side(p_init / _divisor(query, steps), x)
            candidate = project_onto_ball(_with_cubes(held, 2 * reach, side, generator), x, ball)
            value = best.evaluate(model, candidate, cross_entropy)
            better = value > held_value
            held = torch.where(like_cases(better, x), candidate, held)
            held_value = torch.where(better, value, held_value)
    settings = {"steps": steps, "restarts": restarts, "p_init": p_init}
    return best.result("square", settings=settings)


def _stripes(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Signs that are constant along the first axis that can carry stripes."""
    shape = list(x.shape)
    # axes of length 1 (the slice axis of a 2D case) cannot
    axis = next((a for a in range(2, x.ndim) if x.shape[a] > 1), 2)
    shape[axis] = 1
    return _signs(shape, x, generator)


def _with_cubes(
    x: torch.Tensor, size: torch.Tensor, side: int, generator: torch.Generator
) -> torch.Tensor:
    """x with +-size, a sign per channel, added on one random cube in each case."""
    changed = x.clone()
    for case in range(len(x)):
        region = [slice(None)]
        for n in x.shape[2:]:
            width = min(side, n)
            draw = torch.randint(0, n - width + 1, (), generator=generator, device=generator.device)
            start = int(draw)
            region.append(slice(start, start + width))
        signs = _signs([x.shape[1], *[1] * (x.ndim - 2)], x, generator)
        changed[case][tuple(region)] += size[case] * signs
    return changed


def _signs(shape: Sequence[int], x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    bits = torch.randint(0, 2, tuple(shape), generator=generator, device=generator.device)
    return (bits * 2 - 1).to(x)


def _divisor(query: int, queries: int) -> int:
    at = int(query / queries * 10000)
    return next(d for limit, d in SCHEDULE if at <= limit)


def _side(p: float, x: torch.Tensor) -> int:
    """Side of a cube that holds the share p of the voxels, over the axes longer than 1."""
    sizes = [n for n in x.shape[2:] if n > 1]
    return max(round((p * math.prod(sizes)) ** (1 / max(len(sizes), 1))), 1)
