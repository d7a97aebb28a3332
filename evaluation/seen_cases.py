"""Whether images that were given as a folder are cases that the model was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json


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
