"""One case through every run of the protocol: rows for cases.csv, a slice for the picture, and what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation import metrics, protocol
from evaluation.corruptions import CORRUPTIONS, apply_corruption
from evaluation.inputs import CaseFiles
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.model.perturbed_files import roundtrip_error
from evaluation.model.sliding_window import SlidingWindow
from evaluation.protocol import EvaluationRun, Options
from evaluation.report.cases_table import MEAN_LABEL, with_worst
from nnunetv2_lngswr.attacks import Bounds, ThreatModel, run_attack
from nnunetv2_lngswr.attacks.base import perturbation_norms
from nnunetv2_lngswr.utils.files import write_file


@dataclass(kw_only=True)
class CaseResult:
    """`rows`: for cases.csv, worst_* included. `seconds`, `evaluations` [forwards, gradients]: per run title. `example`: arrays (H, W) of
    one slice ('image', 'perturbation', 'reference', 'before', 'after') and what they show, or None. `roundtrip`: the largest difference, as
    fraction of the range, between a saved perturbed case read back and what was attacked; None where none was saved as images. `notes`: to
    be said in the report."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    evaluations: dict[str, tuple[int, int]] = field(default_factory=dict)
    example: dict[str, Any] | None = None
    roundtrip: float | None = None
    notes: list[str] = field(default_factory=list)


def run_case(
    model: SegmentationModel,
    files: CaseFiles,
    runs: Sequence[EvaluationRun],
    options: Options,
    *,
    surrogate: SegmentationModel | None = None,
    adversarial_folder: Path | None = None,
    advance: Callable[[float], None] = lambda cost: None,
) -> CaseResult:
    """All `runs` on one case. `adversarial_folder`: where perturbed cases are written, None for not. `advance` hears each run's cost."""
    case = model.preprocess(
        files.images, files.label, files.previous_stage, identifier=files.identifier
    )
    session = _Session(model, case, files, options, surrogate)
    result = CaseResult()
    kept: _Kept | None = None
    example_budget = example_run(runs)
    for run in runs:
        started = time.perf_counter()
        x, figures = session.perturb(run)
        segmentation = model.predict(case, None if run.kind == "clean" else x)
        scores = session.score(segmentation)
        result.rows += session.rows(run, scores, figures)
        # synchronises CUDA too: predictions come back on the CPU
        result.seconds[run.title] = time.perf_counter() - started
        result.evaluations[run.title] = (
            figures.get("forwards") or 0,
            figures.get("gradients") or 0,
        )
        if run.kind == "clean":
            clean = segmentation
        elif run.kind == "attack":
            dice = metrics.foreground_mean(scores).dice
            dice = float("inf") if np.isnan(dice) else dice  # nothing there and nothing found
            if (
                (run.norm, run.epsilon) == example_budget
                and run.function != "noise"
                and (kept is None or dice < kept.dice)
            ):
                kept = _Kept(dice=dice, run=run, x=x, segmentation=segmentation)
            if adversarial_folder is not None and run.function != "noise":
                session.save(run, x, adversarial_folder, result)
        advance(run.cost)
    result.rows = with_worst(result.rows)
    if kept is not None:
        result.example = session.example(kept, clean)
    return result


