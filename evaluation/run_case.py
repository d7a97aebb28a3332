"""One case through every run: rows for cases.csv, a slice for the picture, and what it cost.

The preprocessed case is perturbed (by nothing, an attack or a corruption), predicted as nnU-Net
deploys it, and scored against the ground truth in the file's geometry (case_scores.py), run by run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.attack_figures import figures_of
from evaluation.case_attacks import CaseAttacks
from evaluation.case_result import CaseResult
from evaluation.case_scores import Scores, foreground_mean, score_case
from evaluation.corruption_table import CORRUPTIONS
from evaluation.corruptions import apply_corruption
from evaluation.example import Shown
from evaluation.inputs import CaseSource
from evaluation.model.case import Case
from evaluation.model.interface import EvaluatedModel
from evaluation.model.kinds import is_given
from evaluation.options import Options
from evaluation.protocol import EvaluationRun
from evaluation.rows import MEAN_LABEL, with_worst
from nnunetv2_lngswr.attacks import Bounds
from nnunetv2_lngswr.attacks.geometry import perturbation_norms
from nnunetv2_lngswr.attacks.models import DifferentiableModel
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file

Columns = dict[str, Any]


def run_case(
    model: EvaluatedModel,
    files: CaseSource,
    runs: Sequence[EvaluationRun],
    options: Options,
    *,
    surrogate: EvaluatedModel | None = None,
    adversarial_folder: Path | None = None,
    advance: Callable[[float], object] = lambda cost: None,
) -> CaseResult:
    """All runs on one case.

    Parameters
    ----------
    model, files, options
        The model, a case that it may evaluate, and the settings.
    runs
        As `protocol.plan_runs` gives them: the clean one first.
    surrogate
        What `transfer` attacks in place of the model.
    adversarial_folder
        Where perturbed cases are written; None for not at all.
    advance
        Hears the cost of each run, in plain predictions, once it is done.

    Raises
    ------
    UserError
        As `files.load` and `run_attack`.
    """
    case = files.load(model)
    evaluated = _EvaluatedCase(model, case, options, surrogate, runs)
    rows = _Rows(model, files, case, options, evaluated.names)
    result, shown = CaseResult(), Shown(model, case, runs, evaluated.names)
    for run in runs:
        started = time.perf_counter()
        x, columns = evaluated.perturb(run)
        segmentation, scores = evaluated.predict(None if run.kind == "clean" else x)
        result.rows += rows.of(run, scores, columns)
        # synchronises CUDA too: predictions come back on the CPU
        result.seconds[run.title] = time.perf_counter() - started + evaluated.attacks.owed(run)
        result.evaluations[run.title] = columns.get("forwards", 0), columns.get("gradients", 0)
        shown.consider(run, x, segmentation, _mean_dice(scores))
        saved = run.kind == "attack" and run.function != "noise"
        if saved and adversarial_folder is not None:
            evaluated.save(run, x, adversarial_folder, result)
        advance(run.cost)
    result.rows = with_worst(result.rows)
    result.example, result.corrupted = shown.example(), shown.corrupted()
    return result


def sliding_window(model: EvaluatedModel, options: Options) -> DifferentiableModel:
    """What the attacks of an evaluation go through."""
    return model.sliding_window(
        window_batch_size=options.window_batch_size,
        graph_bytes=options.graph_memory * 2**20,
        autocast=torch.float16 if options.autocast else None,
    )


def foreground_dice_of(model: EvaluatedModel, case: Case, x: torch.Tensor) -> float:
    """Foreground mean Dice of what is exported for x, (C, *spatial), preprocessed."""
    evaluated = _EvaluatedCase(model, case, Options(), None)
    return _mean_dice(evaluated.predict(x)[1])


class _EvaluatedCase:
    """A preprocessed case with what its runs share: window, bounds and target are built once."""

    def __init__(
        self,
        model: EvaluatedModel,
        case: Case,
        options: Options,
        surrogate: EvaluatedModel | None,
        runs: Sequence[EvaluationRun] = (),
    ) -> None:
        self.model, self.case, self.options = model, case, options
        self.x = case.batch.to(model.device)
        self.bounds = Bounds.of(
            self.x,
            image_channels=case.image_channels,
            file_scale=None if case.file_scale is None else case.file_scale.to(self.x),
        )
        self.names = {_values(v): k for k, v in model.label_manager.label_dict.items()}
        self.attacks = CaseAttacks(
            identifier=case.identifier,
            x=self.x,
            target=case.target(model.label_space).to(model.device),
            bounds=self.bounds,
            window=sliding_window(model, options),
            surrogate=None if surrogate is None else sliding_window(surrogate, options),
            options=options,
            to_come=runs,
        )

    def perturb(self, run: EvaluationRun) -> tuple[torch.Tensor, Columns]:
        """(x (C, *spatial) on the CPU, columns that describe the perturbation)."""
        if run.kind == "clean":
            return self.case.x, {}
        seed = run.seed(self.options.seed, self.case.identifier)
        if run.kind == "attack":
            return self._attack(run, seed)
        return self._corrupt(run, seed)

    def predict(self, x: torch.Tensor | None) -> tuple[np.ndarray, Scores]:
        """(segmentation in the file's geometry, its scores); the logits end here."""
        prediction = self.model.prediction(self.case, x)
        manager, tolerance = self.model.label_manager, self.options.nsd_tolerance
        scores = score_case(prediction, self.case, manager, tolerance_mm=tolerance)
        return prediction.segmentation, scores

    def save(self, run: EvaluationRun, x: torch.Tensor, folder: Path, result: CaseResult) -> None:
        """As float images; where these cannot be exact, the preprocessed array, and say why."""
        parts = (run.name, run.norm, run.epsilon_text.replace("/", "_"))
        folder = folder / "_".join(p for p in parts if p)
        try:
            error = self.model.save_perturbed(self.case, x, folder)
        except UserError as why:
            values = x.numpy()
            write_file(
                folder / f"{self.case.identifier}.npz",
                lambda file: np.savez_compressed(file, preprocessed=values),
            )
            reason = str(why).replace(f"case {self.case.identifier}", "a case")
            result.notes.append(
                "perturbed cases are saved as preprocessed float32 arrays (.npz), not as images: "
                f"{reason}"
            )
            return
        if error is not None:
            extent = float((self.bounds.maximum - self.bounds.minimum).max())
            # a slice of air may be constant once it is clipped
            result.roundtrip = max(error / (extent or 1.0), result.roundtrip or 0.0)

    def _corrupt(self, run: EvaluationRun, seed: int) -> tuple[torch.Tensor, Columns]:
        assert run.severity is not None
        corruption, case = CORRUPTIONS[run.name], self.case
        x = apply_corruption(
            run.name,
            case.x,
            severity=run.severity,
            seed=seed,
            image_channels=case.image_channels,
            file_scale=None if case.file_scale is None else case.file_scale.tolist(),
            file_offset=None if case.file_offset is None else case.file_offset.tolist(),
        )
        for kept in (case.outside, case.clipped if corruption.needs == "ct" else None):
            if kept is not None:
                x[: case.image_channels][kept] = case.x[: case.image_channels][kept]
        norms = perturbation_norms(x[None].to(self.x), self.x, self.bounds)
        settings = {"strength": corruption.strengths[run.severity - 1], "unit": corruption.unit}
        return x, {"seed": seed, "settings": settings, **_of_the_case(norms)}

    def _attack(self, run: EvaluationRun, seed: int) -> tuple[torch.Tensor, Columns]:
        found = self.attacks.result(run)
        settings = {k: _plain(v) for k, v in found.settings.items() if k not in ("norm", "epsilon")}
        extras = {k: _plain(v) for k, v in found.extras.items()} | figures_of(found)
        extras = {k: v for k, v in extras.items() if v == v}  # nan is no JSON
        return found.perturbed[0].detach().cpu(), {
            "seed": seed,
            "settings": settings,
            "extras": {k: v for k, v in extras.items() if isinstance(v, (int, float, str, bool))},
            "attack_loss": float(found.loss[0]),
            "attack_dice": float(found.dice[0]),
            "forwards": found.forwards,
            "gradients": found.gradients,
            **_of_the_case(found.norms),
        }


class _Rows:
    """Rows of cases.csv for one case; the clean run comes first, since drops are against it."""

    def __init__(
        self,
        model: EvaluatedModel,
        files: CaseSource,
        case: Case,
        options: Options,
        names: Mapping[tuple[int, ...], str],
    ) -> None:
        self.names, self.epsilon_unit = names, options.epsilon_unit
        self.clean_dice: dict[str, float] = {}
        self.case_columns = {
            "case": case.identifier,
            "fold": "" if files.folds is None else _joined(files.folds),
        }
        self.model_columns = _model_columns(model.describe())

    def of(self, run: EvaluationRun, scores: Scores, columns: Mapping[str, Any]) -> list[Columns]:
        """One row per label or region, and their mean."""
        labelled = [(str(k), self.names.get(_values(k), str(k)), s) for k, s in scores.items()]
        labelled.append((MEAN_LABEL, "foreground mean", foreground_mean(scores)))
        if run.kind == "clean":
            self.clean_dice = {label: s.dice for label, _, s in labelled}
        shared = {**self.case_columns, **self._run_columns(run, columns), **self.model_columns}
        return [
            {
                **shared,
                "label": label,
                "label_name": name,
                **vars(s),
                "dice_drop": self.clean_dice[label] - s.dice,
            }
            for label, name, s in labelled
        ]

    def _run_columns(self, run: EvaluationRun, columns: Mapping[str, Any]) -> Columns:
        settings = columns.get("settings", {})
        return {
            "kind": run.kind,
            "attack": run.name,
            "norm": run.norm,
            "epsilon": None if run.epsilon is None else float(run.epsilon),
            "epsilon_text": run.epsilon_text,
            "epsilon_unit": "" if run.epsilon is None else self.epsilon_unit,
            "severity": run.severity,
            **{k: v for k, v in columns.items() if k not in ("settings", "extras")},
            **{k: settings.get(k) for k in ("steps", "step_size", "restarts", "loss")},
            "settings": _json_or_nothing(settings),
            "extras": _json_or_nothing(columns.get("extras")),
            "source": "",
        }


def _mean_dice(scores: Scores) -> float:
    return foreground_mean(scores).dice


def _values(label: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in label) if isinstance(label, (tuple, list)) else (int(label),)


def _joined(parts: Iterable[Any]) -> str:
    return "+".join(map(str, parts))


def _model_columns(model: Mapping[str, Any]) -> Columns:
    """What was attacked, by the model's own description; nothing of how a given network tiles."""
    hashes = model["checkpoint_sha256"].values()
    return {
        "tile_step_size": model["tile_step_size"],
        "mirror_axes": "" if is_given(model) else _mirror_axes_text(model["mirror_axes"]),
        "folds": _joined(model["folds"]),
        **{k: model[k] for k in ("trainer", "plans", "configuration")},
        "checkpoint_sha256": _joined(h[:16] for h in hashes),
    }


def _mirror_axes_text(axes: Iterable[int] | None) -> str:
    return "none" if axes is None else " ".join(map(str, axes))


def _json_or_nothing(values: Mapping[str, Any] | None) -> str:
    return json.dumps(values, sort_keys=True) if values else ""


def _plain(value: Any) -> Any:
    """A tensor of one entry (one case) as a number; anything else as it is."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else None
    return value


def _of_the_case(norms: Mapping[str, torch.Tensor]) -> dict[str, float | None]:
    """Norms (1,) as numbers, nan as None."""
    values = {k: float(v[0]) for k, v in norms.items()}
    return {k: None if np.isnan(v) else v for k, v in values.items()}
