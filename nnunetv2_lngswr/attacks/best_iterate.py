"""The best iterate that an attack has seen, case by case, and the result it hands back.

The best is the one of lowest foreground Dice on the preprocessed grid, and of the highest judged
loss among equals: Dice is what is reported, and a loss can rise without it falling. A Dice that is
undefined (no foreground anywhere) is above every other; what has no finite loss never wins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch

from nnunetv2_lngswr.attacks.geometry import like_cases, perturbation_norms
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from nnunetv2_lngswr.attacks.losses import Loss, SegmentationTarget, per_case
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found."""

    attack: str
    """Its registered name."""
    perturbed: torch.Tensor
    """(B, C, *spatial), the best iterate of each case; the clean case where no loss was finite."""
    loss: torch.Tensor
    """(B,), its judged loss; nan where none was finite."""
    loss_history: torch.Tensor
    """(evaluations, B), the judged loss of every candidate in order, over all restarts."""
    dice: torch.Tensor
    """(B,), foreground Dice of `perturbed` on the preprocessed grid.

    What iterates are chosen by; reported Dice comes from the exported segmentation.
    """
    dice_history: torch.Tensor
    """(evaluations, B), that of every candidate in order; nan where undefined."""
    judged_at: Sequence[int]
    """The number of evaluations at every candidate, itself counted."""
    non_finite: torch.Tensor
    """(B,), evaluations at which the loss or its gradient was not finite."""
    norms: Mapping[str, torch.Tensor]
    """As `geometry.perturbation_norms`."""
    forwards: int
    """Evaluations of the model without a gradient."""
    gradients: int
    """Evaluations of the model with a gradient."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Options as used, for the report."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Figures of this attack alone, such as the low-frequency distance of ssah."""
    late_fall_of: tuple[int, int] | None = None
    """(candidates, evaluations), the first ones, that `late_fall` looks at; None: all."""

    @property
    def queries(self) -> int:
        """Evaluations of the model, with or without a gradient."""
        return self.forwards + self.gradients

    @property
    def best_dice_history(self) -> torch.Tensor:
        """(evaluations, B), the lowest Dice so far: never rises; nan where none is defined."""
        lowest = _highest_if_undefined(self.dice_history).cummin(0).values
        return torch.where(lowest.isfinite(), lowest, float("nan"))

    @property
    def late_fall(self) -> torch.Tensor:
        """(B,), how far the lowest Dice fell over the last quarter of the evaluations.

        Iterates at larger radii are evaluations and no candidates. 0 where it reached 0, since no
        further step lowers it; nan where there were fewer than three candidates, or where Dice is
        undefined.
        """
        candidates, queries = self.late_fall_of or (len(self.judged_at), self.queries)
        lowest = self.best_dice_history[:candidates]
        if len(lowest) < 3:
            return torch.where(lowest[-1] == 0, 0.0, float("nan"))
        early = queries - max(round(queries / 4), 1)
        before = sum(at <= early for at in self.judged_at[:candidates])
        return torch.where(lowest[-1] == 0, 0.0, lowest[max(before, 1) - 1] - lowest[-1])

    def named(self, attack: str) -> AttackResult:
        """The same result under another attack's name."""
        return replace(self, attack=attack)


