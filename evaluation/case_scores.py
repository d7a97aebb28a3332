"""What is measured of one case in one run: metrics.py's of its segmentation, and calibration.

Calibration is that of each label's probability (calibration.py) over the box around prediction and
ground truth, case by case; a report's is the mean over cases, as its Dice ("image-level ECE").
Under an attack it is that of the very run whose Dice stands beside it. Where a label is neither
predicted nor there, it is nan as all metrics are, and leaves the means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from evaluation import metrics
from evaluation.calibration import (
    bin_sums_in,
    box_near,
    brier_score,
    expected_calibration_error,
)
from evaluation.model.case import Case
from evaluation.model.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class CaseScore(metrics.Score):
    """Of one label in one case, or the mean of its foreground labels."""

    ece: float
    """In [0, 1]; nan where Dice is, as `brier`."""
    brier: float


Scores = Mapping[metrics.Label, CaseScore]


def score_case(
    prediction: Prediction, case: Case, manager: LabelManager, *, tolerance_mm: float
) -> dict[metrics.Label, CaseScore]:
    """{label or region: what is measured of it}.

    Parameters
    ----------
    prediction
        Of the case, or of a perturbed version.
    case
        With a ground truth.
    manager
        The model's.
    tolerance_mm
        Of NSD.
    """
    truth = case.ground_truth
    assert truth is not None
    labels = foreground(manager)
    found = metrics.score(
        prediction.segmentation,
        truth,
        spacing=case.spacing,
        labels=labels,
        ignore_label=manager.ignore_label,
        tolerance_mm=tolerance_mm,
    )
    ignored = manager.ignore_label
    counted = np.ones(truth.shape, bool) if ignored is None else truth != ignored
    return {
        label: _with(found[label], _calibration(prediction, truth, counted, label, channel))
        for label, channel in zip(labels, _channels(manager, labels))
    }


def foreground_mean(scores: Scores) -> CaseScore:
    """As metrics.foreground_mean."""
    mean = metrics.foreground_mean(scores)
    of = [s for label, s in scores.items() if label != 0]
    calibration = {m: metrics.nanmean([getattr(s, m) for s in of]) for m in metrics.CALIBRATION}
    return _with(mean, calibration)


def foreground(manager: Any) -> list[metrics.Label]:
    """Labels, or regions as tuples, that are scored; `manager`: nnU-Net's LabelManager."""
    labels = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    return [tuple(r) if isinstance(r, (tuple, list)) else int(r) for r in labels]


def _channels(manager: LabelManager, labels: Sequence[metrics.Label]) -> list[int]:
    """Of the logits; of labels, the background's is the first."""
    heads: list[metrics.Label] = list(labels)
    if not manager.has_regions:
        heads = [int(v) for v in manager.all_labels]
    return [heads.index(label) for label in labels]


def _with(score: metrics.Score, calibration: Mapping[str, float]) -> CaseScore:
    values: dict[str, Any] = {**vars(score), **calibration}
    return CaseScore(**values)


def _calibration(
    prediction: Prediction,
    ground_truth: np.ndarray,
    counted: np.ndarray,
    label: metrics.Label,
    channel: int,
) -> dict[str, float]:
    values = label if isinstance(label, tuple) else (label,)
    predicted, truth = (np.isin(m, values) for m in (prediction.segmentation, ground_truth))
    box = box_near(predicted, truth, counted)
    if box is None:
        return dict.fromkeys(metrics.CALIBRATION, math.nan)
    sums = bin_sums_in(prediction.probability(channel, box), truth, counted, box)
    return {"ece": float(expected_calibration_error(sums)), "brier": float(brier_score(sums))}
