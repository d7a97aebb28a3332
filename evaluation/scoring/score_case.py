"""One case: its label, every model's prediction of it, and all that is measured of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

from evaluation import metrics
from evaluation.calibration import (
    BOX,
    WHOLE,
    brier_score,
    calibration_sums,
    expected_calibration_error,
)
from evaluation.metrics import Label
from evaluation.model import readers
from evaluation.model.readers import FileImage
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.lesions import match_lesions
from evaluation.scoring.measures import COUNTS, Units
from evaluation.scoring.options import ScoreOptions
from evaluation.scoring.probabilities import read_probabilities
from nnunetv2_lngswr.utils.errors import UserError

LARGEST_LABEL = 2**16 - 1
MOST_LABELS = 1000
_MM3_PER_ML = 1000.0

Measured = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CaseFiles:
    """The files of one case."""

    identifier: str
    label: Path
    predictions: tuple[Path, ...]
    """One per model."""
    probabilities: tuple[Path, ...] = ()
    """Likewise; empty where calibration is not scored."""


@dataclass(frozen=True, kw_only=True)
class CaseScores:
    """What came of one case."""

    identifier: str
    units: Units
    measured: tuple[dict[Label, Measured], ...]
    """Per model and label: the columns of measures.py."""
    calibration: tuple[dict[Label, np.ndarray], ...]
    """Per model and label, `calibration_sums`; empty where it was not scored."""


@dataclass(frozen=True, kw_only=True)
class CaseScorer:
    """Scores cases; goes to other processes."""

    reader: BaseReaderWriter
    """nnU-Net's, for all files."""
    options: ScoreOptions
    labels: LabelSet = field(default_factory=LabelSet)

    def __call__(self, files: CaseFiles) -> CaseScores:
        """Score a case, all models one after the other.

        Raises
        ------
        UserError
            A file is missing or damaged, holds what is no known label, lies elsewhere than the
            label, or probabilities do not belong to the prediction.
        """
        truth = self._read(files.label)
        ground_truth = self._label_map(truth, ground_truth=True)
        voxel, units = voxel_size(truth)
        measured, calibration = [], []
        for number, file in enumerate(files.predictions):
            prediction = self._label_map(self._read(file, of=truth), ground_truth=False)
            npz = files.probabilities[number] if files.probabilities else None
            found, sums = self._score(prediction, ground_truth, truth, voxel, file, npz)
            measured.append(found)
            calibration.append(sums)
        return CaseScores(
            identifier=files.identifier,
            units=units,
            measured=tuple(measured),
            calibration=tuple(calibration),
        )

    def _read(self, file: Path, *, of: FileImage | None = None) -> FileImage:
        return readers.read_segmentation(self.reader, str(file), image=of, image_is="label")

    def _label_map(self, image: FileImage, *, ground_truth: bool) -> np.ndarray:
        """(*spatial), whole numbers that are known."""
        found, file = image.array[0], Path(image.file)
        if not np.isfinite(found).all() or readers.nifti_has_nan(image.file):
            raise UserError(f"{file}: the segmentation holds NaN or infinite values")
        whole = np.clip(found, 0, LARGEST_LABEL).astype(np.int64)
        wrong = found[whole != found]
        if wrong.size:
            raise UserError(
                f"{file}: a segmentation holds whole numbers from 0 to {LARGEST_LABEL}, this one "
                f"has {wrong[0]:g}; is it an image?"
            )
        self.labels.check_known(_values(whole), file, ground_truth=ground_truth)
        return whole

    def _score(
        self,
        prediction: np.ndarray,
        ground_truth: np.ndarray,
        truth: FileImage,
        voxel: float,
        file: Path,
        npz: Path | None,
    ) -> tuple[dict[Label, Measured], dict[Label, np.ndarray]]:
        ignored = self.labels.ignore_label
        counted = np.ones(ground_truth.shape, bool)
        if ignored is not None:
            counted = ground_truth != ignored
        probabilities = None
        if npz is not None:
            probabilities = read_probabilities(
                npz, prediction, labels=self.labels, prediction_file=file
            )
        labels = self._labels(prediction, ground_truth, probabilities, Path(truth.file))
        scores = metrics.score(
            prediction,
            ground_truth,
            spacing=[float(s) for s in truth.properties["spacing"]],
            labels=labels,
            ignore_label=ignored,
            tolerance_mm=self.options.tolerance_mm,
        )
        measured, sums = {}, {}
        for label, score in scores.items():
            values = label if isinstance(label, tuple) else (label,)
            p, g = (np.isin(m, values) & counted for m in (prediction, ground_truth))
            measured[label] = _measured(score, p, g, voxel, self.options.lesion_iou)
            if probabilities is not None:
                channel = self.labels.channel_of(label)
                if channel >= len(probabilities):
                    raise UserError(
                        f"{npz}: {len(probabilities)} channels of probabilities, and none of label "
                        f"{label}; give the model's dataset.json (-djfile)"
                    )
                sums[label] = calibration_sums(probabilities[channel], p, g, counted)
                measured[label] |= _calibration(sums[label])
        return measured, sums

    def _labels(
        self,
        prediction: np.ndarray,
        ground_truth: np.ndarray,
        probabilities: np.ndarray | None,
        file: Path,
    ) -> Sequence[Label]:
        """Those of dataset.json; without one those found, and those that have probabilities."""
        if self.labels.labels is not None:
            return self.labels.labels
        found = {*_values(prediction), *_values(ground_truth)}
        if probabilities is not None:
            found |= set(range(len(probabilities)))
        if len(found) > MOST_LABELS:
            raise UserError(
                f"{file}: {len(found)} different labels in it and its prediction; are they images?"
            )
        return sorted(found - {0, self.labels.ignore_label})