class BestIterate:
    """Best iterate per case: attacks offer candidates with their judged loss, `result` closes.

    A higher judged loss is worse for the model.

    Parameters
    ----------
    x
        (B, C, *spatial), the clean cases.
    target
        Their ground truth, which every loss is taken against.
    ball
        What may be changed.
    """

    def __init__(self, x: torch.Tensor, target: SegmentationTarget, ball: Ball) -> None:
        self.x, self.target, self.ball = x, target, ball
        self.history: list[torch.Tensor] = []
        self.dice_history: list[torch.Tensor] = []
        self.judged_at: list[int] = []
        self.forwards = self.gradients = 0
        self.late_fall_of: tuple[int, int] | None = None
        self.non_finite = torch.zeros(len(x), dtype=torch.long)
        self.best = x.clone()
        self.best_value = torch.full((len(x),), -float("inf"), dtype=torch.float64)
        self.best_dice = torch.full_like(self.best_value, float("nan"))

    def evaluate(self, model: DifferentiableModel, x: torch.Tensor, judge: Loss) -> torch.Tensor:
        """Judge x with a forward pass only and offer it; (B,) loss, -inf where not finite."""
        z = model.logits(x)
        self.forwards += 1
        value = per_case(judge(z, self.target))
        self.count_non_finite(value)
        self.offer(x, value, z)
        return _weakest_if_not_finite(value)

    def gradient(
        self,
        model: DifferentiableModel,
        x: torch.Tensor,
        loss: Loss,
        judge: Loss,
        *,
        eligible: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Ascend `loss` at x, and offer x under `judge` unless it is not `eligible`.

        Returns
        -------
        tuple
            The loss (B,), -inf where it is not finite, and its gradient (B, C, *spatial), 0 where
            it is not.
        """
        value, gradient, z = model.value_and_gradient(x, lambda z: loss(z, self.target))
        self.gradients += 1
        judged = value
        if eligible:
            with torch.no_grad():
                judged = per_case(judge(z, self.target))
            self.offer(x, judged, z)
        self.count_non_finite(value, judged, gradient)
        return _weakest_if_not_finite(value), finite_or_zero(gradient)

    def count_non_finite(self, *values: torch.Tensor) -> None:
        """Count an evaluation in each case in which any of these, (B, ...), is not finite."""
        finite = torch.stack([v[:, None].isfinite().flatten(1).all(1) for v in values])
        self.non_finite += (~finite.all(0)).cpu()

    def offer(self, x: torch.Tensor, value: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Keep x where it is the best so far; (B,) bool of the cases that improved.

        Parameters
        ----------
        x
            (B, C, *spatial), the candidate.
        value
            (B,), its judged loss.
        z
            (B, K, *spatial), its logits, for the Dice.
        """
        self.history.append(value.detach().cpu().double())  # MPS has no float64
        self.judged_at.append(self.forwards + self.gradients)
        value = _weakest_if_not_finite(self.history[-1])
        # the argmax of nan says nothing, and would be background
        dice = torch.where(value.isfinite(), foreground_dice(z, self.target), float("nan"))
        self.dice_history.append(dice)
        ours, held = _highest_if_undefined(dice), _highest_if_undefined(self.best_dice)
        better = (ours < held) | ((ours == held) & (value > self.best_value))
        self.best = torch.where(like_cases(better, x), x, self.best)
        self.best_value = torch.where(better, value, self.best_value)
        self.best_dice = torch.where(better, dice, self.best_dice)
        return better

    @property
    def solved(self) -> bool:
        """Whether Dice is 0 in the best iterate of every case: no further step lowers it."""
        return bool(self.history) and bool((self.best_dice == 0).all())

    def unsolved(self, restarts: int) -> Iterator[int]:
        """range(restarts), ended before the restart that has nothing left to lower."""
        return takewhile(lambda _: not self.solved, range(restarts))

    def result(
        self, attack: str, *, settings: Mapping[str, Any], extras: Mapping[str, Any] | None = None
    ) -> AttackResult:
        """What was found; norm and epsilon of the ball lead the settings."""
        return AttackResult(
            attack=attack,
            perturbed=self.best,
            loss=torch.where(self.best_value.isfinite(), self.best_value, float("nan")),
            loss_history=torch.stack(self.history),
            dice=self.best_dice,
            dice_history=torch.stack(self.dice_history),
            judged_at=self.judged_at,
            non_finite=self.non_finite,
            norms=perturbation_norms(self.best, self.x, self.ball.bounds),
            forwards=self.forwards,
            gradients=self.gradients,
            settings={"norm": self.ball.norm.value, "epsilon": self.ball.epsilon, **settings},
            extras=extras or {},
            late_fall_of=self.late_fall_of,
        )


def check_steps(steps: int, restarts: int = 1) -> None:
    """UserError unless both are at least 1."""
    if steps < 1:
        raise UserError(f"steps must be >= 1, got {steps}")
    if restarts < 1:
        raise UserError(f"restarts must be >= 1, got {restarts}")


def finite_or_zero(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient, 0 where it is not finite: it says nothing there, and the attack goes on."""
    return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)


def _weakest_if_not_finite(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value.isfinite(), value, -float("inf"))


def _highest_if_undefined(dice: torch.Tensor) -> torch.Tensor:
    return torch.where(dice.isnan(), float("inf"), dice)
