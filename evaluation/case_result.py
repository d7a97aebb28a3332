"""What one evaluated case leaves behind: made by run_case.py, kept by results_folder.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

EXAMPLE_ARRAYS = ("image", "perturbation", "reference", "before", "after")
"""Of an example, each (H, W): image and perturbation preprocessed, the others label maps."""

STACK = "stack"
"""Of an example, beside these: picture_stack.py's array; folders of earlier versions lack it."""


@dataclass(kw_only=True)
class CaseResult:
    """Filled run by run."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """For cases.csv, worst_* included."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Per title of a run, the prediction that scores it included."""
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(forwards, gradients) per title of a run."""
    example: dict[str, Any] | None = None
    """EXAMPLE_ARRAYS of one slice for examples.png and what they show; None where no attack ran."""
    roundtrip: float | None = None
    """Largest difference, as fraction of the range, between a saved perturbed case read back and
    what was attacked; None where none was saved as images."""
    notes: list[str] = field(default_factory=list)
    """To be said in the report."""
