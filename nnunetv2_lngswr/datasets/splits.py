"""Cross-validation splits that keep what belongs together (a patient's images, a nodule's slices) in one fold, and a search for
near-duplicate images on both sides of a fold border.

nnU-Net reads splits_final.json from nnUNet_preprocessed/DATASET, where its default planner copies the one beside dataset.json, and splits by file
without one, so that a patient's images leak.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.datasets.options import MAX_DISTANCE
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json

HASH_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """Two cases of different groups whose images nearly agree. `distance`: differing bits of 256."""

    a: str
    b: str
    distance: int


def make_folds(
    groups: Mapping[str, str],
    *,
    folds: int = 5,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> list[dict[str, list[str]]]:
    """Splits in nnU-Net's format: each case in exactly one `val`, and no group in two of them. `groups`: case -> group. `strata`: case ->
    class whose share is kept alike. The same arguments give the same folds, in whatever order. ValueError for fewer groups than folds."""
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
    return json.dumps(folds, indent=1) + "\n"


def groups_by_pattern(cases: Iterable[str], pattern: str) -> dict[str, str]:
    """case -> what the regular expression `pattern` finds in it: its capture groups, or the whole match if it has none. ValueError for a bad
    pattern, and for cases in which it finds nothing."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"pattern {pattern!r} is no regular expression: {error}") from None
    found = {case: expression.search(case) for case in cases}
    without = sorted(c for c, match in found.items() if match is None)
    if without:
        raise UserError(f"pattern {pattern!r} finds no group in {_some(without)}")
    return {
        c: "|".join(g or "" for g in m.groups()) if m.groups() else m.group()
        for c, m in found.items()
    }


def groups_by_csv(
    cases: Iterable[str], path: str | Path, case_column: str = "case", group_column: str = "patient"
) -> dict[str, str]:
    """case -> group from a CSV file with a header. ValueError for missing columns, cases without a row, and cases with two groups."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist (--csv)")
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in (case_column, group_column) if c not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(reader.fieldnames or ()) or 'none'}"
            )
        rows = [(row[case_column], row[group_column]) for row in reader]
    groups: dict[str, str] = {}
    for case, group in rows:
        if not group:
            raise UserError(f"{path}: {case} has no {group_column}")
        if groups.setdefault(case, group) != group:
            raise UserError(f"{path}: {case} has two groups, {groups[case]} and {group}")
    without = sorted(set(cases) - groups.keys())
    if without:
        raise UserError(f"{path} has no row for {_some(without)}")
    return {case: groups[case] for case in cases}


def cases_of(dataset_folder: str | Path) -> dict[str, Path]:
    """case -> its first channel's image in imagesTr, of a data set in nnU-Net raw format."""
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


def near_duplicates(
    images: Mapping[str, Path],
    groups: Mapping[str, str],
    *,
    max_distance: int = MAX_DISTANCE,
    progress: bool = True,
) -> list[NearDuplicate]:
    """Pairs of cases of different groups whose perceptual hashes differ in at most `max_distance` of 256 bits, nearest first. Pairs within a
    group are no leak. Volumes are compared by their middle slice. ValueError for unreadable images, by file."""
    from tqdm import tqdm

    if not 0 <= max_distance <= HASH_SIDE**2:
        raise UserError(f"max distance must be in 0..{HASH_SIDE**2}, got {max_distance}")
    names = sorted(images)
    bits = np.stack(
        [
            perceptual_hash(images[n])
            for n in tqdm(names, desc="hashing", unit="image", disable=not progress)
        ]
    )
    # differing bits = ones of a + ones of b - 2 * common ones
    ones = bits.astype(np.float32)
    count = ones.sum(1)
    pairs = []
    for i, name in enumerate(names):
        distance = count[i] + count[i + 1 :] - 2 * (ones[i + 1 :] @ ones[i])
        for j in np.flatnonzero(distance <= max_distance):
            other = names[i + 1 + j]
            if groups[name] != groups[other]:
                pairs.append(NearDuplicate(a=name, b=other, distance=int(distance[j])))
    return sorted(pairs, key=lambda p: (p.distance, p.a, p.b))


def leaks(
    folds: Sequence[Mapping[str, Sequence[str]]], pairs: Iterable[NearDuplicate]
) -> list[NearDuplicate]:
    """The pairs that some fold has on both sides, train and val."""
    of_case = {case: number for number, fold in enumerate(folds) for case in fold["val"]}
    return [p for p in pairs if of_case[p.a] != of_case[p.b]]


def join_groups(groups: Mapping[str, str], pairs: Iterable[NearDuplicate]) -> dict[str, str]:
    """`groups` in which near-duplicates share a group, and so a fold."""
    root = {g: g for g in groups.values()}

    def find(group: str) -> str:
        while root[group] != group:
            group = root[group]
        return group

    for pair in pairs:
        a, b = sorted((find(groups[pair.a]), find(groups[pair.b])))
        root[b] = a
    return {case: find(group) for case, group in groups.items()}


def perceptual_hash(path: Path) -> np.ndarray:
    """256 bits, (256,) bool: signs of the low DCT coefficients of the grey image about their median (ImageHash's phash), which noise, JPEG,
    scaling and a shift of intensities leave nearly alone."""
    import imagehash
    from PIL import Image

    plane = _plane(path).astype(np.float64)
    low, high = plane.min(), plane.max()
    grey = np.zeros(plane.shape) if high == low else (plane - low) / (high - low) * 255
    return imagehash.phash(Image.fromarray(grey.astype(np.uint8)), hash_size=HASH_SIDE).hash.ravel()


def _plane(path: Path) -> np.ndarray:
    """An image, or the middle axial slice of a volume, grey."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise UserError(f"{path} is not readable as an image") from None
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(-1)
    return array[array.shape[0] // 2] if array.ndim == 3 else array


def _some(names: Sequence[str], shown: int = 5) -> str:
    return ", ".join(names[:shown]) + (
        f" and {len(names) - shown} more" if len(names) > shown else ""
    )
