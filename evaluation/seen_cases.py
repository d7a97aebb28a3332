"""Whether cases are such that the model was trained on: of an image folder, of a fold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from evaluation.inputs import CaseFiles
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import some_names


def seen_cases(dataset: str, images: Path, cases: Sequence[str], folds: Sequence[int | str]) -> str:
    """What a report must say of them; empty where nothing is known.

    Parameters
    ----------
    dataset
        The model's.
    images
        The image folder; only nnUNet_raw/DATASET/imagesTr is known to be what it was trained on.
    cases
        Their names.
    folds
        Of the model, all of which predict each case.
    """
    raw = os.environ.get("nnUNet_raw")
    if not raw or os.path.realpath(images) != os.path.realpath(Path(raw, dataset, "imagesTr")):
        return ""
    trained = set(cases) if "all" in folds else _trained_on(dataset, folds)
    if trained is None:
        return "all of them of the data set that it was trained on"
    seen = len(trained & set(cases))
    if not seen:
        return ""
    return (
        f"{seen} of these cases it was trained on, and they say nothing of new ones: without -i "
        "and -l each fold's validation cases are evaluated"
    )


def _trained_on(dataset: str, folds: Sequence[int | str]) -> set[str] | None:
    """By any of the folds; None where nnU-Net's splits are not there."""
    place = os.environ.get("nnUNet_preprocessed")
    if not place:
        return None
    try:
        splits = read_json(Path(place, dataset, "splits_final.json"))
        return {str(case) for fold in folds for case in splits[int(fold)]["train"]}
    except (OSError, UserError, LookupError, TypeError, ValueError):  # read for a note alone
        return None


def validation_cases(fold: Path, ending: str) -> set[str] | None:
    """Return the cases that a fold was validated on; None if nothing says so.

    Those of an earlier training in the same place are among them, as nnU-Net leaves their files.

    Parameters
    ----------
    fold
        Its folder.
    ending
        The model's file_ending.

    Raises
    ------
    UserError
        The summary of its validation is damaged.
    """
    summary = fold / "validation" / "summary.json"
    if not summary.is_file():
        return None
    cases = read_json(summary, needs=("metric_per_case",))["metric_per_case"]
    try:
        files = [PurePosixPath(case["reference_file"].replace("\\", "/")).name for case in cases]
    except (TypeError, KeyError, AttributeError):
        raise UserError(f'{summary}: "metric_per_case" must list cases with their files') from None
    return {file.removesuffix(ending) for file in files}


def refuse_seen(cases: Sequence[CaseFiles], folder: Path, dataset: str, ending: str) -> None:
    """Refuse cases that their fold did not have for its validation when it was trained.

    Parameters
    ----------
    cases
        Those that today's splits_final.json has for each fold's validation.
    folder
        The model's.
    dataset
        Its name, for the message.
    ending
        The model's file_ending.

    Raises
    ------
    UserError
        Today's splits are others; the summary of a validation is damaged.
    """
    for fold in dict.fromkeys(fold for case in cases for fold in case.folds or ()):
        validated = validation_cases(folder / f"fold_{fold}", ending)
        names = {case.identifier for case in cases if case.folds == (fold,)}
        others = [] if validated is None else sorted(names - validated)
        if others:
            raise UserError(
                f"splits_final.json of {dataset} has other validation cases in fold {fold} than "
                f"{folder} was trained with, which may have seen {some_names(others)}: put the "
                "splits of its training into nnUNet_preprocessed"
            )
