"""TRADES (Zhang et al. 2019): attacked samples are held to the prediction of the clean ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.training.adversarial_batch import counted_voxels


class ConsistencyLoss:
    """loss(clean, target) + weight * KL(p(clean) || p(attacked)), equation 5.

    Parameters
    ----------
    loss
        nnU-Net's, on one output or on the list of deep supervision, whose weights
        (`weight_factors`) the KL uses too.
    weight
        Of the KL.
    samples
        (A,), index of the clean sample of each attacked one.
    space
        What the network's outputs mean.
    """

    def __init__(self, loss: Callable, weight: float, samples: Tensor, space: LabelSpace) -> None:
        self.loss, self.weight, self.samples, self.space = loss, weight, samples, space

    def __call__(
        self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> Tensor:
        """The loss of [clean samples; attacked samples].

        Parameters
        ----------
        output
            (B + A, K, *spatial), or one for each level of deep supervision.
        target
            (B, ...) of the clean samples, likewise.
        """
        alone = isinstance(output, Tensor)
        levels = [output] if isinstance(output, Tensor) else output
        targets = [target] if isinstance(target, Tensor) else target
        n = len(targets[0])
        clean = [z[:n] for z in levels]
        value = self.loss(clean[0] if alone else clean, target)
        factors = getattr(self.loss, "weight_factors", [1.0])
        for factor, z, z_clean, t in zip(factors, levels, clean, targets):
            if factor:
                mask = counted_voxels(t[self.samples], self.space)
                value = value + self.weight * factor * divergence(
                    z_clean[self.samples], z[n:], mask, regions=self.space.regions
                )
        return value


def divergence(z: Tensor, other: Tensor, mask: Tensor, *, regions: bool) -> Tensor:
    """KL(p(z) || p(other)), mean over the voxels of the mask and over regions.

    Parameters
    ----------
    z, other
        (B, K, *spatial) logits.
    mask
        (B, 1, *spatial).
    regions
        One sigmoid per output, rather than a softmax over them.

    Returns
    -------
    A scalar, in fp32 or better
    """
    z, other = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (z, other))
    if regions:
        kl = F.logsigmoid(z).exp() * (F.logsigmoid(z) - F.logsigmoid(other))
        kl = kl + F.logsigmoid(-z).exp() * (F.logsigmoid(-z) - F.logsigmoid(-other))
    else:
        log_p, log_q = z.log_softmax(1), other.log_softmax(1)
        kl = (log_p.exp() * (log_p - log_q)).sum(1, keepdim=True)
    return (kl * mask).sum() / (mask.sum() * kl.shape[1]).clamp_min(1)
