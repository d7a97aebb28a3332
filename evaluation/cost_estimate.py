"""A guess at time and memory, from one prediction and one gradient on the first case."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from evaluation.case_attacks import cases_at_once
from evaluation.run_case import sliding_window
from evaluation.session import Session
from nnunetv2_lngswr.attacks.hard_dice import foreground_dice
from nnunetv2_lngswr.attacks.losses import SegmentationTarget, cross_entropy
from nnunetv2_lngswr.utils.memory import peak_memory


def estimate_cost(session: Session, finished: Sequence[str]) -> dict[str, Any]:
    """What `evaluation.estimate` returns; `finished`: keys of cases that need no more work."""
    files = session.cases[0]
    model, _ = session.switch_to(files)
    started = time.perf_counter()
    case = files.load(model)
    preprocessing = time.perf_counter() - started
    started = time.perf_counter()
    model.predict(case)
    prediction = time.perf_counter() - started
    window = sliding_window(model, session.options)
    x, target = case.batch.to(model.device), case.target(model.label_space).to(model.device)
    started = time.perf_counter()
    window.value_and_gradient(x, lambda z: _judged(z, target))[1].cpu()
    gradient = time.perf_counter() - started
    together = cases_at_once(window, x)
    if together > 1:  # for the peak of memory
        cases = x.expand(together, *x.shape[1:])
        window.value_and_gradient(cases, lambda z: z.flatten(1).sum(1))
    runs, corruptions_left_out = session.planned
    per_case = preprocessing + sum(
        prediction * (1 + r.forwards) + gradient * r.gradients for r in runs
    )
    return {
        "cases": [c.key for c in session.cases],
        "share": [c.key for c in session.share],
        "finished": list(finished),
        "runs": [r.title for r in runs],
        "shifts_left_out": corruptions_left_out,
        "prediction_seconds": prediction,
        "gradient_seconds": gradient,
        "seconds_per_case": per_case,
        "seconds": per_case * (len(session.share) - len(finished)),
        "peak_memory_bytes": _peak_memory(model.device),
        "device": str(model.device),
    }


def _judged(z: torch.Tensor, target: SegmentationTarget) -> torch.Tensor:
    """A loss, and beside it the Dice that every attack takes of its points, (1,)."""
    foreground_dice(z, target)
    return cross_entropy(z, target)


def _peak_memory(device: torch.device) -> int:
    """Bytes, so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
