"""Budgets as people write them: exact fractions such as 8/255, and back to text.

What is written is checked as text before it is computed with: 1e99999999 as a fraction has a
hundred million digits.
"""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from numbers import Rational
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import SHOWN_AT_MOST, shown

LEAST, MOST = Fraction("1e-30"), Fraction("1e9")
"""Of a budget that is not 0. Single precision holds them, and so does every unit of a file."""

_MOST_DIGITS = 100
"""Of a fraction, above and below the line each; that of a double between the bounds has 46."""
_NUMBER = r"[+-]?(?:[0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100})(?:[eE][+-]?[0-9]{1,3})?"
_BUDGET = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


def parse_budget(value: Fraction | float | str) -> Fraction:
    """'8/255', '0.25/255', '0.03', 0.03 or a Fraction, exactly.

    Raises
    ------
    UserError
        Anything else, a negative number, and what is not 0 and outside LEAST and MOST.
    """
    try:
        parsed = _parsed(value)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise UserError(
            f"epsilon must be a number or a fraction such as 8/255, got {shown(value)}"
        ) from None
    if parsed < 0:
        raise UserError(f"epsilon must be >= 0, got {_as_given(value)}")
    if parsed and not LEAST <= parsed <= MOST:
        raise UserError(
            f"epsilon must be 0 or from {float(LEAST):g} to {float(MOST):g}, got {_as_given(value)}"
        )
    if max(parsed.numerator, parsed.denominator) >= 10**_MOST_DIGITS:
        raise UserError(
            f"epsilon must be a fraction of at most {_MOST_DIGITS} digits, got {_as_given(value)}"
        )
    return parsed


def parse_epsilon(value: Fraction | float | str) -> float:
    """`parse_budget` as a float."""
    return float(parse_budget(value))


def budget_text(epsilon: Fraction) -> str:
    """'8/255', '0.25/255' for quarters of 1/255, else nine digits.

    A budget above 1 is one in units of the file, such as 40 HU, where nine digits say it.
    """
    decimal = f"{float(epsilon):.9g}"
    in_units = epsilon > 1 and Fraction(decimal) == epsilon
    if epsilon and not in_units and (epsilon * 255 * 4).denominator == 1:
        steps = float(epsilon * 255)
        text = f"{steps:g}"
        # six digits, and more where that would be another budget
        return f"{text if float(text) == steps else format(steps, '.15g')}/255"
    return decimal


def _parsed(value: Any) -> Fraction:
    """Also of NumPy's numbers; raises what `int` and `Fraction` raise."""
    if isinstance(value, Decimal):
        value = str(value)
    if isinstance(value, str):
        found = _BUDGET.fullmatch(value)
        if found is None:
            raise ValueError(value)
        top, bottom = found.groups()
        return Fraction(top) / Fraction(bottom or 1)
    if isinstance(value, Rational) and not isinstance(value, bool):
        return Fraction(int(value.numerator), int(value.denominator))
    if isinstance(value, bool) or not hasattr(value, "as_integer_ratio"):
        raise TypeError(value)
    return Fraction(*value.as_integer_ratio())


def _as_given(value: Any) -> str:
    return " ".join(value.split())[:SHOWN_AT_MOST] if isinstance(value, str) else shown(value)
