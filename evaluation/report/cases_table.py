"""cases.csv: one row per case x run x label.

What a row is, evaluation/rows.py says. The file holds no times and is written in a fixed order with
fixed float formatting, so equal results give equal bytes.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from evaluation.metrics import CALIBRATION, METRICS
from evaluation.report.formats import csv_text, csv_value
from evaluation.rows import Row
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.values import shown

# of a perturbation, as reached: norm x unit
SIZES = tuple(
    f"{norm}_{unit}"
    for unit in ("range", "normalized", "original")
    for norm in ("linf", "rms", "l2")
)

COLUMNS = (
    "case",
    "fold",
    "kind",
    "attack",
    "norm",
    "epsilon",
    "epsilon_text",
    "epsilon_unit",
    "severity",
    "label",
    "label_name",
    *METRICS,
    *CALIBRATION,
    "dice_drop",
    "reference_voxels",
    "predicted_voxels",
    *SIZES,
    "attack_loss",
    "attack_dice",
    "forwards",
    "gradients",
    # how the attack was run
    "steps",
    "step_size",
    "restarts",
    "loss",
    "seed",
    "settings",
    "extras",
    "source",
    # what was attacked
    "tile_step_size",
    "mirror_axes",
    "folds",
    "trainer",
    "plans",
    "configuration",
    "checkpoint_sha256",
)
_FLOATS = (
    "epsilon",
    *METRICS,
    *CALIBRATION,
    "dice_drop",
    *SIZES,
    "attack_loss",
    "attack_dice",
    "step_size",
    "tile_step_size",
)
_INTEGERS = (
    "severity",
    "reference_voxels",
    "predicted_voxels",
    "forwards",
    "gradients",
    "steps",
    "restarts",
    "seed",
)

_SINCE = CALIBRATION  # tables of earlier versions lack them
_FOLD = re.compile(r"([0-9]+(\+[0-9]+)*|all)?")
_NEVER_EMPTY = ("case", "kind", "attack", "label", *METRICS)


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """Write cases.csv: floats with nine significant digits, nan as 'nan', what does not apply as
    an empty field."""
    write_file(path, cases_text(rows))


def cases_text(rows: Iterable[Row]) -> str:
    """The content of cases.csv; of earlier rows without what they did not have."""
    rows = list(rows)
    since = [c for c in _SINCE if any(r.get(c) is not None for r in rows)]
    return csv_text([c for c in COLUMNS if c not in _SINCE or c in since], rows)


def read_cases(path: Path) -> list[dict[str, Any]]:
    """Read a cases.csv.

    Returns
    -------
    list of dict
        Numbers as numbers, empty fields as None (in text columns: ''), as columns that earlier
        versions did not have.

    Raises
    ------
    UserError
        The file lacks a column, is cut, or holds what is no table of this kind; names the line.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            there = reader.fieldnames or ()
            missing = [c for c in COLUMNS if c not in (*there, *_SINCE)]
            if missing:
                raise UserError(
                    f"{path} is no cases.csv of this version: columns {', '.join(missing)} are "
                    "missing"
                )
            return [_row(path, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not readable as a CSV file in UTF-8 ({error})") from None


def _row(path: Path, line: int, fields: Mapping[str | None, Any]) -> dict[str, Any]:
    """The parsed row; `fields` is what csv.DictReader makes of it."""
    if None in fields or None in fields.values():
        raise UserError(
            f"{path}, line {line}: the row has more or fewer fields than there are columns; "
            "is the file cut?"
        )
    row = dict.fromkeys(COLUMNS)
    for column in (c for c in COLUMNS if c in fields):
        try:
            row[column] = _parsed(column, fields[column])
        except ValueError:
            raise UserError(
                f"{path}, line {line}: {column} must be a number, got {shown(fields[column])}"
            ) from None
    empty = [c for c in _NEVER_EMPTY if row[c] in ("", None)]
    if empty:
        raise UserError(f"{path}, line {line}: {', '.join(empty)} must not be empty")
    # both name the case's files
    case = str(row["case"])
    if os.path.basename(case) != case or "\0" in case:
        raise UserError(f"{path}, line {line}: case must be a name without /, got {shown(case)}")
    if not _FOLD.fullmatch(row["fold"] or ""):
        raise UserError(
            f"{path}, line {line}: fold must be numbers with + between them, or all, got "
            f"{shown(row['fold'])}"
        )
    return row


def _parsed(column: str, text: str) -> Any:
    if column in _FLOATS:
        return float(text) if text else None
    if column in _INTEGERS:
        return int(text) if text else None
    return csv_value(text)
