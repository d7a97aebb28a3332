"""Folders of images and masks -> nnU-Net raw format (2D, PNG): the plain case, BUSI's layout, and what tnscui.py builds on.

An image's masks are the files of the same name in the masks' folder, or with `_mask`, `_mask_1`, ... behind it; several are united. Grey images
saved as RGB become grey again. Anything that does not fit is skipped and named, never guessed at.
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
    source_name,
)
from nnunetv2_lngswr.datasets.options import MASK_PATTERN, DatasetSpec, ImageOptions
from nnunetv2_lngswr.datasets.splits import groups_by_pattern
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif")
ENDING = ".png"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image with its masks. `name`: path below its folder, without suffix."""

    name: str
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
    """Convert `images` (searched with its subfolders) and `masks` (None: the same folder) into `raw_folder` (nnUNet_raw). `group_pattern`: regular
    expression on an image's path without suffix, for the splits (splits.groups_by_pattern); None: every image by itself. ValueError for
    folders that do not exist or hold no images, and a pattern that finds nothing in some image."""
    images = Path(images)
    masks = images if masks is None else Path(masks)
    for folder in (images, masks):
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder")
    pairs, wrong = find_pairs(images, masks, images, options.mask_pattern)
    if not pairs:
        raise UserError(
            f"{images} holds no images with masks ({', '.join(SUFFIXES)}); masks were looked for in {masks}"
        )
    groups = (
        {} if group_pattern is None else groups_by_pattern([p.name for p in pairs], group_pattern)
    )
    settings = {
        "converter": "image-folder",
        "mask_pattern": options.mask_pattern,
        "mask_threshold": options.mask_threshold,
        "keep_empty": options.keep_empty,
        "luminance": options.luminance,
        "group_pattern": group_pattern,
    }
    units = units_of(pairs, images, options, groups=groups)
    return convert(
        raw_folder,
        target,
        units,
        settings=settings,
        entries=wrong,
        overwrite=overwrite,
        progress=progress,
    )


def find_pairs(
    images: Path, masks: Path, root: Path, mask_pattern: str = MASK_PATTERN
) -> tuple[list[Pair], list[Entry]]:
    """Images with their masks by name, and entries for images without masks, masks without images, and two images of one name, which name files
    from `root`."""
    expression = re.compile(mask_pattern)
    same = images.resolve() == masks.resolve()
    found_images, found_masks = defaultdict(list), defaultdict(list)
    for path in _files(images):
        name = _name(path, images)
        if not (same and expression.fullmatch(path.stem)):
            found_images[name].append(path)
    for path in _files(masks):
        name, match = _name(path, masks), expression.fullmatch(path.stem)
        if not same and name in found_images:
            found_masks[name].append(path)
        elif match and match[1]:
            found_masks[str(Path(name).with_name(match[1]))].append(path)
        elif not same:
            found_masks[name].append(path)

    pairs, wrong = [], []
    for name, paths in sorted(found_images.items()):
        if len(paths) > 1:
            all_of_them = ", ".join(source_name(p, root) for p in paths)
            wrong += [
                Entry(
                    source=source_name(p, root),
                    status="skipped",
                    reason=f"several images of one name: {all_of_them}",
                )
                for p in paths
            ]
        elif name not in found_masks:
            wrong.append(
                Entry(
                    source=source_name(paths[0], root),
                    status="skipped",
                    reason="image without a mask",
                )
            )
        else:
            pairs.append(Pair(name=name, image=paths[0], masks=tuple(found_masks[name])))
    for name, paths in sorted(found_masks.items()):
        if name not in found_images:
            wrong += [
                Entry(
                    source=source_name(p, root),
                    status="skipped",
                    reason=f"mask without an image ({name} was expected)",
                )
                for p in paths
            ]
    return pairs, wrong


