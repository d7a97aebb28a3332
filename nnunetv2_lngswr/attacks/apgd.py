"""Auto-PGD (Croce & Hein, ICML 2020), with the losses and radii of SEA (Croce et al. 2023).

One stage of T steps in a ball of radius e, starting with step size eta = 2 e:

    v       = P(x_k + eta d(grad)),
    x_{k+1} = P(x_k + a (v - x_k) + (1 - a) (x_k - x_{k-1})),   a = 0.75 (1 in the first step).

At checkpoints after w_j steps, w_1 = 0.22 T and then each interval 0.03 T shorter, at least 0.06 T,
eta is halved and the ascent goes back to the best point when

    (1) the loss rose in at most 0.75 of the interval's steps (as in the authors' code), or
    (2) neither eta nor the best loss changed since the last checkpoint.

The radius goes 2 epsilon -> 1.5 epsilon -> epsilon over 0.3 / 0.3 / 0.4 of the steps, each stage
starting from the projected best point of the one before; only the last stage's iterates are inside
the ball and may be returned.

Shapes: x (B, C, *spatial); every case has its own step size. Deviation from the papers: the step
rule follows the loss as published, but the returned iterate is the one of lowest Dice
(best_iterate.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from nnunetv2_lngswr.attacks.best_iterate import AttackResult, BestIterate, check_steps
from nnunetv2_lngswr.attacks.geometry import (
    like_cases,
    project_onto_ball,
    random_start,
    step_direction,
)
from nnunetv2_lngswr.attacks.losses import Loss, SegmentationTarget, get_loss, judge_of
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.threat_model import Ball

RADII = (2.0, 1.5, 1.0)
FRACTIONS = (0.3, 0.3, 0.4)
MOMENTUM = 0.75
RHO = 0.75

Evaluate = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""point -> (loss (B,), gradient)"""


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
    """Auto-PGD in the ball's norm.

    Parameters
    ----------
    model, x, target, ball, generator
        As in `registry.run_attack`.
    steps, restarts
        Steps per restart over all stages, and restarts.
    loss
        ce, masked_ce or js, as published; any of `losses.LOSSES` is taken.
    radius_schedule
        False: one stage at epsilon.

    Returns
    -------
    AttackResult
        `extras['step_sizes']`: (steps, B), in units of epsilon's unit, of the last restart; fewer
        steps where Dice reached 0.
    """
    best = BestIterate(x, target, ball)
    sizes = ascend_in_stages(
        best,
        model,
        get_loss(loss),
        judge_of(loss),
        start_in=lambda restart, first_ball: random_start(x, first_ball, generator),
        steps=steps,
        restarts=restarts,
        radius_schedule=radius_schedule,
    )
    settings = {"steps": steps, "restarts": restarts, "loss": loss}
    return best.result(
        "apgd",
        settings={**settings, **fixed_settings(radius_schedule)},
        extras={"step_sizes": sizes},
    )


def ascend_in_stages(
    best: BestIterate,
    model: DifferentiableModel,
    loss: Loss,
    judge: Loss,
    *,
    start_in: Callable[[int, Ball], torch.Tensor],
    steps: int,
    restarts: int,
    radius_schedule: bool,
) -> torch.Tensor:
    """The loop of every Auto-PGD here; what it finds is in `best`.

    Parameters
    ----------
    best
        With the clean cases, their target and the ball.
    model
        What is attacked.
    loss, judge
        What is ascended, and what ranks iterates of equal Dice.
    start_in
        (restart from 0, the first stage's ball) -> a point of it, (B, C, *spatial).
    steps, restarts, radius_schedule
        As in `apgd`.

    Returns
    -------
    torch.Tensor
        (steps, B), the step sizes of the last restart; fewer where Dice reached 0.
    """
    check_steps(steps, restarts)

    def evaluate_in(factor: float) -> Evaluate:
        eligible = factor == 1.0
        return lambda at: best.gradient(model, at, loss, judge, eligible=eligible)

    sizes: list[torch.Tensor] = []
    for restart in best.unsolved(restarts):
        current, sizes = None, []
        for factor, count in _stages(steps) if radius_schedule else [(1.0, steps)]:
            ball = best.ball.enlarged(factor)
            if current is None:
                start = start_in(restart, ball)
            else:
                start = project_onto_ball(current, best.x, ball)
            stage = _Stage(evaluate_in(factor), best.x, ball, start)
            sizes.append(stage.ascend(count, stop=lambda: best.solved))
            current = stage.best
    # none where the start had won already
    return torch.cat(sizes).cpu() if sizes else best.x.new_zeros(0, len(best.x)).cpu()