def example_run(runs: Sequence[EvaluationRun]) -> tuple[str, Any] | None:
    """(norm, epsilon) that examples.png shows: of Linf where it was run, the budget in the middle, the upper one of two; without any budget, an
    attack that has none."""
    attacks = [r for r in runs if r.kind == "attack" and r.function != "noise"]
    budgets = {(r.norm, r.epsilon) for r in attacks if r.epsilon is not None}
    chosen = sorted(b for b in budgets if b[0] == protocol.LINF) or sorted(budgets)
    if chosen:
        return chosen[len(chosen) // 2]
    return (attacks[0].norm, None) if attacks else None


@dataclass(kw_only=True)
class _Kept:
    dice: float
    run: EvaluationRun
    x: torch.Tensor
    segmentation: np.ndarray


def sliding_window(model: SegmentationModel, options: Options) -> SlidingWindow:
    """What the attacks of an evaluation go through."""
    return model.sliding_window(
        window_batch_size=options.window_batch_size,
        autocast=torch.float16 if options.autocast else None,
    )


class _Session:
    """A preprocessed case with everything that its runs share."""

    def __init__(
        self,
        model: SegmentationModel,
        case: Case,
        files: CaseFiles,
        options: Options,
        surrogate: SegmentationModel | None,
    ) -> None:
        self.model, self.case, self.files, self.options = model, case, files, options
        self.window = sliding_window(model, options)
        self.surrogate = None if surrogate is None else sliding_window(surrogate, options)
        self.x = case.batch.to(model.device)
        self.bounds = Bounds.of(
            self.x,
            image_channels=case.image_channels,
            file_scale=None if case.file_scale is None else case.file_scale.to(self.x),
        )
        self.target = case.target(model.label_space).to(model.device)
        manager = model.label_manager
        self.labels = [
            tuple(r) if isinstance(r, (tuple, list)) else int(r)
            for r in (
                manager.foreground_regions if manager.has_regions else manager.foreground_labels
            )
        ]
        self.names = {_values(v): k for k, v in model.dataset_json["labels"].items()}
        self.clean_dice: dict[Any, float] = {}

    def perturb(self, run: EvaluationRun) -> tuple[torch.Tensor, dict[str, Any]]:
        """(x (C, *spatial), columns that describe the perturbation)."""
        if run.kind == "clean":
            return self.case.x, {}
        seed = run.seed(self.options.seed, self.case.identifier)
        if run.kind == "shift":
            shift = CORRUPTIONS[run.name]
            x = apply_corruption(
                run.name,
                self.case.x,
                severity=run.severity,
                seed=seed,
                image_channels=self.case.image_channels,
                file_scale=self.case.file_scale,
                file_offset=self.case.file_offset,
            )
            norms = perturbation_norms(x[None].to(self.x), self.x, self.bounds)
            settings = {"strength": shift.strengths[run.severity - 1], "unit": shift.unit}
            return x, {"seed": seed, "settings": settings, **_scalars(norms)}
        arguments = dict(run.options)
        if self.surrogate is not None and run.function == "transfer":
            arguments["surrogate"] = self.surrogate
        threat = ThreatModel(
            norm=run.norm or "linf", epsilon=float(run.epsilon or 0), unit=self.options.epsilon_unit
        )
        generator = torch.Generator().manual_seed(seed)
        found = run_attack(
            run.function,
            self.window,
            self.x,
            self.target,
            threat.ball(self.bounds),
            generator=generator,
            **arguments,
        )
        settings = {k: _plain(v) for k, v in found.settings.items() if k not in ("norm", "epsilon")}
        extras = {k: _plain(v) for k, v in found.extras.items()}
        figures = {
            "seed": seed,
            "settings": settings,
            "extras": {k: v for k, v in extras.items() if isinstance(v, (int, float, str, bool))},
            "attack_loss": float(found.loss[0]),
            "attack_dice": float(found.dice[0]),
            "forwards": found.forwards,
            "gradients": found.gradients,
            **_scalars(found.norms),
        }
        return found.perturbed[0].detach().cpu(), figures

    def score(self, segmentation: np.ndarray) -> dict[Any, metrics.Score]:
        return metrics.score(
            segmentation,
            self.case.ground_truth,
            spacing=self.case.spacing,
            labels=self.labels,
            ignore_label=self.model.label_manager.ignore_label,
            tolerance_mm=self.options.nsd_tolerance,
        )

    def rows(
        self, run: EvaluationRun, scores: Mapping[Any, metrics.Score], figures: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        model, settings = self.model, figures.get("settings", {})
        shared = {
            "case": self.case.identifier,
            "fold": "" if self.files.folds is None else "+".join(map(str, self.files.folds)),
            "kind": run.kind,
            "attack": run.name,
            "norm": run.norm,
            "epsilon": None if run.epsilon is None else float(run.epsilon),
            "epsilon_text": run.epsilon_text,
            "epsilon_unit": "" if run.epsilon is None else self.options.epsilon_unit,
            "severity": run.severity,
            **{k: v for k, v in figures.items() if k not in ("settings", "extras")},
            **{k: settings.get(k) for k in ("steps", "step_size", "restarts", "loss")},
            "settings": json.dumps(settings, sort_keys=True) if settings else "",
            "extras": json.dumps(figures["extras"], sort_keys=True)
            if figures.get("extras")
            else "",
            "source": "",
            "tile_step_size": model.tile_step_size,
            "mirror_axes": "none"
            if model.mirror_axes is None
            else " ".join(map(str, model.mirror_axes)),
            "folds": "+".join(map(str, model.folds)),
            "trainer": model.trainer_name,
            "plans": model.plans.plans_name,
            "configuration": model.configuration,
            "checkpoint_sha256": "+".join(model.checkpoint_sha256[f][:16] for f in model.folds),
        }
        labelled = [(str(k), self.names.get(_values(k), str(k)), s) for k, s in scores.items()]
        labelled.append((MEAN_LABEL, "foreground mean", metrics.foreground_mean(scores)))
        if run.kind == "clean":
            self.clean_dice = {key: s.dice for key, _, s in labelled}
        return [
            {
                **shared,
                "label": key,
                "label_name": name,
                **vars(s),
                "dice_drop": self.clean_dice[key] - s.dice,
            }
            for key, name, s in labelled
        ]

    def save(self, run: EvaluationRun, x: torch.Tensor, folder: Path, result: CaseResult) -> None:
        """Write the perturbed case as float images; where that cannot be exact, as the preprocessed array, and say why."""
        folder = folder / "_".join(
            p for p in (run.name, run.norm, run.epsilon_text.replace("/", "_")) if p
        )
        try:
            paths = self.model.write_case(self.case, x, folder)
        except ValueError as why:
            values = x.numpy()
            write_file(
                folder / f"{self.case.identifier}.npz",
                lambda file: np.savez_compressed(file, preprocessed=values),
            )
            reason = str(why).replace(f"case {self.case.identifier}", "a case")
            result.notes.append(
                f"perturbed cases are saved as preprocessed float32 arrays (.npz), not as images: {reason}"
            )
            return
        if not self.model.is_cascade:
            error = roundtrip_error(self.model, self.case, x, paths) / float(
                (self.bounds.maximum - self.bounds.minimum).max()
            )
            result.roundtrip = max(error, result.roundtrip or 0.0)

    def example(self, kept: _Kept, clean: np.ndarray) -> dict[str, Any]:
        """Arrays of one slice of the preprocessed grid: the reference's largest."""
        labels = self.case.labels.numpy()
        labels = (
            np.where(labels == self.model.label_manager.ignore_label, 0, labels)
            if self.model.label_manager.has_ignore_label
            else labels
        )
        sizes = (labels > 0).reshape(len(labels), -1).sum(1)
        at = int(sizes.argmax()) if sizes.any() else len(labels) // 2
        before, after = (self._on_grid(s)[at] for s in (clean, kept.segmentation))
        dice = metrics.foreground_mean(self.score(clean)).dice
        return {
            "image": self.case.x[0, at].numpy(),
            "perturbation": (kept.x[0, at] - self.case.x[0, at]).numpy(),
            "range": float(self.case.x[0].max() - self.case.x[0].min()),
            "reference": labels[at].astype(np.int16),
            "before": before.astype(np.int16),
            "after": after.astype(np.int16),
            "names": {
                str(v[0]): name for v, name in self.names.items() if len(v) == 1 and v[0] > 0
            },
            "case": self.case.identifier,
            "attack": kept.run.name,
            "norm": kept.run.norm,
            "epsilon_text": kept.run.epsilon_text,
            "dice_before": dice,
            "dice_after": kept.dice,
        }

    def _on_grid(self, segmentation: np.ndarray) -> np.ndarray:
        """A segmentation in the file's geometry on the preprocessed grid, nearest neighbour: for the picture only."""
        moved = segmentation.transpose(self.model.plans.transpose_forward)
        moved = moved[
            tuple(slice(int(a), int(b)) for a, b in self.case.properties["bbox_used_for_cropping"])
        ]
        for axis, n in enumerate(self.case.x.shape[1:]):
            index = ((np.arange(n) + 0.5) * moved.shape[axis] / n).astype(int)
            moved = np.take(moved, index, axis=axis)
        return moved


def _values(label: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in label) if isinstance(label, (tuple, list)) else (int(label),)


def _plain(value: Any) -> Any:
    """A tensor of one entry (one case) as a number; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else None
    return value


def _scalars(norms: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    values = {k: float(v[0]) for k, v in norms.items()}
    return {k: None if np.isnan(v) else v for k, v in values.items()}
