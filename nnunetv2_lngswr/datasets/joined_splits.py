"""splits_final.json of a conversion, with near-duplicates in one fold.

A unit leaves the perceptual hash of its image in the manifest, so that a second call reads no image
again. Groups that near-duplicates tie together are dealt out as one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.datasets.options import MAX_DISTANCE, DatasetSpec
from nnunetv2_lngswr.datasets.splits import make_folds, splits_text
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file

SPLITS = "splits_final.json"
PERCEPTUAL_HASH = "perceptual_hash"
"""Key in an entry's details."""


@dataclass(frozen=True, kw_only=True)
class Joined:
    """What was found among the images of different groups."""

    pairs: int
    """Near-duplicates."""
    groups_before: int
    groups_after: int
    """Once those that near-duplicates tie together are one."""
    over_borders: int = 0
    """Pairs that lie over a fold border of the splits that were there, and stay."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What became of splits_final.json."""

    problem: str = ""
    """Why there is none, else empty."""
    joined: Joined | None = None
    """None where near-duplicates were not looked for."""


def write_splits(
    folder: Path,
    target: DatasetSpec,
    *,
    groups: Mapping[str, str],
    strata: Mapping[str, str],
    hashes: Mapping[str, str] | None,
) -> Splits:
    """Write splits_final.json, unless one that fits is there.

    Parameters
    ----------
    folder
        The data set.
    target
        Its number of folds and seed.
    groups, strata
        By case.
    hashes
        case -> perceptual hash, 64 hexadecimal digits; None: near-duplicates are not looked for.
    """
    path = folder / SPLITS
    pairs, together = [], dict(groups)
    if hashes is not None:
        # not at the top: conversions that need none work without ImageHash
        from nnunetv2_lngswr.datasets import near_duplicates

        bits = {case: near_duplicates.hash_of_text(text) for case, text in hashes.items()}
        pairs = near_duplicates.pairs_of(bits, groups, max_distance=MAX_DISTANCE)
        together = near_duplicates.join_groups(groups, pairs)
    before, after = len(set(groups.values())), len(set(together.values()))
    problem, over_borders = "", 0
    kept = read_splits(path, set(groups))
    if kept is not None:
        # those of `lngswr splits` stay as long as they fit
        of_case = {case: number for number, fold in enumerate(kept) for case in fold["val"]}
        over_borders = sum(of_case.get(pair.a) != of_case.get(pair.b) for pair in pairs)
    else:
        try:
            folds = make_folds(together, folds=target.folds, seed=target.seed, strata=strata)
            write_file(path, splits_text(folds))
        except UserError as error:
            path.unlink(missing_ok=True)
            tied = f" (near-duplicates tie {before} groups to {after}; --no-near-duplicates)"
            problem = f"{error}{tied if after < before else ''}"
    if hashes is None:
        return Splits(problem=problem)
    joined = Joined(
        pairs=len(pairs), groups_before=before, groups_after=after, over_borders=over_borders
    )
    return Splits(problem=problem, joined=joined)


def read_splits(path: Path, cases: set[str]) -> list[dict[str, Any]] | None:
    """Splits of exactly these cases, or None."""
    if not path.is_file():
        return None
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
        fits = bool(folds) and all({*fold["train"], *fold["val"]} == cases for fold in folds)
    except (ValueError, TypeError, KeyError):
        return None
    return folds if fits else None
