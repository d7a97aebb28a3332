"""Adversarial training on one batch: the attack, the bounds of its patches, the consistency loss, the detector of overfitting.

The attacks are those of `attacks`, the same that `evaluation` runs; a network is attacked here as there: in eval mode, with frozen
parameters, at full resolution (`attacks.models.BatchModel`). So crafting leaves the parameters' gradients, the optimiser, the gradient scaler, the
normalisation statistics, LNG-SWR's priors and its noise streams alone, attacks the function that is deployed rather than a noisy draw
of it, and costs no noise. nnU-Net's networks normalise by instance: for them eval mode is train mode.

The network is to be the bare module: DDP's wrapper would wait for the other ranks, and torch.compile's would compile once more.

Shapes: x (B, C, *spatial), preprocessed units; one ball per sample (attacks.threat_model).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunetv2_lngswr.attacks.geometry import random_start
from nnunetv2_lngswr.attacks.losses import LabelSpace, SegmentationTarget, get_loss
from nnunetv2_lngswr.attacks.models import BatchModel
from nnunetv2_lngswr.attacks.pgd import last_iterate
from nnunetv2_lngswr.attacks.threat_model import Ball, Bounds
from nnunetv2_lngswr.utils.errors import UserError


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
    autocast: torch.dtype | None = None,
) -> Tensor:
    """The last of `steps` projected ascent steps from a random start, (B, C, *spatial): FGSM with random start for one step, PGD for more.

    `relative_step_size`: in units of epsilon. `autocast`: as BatchModel. Unlike the evaluation, which keeps the worst iterate, this
    does not judge the last one: a forward pass less.

    Raises
    ------
    ValueError: x is not floating point.
    """
    if not x.is_floating_point():
        raise UserError(
            f"adversarial training needs floating-point images, got {x.dtype}: gradient steps are lost in integers"
        )
    model, ascended = BatchModel(network, autocast=autocast), get_loss(loss)
    return last_iterate(
        x,
        ball,
        lambda step, current: model.value_and_gradient(current, lambda z: ascended(z, target))[1],
        start=random_start(x, ball, generator),
        steps=steps,
        size=relative_step_size * ball.epsilon,
    )


def batch_target(target: Tensor, space: LabelSpace) -> SegmentationTarget:
    """From nnU-Net's target at full resolution: (B, 1, *spatial) labels, or for regions (B, R [+ 1: ignored voxels], *spatial)."""
    if not space.regions:
        return space.target(target[:, 0])
    return SegmentationTarget(
        one_hot=target[:, : len(space.heads)].bool(),
        mask=counted_voxels(target, space),
        regions=True,
    )


def counted_voxels(target: Tensor, space: LabelSpace) -> Tensor:
    """The mask (B, 1, *spatial) of nnU-Net's target at any resolution, as `batch_target` takes it, and without reading anything back."""
    if space.ignore_label is None:
        return torch.ones_like(target[:, :1], dtype=torch.bool)
    if space.regions:
        return ~target[:, len(space.heads) : len(space.heads) + 1].bool()
    return target[:, :1] != space.ignore_label


def select(target: SegmentationTarget, samples: Tensor) -> SegmentationTarget:
    """The target of some samples, (n,) indices."""
    return SegmentationTarget(
        one_hot=target.one_hot[samples], mask=target.mask[samples], regions=target.regions
    )


