"""Dice, IoU, HD95 and NSD of one exported segmentation in the original space, per label or region.

With P and R the voxels of a label in prediction and reference, without ignored voxels, and with S_P, S_R their boundary voxels:

    Dice = 2 |P & R| / (|P| + |R|),   IoU = |P & R| / |P | R|                                            (as nnU-Net's compute_metrics)
    HD95 = max(95th percentile of d(S_P, S_R), 95th percentile of d(S_R, S_P)),  in mm
    NSD  = (|{s in S_P: d(s, S_R) <= tolerance}| + |{s in S_R: d(s, S_P) <= tolerance}|) / (|S_P| + |S_R|)

d: Euclidean distance of boundary voxel centres with the file's spacing; boundaries and distances are MONAI's. Files without a spacing
(PNG) have 1 per pixel, so "mm" are pixels there.

The empty-mask rule, here and nowhere else: P and R both empty: every metric is nan and leaves every mean, as in nnU-Net; one of them empty:
Dice = IoU = NSD = 0 and HD95 is the diagonal of the image, so that a missed object is never rewarded and means stay finite.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_lngswr.utils.errors import UserError

EMPTY_MASK_RULE = (
    "Reference and prediction both empty: all metrics are nan and leave the means, as in nnU-Net. "
    "One of them empty: Dice = IoU = NSD = 0, HD95 = the diagonal of the image."
)

Label = int | tuple[int, ...]
METRICS = ("dice", "iou", "hd95_mm", "nsd")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Metrics of one label in one case. `dice`, `iou`, `nsd` in [0, 1]; `hd95_mm` in mm; voxels counted without ignored ones. For a foreground
    mean the voxel counts are sums."""

    dice: float
    iou: float
    hd95_mm: float
    nsd: float
    reference_voxels: int
    predicted_voxels: int


def score(
    prediction: np.ndarray,
    reference: np.ndarray,
    *,
    spacing: Sequence[float],
    labels: Sequence[Label],
    ignore_label: int | None = None,
    tolerance_mm: float = 2.0,
) -> dict[Label, Score]:
    """{label or region: Score}. `prediction`, `reference`: integer label maps of one shape in the file's geometry; `spacing`: mm per axis of
    these arrays; `labels`: integers, or tuples of integers for regions. ValueError for shapes or a spacing that do not fit."""
    if prediction.shape != reference.shape:
        raise UserError(
            f"prediction and reference must have one shape, got {prediction.shape} and {reference.shape}"
        )
    if len(spacing) != reference.ndim:
        raise UserError(
            f"spacing must have one entry per axis ({reference.ndim}), got {tuple(spacing)}"
        )
    if not tolerance_mm >= 0:
        raise UserError(f"tolerance_mm must be >= 0, got {tolerance_mm}")
    counted = np.ones(reference.shape, bool) if ignore_label is None else reference != ignore_label
    result = {}
    for label in labels:
        values = label if isinstance(label, tuple) else (label,)
        p, r = np.isin(prediction, values) & counted, np.isin(reference, values) & counted
        result[label] = _score_masks(p, r, spacing, tolerance_mm)
    return result


def foreground_mean(scores: Mapping[Label, Score]) -> Score:
    """Mean over the foreground labels of one case that are defined (label 0 never counts); nan where none is."""
    foreground = [s for label, s in scores.items() if label != 0]
    return Score(
        **{m: _nanmean([getattr(s, m) for s in foreground]) for m in METRICS},
        reference_voxels=sum(s.reference_voxels for s in foreground),
        predicted_voxels=sum(s.predicted_voxels for s in foreground),
    )


def _score_masks(
    p: np.ndarray, r: np.ndarray, spacing: Sequence[float], tolerance_mm: float
) -> Score:
    overlap, size_p, size_r = int((p & r).sum()), int(p.sum()), int(r.sum())
    sizes = {"reference_voxels": size_r, "predicted_voxels": size_p}
    if size_p + size_r == 0:
        return Score(dice=np.nan, iou=np.nan, hd95_mm=np.nan, nsd=np.nan, **sizes)
    kept = _axes(p.shape)
    lengths = [p.shape[a] * float(spacing[a]) for a in kept]
    if size_p == 0 or size_r == 0:
        return Score(dice=0.0, iou=0.0, hd95_mm=float(np.linalg.norm(lengths)), nsd=0.0, **sizes)
    shape = [p.shape[a] for a in kept]
    to_reference, to_prediction = _surface_distances(
        p.reshape(shape), r.reshape(shape), [float(spacing[a]) for a in kept]
    )
    within = int((to_reference <= tolerance_mm).sum() + (to_prediction <= tolerance_mm).sum())
    return Score(
        dice=2 * overlap / (size_p + size_r),
        iou=overlap / (size_p + size_r - overlap),
        hd95_mm=float(max(np.percentile(to_reference, 95), np.percentile(to_prediction, 95))),
        nsd=within / (len(to_reference) + len(to_prediction)),
        **sizes,
    )


def _axes(shape: tuple[int, ...]) -> list[int]:
    """The axes that surfaces live in: those longer than 1, for in a slice every voxel would be a boundary of its flat axis."""
    kept = [a for a, n in enumerate(shape) if n > 1]
    return kept if len(kept) >= 2 else list(range(len(shape)))


def _surface_distances(
    p: np.ndarray, r: np.ndarray, spacing: list[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Distances in mm from each boundary voxel of p to the nearest of r, and back."""
    import torch
    from monai.metrics.utils import (
        get_edge_surface_distance,  # seconds to import, and many callers need no surfaces
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about an argument that it passes itself
        _, (to_reference, to_prediction), _ = get_edge_surface_distance(
            torch.from_numpy(p),
            torch.from_numpy(r),
            spacing=spacing,
            symmetric=True,
            warn_empty=False,
        )
    return to_reference.double().numpy(), to_prediction.double().numpy()


def _nanmean(values: Sequence[float]) -> float:
    defined = [v for v in values if not np.isnan(v)]
    return float(np.mean(defined)) if defined else float("nan")
