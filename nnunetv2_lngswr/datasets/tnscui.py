"""TN-SCUI2020 (thyroid nodule ultrasound, grand-challenge.org) -> nnU-Net raw format.

The download has image/N.PNG, mask/N.PNG and train.csv with the columns ID and CATE (0 benign, 1
malignant). The challenge numbers images by patient, so that each image is a group of its own;
folds keep the share of malignant nodules. Near-duplicates are kept in one fold all the same.
"""

from __future__ import annotations

from pathlib import Path

from nnunetv2_lngswr.datasets.conversion import Conversion, Entry, convert, skip
from nnunetv2_lngswr.datasets.image_folder import reading_settings, units_of
from nnunetv2_lngswr.datasets.options import DatasetSpec, ImageOptions
from nnunetv2_lngswr.datasets.pairs import find_pairs
from nnunetv2_lngswr.datasets.splits import check_folds
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.tables import read_rows

CATEGORIES = {"0": "benign", "1": "malignant"}


def convert_tnscui(
    folder: str | Path,
    raw_folder: str | Path,
    target: DatasetSpec,
    *,
    options: ImageOptions = ImageOptions(),
    overwrite: bool = False,
    progress: bool = True,
) -> Conversion:
    """Convert the challenge's download.

    A row without an image, an image without a row and an unknown category are skipped.

    Parameters
    ----------
    folder
        Holds image/, mask/ and a CSV file.
    options
        How images and masks are read.
    raw_folder, target, overwrite, progress
        As `conversion.convert`.

    Raises
    ------
    UserError
        One of the three is missing, the CSV has not the challenge's columns, or
        `conversion.convert` refuses.
    """
    folder = Path(folder)
    images, masks = (_subfolder(folder, name) for name in ("image", "mask"))
    table = _table(folder)
    categories, wrong = _categories(table)
    written = Path(raw_folder) / target.dataset_name
    pairs, unpaired = find_pairs(images, masks, folder, without=written)
    wrong += unpaired
    # an image whose mask is missing has been named already
    present = {p.name for p in pairs} | {Path(e.source).stem for e in unpaired}
    for name in sorted(categories.keys() - present):
        wrong.append(skip(table, folder, f"row {name} has no image"))
    for pair in pairs:
        if pair.name not in categories:
            wrong.append(skip(pair.image, folder, f"image without a valid row in {table.name}"))
    pairs = [p for p in pairs if p.name in categories]
    if not pairs:
        raise UserError(f"{folder} holds no image with a mask and a row in {table.name}")
    check_folds(target.folds, len(pairs))
    return convert(
        raw_folder,
        target,
        units_of(pairs, folder, options, groups={}, strata=categories),
        settings={"converter": "tnscui", **reading_settings(options)},
        entries=wrong,
        join_near_duplicates=options.near_duplicates is not False,
        overwrite=overwrite,
        progress=progress,
    )


def _subfolder(folder: Path, name: str) -> Path:
    """image/ or images/, in any case: copies of the download differ in it."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder (-i)")
    found = sorted(
        p for p in folder.iterdir() if p.is_dir() and p.name.lower() in (name, f"{name}s")
    )
    if len(found) != 1:
        got = ", ".join(p.name for p in found) or "none"
        raise UserError(f"{folder} must hold one folder {name}/, got {got}")
    return found[0]


def _table(folder: Path) -> Path:
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() == ".csv")
    named = [p for p in found if p.name.lower() == "train.csv"] or found
    if len(named) != 1:
        got = ", ".join(p.name for p in found) or "no CSV file"
        raise UserError(f"{folder} must hold train.csv, got {got}")
    return named[0]


def _categories(table: Path) -> tuple[dict[str, str], list[Entry]]:
    """image name -> category, and entries for rows that cannot be used."""
    categories: dict[str, str] = {}
    wrong = []
    for number, category in read_rows(table, ("ID", "CATE"), skip_blanks=True):
        name = Path(number).stem if Path(number).suffix.lower() in (".png", ".jpg") else number
        if category not in CATEGORIES:
            why = f"row {number}: CATE must be 0 or 1, got {category!r}"
            wrong.append(skip(table, table.parent, why))
        elif categories.setdefault(name, CATEGORIES[category]) != CATEGORIES[category]:
            why = f"row {number}: a second row gives another category, the first one counts"
            wrong.append(skip(table, table.parent, why))
    return categories, wrong
