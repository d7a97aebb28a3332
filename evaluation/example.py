"""What of a case is shown: the slice of examples.png before and after its strongest attack, and the
pictures of report.html under every budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch

from evaluation.case_result import STACK
from evaluation.model.case import Case
from evaluation.model.interface import EvaluatedModel
from evaluation.options import LINF
from evaluation.picture_stack import Cut, PictureStack
from evaluation.protocol import EvaluationRun

Volume = TypeVar("Volume", np.ndarray, torch.Tensor)


def shown_budget(runs: Sequence[EvaluationRun]) -> tuple[str, Fraction | None] | None:
    """(norm, epsilon) of the attacks that examples.png shows; None where no attack runs.

    Of Linf where it was run, the budget in the middle, the upper one of two. Without any budget, an
    attack that has none.
    """
    attacks = [r for r in runs if r.kind == "attack" and r.function != "noise"]
    budgets = {(r.norm, r.epsilon) for r in attacks if r.epsilon is not None}
    chosen = sorted(b for b in budgets if b[0] == LINF) or sorted(budgets)
    if chosen:
        return chosen[len(chosen) // 2]
    return (attacks[0].norm, None) if attacks else None


@dataclass(kw_only=True)
class Attacked:
    """One attacked case. `x`: (C, *spatial); `segmentation`: in the file's geometry."""

    run: EvaluationRun
    x: torch.Tensor
    segmentation: np.ndarray
    dice: float


class StrongestAttack:
    """Keeps the attack at the shown budget that lowers Dice most; the noise control is none."""

    def __init__(self, runs: Sequence[EvaluationRun]) -> None:
        self.budget = shown_budget(runs)
        self.found: Attacked | None = None

    def consider(
        self, run: EvaluationRun, x: torch.Tensor, segmentation: np.ndarray, dice: float
    ) -> None:
        if run.function == "noise" or (run.norm, run.epsilon) != self.budget:
            return
        dice = float("inf") if np.isnan(dice) else dice  # nothing there and nothing found
        if self.found is None or dice < self.found.dice:
            self.found = Attacked(run=run, x=x, segmentation=segmentation, dice=dice)


class Pictures:
    """The strongest attack of every norm and budget, in small; the noise control is none.

    Parameters
    ----------
    model, case
        The case preprocessed by the model, with a label.
    clean
        The segmentation of the clean case, in the file's geometry.
    """

    def __init__(self, model: EvaluatedModel, case: Case, clean: np.ndarray) -> None:
        self._case = case
        image, reference = _slices(case.x[0]).numpy(), _slices(_ground_truth(model, case))
        before = _slices(case.on_grid_of_x(clean))
        self._stack = PictureStack(
            image,
            reference,
            before,
            cut=Cut.around(reference, before),
            extent=float(image.max() - image.min()) or 1.0,
        )

    def consider(
        self, run: EvaluationRun, x: torch.Tensor, segmentation: np.ndarray, dice: float
    ) -> None:
        if run.function == "noise":
            return
        # each attack without a budget is shown, since these have none to share
        key = (run.norm, run.epsilon_text) if run.epsilon_text else ("", run.name)
        self._stack.consider(
            key,
            lambda: _slices(x[0] - self._case.x[0]).numpy(),
            lambda: _slices(self._case.on_grid_of_x(segmentation)),
            dice=dice,
            attack=run.name,
            norm=run.norm,
            epsilon_text=run.epsilon_text,
        )

    def of_example(self) -> dict[str, Any]:
        """What they add to an example; nothing where no attack ran."""
        arrays = self._stack.arrays()
        return {} if arrays is None else {STACK: arrays, "shown": self._stack.describe()}


def build_example(
    model: EvaluatedModel,
    case: Case,
    attacked: Attacked,
    *,
    clean: np.ndarray,
    clean_dice: float,
    names: Mapping[tuple[int, ...], str],
) -> dict[str, Any]:
    """What examples.png needs of a case.

    Parameters
    ----------
    model, case
        The case preprocessed by the model, with a label.
    attacked
        The attack to show.
    clean
        The segmentation of the clean case, in the file's geometry.
    clean_dice
        Its foreground mean.
    names
        {values of a label or region: its name}.

    Returns
    -------
    dict
        case_result.EXAMPLE_ARRAYS, (H, W), of the slice of the preprocessed grid where the ground
        truth is largest; the rest JSON-ready.
    """
    labels = _slices(_ground_truth(model, case))
    at = _largest_slice(labels)
    before, after = (_slices(case.on_grid_of_x(s))[at] for s in (clean, attacked.segmentation))
    image, perturbed = _slices(case.x[0]), _slices(attacked.x[0])
    return {
        "image": image[at].numpy(),
        "perturbation": (perturbed[at] - image[at]).numpy(),
        "range": float(image.max() - image.min()),
        "reference": labels[at].astype(np.int16),
        "before": before.astype(np.int16),
        "after": after.astype(np.int16),
        "names": _names_of_single_labels(names),
        "case": case.identifier,
        "attack": attacked.run.name,
        "norm": attacked.run.norm,
        "epsilon_text": attacked.run.epsilon_text,
        "dice_before": clean_dice,
        "dice_after": attacked.dice,
    }


def _ground_truth(model: EvaluatedModel, case: Case) -> np.ndarray:
    """On the preprocessed grid, ignored voxels as background."""
    assert case.labels is not None
    labels = case.labels.numpy()
    if not model.label_manager.has_ignore_label:
        return labels
    return np.where(labels == model.label_manager.ignore_label, 0, labels)


def _slices(volume: Volume) -> Volume:
    """(*spatial) as (n, H, W): an image as one slice."""
    return volume.reshape(-1, *volume.shape[-2:])


def _largest_slice(labels: np.ndarray) -> int:
    """The middle one where nothing is labelled."""
    sizes = (labels > 0).reshape(len(labels), -1).sum(1)
    return int(sizes.argmax()) if sizes.any() else len(labels) // 2


def _names_of_single_labels(names: Mapping[tuple[int, ...], str]) -> dict[str, str]:
    single: Iterable = ((v[0], name) for v, name in names.items() if len(v) == 1)
    return {str(value): name for value, name in single if value > 0}