def fixed_settings(radius_schedule: bool) -> dict[str, bool | float]:
    """What the report says of every Auto-PGD besides."""
    return {"radius_schedule": radius_schedule, "rho": RHO, "momentum": MOMENTUM}


def _stages(steps: int) -> list[tuple[float, int]]:
    """(radius factor, steps) of each stage; they add up, and the last gets at least one step."""
    counts = [int(f * steps) for f in FRACTIONS[:-1]]
    return [(r, n) for r, n in zip(RADII, [*counts, steps - sum(counts)]) if n > 0]


def _checkpoints(steps: int) -> dict[int, int]:
    """{w_j: steps since the checkpoint before}, in whole steps as the authors' code counts them."""
    interval, shortest, shrink = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    found, at = {}, 0
    while at + interval <= steps:
        at += interval
        found[at] = interval
        interval = max(interval - shrink, shortest)
    return found


class _Stage:
    """One stage in one ball. `best`: the best point of each case, by the loss that is ascended."""

    def __init__(
        self, evaluate: Evaluate, x: torch.Tensor, ball: Ball, start: torch.Tensor
    ) -> None:
        self.evaluate, self.x, self.ball = evaluate, x, ball
        self.size = x.new_full((len(x),), 2 * ball.epsilon)
        self.current = self.previous = self.best = start
        self.value, self.gradient = evaluate(start)
        self.best_value, self.best_gradient = self.value, self.gradient
        self.last_value, self.rises = self.value, torch.zeros_like(self.value)
        self.value_at_check = self.value
        self.reduced_at_check = torch.ones_like(self.value, dtype=torch.bool)

    def ascend(self, steps: int, *, stop: Callable[[], bool]) -> torch.Tensor:
        """The step sizes used, (steps, B), fewer where `stop` ended it."""
        sizes, checkpoints = [], _checkpoints(steps)
        for k in range(steps):
            sizes.append(self.size)
            self._move(1.0 if k == 0 else MOMENTUM)
            if stop():
                break
            self._remember()
            if k + 1 in checkpoints:
                self._check(checkpoints[k + 1])
        return torch.stack(sizes)

    def _move(self, a: float) -> None:
        """x_{k+1} as above, and its loss and gradient."""
        current, ball = self.current, self.ball
        step = like_cases(self.size, self.x) * step_direction(self.gradient, ball)
        v = project_onto_ball(current + step, self.x, ball)
        moved = current + a * (v - current) + (1 - a) * (current - self.previous)
        moved = project_onto_ball(moved, self.x, ball)
        self.previous, self.current = current, moved
        self.value, self.gradient = self.evaluate(moved)

    def _remember(self) -> None:
        better = self.value > self.best_value
        keep = like_cases(better, self.x)
        self.best = torch.where(keep, self.current, self.best)
        self.best_gradient = torch.where(keep, self.gradient, self.best_gradient)
        self.best_value = torch.where(better, self.value, self.best_value)
        self.rises = self.rises + (self.value > self.last_value)
        self.last_value = self.value

    def _check(self, interval: int) -> None:
        """Halve the step size and go back to the best point, where condition 1 or 2 holds."""
        oscillates = self.rises <= RHO * interval
        stuck = ~self.reduced_at_check & (self.value_at_check >= self.best_value)
        reduce = oscillates | stuck
        self.size = torch.where(reduce, self.size / 2, self.size)
        back = like_cases(reduce, self.x)
        self.current = torch.where(back, self.best, self.current)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)
        # the loss to compare the next step with is the one at the point that we went back to
        self.last_value = torch.where(reduce, self.best_value, self.last_value)
        self.value_at_check, self.reduced_at_check = self.best_value, reduce
        self.rises = torch.zeros_like(self.rises)
