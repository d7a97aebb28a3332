"""Cross-validation splits that keep what belongs together in one fold.

That is a patient's images, or a nodule's slices. nnU-Net reads splits_final.json from
nnUNet_preprocessed/DATASET, where its default planner copies the one beside dataset.json, and
splits by file without one, so that a patient's images leak.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnunetv2_lngswr.datasets.options import compiled
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json


def make_folds(
    groups: Mapping[str, str],
    *,
    folds: int = 5,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> list[dict[str, list[str]]]:
    """Splits in nnU-Net's format: each case in exactly one `val`, and no group in two of them.

    The same arguments give the same folds, in whatever order.

    Parameters
    ----------
    groups : case -> group.
    folds : how many.
    seed : of the order in which groups of equal size are dealt out.
    strata : case -> class whose share is kept alike over the folds.

    Raises
    ------
    UserError
        Fewer groups than folds.
    """
    members = defaultdict(list)
    for case in sorted(groups):
        members[groups[case]].append(case)
    if len(members) < folds:
        raise UserError(f"{folds} folds need at least {folds} groups, got {len(members)}")
    strata = strata or {}

    def shuffled(group: str) -> str:
        return hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    total, per_stratum = [0] * folds, [Counter() for _ in range(folds)]
    of_group = {}
    # largest groups first, each to the fold that lacks its class, and then cases, most
    for group in sorted(members, key=lambda g: (-len(members[g]), shuffled(g))):
        stratum = Counter(strata.get(c, "") for c in members[group]).most_common(1)[0][0]
        fold = min(range(folds), key=lambda f: (per_stratum[f][stratum], total[f], f))
        of_group[group] = fold
        total[fold] += len(members[group])
        per_stratum[fold][stratum] += len(members[group])
    return [
        {
            "train": [c for c in sorted(groups) if of_group[groups[c]] != fold],
            "val": [c for c in sorted(groups) if of_group[groups[c]] == fold],
        }
        for fold in range(folds)
    ]


def splits_text(folds: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """The content of splits_final.json."""
    return json.dumps(folds, indent=1) + "\n"


def groups_by_pattern(cases: Iterable[str], pattern: str) -> dict[str, str]:
    """case -> group: what the regular expression `pattern` finds in the case's name.

    That is its capture groups, or the whole match if it has none.

    Raises
    ------
    UserError
        A bad pattern, or cases in which it finds nothing.
    """
    expression = compiled(pattern)
    groups: dict[str, str] = {}
    without: list[str] = []
    for case in cases:
        match = expression.search(case)
        if match is None:
            without.append(case)
        elif match.groups():
            groups[case] = "|".join(part or "" for part in match.groups())
        else:
            groups[case] = match.group()
    if without:
        raise UserError(f"pattern {pattern!r} finds no group in {_some(sorted(without))}")
    return groups


def groups_by_csv(
    cases: Iterable[str], path: str | Path, case_column: str = "case", group_column: str = "patient"
) -> dict[str, str]:
    """case -> group, from a CSV file with a header; rows of other cases do no harm.

    Raises
    ------
    UserError
        No such file, missing columns, cases without a row, cases with two groups.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist (--csv)")
    groups: dict[str, str] = {}
    for case, group in _rows(path, case_column, group_column):
        if not group:
            raise UserError(f"{path}: {case} has no {group_column}")
        if groups.setdefault(case, group) != group:
            raise UserError(f"{path}: {case} has two groups, {groups[case]} and {group}")
    without = sorted(set(cases) - groups.keys())
    if without:
        raise UserError(f"{path} has no row for {_some(without)}")
    return {case: groups[case] for case in cases}


def cases_of(dataset_folder: str | Path) -> dict[str, Path]:
    """case -> its first channel's image in imagesTr, of a data set in nnU-Net raw format.

    Raises
    ------
    UserError
        The folder has no dataset.json, or no images of the ending that it names.
    """
    folder = Path(dataset_folder)
    description = folder / "dataset.json"
    if not description.is_file():
        raise UserError(f"{folder} has no dataset.json: it is no data set in nnU-Net raw format")
    ending = read_json(description, needs=("file_ending",))["file_ending"]
    images = {
        p.name.removesuffix(f"_0000{ending}"): p
        for p in sorted((folder / "imagesTr").glob(f"*_0000{ending}"))
    }
    if not images:
        raise UserError(f"{folder / 'imagesTr'} holds no *_0000{ending}")
    return images


# --- helpers --------------------------------------------------------------------------------------


def _rows(path: Path, *columns: str) -> list[tuple[str, ...]]:
    """These columns of a CSV file, row by row."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or ()
        missing = [c for c in columns if c not in names]
        if missing:
            raise UserError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'none'}"
            )
        return [tuple(row[c] for c in columns) for row in reader]


def _some(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
