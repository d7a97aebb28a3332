"""Projected gradient ascent (Madry et al. 2018) in the Linf and the L2 ball; FGSM, SegPGD and CosPGD are settings of the same loop.

    x_0 = start,   x_{t+1} = P(x_t + size * d(grad L_t(x_t))),   d = sign (Linf) or gradient / RMS (L2), sizes in units of epsilon.

T steps cost T gradients and one forward pass, which judges the last iterate; fewer where Dice reaches 0 before. Shapes: x (B, C, *spatial), one ball per case.
"""

from __future__ import annotations

from collections.abc import Callable

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
from nnunetv2_lngswr.utils.errors import UserError


def pgd(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    generator: torch.Generator,
    steps: int = 20,
    restarts: int = 1,
    loss: str = "ce",
    step_size: float | None = None,
    random_start: bool = True,
) -> AttackResult:
    """PGD in the ball's norm. `loss`: a name of losses.LOSSES. `step_size`: in units of epsilon's unit, default 2.5 epsilon / steps."""
    ascended = get_loss(loss)
    return ascend(
        model,
        x,
        target,
        ball,
        name=f"pgd_{ball.norm.value}",
        loss_at=lambda step: ascended,
        loss_name=loss,
        generator=generator,
        steps=steps,
        restarts=restarts,
        step_size=step_size,
        from_random=random_start,
    )


def ascend(
    model: DifferentiableModel,
    x: torch.Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    name: str,
    loss_at: Callable[[int], Loss],
    loss_name: str,
    generator: torch.Generator,
    steps: int,
    restarts: int,
    step_size: float | None,
    from_random: bool,
) -> AttackResult:
    """The shared loop. `loss_at(t)`: the loss ascended in step t = 1 .. steps; iterates are judged by `judge_of(loss_name)`."""
    check_steps(steps, restarts)
    size = 2.5 * ball.epsilon / steps if step_size is None else step_size
    if size < 0 or (size == 0 and ball.epsilon > 0):
        raise UserError(f"step_size must be > 0, got {step_size}")
    judge = judge_of(loss_name)
    search = BestIterate(x, target, ball)
    for _ in range(restarts):
        if search.solved:
            break
        start = random_start(x, ball, generator) if from_random else x

        def gradient_at(step: int, current: torch.Tensor) -> torch.Tensor:
            ascended = loss_at(step)
            return search.gradient(
                model, current, lambda z: ascended(z, target), lambda z: judge(z, target)
            )[1]

        last = last_iterate(
            x, ball, gradient_at, start=start, steps=steps, size=size, stop=lambda: search.solved
        )
        if not search.solved:
            search.evaluate(model, last, lambda z: judge(z, target))
    settings = {
        "steps": steps,
        "restarts": restarts,
        "step_size": size,
        "loss": loss_name,
        "random_start": from_random,
    }
    return search.result(name, settings=settings)


def last_iterate(
    x: torch.Tensor,
    ball: Ball,
    gradient_at: Callable[[int, torch.Tensor], torch.Tensor],
    *,
    start: torch.Tensor,
    steps: int,
    size: float,
    stop: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """x_T of the recursion above, unjudged, at the cost of T gradients. `gradient_at(t, x_{t-1})`, t = 1 .. steps; `size` of a step in units
    of epsilon's unit; `stop`, asked after each gradient, ends it at the iterate of that gradient."""
    current = start
    for step in range(1, steps + 1):
        gradient = gradient_at(step, current)
        if stop():
            break
        current = project_onto_ball(current + size * step_direction(gradient, ball), x, ball)
    return current
