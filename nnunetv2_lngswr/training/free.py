"""Free adversarial training (Shafahi et al. 2019): each batch is trained on several times.

The gradient of one step's training moves the perturbation of the next, which costs no pass of its
own; what was learned about one batch is carried to the next. Where samples come and go one share
at a time (`rolling`), it stays with its sample instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from nnunetv2_lngswr.attacks.best_iterate import finite_or_zero
from nnunetv2_lngswr.attacks.geometry import like_channels, project_onto_ball, step_direction
from nnunetv2_lngswr.attacks.threat_model import Ball


class Perturbation:
    """What is carried from step to step, in units of the intensity range, as published."""

    def __init__(self) -> None:
        self._carried: Tensor | None = None

    def added_to(self, x: Tensor, ball: Ball, clean: Tensor) -> Tensor:
        """x with the perturbation: a leaf, whose gradient `move` wants.

        Parameters
        ----------
        x, ball
            (B, C, *spatial), and how far each sample may move.
        clean
            (B,), which samples stay as they are.
        """
        carried = torch.zeros_like(x)
        if self._carried is not None:
            carried = self._carried * like_channels(ball.scale, x)
        carried[clean] = 0
        return project_onto_ball(x + carried, x, ball).requires_grad_()

    def pass_on(self, new: int) -> None:
        """Drop what the `new` first samples have, and begin as many at the end with none."""
        if self._carried is not None:
            left = torch.zeros_like(self._carried[:new])
            self._carried = torch.cat((self._carried[new:], left))

    def move(self, leaf: Tensor, x: Tensor, ball: Ball, size: float) -> None:
        """A step of `size` along the gradient that the training has left in `leaf`."""
        assert leaf.grad is not None
        # with a gradient scaler this is a multiple of the gradient, which a step's direction does
        # not show
        gradient = finite_or_zero(leaf.grad)
        step = size * step_direction(gradient, ball)
        moved = project_onto_ball(leaf.detach() + step, x, ball) - x
        scale = like_channels(ball.scale, x)
        self._carried = torch.where(scale > 0, moved / torch.where(scale > 0, scale, 1.0), 0.0)


class Replay:
    """An iterator of batches that gives each one `times` times, the same object."""

    def __init__(self, batches: Any, times: int) -> None:
        self.batches, self.times = batches, times
        self.restart()

    def restart(self) -> None:
        """Go on with a new batch."""
        self._left = 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._left == 0:
            self._batch, self._left = next(self.batches), self.times
        self._left -= 1
        return self._batch
