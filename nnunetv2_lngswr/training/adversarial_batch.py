"""Adversarial training on one batch: the attack, its targets, and which samples it is for.

The attacks are those of `attacks`, the same that `evaluation` runs; a network is attacked here as
there: in eval mode, with frozen parameters, at full resolution (`attacks.models.BatchModel`). So
crafting leaves the parameters' gradients, the optimiser, the gradient scaler, the normalisation
statistics, LNG-SWR's priors and its noise streams alone, attacks the function that is deployed
rather than a noisy draw of it, and costs no noise. nnU-Net's networks normalise by instance: for
them eval mode is train mode.

The network is to be the bare module: DDP's wrapper would wait for the other ranks, and
torch.compile's would compile once more.

Shapes: x (B, C, *spatial), preprocessed units; one ball per sample (attacks.threat_model).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from nnunetv2_lngswr.attacks.best_iterate import finite_or_zero
from nnunetv2_lngswr.attacks.geometry import random_start
from nnunetv2_lngswr.attacks.losses import LabelSpace, SegmentationTarget, get_loss
from nnunetv2_lngswr.attacks.models import BatchModel
from nnunetv2_lngswr.attacks.pgd import last_iterate
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.utils.errors import UserError

Attack = Callable[..., Tensor]
"""(network, x, target, ball, *, autocast) -> attacked samples, as `craft` with all else given."""


def craft(
    network: nn.Module,
    x: Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    steps: int,
    relative_step_size: float,
    generator: torch.Generator,
    loss: str = "ce",
    unprojected_noise: float | None = None,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """FGSM with random start for one step, PGD for more: the last of the projected ascent steps.

    Unlike in the evaluation the last one is not judged: a forward pass less.

    Parameters
    ----------
    network
        The bare module.
    x, target, ball
        Samples, what they are, and how far each may move.
    steps, relative_step_size
        Gradients; in units of epsilon.
    generator
        Of the random start.
    loss
        What is ascended, a name of attacks.losses.
    unprojected_noise
        As `ATConfig.unprojected_noise`; one step is then N-FGSM (de Jorge et al. 2022), and ends
        where it takes the samples, but for the range of their intensities.
    autocast
        As BatchModel.

    Returns
    -------
    (B, C, *spatial)

    Raises
    ------
    UserError
        x is not floating point.
    """
    _refuse_integers(x)
    model, ascended = BatchModel(network, autocast=autocast), get_loss(loss)
    size, around = relative_step_size * ball.epsilon, ball
    if unprojected_noise is not None:
        around = ball.enlarged(unprojected_noise)
        ball = ball.enlarged(unprojected_noise + steps * relative_step_size)  # out of reach

    def gradient_at(step: int, current: Tensor) -> Tensor:
        return finite_or_zero(model.value_and_gradient(current, lambda z: ascended(z, target))[1])

    start = random_start(x, around, generator)
    return last_iterate(x, ball, gradient_at, start=start, steps=steps, size=size)


def _refuse_integers(x: Tensor) -> None:
    if not x.is_floating_point():
        raise UserError(
            f"adversarial training needs floating-point images, got {x.dtype}: gradient steps are "
            "lost in integers"
        )


def batch_target(target: Tensor, space: LabelSpace) -> SegmentationTarget:
    """The attacks' target from nnU-Net's.

    Parameters
    ----------
    target
        At full resolution: (B, 1, *spatial) labels, or for regions (B, R, *spatial) and one channel
        more for ignored voxels.
    space
        What the network's outputs mean.
    """
    if not space.regions:
        return space.target(target[:, 0])
    return SegmentationTarget(
        one_hot=target[:, : len(space.heads)].bool(),
        mask=counted_voxels(target, space),
        regions=True,
        written_by=space.written_by,
    )


def counted_voxels(target: Tensor, space: LabelSpace) -> Tensor:
    """The mask (B, 1, *spatial) of what counts in nnU-Net's target, at any resolution.

    `target` is as in `batch_target`; nothing is read back from the device.
    """
    if space.ignore_label is None:
        return torch.ones_like(target[:, :1], dtype=torch.bool)
    if space.regions:
        return ~target[:, len(space.heads) : len(space.heads) + 1].bool()
    return target[:, :1] != space.ignore_label


def attacked_samples(
    step: int, batch_size: int, clean_share: float, generator: torch.Generator
) -> Tensor:
    """Which samples to attack: random ones, since nnU-Net puts foreground into the last of a batch.

    Parameters
    ----------
    step
        0, 1, ...
    batch_size
        Samples of each batch.
    clean_share
        Over n steps exactly floor(n batch_size clean_share) samples stay clean.
    generator
        Of the choice.

    Returns
    -------
    Sorted indices
    """

    def clean_until(step: int) -> int:
        return math.floor(step * batch_size * clean_share)

    clean = clean_until(step + 1) - clean_until(step)
    return torch.randperm(batch_size, generator=generator)[clean:].sort().values


def at_every_resolution(
    function: Callable[[Tensor], Tensor], target: Tensor | list[Tensor]
) -> Tensor | list[Tensor]:
    """`function` of nnU-Net's target, or of each of those of deep supervision."""
    return [function(t) for t in target] if isinstance(target, list) else function(target)


def full_resolution(target: Tensor | list[Tensor]) -> Tensor:
    """Of the targets of deep supervision the first, or nnU-Net's only one."""
    return target[0] if isinstance(target, list) else target
