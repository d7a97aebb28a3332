"""Numbers of the robust curve: pseudo Dice of attacked batches, its average, the detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist

COUNTS = ("tp_hard", "fp_hard", "fn_hard")
"""nnU-Net's keys of true positives, false positives and false negatives per class."""


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


def overfits(fgsm: Sequence[float], pgd: Sequence[float], margin: float) -> bool:
    """Whether the newest epoch shows catastrophic overfitting (Wong et al. 2020).

    Dice under PGD is more than `margin` below its best epoch's, while Dice under FGSM, on the same
    batches, is at least what it was then.

    Parameters
    ----------
    fgsm, pgd
        Pseudo Dice of each epoch, the newest last; nan counts for nothing.
    margin
        Pseudo Dice.
    """
    if len(pgd) < 2 or np.isnan(pgd[:-1]).all():
        return False
    if not np.isfinite((fgsm[-1], pgd[-1])).all():
        return False
    best = int(np.nanargmax(pgd[:-1]))
    return bool(pgd[best] - pgd[-1] > margin and fgsm[-1] >= fgsm[best])
