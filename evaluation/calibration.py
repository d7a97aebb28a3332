"""Calibration of probabilities: what a network's "80%" is worth, per label.

For one label, p: (*spatial) its probability, y: (*spatial) whether the ground truth has it, over
the N voxels that count, in BINS bins b of equal width over [0, 1] (Guo et al. 2017, per label):

    ECE = sum_b n_b / N |mean p in b - mean y in b|,     Brier = mean (p - y)^2

The sums of a case are kept, so that those of many cases add up. Over a whole image both are small
because the background is easy; so they are also taken over the box around prediction and ground
truth, MARGIN voxels wider on every side. The ECE of few voxels, as of one small object, is biased
upwards, since even perfect frequencies scatter in every bin; the Brier score is not.

MONAI's calibration_binning is the same, and the tests' oracle; it counts in float32, which stops at
2^24 voxels, fewer than many a CT has.
"""

from __future__ import annotations

import numpy as np

from evaluation.masks import bounding_box

BINS = 15
MARGIN = 10
COUNT, SUM_P, SUM_Y, SUM_SQUARES = range(4)
WHOLE, BOX = range(2)


def bin_sums(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sums per bin.

    Parameters
    ----------
    p
        Probabilities, in [0, 1].
    y
        Boolean, of the same shape.

    Returns
    -------
    np.ndarray
        (BINS, 4): voxels, sum of p, of y, of (p - y)^2.
    """
    p, y = p.ravel().astype(np.float64), y.ravel()
    bins = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    weights = (None, p, y, (p - y) ** 2)
    return np.stack([np.bincount(bins, weights=w, minlength=BINS) for w in weights], 1)


def calibration_sums(
    p: np.ndarray, prediction: np.ndarray, ground_truth: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """(2, BINS, 4): `bin_sums` over the image and over the box around the object.

    Parameters
    ----------
    p
        Probabilities, (*spatial).
    prediction, ground_truth
        Boolean masks, (*spatial).
    counted
        Voxels that count, (*spatial).
    """
    y = ground_truth & counted
    box = box_near(prediction, ground_truth, counted)
    near = np.zeros((BINS, 4)) if box is None else bin_sums_in(p[box], ground_truth, counted, box)
    return np.stack([bin_sums(p[counted], y[counted]), near])


def box_near(
    prediction: np.ndarray, ground_truth: np.ndarray, counted: np.ndarray
) -> tuple[slice, ...] | None:
    """Around what of prediction and ground truth counts; None where nothing does."""
    return bounding_box((prediction | ground_truth) & counted, margin=MARGIN)


def bin_sums_in(
    p: np.ndarray, ground_truth: np.ndarray, counted: np.ndarray, box: tuple[slice, ...]
) -> np.ndarray:
    """`bin_sums` of what counts in a box; p: (*box), the others (*spatial)."""
    inside = counted[box]
    return bin_sums(p[inside], ground_truth[box][inside])


def expected_calibration_error(sums: np.ndarray) -> np.ndarray:
    """(...) of `bin_sums` (..., BINS, 4); nan over no voxels."""
    with np.errstate(invalid="ignore"):
        return np.abs(sums[..., SUM_P] - sums[..., SUM_Y]).sum(-1) / sums[..., COUNT].sum(-1)


def brier_score(sums: np.ndarray) -> np.ndarray:
    """(...) of `bin_sums` (..., BINS, 4); nan over no voxels."""
    with np.errstate(invalid="ignore"):
        return sums[..., SUM_SQUARES].sum(-1) / sums[..., COUNT].sum(-1)
