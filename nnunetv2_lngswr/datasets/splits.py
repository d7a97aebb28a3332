"""Cross-validation splits that keep what belongs together in one fold.

That is a patient's images, or a nodule's slices. nnU-Net reads splits_final.json from
nnUNet_preprocessed/DATASET, where its default planner copies the one beside dataset.json, and
splits by file without one, so that a patient's images leak.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.names import some_names


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
    groups
        case -> group.
    folds
        How many.
    seed
        Of the order in which groups of equal size are dealt out.
    strata
        case -> class whose share is kept alike over the folds.

    Raises
    ------
    UserError
        Fewer than two folds, or fewer groups than folds.
    """
    members = defaultdict(list)
    for case in sorted(groups):
        members[groups[case]].append(case)
    check_folds(folds, len(members))
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


def check_folds(folds: int, groups: int | None = None) -> None:
    """UserError for fewer than two folds, and for more folds than there are `groups`."""
    if folds < 2:
        raise UserError(f"folds must be >= 2, got {folds} (--folds)")
    if groups is not None and groups < folds:
        raise UserError(
            f"{folds} folds need at least {folds} groups, got {groups}: choose fewer (--folds)"
        )


def splits_text(folds: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """The content of splits_final.json."""
    return json.dumps(folds, indent=1) + "\n"


def cases_of(dataset_folder: str | Path) -> dict[str, Path]:
    """case -> its first channel's image in imagesTr, of a data set in nnU-Net raw format.

    Raises
    ------
    UserError
        The folder has no dataset.json, or no images of the ending that it names, or a case has no
        first channel.
    """
    folder = Path(dataset_folder)
    description = folder / "dataset.json"
    if not description.is_file():
        raise UserError(f"{folder} has no dataset.json: it is no data set in nnU-Net raw format")
    ending = read_json(description, needs=("file_ending",))["file_ending"]
    if not isinstance(ending, str) or not ending.startswith("."):
        raise UserError(f"{description}: file_ending must be such as '.nii.gz', got {ending!r}")
    channel = re.compile(rf"(.+)_(\d{{4}}){re.escape(ending)}", re.DOTALL)
    images, all_of_them = {}, set()
    for path in sorted((folder / "imagesTr").glob("*")):
        if match := channel.fullmatch(path.name):
            all_of_them.add(match[1])
            if match[2] == "0000":
                images[match[1]] = path
    if without := sorted(all_of_them - images.keys()):
        raise UserError(
            f"{folder / 'imagesTr'}: {some_names(without)} without a first channel (_0000{ending})"
        )
    if not images:
        raise UserError(f"{folder / 'imagesTr'} holds no *_0000{ending}")
    return images
