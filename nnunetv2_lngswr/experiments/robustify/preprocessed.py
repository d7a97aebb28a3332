"""The model's data set in nnUNet_preprocessed: whether it can be trained on as it lies there.

What is missing is told with the command of nnU-Net that makes it. Nothing is preprocessed here.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from evaluation.inputs import from_cross_validation
from evaluation.model.case import CasePreprocessor
from evaluation.seen_cases import validation_cases
from nnunetv2_lngswr.experiments.robustify.given_model import GivenModel
from nnunetv2_lngswr.experiments.robustify.options import Options
from nnunetv2_lngswr.experiments.splits import SPLIT_SEED, random_splits, read_splits
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.model_files import check_plans

_NEEDED = ("dataset.json", "dataset_fingerprint.json", "gt_segmentations")
_DATASET = re.compile(r"Dataset(\d{1,9})_.+")
_SPLITS = "splits_final.json"


def find_preprocessed(model: GivenModel, options: Options) -> Path:
    """Return the data set's folder in nnUNet_preprocessed.

    Parameters
    ----------
    model
        Whose data are looked for.
    options
        Say what the evaluations need.

    Raises
    ------
    UserError
        The data are not there, or not all of them, or were preprocessed by other plans; the labels
        or the validation cases are not the model's; what the evaluations need is missing.
    """
    home = os.environ.get("nnUNet_preprocessed")
    if not home:
        raise UserError("set nnU-Net's environment variable nnUNet_preprocessed first")
    folder = Path(home).absolute() / model.dataset
    missing = [name for name in _NEEDED if not (folder / name).exists()]
    if missing:
        raise UserError(f"{folder} has no {missing[0]}: run {_planning(model)}")
    _check_labels(folder, model)
    _check_data(folder, model)
    _check_cases(folder, model)
    if not options.skip_evaluation:
        _check_evaluation(model, options)
    return folder


def _planning(model: GivenModel) -> str:
    """The command that plans and preprocesses as the model's plans were made."""
    planner = str(model.plans.get("experiment_planner_used", "ExperimentPlanner"))
    by = [] if planner == "ExperimentPlanner" else ["-pl", planner]
    program = "nnUNetv2_plan_and_preprocess"
    # to be pasted, with names of plans that anyone may have written
    return shlex.join([program, "-d", _number(model), "-c", model.configuration, *by])


def _number(model: GivenModel) -> str:
    found = _DATASET.fullmatch(model.dataset)
    if found is None:
        raise UserError(
            f'{model.folder / "plans.json"}: "dataset_name" must be like Dataset611_ThyroidUS, '
            f"got {model.dataset}"
        )
    return str(int(found[1]))


def _check_labels(folder: Path, model: GivenModel) -> None:
    file = folder / "dataset.json"
    there = read_json(file, needs=("labels", "file_ending"))
    for key in ("labels", "regions_class_order", "channel_names"):
        mine, its = model.dataset_json.get(key), there.get(key)
        if mine != its and None not in (mine, its):
            raise UserError(
                f'{file}: "{key}" is {its}, the model\'s is {mine}: it is of another data set '
                "of this name"
            )


def _check_data(folder: Path, model: GivenModel) -> None:
    """Refuse data that no plans there describe as the model's own do."""
    manager = PlansManager(dict(model.plans))
    identifier = manager.get_configuration(model.configuration).data_identifier
    mine = _signature(model.plans, model)
    described: dict[str, list[str]] = {}
    for name, plans in _plans_there(folder, model.configuration):
        configuration = PlansManager(dict(plans)).get_configuration(model.configuration)
        if configuration.data_identifier == identifier:
            its = _signature(plans, model)
            described[name] = [key for key in mine if mine[key] != its[key]]
    # nnU-Net names data after the plans that they are made by; others may be copies of older ones
    owner = identifier.removesuffix(f"_{model.configuration}")
    if owner in described:
        described = {owner: described[owner]}
    alike = [name for name, differences in described.items() if not differences]
    by = next(iter(alike), owner if described else model.plans["plans_name"])
    copied = f"put the model's plans.json there as {by}.json and run "
    words = ["-d", _number(model), "-plans_name", by, "-c", model.configuration]
    command = shlex.join(["nnUNetv2_preprocess", *words])
    if described and not alike:
        name, differences = next(iter(described.items()))
        raise UserError(
            f"{folder / identifier} was preprocessed by {name}.json, which differs from the "
            f"model's plans in {', '.join(differences)}: {copied}{command}; models that {by}.json "
            "belongs to lose their data then, so do it in another nnUNet_preprocessed if there are "
            "any"
        )
    makes = f"run {command}" if alike else f"{copied}{command}"
    if not (folder / identifier).is_dir() or not alike:
        what = "does not exist" if alike else "is described by no plans there"
        raise UserError(f"{folder / identifier} {what}: {makes}")
    there = _preprocessed_cases(folder, model)
    missing = sorted(_cases(folder, model) - there)
    if missing or not there:
        named = f"case {missing[0]} of {_SPLITS}" if missing else "a single case"
        raise UserError(f"{folder / identifier} lacks {named}: {makes}")


