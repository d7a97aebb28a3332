"""What one evaluated case leaves behind: made by run_case.py, kept by results_folder.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

EXAMPLE_ARRAYS = ("image", "perturbation", "reference", "before", "after")
"""Of an example, each (H, W): image and perturbation preprocessed, the others label maps."""

STACK = "stack"
"""Of an example, beside these: picture_stack.py's array; folders of earlier versions lack it."""

CORRUPTED_ARRAYS = ("images", "predictions", "reference")
"""Of a slice under every corruption, which example.CorruptedSlice makes."""

PICTURES = {
    "example": {name: name for name in (*EXAMPLE_ARRAYS, STACK)},
    "corrupted": {name: f"corrupted_{name}" for name in CORRUPTED_ARRAYS},
}
"""{what a part has: {its array: that array's name in the part's .npz}}."""


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
    corrupted: dict[str, Any] | None = None
    """CORRUPTED_ARRAYS of one slice for corruptions.png; None where no corruption ran."""
    roundtrip: float | None = None
    """Largest difference, as fraction of the range, between a saved perturbed case read back and
    what was attacked; None where none was saved as images."""
    notes: list[str] = field(default_factory=list)
    """To be said in the report."""


def split_pictures(result: CaseResult) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arrays for the part's .npz, what its JSON says of them, by the names in PICTURES)."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for name, of in PICTURES.items():
        found = getattr(result, name)
        described[name] = found and {k: v for k, v in found.items() if k not in of}
        arrays |= {there: found[k] for k, there in of.items() if found and k in found}
    return arrays, described


def arrays_of(file: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Those of `name` in PICTURES that a part's .npz has; earlier versions have fewer."""
    return {k: file[there] for k, there in PICTURES[name].items() if there in file}
