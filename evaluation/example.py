"""What of a case is shown: the slice of examples.png before and after its strongest attack, the
pictures of report.html under every budget, and those of corruptions.png."""

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
from evaluation.picture_stack import MOST_LABELS, WINDOW, Cut, PictureStack, indices_of
from evaluation.protocol import CORRUPTION, EvaluationRun

SIDE_OF_CORRUPTED = 96
"""Pixels at most along h and w, of one slice under every corruption."""
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
        self._lowest = float("inf")

    def consider(
        self, run: EvaluationRun, x: torch.Tensor, segmentation: np.ndarray, dice: float
    ) -> None:
        if run.function == "noise" or (run.norm, run.epsilon) != self.budget:
            return
        # undefined: nothing there and nothing found
        rank = float("inf") if np.isnan(dice) else dice
        if self.found is None or rank < self._lowest:
            self.found = Attacked(run=run, x=x, segmentation=segmentation, dice=dice)
            self._lowest = rank


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


class Shown:
    """Everything of a case that is shown, collected run by run, the clean one first.

    Parameters
    ----------
    model, case
        The case preprocessed by the model, with a label.
    runs
        All that are to come.
    names
        {values of a label or region: its name}.
    """

    def __init__(
        self,
        model: EvaluatedModel,
        case: Case,
        runs: Sequence[EvaluationRun],
        names: Mapping[tuple[int, ...], str],
    ) -> None:
        self._model, self._case, self._names = model, case, names
        self._strongest = StrongestAttack(runs)
        self._clean: tuple[np.ndarray, float] | None = None
        self._pictures: Pictures | None = None
        self._corrupted: CorruptedSlice | None = None

    def consider(
        self, run: EvaluationRun, x: torch.Tensor, segmentation: np.ndarray, dice: float
    ) -> None:
        """`x`: (C, *spatial); `segmentation`: in the file's geometry; `dice`: foreground mean."""
        if run.kind == "clean":
            self._clean = segmentation, dice
            self._pictures = Pictures(self._model, self._case, segmentation)
            self._corrupted = CorruptedSlice(self._model, self._case, segmentation, dice)
            return
        assert self._pictures is not None and self._corrupted is not None
        if run.kind == CORRUPTION:
            self._corrupted.consider(run, x, segmentation, dice)
        else:
            self._strongest.consider(run, x, segmentation, dice)
            self._pictures.consider(run, x, segmentation, dice)

    def example(self) -> dict[str, Any] | None:
        """`build_example`, with the pictures; None where no attack ran."""
        if self._strongest.found is None:
            return None
        assert self._clean is not None and self._pictures is not None
        clean, dice = self._clean
        example = build_example(
            self._model,
            self._case,
            self._strongest.found,
            clean=clean,
            clean_dice=dice,
            names=self._names,
        )
        return example | self._pictures.of_example()

    def corrupted(self) -> dict[str, Any] | None:
        """What `CorruptedSlice` keeps; None where no corruption ran."""
        assert self._corrupted is not None
        kept = self._corrupted.kept()
        return kept and {**kept, "names": _names_of_single_labels(self._names)}


class CorruptedSlice:
    """One slice of a case under every corruption, in small: the one with most ground truth.

    Parameters
    ----------
    model, case
        The case preprocessed by the model, with a label.
    clean, dice
        The segmentation of the clean case, in the file's geometry, and its foreground mean.
    """

    def __init__(self, model: EvaluatedModel, case: Case, clean: np.ndarray, dice: float) -> None:
        self._case = case
        reference = _slices(_ground_truth(model, case))
        self._at = _largest_slice(reference)
        before = _slices(case.on_grid_of_x(clean))
        maps = reference[[self._at]], before[[self._at]]
        self._cut = Cut.around(*maps, side=SIDE_OF_CORRUPTED)
        image = self._of(case.x[0].numpy())
        low, high = (float(v) for v in np.percentile(image, WINDOW))
        self._low, self._span = low, max(high - low, 1e-6)
        self._images, self._maps = [self._grey(image)], [self._of(before)]
        self._reference = self._of(reference)
        self._runs: list[dict[str, Any]] = [{"corruption": "", "severity": None, "dice": dice}]

    def consider(
        self, run: EvaluationRun, x: torch.Tensor, segmentation: np.ndarray, dice: float
    ) -> None:
        self._images.append(self._grey(self._of(x[0].numpy())))
        self._maps.append(self._of(self._case.on_grid_of_x(segmentation)))
        self._runs.append({"corruption": run.name, "severity": run.severity, "dice": dice})

    def kept(self) -> dict[str, Any] | None:
        """case_result.CORRUPTED_ARRAYS, uint8, grey values and label maps, (runs, h, w) and
        (h, w), the clean run first; the rest JSON-ready. None without a corruption."""
        if len(self._runs) < 2:
            return None
        maps = np.stack([self._reference, *self._maps])
        values = [0, *(int(v) for v in np.unique(maps) if v > 0)][: MOST_LABELS + 1]
        reference, *predictions = (indices_of(m, values) for m in maps)
        return {
            "images": np.stack(self._images),
            "predictions": np.stack(predictions),
            "reference": reference,
            "values": values,
            "case": self._case.identifier,
            "runs": self._runs,
        }

    def _of(self, volume: np.ndarray) -> np.ndarray:
        """(h, w) of a volume on the preprocessed grid."""
        return self._cut.of(_slices(volume)[[self._at]])[0]

    def _grey(self, image: np.ndarray) -> np.ndarray:
        """In the clean slice's window."""
        grey = (image.astype(np.float32) - self._low) * (255 / self._span)
        return np.rint(grey.clip(0, 255)).astype(np.uint8)


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
