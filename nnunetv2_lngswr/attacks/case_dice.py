"""Soft Dice over the case that also sees the labels which a case lacks.

Hard Dice does: one voxel of a label that is not there puts a 0 into the case's mean. Shapes as in
losses.py.
"""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.losses import (
    Loss,
    SegmentationTarget,
    mean_margin,
    sharpened,
    soft_dice_of_heads,
)
from nnunetv2_lngswr.attacks.terms import check_temperature


def case_dice_loss(temperature: float = 1.0, *, scale_free: bool = False) -> Loss:
    """`losses.soft_dice_loss` that also sees the heads that the ground truth of a case lacks.

    One voxel of such a head puts a 0 into the case's mean Dice. So the sum of the soft Dice of the
    heads that are there is divided by their number and, for each other one, by how near it is to
    being predicted anywhere: the sigmoid of its largest decision margin over the counted voxels, in
    units of the case's `losses.mean_margin`, softer than p, which is 0 a little off the border.
    Without any head that is there the loss is the largest of these.

    Parameters
    ----------
    temperature, scale_free
        As in `losses.soft_dice_loss`.

    Raises
    ------
    UserError
        A temperature that is not a positive number.
    """
    check_temperature(temperature)

    def loss(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
        dice, present = soft_dice_of_heads(sharpened(z, target, temperature, scale_free), target)
        near = torch.sigmoid(_largest_margins(z, target) / mean_margin(z, target)[:, None])
        absent = (near * ~present).sum(1)
        mean = (dice * present).sum(1) / (present.sum(1) + absent).clamp_min(1)
        return torch.where(present.any(1), 1 - mean, near.amax(1))

    return loss


def lacks_a_label(target: SegmentationTarget) -> torch.Tensor:
    """Whether a case has no counted voxel of one of the foreground heads, (B,)."""
    return ~(target.foreground_heads & target.mask).flatten(2).any(2).all(1)


def _largest_margins(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Of each foreground head over the counted voxels, (B, R): how far it is above the others, or
    of a region above 0."""
    margin = z
    if not target.regions:
        highest = z.topk(2, 1)
        first, second = highest.values.split(1, 1)
        heads = torch.arange(z.shape[1], device=z.device).view(-1, *[1] * (z.ndim - 2))
        # by place, not by value: of two that are equal each is above the other by 0
        others = torch.where(heads == highest.indices[:, :1], second, first)
        margin = (z - others)[:, 1:]
    margin = margin.masked_fill(~target.mask, torch.finfo(margin.dtype).min)
    return margin.flatten(2).amax(2)