def _preprocessed_cases(folder: Path, model: GivenModel) -> set[str]:
    manager = PlansManager(dict(model.plans))
    identifier = manager.get_configuration(model.configuration).data_identifier
    # nnU-Net writes a case's properties last
    return {file.stem for file in (folder / identifier).glob("[!.]*.pkl")}


def _plans_there(folder: Path, configuration: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The plans of a data set that have this configuration and that nnU-Net can read."""
    found = []
    for file in sorted(folder.glob("[!.]*.json")):
        try:
            plans = read_json(file)
            check_plans(plans, str(file))
            PlansManager(dict(plans)).get_configuration(configuration)
        except (UserError, OSError, KeyError, TypeError, ValueError, RuntimeError):
            continue  # another kind of file, or not what nnU-Net takes: nothing is known by it
        found.append((file.stem, plans))
    return found


def _signature(plans: Mapping[str, Any], model: GivenModel) -> dict[str, Any]:
    preprocessor = CasePreprocessor(
        PlansManager(dict(plans)), model.configuration, dict(model.dataset_json)
    )
    found = preprocessor.signature()
    if "CTNormalization" not in found["normalization_schemes"]:
        del found["foreground_intensity_properties"]  # nothing else uses them
    return found


def _cases(folder: Path, model: GivenModel) -> set[str]:
    """Those of the model's folds, as far as the splits say."""
    splits = read_splits(folder / _SPLITS) if (folder / _SPLITS).is_file() else []
    folds = [splits[int(f)] for f in model.folds if f != "all" and int(f) < len(splits)]
    return {case for fold in folds for part in ("train", "val") for case in fold[part]}


def _check_cases(folder: Path, model: GivenModel) -> None:
    """Refuse splits by which a fold would be judged on cases that it was trained on."""
    file = folder / _SPLITS
    splits = read_splits(file) if file.is_file() else None
    for fold in model.folds:
        place = model.folder / f"fold_{fold}"
        before = validation_cases(place, model.dataset_json["file_ending"])
        if fold == "all" or before is None:
            continue
        if before != validated(int(fold), splits, _preprocessed_cases(folder, model)):
            by = ":" if splits else " is missing, and by the splits that nnU-Net would make"
            raise UserError(
                f"{file}{by} fold {fold} has other validation cases than the model had when "
                f"it was trained ({place / 'validation'}): put the splits of its training there"
            )


def validated(
    fold: int, splits: Sequence[Mapping[str, Sequence[str]]] | None, cases: Collection[str]
) -> set[str]:
    """Return the validation cases of a fold, as `nnUNetTrainer.do_split` chooses them.

    Parameters
    ----------
    fold
        One beyond the splits is a draw of its own.
    splits
        Of splits_final.json; None: there is none yet, and nnU-Net makes it.
    cases
        All that are preprocessed.
    """
    ordered = sorted(cases)
    if splits is None:
        splits = random_splits(ordered)
        if not splits:
            return set()
    if fold < len(splits):
        return {str(case) for case in splits[fold]["val"]}
    draw = np.random.RandomState(SPLIT_SEED + fold)
    trained = draw.choice(len(ordered), int(len(ordered) * 0.8), replace=False)
    return {case for i, case in enumerate(ordered) if i not in trained}


def _check_evaluation(model: GivenModel, options: Options) -> None:
    if options.images is not None and options.labels is not None:
        for flag, folder in (("-i", options.images), ("-l", options.labels)):
            if not Path(folder).is_dir():
                raise UserError(f"folder {folder} does not exist ({flag})")
        return
    try:
        from_cross_validation(
            dataset=model.dataset,
            folds=model.folds,
            ending=model.dataset_json["file_ending"],
            channels=len(model.dataset_json.get("modality", model.dataset_json["channel_names"])),
            previous_stage=None,
        )
    except UserError as error:
        raise UserError(f"{error}; or leave the evaluations out (--skip-evaluation)") from None
