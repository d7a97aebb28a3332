"""How calibrated a model is, in the tables of reports, comparisons and cards.

What is measured, case_scores.py says. Records of evaluations that did not measure it have no `ece`,
and then nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.calibration import BINS, MARGIN
from evaluation.metrics import CALIBRATION
from evaluation.report.formats import number_text
from evaluation.report.records import CORRUPTIONS_MEAN
from evaluation.rows import Row

Record = Mapping[str, Any]

SHOWN = ("clean", "worst", CORRUPTIONS_MEAN)
"""Kinds of records that tables have."""
TITLES = {"ece": "ECE", "brier": "Brier score"}
METHOD = (
    f"ECE ({BINS} bins) and Brier score of each label's probability over the box {MARGIN} voxels "
    "around prediction and ground truth, case by case; mean over cases, as of Dice"
)
READ = (
    f"{METHOD}; 0 is best. Under the worst attack they are of the run with the lowest Dice. The "
    "ECE of a single case is biased upwards, the more the smaller the object is: compare it only "
    "on the same cases. The Brier score is not."
)


def is_calibrated(record: Record) -> bool:
    """Whether it has the figures."""
    return "ece" in record


def calibration_text(record: Record, metric: str) -> str:
    """'0.0312 [0.0275, 0.0351]'; '' where it was not measured."""
    if not is_calibrated(record):
        return ""
    value = record[metric]
    if value is None or math.isnan(value):
        return "undefined"
    low, high = (number_text(record[f"{metric}_{end}"]) for end in ("low", "high"))
    return f"{number_text(value)} [{low}, {high}]"


def cells(records: Sequence[Record]) -> list[str]:
    """ECE of all of them, then the Brier scores."""
    return [calibration_text(r, metric) for metric in CALIBRATION for r in records]


def columns(names: Sequence[str] = ("",)) -> list[str]:
    """Headings of `cells`."""
    return [f"{name} {TITLES[metric]}".strip() for metric in CALIBRATION for name in names]


def not_in_all(rows: Sequence[Row]) -> str:
    """A note where some cases were evaluated by a version that did not measure it, else ''."""
    cases = {r["case"] for r in rows}
    lacking = {r["case"] for r in rows if any(r.get(m) is None for m in CALIBRATION)}
    if not lacking or lacking == cases:
        return ""
    return (
        f"calibration (ECE, Brier score) is in cases.csv only: {len(lacking)} of {len(cases)} "
        "cases were evaluated by an earlier version, which did not measure it; evaluate into "
        "another folder for its mean"
    )
