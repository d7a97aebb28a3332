"""What a value from a stranger's file is, and how it looks in one line of a message."""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeGuard

SHOWN_AT_MOST = 60
"""Characters."""
_SHOWN_BITS = 10_000


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is finite, no bool, and not beyond what a float holds."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def shown(value: object) -> str:
    """The value's `repr` in one line, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"  # Python would refuse to write it
    try:
        text = " ".join(repr(value).splitlines())
    except ValueError:  # there is such a number in it
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_AT_MOST else f"{text[: SHOWN_AT_MOST - 3]}..."
