"""Auto-PGD (Croce & Hein, ICML 2020) with the losses and radius schedule of SEA for segmentation (Croce et al. 2023).

One stage of T steps in a ball of radius e, starting with step size eta = 2 e:

    v = P(x_k + eta d(grad)),   x_{k+1} = P(x_k + a (v - x_k) + (1 - a) (x_k - x_{k-1})),   a = 0.75 (1 in the first step).

At checkpoints after w_j steps, w_1 = 0.22 T and then each interval 0.03 T shorter, at least 0.06 T: eta is halved and the search goes back to
the best point when (1) the loss rose in at most 0.75 of the interval's steps (as in the authors' code), or (2) neither eta nor the best loss changed
since the last checkpoint. The radius goes 2 epsilon -> 1.5 epsilon -> epsilon over 0.3 / 0.3 / 0.4 of the steps, each stage starting from
the projected best point of the one before; only the last stage's iterates are inside the ball and may be returned.

Shapes: x (B, C, *spatial); every case has its own step size. Deviation from the paper for masked CE: it fades where the attack has won, so
the step rule follows it as published but the returned iterate is chosen by CE (losses.judge_of).
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.base import (
    AttackResult,
    BestIterate,
    DifferentiableModel,
    check_steps,
    project_onto_ball,
    random_start,
    step_direction,
)
from nnunetv2_lngswr.attacks.losses import Loss, SegmentationTarget, get_loss, judge_of
from nnunetv2_lngswr.attacks.threat_model import Ball

RADII = (2.0, 1.5, 1.0)
FRACTIONS = (0.3, 0.3, 0.4)
MOMENTUM = 0.75
RHO = 0.75


def apgd(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 40,
    restarts: int = 1,
    loss: str = "ce",
    radius_schedule: bool = True,
) -> AttackResult:
    """Auto-PGD in the ball's norm. `loss`: ce, masked_ce or js (any of losses.LOSSES). Without `radius_schedule`, one stage at epsilon.
    `extras['step_sizes']`: (steps, B), in units of epsilon's unit, of the last restart; fewer steps where Dice reached 0."""
    check_steps(steps, restarts)
    search = BestIterate(x, target, ball)
    stages = _stages(steps) if radius_schedule else [(1.0, steps)]
    for _ in range(restarts):
        if search.solved:
            break
        current, sizes = None, []
        for factor, count in stages:
            stage_ball = ball.enlarged(factor)
            start = (
                random_start(x, stage_ball, generator)
                if current is None
                else project_onto_ball(current, x, stage_ball)
            )
            current, stage_sizes = _stage(
                model,
                search,
                x,
                start,
                target,
                stage_ball,
                get_loss(loss),
                judge_of(loss),
                steps=count,
                eligible=factor == 1.0,
            )
            sizes.append(stage_sizes)
    settings = {
        "steps": steps,
        "restarts": restarts,
        "loss": loss,
        "radius_schedule": radius_schedule,
        "rho": RHO,
        "momentum": MOMENTUM,
    }
    return search.result("apgd", settings=settings, extras={"step_sizes": torch.cat(sizes).cpu()})


def _stages(steps: int) -> list[tuple[float, int]]:
    """(radius factor, steps) of each stage; the steps add up and the last stage gets at least one."""
    counts = [int(f * steps) for f in FRACTIONS[:-1]]
    return [(r, n) for r, n in zip(RADII, [*counts, steps - sum(counts)]) if n > 0]


def _stage(
    model: DifferentiableModel,
    search: BestIterate,
    x: torch.Tensor,
    start: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    ascended: Loss,
    judge: Loss,
    *,
    steps: int,
    eligible: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the best point by the ascended loss, step sizes (steps, B))."""

    def evaluate(point):
        return search.gradient(
            model,
            point,
            lambda z: ascended(z, target),
            lambda z: judge(z, target),
            eligible=eligible,
        )

    interval, shortest, shrink = (
        max(int(0.22 * steps), 1),
        max(int(0.06 * steps), 1),
        max(int(0.03 * steps), 1),
    )
    shape = (-1, *[1] * (x.ndim - 1))
    size = x.new_full((len(x),), 2 * ball.epsilon)
    current = previous = start
    value, gradient = evaluate(current)
    best, best_value, best_gradient = current, value.clone(), gradient
    value_at_check, reduced_at_check = best_value.clone(), torch.ones_like(value, dtype=torch.bool)
    since_check, rises, last_value, sizes = 0, torch.zeros_like(value), value, []
    for k in range(steps):
        sizes.append(size.clone())
        a = 1.0 if k == 0 else MOMENTUM
        stepped = project_onto_ball(
            current + size.reshape(shape) * step_direction(gradient, ball), x, ball
        )
        moved = project_onto_ball(
            current + a * (stepped - current) + (1 - a) * (current - previous), x, ball
        )
        previous, current = current, moved
        value, gradient = evaluate(current)
        if search.solved:
            break
        better = value > best_value
        keep = better.reshape(shape)
        best, best_gradient = (
            torch.where(keep, current, best),
            torch.where(keep, gradient, best_gradient),
        )
        best_value = torch.where(better, value, best_value)
        rises, last_value = rises + (value > last_value), value
        since_check += 1
        if since_check == interval:
            oscillates = rises <= RHO * interval
            stuck = ~reduced_at_check & (value_at_check >= best_value)
            reduce = oscillates | stuck
            size = torch.where(reduce, size / 2, size)
            back = reduce.reshape(shape)
            current, gradient = (
                torch.where(back, best, current),
                torch.where(back, best_gradient, gradient),
            )
            # the loss to compare the next step with is the one at the point that we went back to
            last_value = torch.where(reduce, best_value, last_value)
            value_at_check, reduced_at_check = best_value.clone(), reduce
            since_check, rises = 0, torch.zeros_like(rises)
            interval = max(interval - shrink, shortest)
    return best, torch.stack(sizes)
