"""splits_final.json as the experiments read it, and the splits that nnU-Net makes without it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json

RANDOM_FOLDS, SPLIT_SEED = 5, 12345
"""nnU-Net's, of splits that it makes."""


def random_splits(cases: Collection[str]) -> list[dict[str, list[str]]]:
    """Return those that nnU-Net's trainer makes of the cases; empty where it cannot, as it says."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if len(cases) < RANDOM_FOLDS:
        return []
    splits = generate_crossval_split(sorted(cases), seed=SPLIT_SEED, n_splits=RANDOM_FOLDS)
    return [{part: [str(c) for c in fold[part]] for part in ("train", "val")} for fold in splits]


def read_splits(file: Path) -> list[dict[str, list[str]]]:
    """Return the folds, {"train": names of cases, "val": names} each.

    Raises
    ------
    UserError
        It is something else; names the file.
    """
    splits: Any = read_json(file)
    if not isinstance(splits, list) or not splits:
        raise UserError(f"{file} must be a list of folds: lngswr splits makes it anew")
    for number, fold in enumerate(splits):
        for part in ("train", "val"):
            cases = fold.get(part) if isinstance(fold, dict) else None
            if not isinstance(cases, list) or not all(isinstance(c, str) for c in cases):
                raise UserError(
                    f'{file}: fold {number} must have "{part}", a list of cases: '
                    "lngswr splits makes it anew"
                )
    return splits
