"""How numbers look in what an evaluation writes: CSV, JSON without nan, percent, intervals."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A table with fixed formatting, so that equal rows give equal bytes.

    Floats have nine significant digits; None, and what a row lacks, is an empty field. A text that
    a spreadsheet would run has a quote before it, as OWASP advises.
    """
    lines = [_csv_line(columns)]
    lines += [_csv_line([_csv_field(row.get(c)) for c in columns]) for row in rows]
    return "".join(lines)


def _csv_line(fields: Sequence[str]) -> str:
    # csv quotes a carriage return, which readers take for the end of a row, only where it is a part
    # of the terminator
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(fields)
    return text.getvalue().removesuffix("\r\n") + "\n"


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value + 0.0, ".9g")  # + 0.0: no '-0'
    return f"'{value}" if isinstance(value, str) and _is_run(value) else str(value)


def csv_value(field: str) -> str:
    """The text that `csv_text` made this field of."""
    return field[1:] if field.startswith("'") and _is_run(field) else field


def _is_run(text: str) -> bool:
    """Whether a spreadsheet takes it for a formula, but for quotes before it."""
    return text.lstrip("'").lstrip()[:1] in ("=", "+", "-", "@")


def json_ready(value: Any) -> Any:
    """The value in JSON's types, nan and infinity as None."""
    if isinstance(value, Mapping):
        return {str(k): json_ready(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_ready(v) for v in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def interval_text(record: Mapping[str, Any], what: str = "dice") -> str:
    """'62.1 [58.0, 66.3]': percent, from `what`, `what`_low and `what`_high of a record."""
    if record[what] is None or math.isnan(record[what]):
        return "undefined"
    mean, low, high = (100 * record[key] for key in (what, f"{what}_low", f"{what}_high"))
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def share_text(record: Mapping[str, Any], what: str) -> str:
    """'31% [11, 48]', from `what`, `what`_low and `what`_high of a record; '' where undefined."""
    value, low, high = (record[key] for key in (what, f"{what}_low", f"{what}_high"))
    if value is None or math.isnan(value):
        return ""
    return f"{100 * value:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"


def percent_text(value: float | None) -> str:
    """'62.1', or 'undefined' for None and nan."""
    return "undefined" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def number_text(value: float | None, *, undefined: str = "") -> str:
    """Three significant digits, or `undefined` for None and nan."""
    return undefined if value is None or math.isnan(value) else f"{value:.3g}"
