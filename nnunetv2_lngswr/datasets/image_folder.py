"""Folders of images and masks -> nnU-Net raw format (2D, PNG).

The plain case, BUSI's layout, and what tnscui.py builds on. Which masks are an image's, pairs.py
says; several are united. Grey images saved as RGB become grey again. Anything that does not fit is
skipped and named, never guessed at.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunetv2_lngswr.datasets.conversion import (
    Conversion,
    Entry,
    Unit,
    case_name,
    convert,
    skip,
    source_name,
)
from nnunetv2_lngswr.datasets.joined_splits import PERCEPTUAL_HASH
from nnunetv2_lngswr.datasets.near_duplicates import hash_of, hash_text
from nnunetv2_lngswr.datasets.options import DatasetSpec, ImageOptions
from nnunetv2_lngswr.datasets.pairs import SUFFIXES, Pair, find_pairs
from nnunetv2_lngswr.datasets.pixels import Unfit, read_image, read_mask, write_png
from nnunetv2_lngswr.datasets.splits import check_folds
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.groups import groups_by_pattern

ENDING = ".png"
# of a case's name: file systems take names of 255 bytes, and what is written has a longer one
MOST_BYTES = 180


def convert_image_folder(
    images: str | Path,
    raw_folder: str | Path,
    target: DatasetSpec,
    *,
    masks: str | Path | None = None,
    group_pattern: str | None = None,
    options: ImageOptions = ImageOptions(),
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Convert a folder of images with masks.

    Parameters
    ----------
    images
        Searched with its subfolders.
    masks
        None: the same folder.
    group_pattern
        Regular expression on an image's path without suffix, for the splits
        (groups.groups_by_pattern); None: every image by itself.
    options
        How images and masks are read.
    raw_folder, target, overwrite, progress
        As `conversion.convert`.

    Raises
    ------
    UserError
        A folder does not exist, holds no images or is `raw_folder` itself, the pattern finds
        nothing in some image, or `conversion.convert` refuses.
    """
    images = Path(images)
    masks = images if masks is None else Path(masks)
    _check_folders(images, masks, Path(raw_folder))
    written = Path(raw_folder) / target.dataset_name
    pairs, wrong = find_pairs(images, masks, images, options.mask_pattern, without=written)
    if not pairs:
        raise UserError(
            f"{images} holds no images with masks ({', '.join(SUFFIXES)}); "
            f"masks were looked for in {masks}"
        )
    groups = _groups(pairs, group_pattern, target.folds)
    settings = {
        "converter": "image-folder",
        "mask_pattern": options.mask_pattern,
        **reading_settings(options),
        "group_pattern": group_pattern,
    }
    return convert(
        raw_folder,
        target,
        units_of(pairs, images, options, groups=groups),
        settings=settings,
        entries=wrong,
        join_near_duplicates=_joins(options, group_pattern),
        overwrite=overwrite,
        progress=progress,
    )


def reading_settings(options: ImageOptions) -> dict[str, object]:
    """What of the options decides the result, for the manifest."""
    settings: dict[str, object] = {
        "mask_threshold": options.mask_threshold,
        "keep_empty": options.keep_empty,
        "luminance": options.luminance,
    }
    # the default is not named, so that conversions made before there was a choice are the same
    if options.near_duplicates is not None:
        settings["near_duplicates"] = options.near_duplicates
    return settings


def units_of(
    pairs: Sequence[Pair],
    root: Path,
    options: ImageOptions,
    *,
    groups: Mapping[str, str],
    strata: Mapping[str, str] | None = None,
) -> list[Unit]:
    """One unit per pair.

    Parameters
    ----------
    pairs
        The images.
    root
        What entries name files from.
    options
        How they are read.
    groups, strata
        By the pair's name, for the splits.

    Raises
    ------
    UserError
        Two pairs would get the same case name.
    """
    cases = _case_names(pairs)

    def unit(pair: Pair) -> Unit:
        group, stratum = groups.get(pair.name), (strata or {}).get(pair.name)
        case = cases[pair.name]

        def convert_unit(folder: Path, taken: Mapping[str, str]) -> list[Entry]:
            return [_convert_pair(pair, case, folder, root, options, group, stratum)]

        return Unit(
            key=pair.name,
            files=(pair.image, *pair.masks),
            also=repr((case, group, stratum)),
            convert=convert_unit,
        )

    return [unit(p) for p in pairs]


# --- helpers --------------------------------------------------------------------------------------


def _check_folders(images: Path, masks: Path, raw_folder: Path) -> None:
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
        if os.path.realpath(folder) == os.path.realpath(raw_folder):
            raise UserError(
                f"{raw_folder} is where images are read from; what is written there would be read "
                "as images by the next conversion: choose another folder (-o)"
            )


def _groups(pairs: Sequence[Pair], pattern: str | None, folds: int) -> dict[str, str]:
    """By the pair's name, where a pattern tells them; enough for so many folds."""
    names = [pair.name for pair in pairs]
    groups = {} if pattern is None else groups_by_pattern(names, pattern)
    check_folds(folds, len({groups.get(name, name) for name in names}))
    return groups


def _joins(options: ImageOptions, pattern: str | None) -> bool:
    """Whether near-duplicates are looked for: by default where nothing tells the patients."""
    return pattern is None if options.near_duplicates is None else options.near_duplicates


def _case_names(pairs: Sequence[Pair]) -> dict[str, str]:
    """By the pair's name, with subfolders only where they are needed to tell cases apart."""
    short = {p.name: case_name(Path(p.name).name) for p in pairs}
    if len(set(short.values())) < len(pairs):
        short = {p.name: case_name(p.name) for p in pairs}
    seen: dict[str, Pair] = {}
    for pair in pairs:
        other = seen.setdefault(short[pair.name].lower(), pair)
        if other is not pair:
            raise UserError(
                f"{other.image} and {pair.image} would both become {short[pair.name]}: rename one"
            )
    return short


def _convert_pair(
    pair: Pair,
    case: str,
    folder: Path,
    root: Path,
    options: ImageOptions,
    group: str | None,
    stratum: str | None,
) -> Entry:
    name, at = source_name(pair.image, root), pair.image
    try:
        if len(case.encode()) > MOST_BYTES:
            raise Unfit(
                f"name of {len(case.encode())} bytes, cases have at most {MOST_BYTES}: rename it"
            )
        image = read_image(pair.image, luminance=options.luminance)
        label = np.zeros(image.shape, bool)
        for at in pair.masks:
            mask = read_mask(at, threshold=options.mask_threshold)
            if mask.shape != image.shape:
                raise Unfit(f"size {_size(mask)} of the mask differs from {_size(image)} of {name}")
            label |= mask
        if not label.any() and not options.keep_empty:
            raise Unfit("empty mask; --keep-empty keeps such images")
    except Unfit as error:
        return skip(at, root, str(error), details={} if at == pair.image else {"image": name})
    write_png(image, folder / "imagesTr" / f"{case}_0000{ENDING}")
    write_png(label.astype(np.uint8), folder / "labelsTr" / f"{case}{ENDING}")
    details = {
        "masks": [source_name(m, root) for m in pair.masks],
        "size": list(image.shape[::-1]),
        "foreground_pixels": int(label.sum()),
        PERCEPTUAL_HASH: hash_text(hash_of(image)),
    }
    return Entry(
        source=name, status="used", case=case, group=group, stratum=stratum, details=details
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