class CaseRanges:
    """[min, max] per channel of nnU-Net's preprocessed cases, read from the whole case when it is first asked for, then kept.

    `datasets`: nnU-Net's dataset objects (`identifiers`, `load_case`).
    """

    def __init__(self, *datasets) -> None:
        self._datasets = datasets
        self._known: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, keys: Iterable[str]) -> tuple[Tensor, Tensor]:
        """(minimum, maximum), each (B, image channels) float32 on the CPU.

        Raises
        ------
        ValueError: a case is stored as integers.
        """
        pairs = [self._of(str(key)) for key in keys]
        return tuple(torch.from_numpy(np.stack(values)) for values in zip(*pairs))

    def check_type(self) -> None:
        """ValueError if the first case is stored as integers: preprocessing writes all of one kind."""
        self._images(self._datasets[0].identifiers[0])

    def _of(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        if key not in self._known:
            # one channel in memory at a time
            extremes = [
                (channel.min(), channel.max()) for channel in map(np.asarray, self._images(key))
            ]
            self._known[key] = tuple(np.array(values, np.float32) for values in zip(*extremes))
        return self._known[key]

    def _images(self, key: str):
        dataset = next(d for d in self._datasets if key in d.identifiers)
        images = dataset.load_case(key)[0]
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(
                f"adversarial training needs floating-point images, but the preprocessed case {key} holds {images.dtype}; "
                "preprocess the data set with a normalisation that writes floats, as nnU-Net's do"
            )
        return images


def patch_bounds(
    x: Tensor, case_range: tuple[Tensor, Tensor] | None, image_channels: int
) -> Bounds:
    """Bounds of augmented patches x: [min, max] of their cases, (B, image channels) each, widened to the patch; None: of the patch alone.
    Channels beyond the image's (the previous stage of a cascade) are not attackable."""
    bounds = Bounds.of(x, image_channels=image_channels)
    if case_range is None:
        return bounds
    minimum, maximum = bounds.minimum.clone(), bounds.maximum.clone()
    low, high = (values.to(x, non_blocking=True) for values in case_range)
    minimum[:, :image_channels] = torch.minimum(minimum[:, :image_channels], low)
    maximum[:, :image_channels] = torch.maximum(maximum[:, :image_channels], high)
    return Bounds(minimum=minimum, maximum=maximum, attackable=bounds.attackable)


def ramp(step: float, ramp_steps: float) -> float:
    """Factor of epsilon at a step: linear from 0 to 1 over `ramp_steps` steps; 1 without a ramp."""
    return 1.0 if step >= ramp_steps else step / ramp_steps


def attacked_samples(
    step: int, batch_size: int, clean_share: float, generator: torch.Generator
) -> Tensor:
    """Sorted indices of the samples to attack in step 0, 1, ...: random ones, since nnU-Net puts foreground into the last of a batch. Over
    n steps exactly floor(n batch_size clean_share) samples stay clean."""
    clean_until = lambda s: math.floor(s * batch_size * clean_share)  # noqa: E731
    clean = clean_until(step + 1) - clean_until(step)
    return torch.randperm(batch_size, generator=generator)[clean:].sort().values


class Replay:
    """An iterator of batches that gives each one `times` times, the same object ("free" adversarial training)."""

    def __init__(self, batches: Iterator, times: int) -> None:
        self.batches, self.times = batches, times
        self.restart()

    def restart(self) -> None:
        """Go on with a new batch."""
        self._left = 0

    def __iter__(self) -> Replay:
        return self

    def __next__(self):
        if self._left == 0:
            self._batch, self._left = next(self.batches), self.times
        self._left -= 1
        return self._batch


class ConsistencyLoss:
    """TRADES (Zhang et al. 2019, eq. 5) for outputs of [clean samples; attacked samples]: loss(clean, target) + weight KL(p(clean) || p(attacked)).

    loss: nnU-Net's, on one output or on the list of deep supervision, whose weights (`weight_factors`) the KL uses too.
    samples: (A,) index of the clean sample of each attacked one; outputs are (B + A, K, *spatial), targets (B, ...).
    """

    def __init__(self, loss: Callable, weight: float, samples: Tensor, space: LabelSpace) -> None:
        self.loss, self.weight, self.samples, self.space = loss, weight, samples, space

    def __call__(
        self, output: Tensor | Sequence[Tensor], target: Tensor | Sequence[Tensor]
    ) -> Tensor:
        levels, targets = (
            (output, target) if isinstance(output, (list, tuple)) else ([output], [target])
        )
        n = len(targets[0])
        clean = [z[:n] for z in levels]
        value = self.loss(clean if isinstance(output, (list, tuple)) else clean[0], target)
        for factor, z, z_clean, t in zip(
            getattr(self.loss, "weight_factors", [1.0]), levels, clean, targets
        ):
            if factor:
                mask = counted_voxels(t[self.samples], self.space)
                value = value + self.weight * factor * divergence(
                    z_clean[self.samples], z[n:], mask, regions=self.space.regions
                )
        return value


def divergence(z: Tensor, other: Tensor, mask: Tensor, *, regions: bool) -> Tensor:
    """KL(p(z) || p(other)), mean over the voxels of the mask (B, 1, *spatial) and over regions; a scalar, in fp32 or better."""
    z, other = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (z, other))
    if regions:
        kl = sum(
            F.logsigmoid(s * z).exp() * (F.logsigmoid(s * z) - F.logsigmoid(s * other))
            for s in (1, -1)
        )
    else:
        log_p, log_q = z.log_softmax(1), other.log_softmax(1)
        kl = (log_p.exp() * (log_p - log_q)).sum(1, keepdim=True)
    return (kl * mask).sum() / (mask.sum() * kl.shape[1]).clamp_min(1)


def overfits(fgsm: Sequence[float], pgd: Sequence[float], margin: float) -> bool:
    """Whether the newest epoch shows catastrophic overfitting (Wong et al. 2020): Dice under PGD is more than `margin` below its best epoch's,
    while Dice under FGSM, on the same batches, is at least what it was then. Epochs with nan count for nothing."""
    if (
        not fgsm
        or not np.isfinite((fgsm[-1], pgd[-1])).all()
        or len(pgd) < 2
        or np.isnan(pgd[:-1]).all()
    ):
        return False
    best = int(np.nanargmax(pgd[:-1]))
    return pgd[best] - pgd[-1] > margin and fgsm[-1] >= fgsm[best]
