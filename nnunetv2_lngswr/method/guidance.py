"""Guided noise: a step along the gradient that a sample's last training step left at a feature map.

    x <- x + size * sd(x) * sign(dL/dx of the last step)

x is (N, C, *spatial), sd(x) the standard deviation of each channel. This is "free" adversarial
training (Shafahi et al. 2019) of the image and of every stage (adversarial noise propagation, Liu
et al., arXiv 1909.09034): the direction comes from the backward pass of training itself, and where
the samples of a batch come and go, it goes with them.

The direction is a leaf of the graph, and what the backward pass leaves in its gradient is the next
one: that works in eager code and compiled, where hooks on what is in between do not. It is given
the gradient of x itself, not that of its own small step, which fp16 would round to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Guidance(nn.Module):
    """Adds the step in train mode; the identity in eval mode.

    Has no parameters, and nothing in the state dict. The buffer `strength`, in [0, 1], scales the
    size.

    Parameters
    ----------
    size
        Of the step, in standard deviations of the channel.
    """

    strength: Tensor

    def __init__(self, size: float):
        super().__init__()
        self.size = float(size)
        # a tensor: compiled code is not compiled anew when it changes
        self.register_buffer("strength", torch.ones(()), persistent=False)
        self.direction: Tensor | None = None  # (N, C, *spatial) of -1, 0 and 1
        self._seen: tuple[torch.Size, torch.dtype, torch.device] | None = None

    def forward(self, x: Tensor, sd: Tensor) -> Tensor:
        """x, and the step where a direction is known.

        Parameters
        ----------
        x
            (N, C, *spatial).
        sd
            (C,), the channels' standard deviation.
        """
        if not self.training:
            return x
        direction = self.direction
        if direction is None or direction.shape != x.shape:  # another batch than the training's
            self._seen = (x.shape, x.dtype, x.device)
            return x
        step = (sd * self.strength).view(1, -1, *[1] * (x.ndim - 2)) * self.size
        return _Step.apply(x, step, direction)

    @torch.no_grad()
    def pass_on(self, new: int) -> None:
        """Take the direction of the step that is done, for a batch in which the first `new`
        samples have left and as many have come at the end, of which none is known."""
        if self.direction is None:
            if self._seen is not None:
                shape, dtype, device = self._seen
                self.direction = torch.zeros(shape, dtype=dtype, device=device, requires_grad=True)
            return
        gradient = self.direction.grad
        kept = torch.zeros_like(self.direction)
        if gradient is not None:
            # a multiple of the gradient under a gradient scaler, which the sign does not show
            kept[: len(kept) - new] = torch.nan_to_num(gradient[new:]).sign()
        self.direction.copy_(kept)
        self.direction.grad = None

    def restart(self) -> None:
        """Know nothing of any sample."""
        self.direction = self._seen = None

    def extra_repr(self) -> str:
        return f"size={self.size}"


class _Step(torch.autograd.Function):
    """x + step * direction, where the direction's gradient is that of x."""

    @staticmethod
    def forward(ctx, x: Tensor, step: Tensor, direction: Tensor) -> Tensor:
        return x + (step * direction).to(x.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad, None, grad
