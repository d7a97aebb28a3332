"""Budgets as people write them: exact fractions such as 8/255, and back to text."""

from __future__ import annotations

from fractions import Fraction

from nnunetv2_lngswr.utils.errors import UserError


def parse_budget(value: Fraction | float | str) -> Fraction:
    """'8/255', '0.25/255', '0.03', 0.03 or a Fraction, exactly.

    Raises
    ------
    UserError
        Anything else, and a negative number.
    """
    try:
        if isinstance(value, str):
            top, _, bottom = value.strip().partition("/")
            parsed = Fraction(top) / Fraction(bottom or "1")
        else:
            parsed = Fraction(value)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        raise UserError(
            f"epsilon must be a number or a fraction such as 8/255, got {value!r}"
        ) from None
    if parsed < 0:
        raise UserError(f"epsilon must be >= 0, got {str(value).strip()}")
    return parsed


def parse_epsilon(value: Fraction | float | str) -> float:
    """`parse_budget` as a float."""
    return float(parse_budget(value))


def budget_text(epsilon: Fraction) -> str:
    """'8/255', '0.25/255' for quarters of 1/255, else nine digits."""
    if epsilon and (epsilon * 255 * 4).denominator == 1:
        return f"{float(epsilon * 255):g}/255"
    return f"{float(epsilon):.9g}"
