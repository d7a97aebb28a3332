"""What scripts share that read a trained model beside a reference: options, and loading the pair.

Both models are loaded from nnU-Net v2 model folders and must preprocess alike; cases are validation
cases of the fold (nnUNet_raw and nnUNet_preprocessed must be set), a seeded choice. Without
mirroring, as the project's CPU tables are taken.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evaluation import inputs
from evaluation.inputs import CaseFiles
from evaluation.model.case import Case
from evaluation.model.folder import SegmentationModel
from evaluation.model.sliding_window import SlidingWindow
from nnunetv2_lngswr.attacks import SegmentationTarget

MODEL, REFERENCE = "model", "reference"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models and the cases that both are read on."""

    models: dict[str, SegmentationModel]
    """{"model": ..., "reference": ...}"""
    cases: list[CaseFiles]
    """Files of the cases."""

    def other(self, name: str) -> SegmentationModel:
        return self.models[REFERENCE if name == MODEL else MODEL]

    @property
    def titles(self) -> dict[str, str]:
        """Column headings: the trainers."""
        return {
            name: f"{name}: {model.trainer_name.removeprefix('nnUNetTrainer')}"
            for name, model in self.models.items()
        }

    def record(self) -> dict[str, dict[str, Any]]:
        """What the models are, without where they lie."""
        return {
            name: {k: v for k, v in model.describe().items() if k != "folder"}
            for name, model in self.models.items()
        }


def parser(description: str) -> argparse.ArgumentParser:
    """The options that all of these scripts have."""
    found = argparse.ArgumentParser(description=description)
    add = found.add_argument
    add(
        "-m",
        dest="model",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="TRAINER__PLANS__CONFIGURATION",
    )
    add(
        "--reference",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="the vanilla model, with the same plans",
    )
    add(
        "-f",
        dest="fold",
        type=int,
        default=0,
        metavar="FOLD",
        help="its validation cases are used; default: %(default)s",
    )
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    add(
        "--max-cases",
        type=int,
        default=8,
        metavar="N",
        help="a seeded choice; default: %(default)s",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="of the cases and of everything random; default: %(default)s",
    )
    add("--threads", type=int, default=1, help="default: %(default)s")
    add("--device", default="cpu", help="default: %(default)s")
    add("-o", type=Path, help="write the figures as JSON")
    add(
        "--picture",
        type=Path,
        metavar="OUT.png",
        help="write the picture; it shows numbers only, no image of the data set",
    )
    add("--disable_progress_bar", action="store_true", help="no progress bar")
    return found


def load(args: argparse.Namespace) -> Pair:
    """The pair that `parser`'s options name.

    Raises
    ------
    ValueError
        Folders that cannot be used, a reference that preprocesses otherwise, missing data.
    """
    models = {
        name: SegmentationModel.from_folder(
            folder,
            folds=[args.fold],
            checkpoint=args.checkpoint,
            device=args.device,
            use_mirroring=False,
        )
        for name, folder in ((MODEL, args.model), (REFERENCE, args.reference))
    }
    model = models[MODEL]
    model.check_surrogate(models[REFERENCE])
    cases = inputs.from_cross_validation(
        dataset=model.plans.dataset_name,
        folds=[args.fold],
        ending=model.file_ending,
        channels=model.image_channels,
        previous_stage=None,
    )
    return Pair(models=models, cases=inputs.choose(cases, args.max_cases, seed=args.seed))


def problem(
    model: SegmentationModel, case: Case
) -> tuple[SlidingWindow, torch.Tensor, SegmentationTarget]:
    """(window that the model deploys, x (1, C, *spatial), its target), on the model's device."""
    x, target = case.batch.to(model.device), case.target(model.label_space).to(model.device)
    return model.sliding_window(), x, target


def mean(values: Sequence[float]) -> float:
    """Of the values that are not nan."""
    return float(torch.tensor(values, dtype=torch.float64).nanmean())
