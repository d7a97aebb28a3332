"""Lesions found, missed and made up: connected components of prediction and ground truth, matched.

A lesion is a connected component, voxels that touch at a corner included (26 neighbours in 3D, 8 in
2D). Pairs of a predicted and a labelled lesion with IoU >= `iou` may match, each lesion once; of
all such matchings it is one of the largest sum of IoU, by SciPy's assignment. That is panoptica's
MaxBipartiteMatching, which the tests hold this to; panoptica itself pins NumPy below 2.3, plotly
below 6 and connected-components-3d below 4, so that it would downgrade what nnU-Net brings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from evaluation.masks import bounding_box


@dataclass(frozen=True, kw_only=True)
class LesionCounts:
    """Lesions of one label in one case."""

    reference: int
    """In the ground truth."""
    predicted: int
    matched: int

    @property
    def f1(self) -> float:
        """2 matched / (reference + predicted); nan where there is no lesion in either."""
        return _share(2 * self.matched, self.reference + self.predicted)

    @property
    def sensitivity(self) -> float:
        """Matched of those in the ground truth; nan where that has none."""
        return _share(self.matched, self.reference)

    @property
    def precision(self) -> float:
        """Matched of those predicted; nan where there is none."""
        return _share(self.matched, self.predicted)


def match_lesions(prediction: np.ndarray, ground_truth: np.ndarray, *, iou: float) -> LesionCounts:
    """Count the lesions of two masks.

    Parameters
    ----------
    prediction, ground_truth
        Boolean, of one shape.
    iou
        From which two lesions may match, in (0, 1].
    """
    box = bounding_box(prediction | ground_truth)
    if box is None:
        return LesionCounts(reference=0, predicted=0, matched=0)
    touching = np.ones((3,) * prediction.ndim)
    p, predicted = cast(tuple[np.ndarray, int], ndimage.label(prediction[box], touching))
    g, reference = cast(tuple[np.ndarray, int], ndimage.label(ground_truth[box], touching))
    matched = 0
    if predicted and reference:
        overlap = _intersection_over_union(p, g, predicted, reference)
        allowed = np.where(overlap >= iou, overlap, 0)
        pairs = linear_sum_assignment(allowed, maximize=True)
        matched = int((allowed[pairs] > 0).sum())
    return LesionCounts(reference=reference, predicted=predicted, matched=matched)


def _intersection_over_union(
    p: np.ndarray, g: np.ndarray, predicted: int, reference: int
) -> np.ndarray:
    """(predicted, reference) of label maps with components 1, 2, ..."""
    pairs = np.zeros((predicted + 1, reference + 1))
    values, counts = np.unique(p.astype(np.int64) * (reference + 1) + g, return_counts=True)
    pairs.flat[values] = counts
    sizes, of_reference = pairs.sum(1)[1:, None], pairs.sum(0)[1:]
    overlaps = pairs[1:, 1:]
    return overlaps / (sizes + of_reference - overlaps)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
