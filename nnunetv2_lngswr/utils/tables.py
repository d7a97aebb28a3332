"""CSV tables of cases and patients, read so that a bad one is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from nnunetv2_lngswr.utils.errors import UserError


def read_rows(
    path: Path, columns: Sequence[str], *, skip_blanks: bool = False
) -> list[tuple[str, ...]]:
    """Some columns of a CSV file with a header, row by row.

    Parameters
    ----------
    path
        UTF-8, with or without the mark that Excel puts before it.
    columns
        Which.
    skip_blanks
        Cells lose the blanks around them.

    Returns
    -------
    list of tuple
        The cells in the order of `columns`; "" where a row is too short.

    Raises
    ------
    UserError
        It is not UTF-8, no table, or lacks a column; names the file, and the line where it can.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x} in line {line}): "
            "save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=skip_blanks)
    try:
        names = reader.fieldnames or ()
        missing = [column for column in columns if column not in names]
        if missing:
            raise UserError(
                f"{path} has no column {', '.join(missing)}; it has {', '.join(names) or 'none'}"
            )
        rows = [tuple(row[column] or "" for column in columns) for row in reader]
    except csv.Error as error:
        raise UserError(f"{path} is no CSV table (after line {reader.line_num}: {error})") from None
    if skip_blanks:
        rows = [tuple(cell.strip() for cell in row) for row in rows]
    return rows
