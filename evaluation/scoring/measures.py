"""What is measured of each label in each case: names, and how their numbers are shown.

Dice, IoU, HD95, NSD and the empty-mask rule are metrics.py's, lesions lesions.py's, calibration
calibration.py's. With V_P and V_G the volumes of a label in prediction and ground truth:

    volume_error = V_P - V_G,   relative_volume_error = (V_P - V_G) / V_G   (nan without V_G)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.metrics import METRICS
from evaluation.report.formats import interval_text

VOLUME = ("volume_error", "absolute_volume_error", "relative_volume_error")
LESIONS = ("lesion_f1", "lesion_sensitivity", "lesion_precision")
CALIBRATION = ("ece", "brier", "ece_box", "brier_box")
COUNTS = (
    "reference_voxels",
    "predicted_voxels",
    "reference_volume",
    "predicted_volume",
    "reference_lesions",
    "predicted_lesions",
    "matched_lesions",
)
_PERCENT = (*(m for m in METRICS if m != "hd95_mm"), *LESIONS, "relative_volume_error")


@dataclass(frozen=True)
class Units:
    """What lengths and volumes of all cases are in."""

    length: str
    """mm, or pixels or voxels of files without a spacing."""
    volume: str
    """ml; of 2D files mm2; or likewise."""


def measure_names(*, probabilities: bool) -> tuple[str, ...]:
    """Columns of cases.csv that have means and intervals."""
    return (*METRICS, *VOLUME, *LESIONS, *(CALIBRATION if probabilities else ()))


def measure_title(measure: str, units: Units) -> str:
    """'HD95 (mm)'."""
    title = {
        "dice": "Dice",
        "iou": "IoU",
        "hd95_mm": "HD95",
        "nsd": "NSD",
        "volume_error": "volume error",
        "absolute_volume_error": "absolute volume error",
        "relative_volume_error": "relative volume error",
        "lesion_f1": "lesion F1",
        "lesion_sensitivity": "lesion sensitivity",
        "lesion_precision": "lesion precision",
        "ece": "ECE",
        "brier": "Brier",
        "ece_box": "ECE near the object",
        "brier_box": "Brier near the object",
    }[measure]
    unit = measure_unit(measure, units)
    return f"{title} ({unit})" if unit else title


def measure_unit(measure: str, units: Units) -> str:
    """'%', a unit, or nothing."""
    if measure in _PERCENT:
        return "%"
    if measure == "hd95_mm":
        return units.length
    return units.volume if measure in VOLUME else ""


def scale(measure: str) -> float:
    """What a value is multiplied by where it is shown."""
    return 100.0 if measure in _PERCENT else 1.0


def measure_text(record: Mapping[str, Any], what: str = "mean") -> str:
    """'62.1 [58.0, 66.3]', from `what`, `what`_low and `what`_high of a record of `summarise`."""
    if record["measure"] in _PERCENT:
        return interval_text(record, what)
    mean, low, high = (record[key] for key in (what, f"{what}_low", f"{what}_high"))
    if mean is None or math.isnan(mean):
        return "undefined"
    return f"{mean:.3g} [{low:.3g}, {high:.3g}]"
