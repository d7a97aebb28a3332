"""Folders of images and masks -> nnU-Net raw format (2D, PNG).

The plain case, BUSI's layout, and what tnscui.py builds on. An image's masks are the files of the
same name in the masks' folder, or with `_mask`, `_mask_1`, ... behind it; several are united. Grey
images saved as RGB become grey again. Anything that does not fit is skipped and named, never
guessed at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from nnunetv2_lngswr.datasets.options import MASK_PATTERN, DatasetSpec, ImageOptions
from nnunetv2_lngswr.datasets.pixels import Unfit, read_image, read_mask, write_png
from nnunetv2_lngswr.datasets.splits import groups_by_pattern
from nnunetv2_lngswr.utils.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
ENDING = ".png"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its masks."""

    name: str
    """Path below its folder, without suffix."""
    image: Path
    masks: tuple[Path, ...]


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
    images : searched with its subfolders.
    raw_folder : nnUNet_raw.
    target : the data set to write.
    masks : None: the same folder.
    group_pattern : regular expression on an image's path without suffix, for the splits
        (splits.groups_by_pattern); None: every image by itself.
    options : how images and masks are read.
    overwrite : convert anew what was converted with other settings.
    progress : show a bar.

    Raises
    ------
    UserError
        A folder does not exist or holds no images, the pattern finds nothing in some image, or
        `conversion.convert` refuses.
    """
    images = Path(images)
    masks = images if masks is None else Path(masks)
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
    pairs, wrong = find_pairs(images, masks, images, options.mask_pattern)
    if not pairs:
        raise UserError(
            f"{images} holds no images with masks ({', '.join(SUFFIXES)}); "
            f"masks were looked for in {masks}"
        )
    groups = {}
    if group_pattern is not None:
        groups = groups_by_pattern([p.name for p in pairs], group_pattern)
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
        overwrite=overwrite,
        progress=progress,
    )


def reading_settings(options: ImageOptions) -> dict[str, object]:
    """What of the options decides how one pair is read, for the manifest."""
    return {
        "mask_threshold": options.mask_threshold,
        "keep_empty": options.keep_empty,
        "luminance": options.luminance,
    }


def find_pairs(
    images: Path, masks: Path, root: Path, mask_pattern: str = MASK_PATTERN
) -> tuple[list[Pair], list[Entry]]:
    """Images with their masks by name, and entries for what has no partner.

    These are images without masks, masks without images, and two images of one name.

    Parameters
    ----------
    images, masks : the folders; may be the same.
    root : what entries name files from.
    mask_pattern : as in ImageOptions.
    """
    found_images, found_masks = _by_name(images, masks, re.compile(mask_pattern))
    pairs, wrong = [], []
    for name, paths in sorted(found_images.items()):
        if len(paths) > 1:
            all_of_them = ", ".join(source_name(p, root) for p in paths)
            wrong += [skip(p, root, f"several images of one name: {all_of_them}") for p in paths]
        elif name not in found_masks:
            wrong.append(skip(paths[0], root, "image without a mask"))
        else:
            pairs.append(Pair(name=name, image=paths[0], masks=tuple(found_masks[name])))
    for name, paths in sorted(found_masks.items()):
        if name not in found_images:
            why = f"mask without an image ({name} was expected)"
            wrong += [skip(p, root, why) for p in paths]
    return pairs, wrong


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
    pairs : the images.
    root : what entries name files from.
    options : how they are read.
    groups, strata : by the pair's name, for the splits.

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


def _by_name(
    images: Path, masks: Path, mask_expression: re.Pattern[str]
) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Image files, and mask files by the name of their image."""
    same = images.resolve() == masks.resolve()
    found_images, found_masks = defaultdict(list), defaultdict(list)
    for path in _files(images):
        if not (same and mask_expression.fullmatch(path.stem)):
            found_images[_name(path, images)].append(path)
    for path in _files(masks):
        name, match = _name(path, masks), mask_expression.fullmatch(path.stem)
        if not same and name in found_images:
            found_masks[name].append(path)
        elif match and match[1]:
            found_masks[str(Path(name).with_name(match[1]))].append(path)
        elif not same:
            found_masks[name].append(path)
    return found_images, found_masks


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
    }
    return Entry(
        source=name, status="used", case=case, group=group, stratum=stratum, details=details
    )


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"


def _files(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))
