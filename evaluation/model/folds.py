"""Which folds of a model folder have the checkpoint that is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.names import some_names

Fold = int | str  # 'all'


def find_folds(folder: Path, folds: Sequence[Fold] | Fold | None, checkpoint: str) -> list[Fold]:
    """The folds asked for, or those found.

    Parameters
    ----------
    folder
        TRAINER__PLANS__CONFIGURATION.
    folds
        None takes every fold_0, fold_1, ... that has the checkpoint, or else fold_all.
    checkpoint
        Name of the file within a fold.

    Raises
    ------
    UserError
        No model folder; a fold or checkpoint that is missing.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} {'is a file' if folder.exists() else 'does not exist'}; give the model's "
            "TRAINER__PLANS__CONFIGURATION folder"
        )
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} is no nnU-Net v2 model folder: {name} is missing; "
                f"{_where_models_are(folder)}"
            )
    present = sorted(p.name.removeprefix("fold_") for p in folder.glob("fold_*") if p.is_dir())
    if folds is None:
        return _all_folds(folder, present, checkpoint)
    if isinstance(folds, (str, int)):
        folds = [folds]
    return _chosen_folds(folder, folds, present, checkpoint)


def _where_models_are(folder: Path) -> str:
    """The model folders beside which a user may have been one level too high or too low."""
    near = [folder.parent] if (folder.parent / "plans.json").is_file() else []
    near += sorted(p.parent for p in folder.glob("*/plans.json"))
    if near:
        return f"did you mean {some_names([str(f) for f in near], 3, between=' or ')}?"
    return "give the TRAINER__PLANS__CONFIGURATION folder"


def _all_folds(folder: Path, present: Sequence[str], checkpoint: str) -> list[Fold]:
    numbers = [int(f) for f in present if _is_number(f)]
    usable = [f for f in numbers if (folder / f"fold_{f}" / checkpoint).is_file()]
    if usable:
        return sorted(usable)
    if (folder / "fold_all" / checkpoint).is_file():
        return ["all"]
    there = sorted({p.name for p in folder.glob("fold_*/*.pth")})
    raise UserError(
        f"{folder} has no fold with {checkpoint}; folds there: {_listed(present)}, checkpoints "
        f"there: {_listed(there)} (-f, -chk)"
    )


def _chosen_folds(
    folder: Path, folds: Sequence[Fold], present: Sequence[str], checkpoint: str
) -> list[Fold]:
    if not folds:
        raise UserError("folds must name at least one fold, got none")
    unknown = [str(f) for f in folds if f != "all" and not _is_number(str(f))]
    if unknown:
        raise UserError(f"folds must be numbers or 'all', got {', '.join(unknown)} (-f)")
    chosen = list(dict.fromkeys(f if f == "all" else int(f) for f in folds))
    for f in chosen:
        if str(f) not in present:
            raise UserError(f"{folder} has no fold_{f}; folds there: {_listed(present)} (-f)")
        place = folder / f"fold_{f}"
        if not (place / checkpoint).is_file():
            there = sorted(p.name for p in place.glob("*.pth"))
            raise UserError(
                f"{place} has no {checkpoint}; checkpoints there: {_listed(there)} (-chk)"
            )
    return chosen


def _is_number(text: str) -> bool:
    # not isdigit, which takes ² too, nor more digits than int() reads
    return re.fullmatch("[0-9]{1,9}", text) is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
