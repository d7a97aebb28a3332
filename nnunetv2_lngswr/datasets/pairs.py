"""Images with their masks, found by name.

An image's masks are the files of the same name in the masks' folder, or with `_mask`, `_mask_1`,
... behind it. What has no partner, or several of one name, is named and not guessed at.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunetv2_lngswr.datasets.conversion import Entry, skip, source_name
from nnunetv2_lngswr.datasets.find_files import find_files
from nnunetv2_lngswr.datasets.options import MASK_PATTERN

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its masks."""

    name: str
    """Path below its folder, without suffix."""
    image: Path
    masks: tuple[Path, ...]


def find_pairs(
    images: Path,
    masks: Path,
    root: Path,
    mask_pattern: str = MASK_PATTERN,
    *,
    without: Path | None = None,
) -> tuple[list[Pair], list[Entry]]:
    """Images with their masks by name, and entries for what has no partner.

    These are images without masks, masks without images, and two images, or two masks, of one name;
    and what could not be looked at.

    Parameters
    ----------
    images, masks
        The folders; may be the same.
    root
        What entries name files from.
    mask_pattern
        As in ImageOptions.
    without
        A folder that is not looked into, since it is the one that is written.
    """
    (image_files, wrong), (mask_files, also) = (_files(f, without, root) for f in (images, masks))
    # looked at twice where both are one folder
    wrong += [entry for entry in also if entry not in wrong]
    found_images, found_masks = _by_name(
        images, image_files, masks, mask_files, re.compile(mask_pattern)
    )
    pairs = []
    for name, paths in sorted(found_images.items()):
        if len(paths) > 1:
            all_of_them = ", ".join(source_name(p, root) for p in paths)
            wrong += [skip(p, root, f"several images of one name: {all_of_them}") for p in paths]
        elif twins := _twins(found_masks.get(name, [])):
            all_of_them = ", ".join(source_name(p, root) for p in twins)
            wrong.append(skip(paths[0], root, f"several masks of one name: {all_of_them}"))
        elif name not in found_masks:
            wrong.append(skip(paths[0], root, "image without a mask"))
        else:
            pairs.append(Pair(name=name, image=paths[0], masks=tuple(found_masks[name])))
    for name, paths in sorted(found_masks.items()):
        if name not in found_images:
            why = f"mask without an image ({name} was expected)"
            wrong += [skip(p, root, why) for p in paths]
    return pairs, wrong


def _by_name(
    images: Path,
    image_files: Sequence[Path],
    masks: Path,
    mask_files: Sequence[Path],
    mask_expression: re.Pattern[str],
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Image files, and mask files by the name of their image."""
    same = images.resolve() == masks.resolve()
    found_images, found_masks = defaultdict(list), defaultdict(list)
    for path in image_files:
        if not (same and mask_expression.fullmatch(path.stem)):
            found_images[_name(path, images)].append(path)
    for path in mask_files:
        name, match = _name(path, masks), mask_expression.fullmatch(path.stem)
        if not same and name in found_images:
            found_masks[name].append(path)
        elif match and match[1]:
            found_masks[str(Path(name).with_name(match[1]))].append(path)
        elif not same:
            found_masks[name].append(path)
    return found_images, found_masks


def _twins(masks: Sequence[Path]) -> list[Path]:
    """Masks that differ in their suffix alone: which one counts is not ours to guess."""
    count = Counter(path.with_suffix("") for path in masks)
    return [path for path in masks if count[path.with_suffix("")] > 1]


def _files(folder: Path, without: Path | None, root: Path) -> tuple[list[Path], list[Entry]]:
    """Image files, and entries for what could not be looked at."""
    files, wrong = find_files(folder, without=() if without is None else (without,))
    return (
        [path for path in files if path.suffix.lower() in SUFFIXES],
        [
            skip(path, root, why)
            for path, why in wrong
            if path.is_dir() or path.suffix.lower() in SUFFIXES
        ],
    )


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))
