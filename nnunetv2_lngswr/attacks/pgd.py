"""Projected gradient ascent (Madry et al. 2018) in the Linf and the L2 ball.

    x_0 = start,   x_{t+1} = P(x_t + size * d(grad L_t(x_t))),

d = sign (Linf) or gradient / RMS (L2), sizes in units of epsilon. FGSM, SegPGD and CosPGD are
settings of the same loop. T steps cost T gradients and one forward pass, which judges the last
iterate; fewer where Dice reaches 0 before. Shapes: x (B, C, *spatial), one ball per case.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from nnunetv2_lngswr.attacks import geometry
from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate, check_steps
from nnunetv2_lngswr.attacks.geometry import project_onto_ball, step_direction
from nnunetv2_lngswr.attacks.losses import Loss, SegmentationTarget, get_loss, judge_of
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.terms import PGD_PATH
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
    """PGD in the ball's norm.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    steps, restarts
        Gradients per restart, and restarts; the best iterate of all is returned.
    loss
        What is ascended, a name of `losses.LOSSES`.
    step_size
        In units of epsilon's unit; None: 2.5 epsilon / steps.
    random_start
        Start at a random point of the ball, else at the clean case.

    Raises
    ------
    UserError
        An unknown loss, or steps, restarts or a step size that are not positive.
    """
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
    """The loop that PGD and SegPGD share; parameters as in `pgd`, and two of its own.

    Parameters
    ----------
    name
        Of the attack.
    loss_at
        The loss ascended in step t = 1 .. steps.
    loss_name
        Iterates are judged by `judge_of(loss_name)`.
    """
    check_steps(steps, restarts)
    size = PGD_PATH * ball.epsilon / steps if step_size is None else step_size
    if size < 0 or (size == 0 and ball.epsilon > 0):
        raise UserError(f"step_size must be > 0, got {step_size}")
    judge = judge_of(loss_name)
    best = BestIterate(x, target, ball)

    def gradient_at(step: int, current: torch.Tensor) -> torch.Tensor:
        return best.gradient(model, current, loss_at(step), judge)[1]

    for _ in best.unsolved(restarts):
        start = geometry.random_start(x, ball, generator) if from_random else x
        last = last_iterate(
            x, ball, gradient_at, start=start, steps=steps, size=size, stop=lambda: best.solved
        )
        if not best.solved:
            best.evaluate(model, last, judge)
    settings = {
        "steps": steps,
        "restarts": restarts,
        "step_size": size,
        "loss": loss_name,
        "random_start": from_random,
    }
    return best.result(name, settings=settings)


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
    """x_T of the recursion above, unjudged, at the cost of T gradients.

    Parameters
    ----------
    x, ball
        The clean cases (B, C, *spatial) and what may be changed.
    gradient_at
        Called with (t, x_{t-1}), t = 1 .. steps.
    start
        x_0, inside the ball.
    steps, size
        T, and the size of a step in units of epsilon's unit.
    stop
        Asked after each gradient; True ends it at the iterate of that gradient.
    """
    current = start
    for step in range(1, steps + 1):
        gradient = gradient_at(step, current)
        if stop():
            break
        current = project_onto_ball(current + size * step_direction(gradient, ball), x, ball)
    return current
