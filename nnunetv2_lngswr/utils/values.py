"""What a value from a stranger's file is, and how it looks in one line of a message."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, TypeGuard

from nnunetv2_lngswr.utils.errors import UserError

SHOWN_AT_MOST = 80
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


def check_integer(name: str, value: Any, least: int, most: int) -> None:
    """Refuse anything but an integer from `least` to `most`.

    Raises
    ------
    UserError
        Names the option, the rule and the value.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name} must be an integer >= {least}, got {shown(value)}")
    if value > most:
        raise UserError(f"{name} must be at most {most}, got {shown(value)}")


def shown(value: object) -> str:
    """The value's `repr` in one line, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"a number of {value.bit_length()} bits"  # Python would refuse to write it
    try:
        text = " ".join(repr(value).splitlines())
    except ValueError:  # there is such a number in it
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_AT_MOST else f"{text[: SHOWN_AT_MOST - 3]}..."
