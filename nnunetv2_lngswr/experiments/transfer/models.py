"""The models: read and checked as an evaluation would, and named so that they are told apart."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluation.model.folder import SegmentationModel
from evaluation.model.folds import find_folds
from evaluation.session import plan_for
from nnunetv2_lngswr.experiments.transfer.options import Options
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import refuse_no_utf8


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A model folder that has passed all checks of an evaluation."""

    name: str
    """As shown, unique among the models."""
    folder: Path
    """TRAINER__PLANS__CONFIGURATION, absolute."""
    number: int
    """Among the models, from 0."""
    folds: tuple[int, ...]
    checkpoint_sha256: Mapping[str, str]
    """{fold: hash}."""
    trainer: str
    configuration: str
    dataset: str
    """What it was trained on, nnU-Net's name."""
    dataset_json: Mapping[str, Any]

    @property
    def description(self) -> Path:
        """Where its labels and channels stand."""
        return self.folder / "dataset.json"


def read_models(folders: Sequence[str | Path], options: Options) -> list[TrainedModel]:
    """Read model folders, with the weights of every fold.

    Raises
    ------
    UserError
        As `SegmentationModel.from_folder` and `evaluation.protocol.plan_runs`; a model that is
        given twice, a cascade, which needs another model's predictions, and fold_all, which has no
        validation cases.
    """
    models: list[TrainedModel] = []
    for number, given in enumerate(folders):
        refuse_no_utf8(given)
        folder = Path(os.path.realpath(given))
        if any(folder == model.folder for model in models):
            raise UserError(f"{given} is given twice: give each model once (-m)")
        models.append(_read(folder, number, options))
    return [replace(m, name=name) for m, name in zip(models, _telling_names(models))]


def _read(folder: Path, number: int, options: Options) -> TrainedModel:
    found = find_folds(folder, options.folds, options.checkpoint)
    folds = [_numbered(fold, folder) for fold in found]
    hashes: dict[str, str] = {}
    for fold in folds:
        model = SegmentationModel.from_folder(
            folder,
            folds=[fold],
            checkpoint=options.checkpoint,
            trust_checkpoint=options.trust_checkpoint,
        )
        if model.is_cascade:
            raise UserError(
                f"{folder} is the second stage of a cascade, which needs the predictions of "
                "another model: only lngswr evaluate takes it (-prev_stage_predictions)"
            )
        plan_for(options.asked, model)  # an attack or a corruption that it cannot have
        hashes |= {str(f): sha for f, sha in model.checkpoint_sha256.items()}
    return TrainedModel(
        name="",
        folder=folder,
        number=number,
        folds=tuple(folds),
        checkpoint_sha256=hashes,
        trainer=model.trainer_name,
        configuration=model.configuration,
        dataset=model.plans.dataset_name,
        dataset_json=model.dataset_json,
    )


def _numbered(fold: int | str, folder: Path) -> int:
    if fold == "all":
        raise UserError(
            f"fold_all of {folder} was trained on every case, so that nothing is left to judge it "
            "by on its own data set: choose numbered folds (-f)"
        )
    return int(fold)


def _telling_names(models: Sequence[TrainedModel]) -> list[str]:
    """TRAINER on DATASET where that tells them apart, else by the folder's name, else numbered."""
    for names in ([m.trainer for m in models], [m.folder.name for m in models]):
        found = [f"{name} on {m.dataset}" for name, m in zip(names, models)]
        if len(set(found)) == len(found):
            return found
    return [f"{m.number + 1} {m.folder.name} on {m.dataset}" for m in models]
