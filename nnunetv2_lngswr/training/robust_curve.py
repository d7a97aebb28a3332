"""The robust curve: the attacks that draw it, pseudo Dice under them, its average, the detector.

PGD on CE goes on raising what is wrong already and overstates how robust a network is. So the
strong attack of the curve is Auto-PGD on soft Dice (`attacks.apgd_dice`) in as few steps, which
still leaves more than the standard suite does. FGSM stands beside it, since catastrophic
overfitting is seen by both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunetv2_lngswr.attacks.losses import SegmentationTarget
from nnunetv2_lngswr.attacks.models import BatchModel
from nnunetv2_lngswr.attacks.registry import run_attack
from nnunetv2_lngswr.attacks.threat_model import Ball
from nnunetv2_lngswr.training.adversarial_batch import Attack, craft
from nnunetv2_lngswr.training.history import PGD
from nnunetv2_lngswr.training.schedule import relative_step_size
from nnunetv2_lngswr.training.settings import ATConfig

STRONG = "apgd_dice"
"""The strong attack of a new curve, a name of attacks.registry."""
COUNTS = ("tp_hard", "fp_hard", "fn_hard")
"""nnU-Net's keys of true positives, false positives and false negatives per class."""


def curve_attacks(strong: str, at: ATConfig) -> dict[str, Attack]:
    """What draws the curve, each still to be given a generator.

    Parameters
    ----------
    strong
        `STRONG`, or `history.PGD` for a run whose curve began with that.
    at
        The steps of the strong attack are its `val_steps`. FGSM and PGD ascend its `loss`.

    Returns
    -------
    "fgsm", with random start, and "strong"
    """

    def ascent(scheme: str, steps: int) -> Attack:
        size = relative_step_size(scheme, steps)
        return partial(craft, steps=steps, relative_step_size=size, loss=at.loss)

    if strong == PGD:
        strongest = ascent("pgd", at.val_steps)
    else:
        strongest = partial(_worst_found, strong, steps=at.val_steps)
    return {"fgsm": ascent("fgsm_rs", 1), "strong": strongest}


def _worst_found(
    attack: str,
    network: nn.Module,
    x: Tensor,
    target: SegmentationTarget,
    ball: Ball,
    *,
    steps: int,
    generator: torch.Generator,
    autocast: torch.dtype | None = None,
) -> Tensor:
    """The samples of lowest Dice that an attack of the registry came across."""
    model = BatchModel(network, autocast=autocast)
    return run_attack(attack, model, x, target, ball, generator=generator, steps=steps).perturbed


def pseudo_dice(results: Sequence[Mapping[str, Any]], *, of_all_ranks: bool = False) -> float:
    """nnU-Net's mean_fg_dice of validation batches.

    Parameters
    ----------
    results
        Of nnU-Net's validation step, one for each batch.
    of_all_ranks
        Sum the counts over the ranks of a distributed training.

    Returns
    -------
    Mean Dice of the classes that are in the target or in the prediction; nan if there are none
    """
    counts = np.stack([np.sum([r[key] for r in results], axis=0) for key in COUNTS])
    if of_all_ranks:
        gathered = [counts] * dist.get_world_size()
        dist.all_gather_object(gathered, counts)
        counts = np.sum(gathered, axis=0)
    tp, fp, fn = counts.astype(float)
    size = 2 * tp + fp + fn
    if not (size > 0).any():
        return float("nan")
    return float(np.mean(2 * tp[size > 0] / size[size > 0]))


def moving_average(earlier: Sequence[float], value: float) -> float:
    """The next value of nnU-Net's moving average; nan on one side says nothing."""
    if not earlier or np.isnan(earlier[-1]):
        return value
    if np.isnan(value):
        return earlier[-1]
    return 0.9 * earlier[-1] + 0.1 * value


def moving_average_of(values: Sequence[float]) -> float:
    """nnU-Net's moving average of some epochs, of which nan counts for nothing, as it does not
    there."""
    return reduce(lambda average, value: moving_average([average], value), values)


def overfits(fgsm: Sequence[float], strong: Sequence[float], margin: float) -> bool:
    """Whether the newest epoch shows catastrophic overfitting (Wong et al. 2020).

    Dice under the strong attack is more than `margin` below its best epoch's, while Dice under
    FGSM, on the same batches, is at least what it was then.

    Parameters
    ----------
    fgsm, strong
        Pseudo Dice of each epoch, the newest last; nan counts for nothing.
    margin
        Pseudo Dice.
    """
    if len(strong) < 2 or np.isnan(strong[:-1]).all():
        return False
    if not np.isfinite((fgsm[-1], strong[-1])).all():
        return False
    best = int(np.nanargmax(strong[:-1]))
    return bool(strong[best] - strong[-1] > margin and fgsm[-1] >= fgsm[best])
