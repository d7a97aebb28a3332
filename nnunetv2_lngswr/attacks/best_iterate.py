"""The best iterate that an attack has seen, case by case, and the result it hands back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any

import torch

from nnunetv2_lngswr.attacks.geometry import like_cases, perturbation_norms
from nnunetv2_lngswr.attacks.losses import Loss, SegmentationTarget, foreground_dice, per_case
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """What an attack found."""

    attack: str
    """Its registered name."""
    perturbed: torch.Tensor
    """(B, C, *spatial), the best iterate of each case."""
    loss: torch.Tensor
    """(B,), its judged loss."""
    loss_history: torch.Tensor
    """(evaluations, B), the judged loss of every candidate in order, over all restarts."""
    dice: torch.Tensor
    """(B,), foreground Dice of `perturbed` on the preprocessed grid.

    A diagnostic; reported Dice comes from the exported segmentation.
    """
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

    @property
    def queries(self) -> int:
        """Evaluations of the model, with or without a gradient."""
        return self.forwards + self.gradients

    @property
    def best_loss_history(self) -> torch.Tensor:
        """(evaluations, B), the best loss so far: never falls."""
        return self.loss_history.cummax(0).values

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
        self.forwards = self.gradients = 0

    def evaluate(self, model: DifferentiableModel, x: torch.Tensor, judge: Loss) -> torch.Tensor:
        """Judge x with a forward pass only and offer it; (B,) loss."""
        z = model.logits(x)
        self.forwards += 1
        value = per_case(judge(z, self.target))
        self.offer(x, value, z)
        return value

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
            The loss (B,) and its gradient (B, C, *spatial).
        """
        value, gradient, z = model.value_and_gradient(x, lambda z: loss(z, self.target))
        self.gradients += 1
        if eligible:
            with torch.no_grad():
                self.offer(x, per_case(judge(z, self.target)), z)
        return value, gradient

    def offer(self, x: torch.Tensor, value: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Keep x where its value (B,) is the best so far; (B,) bool of the cases that improved.

        `z`: its logits, for the Dice.
        """
        value = value.detach().cpu().double()  # MPS has no float64
        dice = foreground_dice(z, self.target)
        if not self.history:
            self.best, self.best_value, self.best_dice = x.clone(), value.clone(), dice
            better = torch.ones_like(value, dtype=torch.bool)
        else:
            better = value > self.best_value
            self.best = torch.where(like_cases(better, x), x, self.best)
            self.best_value = torch.where(better, value, self.best_value)
            self.best_dice = torch.where(better, dice, self.best_dice)
        self.history.append(value)
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
            loss=self.best_value,
            loss_history=torch.stack(self.history),
            dice=self.best_dice,
            norms=perturbation_norms(self.best, self.x, self.ball.bounds),
            forwards=self.forwards,
            gradients=self.gradients,
            settings={"norm": self.ball.norm.value, "epsilon": self.ball.epsilon, **settings},
            extras=extras or {},
        )


def check_steps(steps: int, restarts: int = 1) -> None:
    """UserError unless both are at least 1."""
    if steps < 1:
        raise UserError(f"steps must be >= 1, got {steps}")
    if restarts < 1:
        raise UserError(f"restarts must be >= 1, got {restarts}")
