"""The settings of `lngswr score`, validated once; imports no torch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from evaluation.options import LIMITS, check_integer
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import is_number, shown

NNUNET_PROCESSES = 8
"""nnU-Net's own default where nnUNet_def_n_proc is not set."""


@dataclass(frozen=True, kw_only=True)
class ScoreOptions:
    """What is scored, and how."""

    tolerance_mm: float = 2.0
    """Of NSD; pixels for files without a spacing."""
    lesion_iou: float = 0.1
    """IoU from which a predicted lesion counts as the labelled one, in (0, 1]."""
    probabilities: bool = False
    """Score calibration too, from the .npz beside each prediction."""
    ignore_label: int | None = None
    """Voxels of the label that do not count, where no dataset.json says so."""
    chill: bool = False
    """Leave out labels that a prediction folder lacks, as nnU-Net's --chill."""
    processes: int | None = 1
    """How many cases are scored at a time; None, the command's default: nnUNet_def_n_proc, at most
    one per core. More than 1 spawn processes, which import the script that calls."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        if not is_number(self.tolerance_mm) or not 0 <= self.tolerance_mm < math.inf:
            raise UserError(
                f"tolerance must be >= 0 and finite, got {shown(self.tolerance_mm)} (--tolerance)"
            )
        if not is_number(self.lesion_iou) or not 0 < self.lesion_iou <= 1:
            raise UserError(
                f"lesion_iou must be in (0, 1], got {shown(self.lesion_iou)} (--lesion-iou)"
            )
        if self.ignore_label is not None and self.ignore_label < 1:
            raise UserError(f"ignore label must be >= 1, got {self.ignore_label} (-il)")
        if self.processes is not None and self.processes < 1:
            raise UserError(f"processes must be >= 1, got {self.processes} (-np)")
        check_integer("seed", self.seed, *LIMITS["seed"])

    def processes_for(self, cases: int) -> int:
        """How many processes share that many cases."""
        chosen = self.processes
        if chosen is None:
            given = os.environ.get("nnUNet_def_n_proc", "")
            wanted = int(given) if given.isdecimal() else NNUNET_PROCESSES
            chosen = min(max(wanted, 1), _cores())
        return max(1, min(chosen, cases))


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
