"""The Dice of a prediction as it would be exported: what attacks choose their points by."""

from __future__ import annotations

import torch

from nnunetv2_lngswr.attacks.losses import SegmentationTarget


@torch.no_grad()
def foreground_dice(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """Hard Dice of logits on the grid of the target, (B,) float64.

    The mean over the foreground heads that are in the ground truth or the prediction; nan where no
    head is.
    """
    predicted = predicted_heads(z, target) & target.mask
    truth = target.foreground_heads & target.mask
    overlap = (predicted & truth).flatten(2).sum(2).cpu().double()  # MPS has no float64
    size = (predicted.flatten(2).sum(2) + truth.flatten(2).sum(2)).cpu().double()
    return torch.nanmean(2 * overlap / size, 1)


@torch.no_grad()
def predicted_heads(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """(B, foreground heads, *spatial) bool: what each stands for in the exported segmentation.

    Regions are those of nnU-Net's label map, where a later head writes over an earlier one: of
    heads that contradict each other only the last is seen.
    """
    if not target.regions:
        labels = z.argmax(1)  # once, it costs as much as a gradient where labels are many
        return torch.stack([labels == k for k in range(1, z.shape[1])], 1)
    if target.written_by is None:
        return z > 0
    number = torch.arange(1, z.shape[1] + 1, device=z.device).reshape(-1, *[1] * (z.ndim - 2))
    last = ((z > 0) * number).amax(1)  # 0: no head wrote
    written = [number.flatten()[list(heads)] for heads in target.written_by]
    return torch.stack([torch.isin(last, numbers) for numbers in written], 1)
