"""Dice, IoU, HD95 and NSD of one exported segmentation in the original space, per label or region.

With P and G the voxels of a label in prediction and ground truth, without ignored voxels, and with
S_P, S_G their boundary voxels:

    Dice = 2 |P & G| / (|P| + |G|),   IoU = |P & G| / |P | G|       (as nnU-Net's compute_metrics)
    HD95 = max(95th percentile of d(S_P, S_G), 95th percentile of d(S_G, S_P)),  in mm
    NSD  = (|{s in S_P: d(s, S_G) <= tolerance}| + |{s in S_G: d(s, S_P) <= tolerance}|)
           / (|S_P| + |S_G|)

d: Euclidean distance of boundary voxel centres with the file's spacing; boundaries and distances
are MONAI's. Files without a spacing (PNG) have 1 per pixel, so "mm" are pixels there.

The empty-mask rule, here and nowhere else: P and G both empty: every metric is nan and leaves every
mean, as in nnU-Net; one of them empty: Dice = IoU = NSD = 0 and HD95 is the diagonal of the image,
so that a missed object is never rewarded and means stay finite.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_lngswr.utils.errors import UserError

EMPTY_MASK_RULE = (
    "Ground truth and prediction both empty: all metrics are nan and leave the means, as in "
    "nnU-Net. One of them empty: Dice = IoU = NSD = 0, HD95 = the diagonal of the image."
)

Label = int | tuple[int, ...]
METRICS = ("dice", "iou", "hd95_mm", "nsd")
CALIBRATION = ("ece", "brier")
"""Of the probabilities behind it (case_scores.py); tables of earlier versions lack them."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one label in one case."""

    dice: float
    """In [0, 1], as `iou` and `nsd`; nan where the empty-mask rule says so, as all metrics."""
    iou: float
    hd95_mm: float
    nsd: float
    reference_voxels: int
    """Of the ground truth, without ignored voxels; a column of cases.csv. Of a mean: the sum."""
    predicted_voxels: int
    """Of the prediction, likewise."""


def score(
    prediction: np.ndarray,
    ground_truth: np.ndarray,
    *,
    spacing: Sequence[float],
    labels: Sequence[Label],
    ignore_label: int | None = None,
    tolerance_mm: float = 2.0,
) -> dict[Label, Score]:
    """The metrics of each label.

    Parameters
    ----------
    prediction, ground_truth
        Integer label maps of one shape, in the file's geometry.
    spacing
        Of the axes of these arrays, mm.
    labels
        Integers, or tuples of integers for regions.
    ignore_label
        Voxels of the ground truth that do not count.
    tolerance_mm
        Of NSD.

    Returns
    -------
    dict
        {label or region: Score}.

    Raises
    ------
    UserError
        Shapes or a spacing that do not fit, a spacing or a tolerance that is no length.
    """
    shape = ground_truth.shape
    if prediction.shape != shape:
        raise UserError(
            f"prediction and ground truth must have one shape, got {prediction.shape} and {shape}"
        )
    if len(spacing) != len(shape):
        raise UserError(
            f"spacing must have one entry per axis ({len(shape)}), got {tuple(spacing)}"
        )
    if not all(0 < s < math.inf for s in spacing):
        raise UserError(f"spacing must be > 0 and finite, got {tuple(spacing)}")
    if not 0 <= tolerance_mm < math.inf:
        raise UserError(f"tolerance_mm must be >= 0 and finite, got {tolerance_mm}")
    counted = np.ones(shape, bool) if ignore_label is None else ground_truth != ignore_label
    result = {}
    for label in labels:
        values = label if isinstance(label, tuple) else (label,)
        p, g = np.isin(prediction, values) & counted, np.isin(ground_truth, values) & counted
        result[label] = _score_masks(p, g, spacing, tolerance_mm)
    return result


def foreground_mean(scores: Mapping[Label, Score]) -> Score:
    """Mean over the foreground labels of one case that are defined; nan where none is.

    Label 0 never counts.
    """
    foreground = [s for label, s in scores.items() if label != 0]
    return Score(
        **{m: nanmean([getattr(s, m) for s in foreground]) for m in METRICS},
        reference_voxels=sum(s.reference_voxels for s in foreground),
        predicted_voxels=sum(s.predicted_voxels for s in foreground),
    )


def _score_masks(
    p: np.ndarray, g: np.ndarray, spacing: Sequence[float], tolerance_mm: float
) -> Score:
    overlap, size_p, size_g = int((p & g).sum()), int(p.sum()), int(g.sum())
    sizes = {"reference_voxels": size_g, "predicted_voxels": size_p}
    if size_p + size_g == 0:
        return Score(dice=np.nan, iou=np.nan, hd95_mm=np.nan, nsd=np.nan, **sizes)
    kept = _axes(p.shape)
    lengths = [p.shape[a] * float(spacing[a]) for a in kept]
    if size_p == 0 or size_g == 0:
        return Score(dice=0.0, iou=0.0, hd95_mm=float(np.linalg.norm(lengths)), nsd=0.0, **sizes)
    shape = [p.shape[a] for a in kept]
    to_truth, to_prediction = _surface_distances(
        p.reshape(shape), g.reshape(shape), [float(spacing[a]) for a in kept]
    )
    within = int((to_truth <= tolerance_mm).sum() + (to_prediction <= tolerance_mm).sum())
    return Score(
        dice=2 * overlap / (size_p + size_g),
        iou=overlap / (size_p + size_g - overlap),
        hd95_mm=float(max(np.percentile(to_truth, 95), np.percentile(to_prediction, 95))),
        nsd=within / (len(to_truth) + len(to_prediction)),
        **sizes,
    )


def _axes(shape: tuple[int, ...]) -> list[int]:
    """Those that surfaces live in: longer than 1, or every voxel of a slice were a boundary."""
    kept = [a for a, n in enumerate(shape) if n > 1]
    return kept if len(kept) >= 2 else list(range(len(shape)))


def _surface_distances(
    p: np.ndarray, g: np.ndarray, spacing: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from each boundary voxel of p to the nearest of g, and back."""
    # seconds to import, and many callers need no surfaces
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        # of an argument that it passes itself, and of empty masks, which older monai has no
        # argument for
        warnings.simplefilter("ignore")
        _, distances, _ = get_edge_surface_distance(
            torch.from_numpy(p),
            torch.from_numpy(g),
            spacing=spacing,
            symmetric=True,
        )
    to_truth, to_prediction = (d.double().numpy() for d in distances)
    return to_truth, to_prediction


def nanmean(values: Sequence[float]) -> float:
    """Of those that are defined; nan where none is."""
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else float("nan")
