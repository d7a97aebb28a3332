"""splits_final.json as the experiments read it."""

from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json


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