def voxel_size(image: FileImage) -> tuple[float, Units]:
    """(volume of a voxel, units): ml in 3D, mm2 in 2D; voxels, pixels of files without spacing."""
    properties = image.properties
    spacing = [float(s) for s in properties["spacing"]]
    if "sitk_stuff" in properties and len(properties["sitk_stuff"]["spacing"]) == 2:
        return math.prod(spacing[1:]), Units(length="mm", volume="mm2")
    # nnU-Net's reader of pictures, which makes this spacing up
    if len(properties) == 1 and spacing == [999, 1, 1]:
        return 1.0, Units(length="pixels", volume="pixels")
    # and its reader of TIFF stacks, which does so with a tuple; from a file it is a list
    if len(properties) == 1 and properties["spacing"] == (1, 1, 1):
        return 1.0, Units(length="voxels", volume="voxels")
    return math.prod(spacing) / _MM3_PER_ML, Units(length="mm", volume="ml")


def nothing_measured(columns: Mapping[str, Any]) -> Measured:
    """Of a label that neither prediction nor ground truth has: 0 in counts, else nan."""
    none = {name: 0 if isinstance(value, int) else math.nan for name, value in columns.items()}
    return none | {name: type(columns[name])() for name in COUNTS}


def _measured(
    score: metrics.Score, p: np.ndarray, g: np.ndarray, voxel: float, iou: float
) -> Measured:
    """All but calibration."""
    lesions = match_lesions(p, g, iou=iou)
    predicted, reference = score.predicted_voxels * voxel, score.reference_voxels * voxel
    defined = score.predicted_voxels + score.reference_voxels > 0
    error = predicted - reference if defined else math.nan
    return {
        **vars(score),
        "volume_error": error,
        "absolute_volume_error": abs(error),
        "relative_volume_error": error / reference if reference else math.nan,
        "reference_volume": reference,
        "predicted_volume": predicted,
        "lesion_f1": lesions.f1,
        "lesion_sensitivity": lesions.sensitivity,
        "lesion_precision": lesions.precision,
        "reference_lesions": lesions.reference,
        "predicted_lesions": lesions.predicted,
        "matched_lesions": lesions.matched,
    }


def _calibration(sums: np.ndarray) -> Measured:
    ece, brier = expected_calibration_error(sums), brier_score(sums)
    return {
        "ece": float(ece[WHOLE]),
        "brier": float(brier[WHOLE]),
        "ece_box": float(ece[BOX]),
        "brier_box": float(brier[BOX]),
    }


def _values(label_map: np.ndarray) -> list[int]:
    return np.flatnonzero(np.bincount(label_map.ravel())).tolist()
