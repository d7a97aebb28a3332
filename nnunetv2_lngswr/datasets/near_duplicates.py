"""A search for images that nearly agree, and for those on both sides of a fold border.

Two images of one patient, or one image under two names, make a validation too easy when one of
them is trained on. `lngswr splits` refuses such folds, or joins the groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunetv2_lngswr.datasets.options import MAX_DISTANCE
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.image_files import check_whole
from nnunetv2_lngswr.utils.progress import progress_bar

HASH_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class NearDuplicate:
    """Two cases of different groups whose images nearly agree."""

    a: str
    b: str
    distance: int
    """Differing bits of the 256 of their perceptual hashes."""


def near_duplicates(
    images: Mapping[str, Path],
    groups: Mapping[str, str],
    *,
    max_distance: int = MAX_DISTANCE,
    progress: bool = True,
) -> list[NearDuplicate]:
    """Pairs of cases of different groups that nearly agree, nearest first.

    Pairs within a group are no leak. Volumes are compared by their middle slice.

    Parameters
    ----------
    images
        case -> image or volume.
    groups
        case -> group.
    max_distance
        How many of 256 bits may differ.
    progress
        Show a bar.

    Raises
    ------
    UserError
        A distance out of range, or an image that is not readable, by file.
    """
    check_distance(max_distance)
    shown = progress_bar(sorted(images), desc="hashing", unit="image", disable=not progress)
    hashes = {name: perceptual_hash(images[name]) for name in shown}
    return pairs_of(hashes, groups, max_distance=max_distance)


def check_distance(max_distance: int) -> None:
    """UserError for a number of bits that two hashes cannot differ in."""
    if not 0 <= max_distance <= HASH_SIDE**2:
        raise UserError(
            f"max distance must be in 0..{HASH_SIDE**2}, got {max_distance} (--max-distance)"
        )


def pairs_of(
    hashes: Mapping[str, np.ndarray],
    groups: Mapping[str, str],
    *,
    max_distance: int = MAX_DISTANCE,
) -> list[NearDuplicate]:
    """`near_duplicates` of images whose hashes are known.

    Parameters
    ----------
    hashes
        case -> (256,) bool.
    groups, max_distance
        As for `near_duplicates`.
    """
    if not hashes:
        return []
    names = sorted(hashes)
    # differing bits = ones of a + ones of b - 2 * common ones
    ones = np.stack([hashes[name] for name in names]).astype(np.float32)
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
    """`groups` (case -> group) in which near-duplicates share a group, and so a fold."""
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
    """256 bits, (256,) bool, which noise, JPEG, scaling and a shift of intensities hardly change.

    Signs of the low DCT coefficients of the grey image about their median (ImageHash's phash).

    Raises
    ------
    UserError
        The file is not readable as an image.
    """
    return hash_of(_plane(path))


def hash_of(plane: np.ndarray) -> np.ndarray:
    """`perceptual_hash` of a grey image, (H, W)."""
    plane = np.nan_to_num(plane.astype(np.float64), posinf=0, neginf=0)
    low, high = plane.min(), plane.max()
    grey = np.zeros(plane.shape) if high == low else (plane - low) / (high - low) * 255
    return imagehash.phash(Image.fromarray(grey.astype(np.uint8)), hash_size=HASH_SIDE).hash.ravel()


def hash_text(bits: np.ndarray) -> str:
    """A hash, (256,) bool, as 64 hexadecimal digits."""
    return np.packbits(bits).tobytes().hex()


def hash_of_text(text: str) -> np.ndarray:
    """The hash that `hash_text` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)


def _plane(path: Path) -> np.ndarray:
    """An image, or the middle axial slice of a volume, grey, (H, W)."""
    check_whole(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        raise UserError(f"{path} is not readable as an image") from None
    array = sitk.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array.mean(-1)
    while array.ndim > 2:
        array = array[array.shape[0] // 2]
    return array