def units_of(
    pairs: Sequence[Pair],
    root: Path,
    options: ImageOptions,
    *,
    groups: Mapping[str, str],
    strata: Mapping[str, str] | None = None,
) -> list[Unit]:
    """One unit per pair. `groups`, `strata`: by the pair's name. ValueError if two pairs would get the same case name."""
    short = {p.name: case_name(Path(p.name).name) for p in pairs}
    # subfolders only where they are needed to tell cases apart
    if len(set(short.values())) < len(pairs):
        short = {p.name: case_name(p.name) for p in pairs}
    seen: dict[str, Pair] = {}
    for pair in pairs:
        other = seen.setdefault(short[pair.name].lower(), pair)
        if other is not pair:
            raise UserError(
                f"{other.image} and {pair.image} would both become {short[pair.name]}: rename one"
            )

    def unit(pair: Pair) -> Unit:
        group, stratum = groups.get(pair.name), (strata or {}).get(pair.name)
        case = short[pair.name]
        return Unit(
            key=pair.name,
            files=(pair.image, *pair.masks),
            also=repr((case, group, stratum)),
            convert=lambda folder, taken: [
                _convert_pair(pair, case, folder, root, options, group, stratum)
            ],
        )

    return [unit(p) for p in pairs]


class Unfit(ValueError):
    """A file that cannot be used; the text says why."""


def read_image(path: Path, *, luminance: bool = False) -> np.ndarray:
    """A grey image, (H, W) uint8 or uint16. Unfit for files that are not readable, colour images (unless `luminance`) and transparent ones."""
    pixels = _pixels(path)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] in (2, 4):
        if (pixels[..., -1] != 255).any():
            raise Unfit("image has transparent pixels")
        pixels = pixels[..., :-1]
    difference = int(np.ptp(pixels.astype(int), axis=2).max())
    if difference == 0:
        return np.ascontiguousarray(pixels[..., 0])
    if not luminance:
        raise Unfit(
            f"colour image (channels differ by up to {difference}); --luminance makes such images grey"
        )
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(pixels.dtype)


def read_mask(path: Path, *, threshold: int | None = None) -> np.ndarray:
    """A binary mask, (H, W) bool. Unfit for files that are not readable or hold more than one value besides 0 (without `threshold`)."""
    pixels = _pixels(path)
    if pixels.ndim == 3:
        # an alpha channel says nothing about the mask
        pixels = pixels[..., : pixels.shape[2] - (pixels.shape[2] in (2, 4))].max(2)
    if threshold is not None:
        return pixels >= threshold
    values = np.unique(pixels)
    foreground = values[values != 0]
    if len(foreground) > 1:
        values = ", ".join(map(str, foreground[:6]))
        raise Unfit(
            f"mask has {len(foreground)} values besides 0 ({values}), one was expected; --mask-threshold for lossy files"
        )
    return pixels > 0


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
        return Entry(
            source=source_name(at, root),
            status="skipped",
            reason=str(error),
            details={} if at == pair.image else {"image": name},
        )
    _write(image, folder / "imagesTr" / f"{case}_0000{ENDING}")
    _write(label.astype(np.uint8), folder / "labelsTr" / f"{case}{ENDING}")
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


def _pixels(path: Path) -> np.ndarray:
    """(H, W) or (H, W, C), uint8 or uint16; palettes are resolved."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            if getattr(image, "n_frames", 1) > 1:
                raise Unfit(f"file holds {image.n_frames} images")
            if image.mode == "1":
                image = image.convert("L")
            elif image.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB"):
                image = image.convert("RGBA" if "transparency" in image.info else "RGB")
            elif image.mode.startswith("I"):
                return _sixteen_bit(np.asarray(image))
            return np.asarray(image)
    except Unfit:
        raise
    # Pillow: UnidentifiedImageError is an OSError, damaged PNG chunks a SyntaxError, absurd sizes a DecompressionBombError
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Unfit(f"not readable as an image ({error})") from None


def _sixteen_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.min() < 0 or pixels.max() > 65535:
        raise Unfit("values do not fit into 16 bit")
    return pixels.astype(np.uint16)


def _write(array: np.ndarray, path: Path) -> None:
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary)


def _files(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.rglob("*")
        if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")
    )


def _name(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder).with_suffix(""))
