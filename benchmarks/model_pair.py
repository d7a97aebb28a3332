"""What scripts that read a trained model beside a reference share: the command line, loading the pair with its cases, and saving.

Both models are loaded from nnU-Net v2 model folders and must preprocess alike; cases are validation cases of the fold (nnUNet_raw and
nnUNet_preprocessed must be set), a seeded choice. Without mirroring, as the project's CPU tables are taken.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # as a script, from a clone that is not installed

import torch
from matplotlib.figure import Figure

from evaluation import inputs
from evaluation.inputs import CaseFiles
from evaluation.model.folder import SegmentationModel
from nnunetv2_lngswr.utils.files import write_file

MODEL, REFERENCE = "model", "reference"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """`models`: {"model": ..., "reference": ...}; `cases`: files of the cases that both are read on."""

    models: dict[str, SegmentationModel]
    cases: list[CaseFiles]

    def other(self, name: str) -> SegmentationModel:
        return self.models[REFERENCE if name == MODEL else MODEL]

    @property
    def titles(self) -> dict[str, str]:
        """Column headings: the trainers."""
        return {
            name: f"{name}: {model.trainer_name.removeprefix('nnUNetTrainer')}"
            for name, model in self.models.items()
        }


def parser(description: str) -> argparse.ArgumentParser:
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
    """ValueError for folders that cannot be used, a reference that preprocesses otherwise, and missing data."""
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


def write_json(path: Path, content: dict) -> None:
    """Numbers to seven digits, what float32 holds; nan as null."""
    write_file(path, json.dumps(_rounded(content), indent=1, allow_nan=False) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def write_picture(path: Path, figure: Figure) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, facecolor="white")
    write_file(path, picture.getvalue())


def mean(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).nanmean())
