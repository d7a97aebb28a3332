"""Rules that settings are held to: each failure names the field, the rule and the value found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LARGEST = 3.4028234663852886e38
"""The largest finite number in single precision, in which all settings are computed with."""


def require(name: str, value: Any, rule: Callable[[Any], bool], text: str) -> None:
    """ValueError "`name` must be `text`, got `value`" unless `rule` holds for the value."""
    if not rule(value):
        raise ValueError(f"{name} must be {text}, got {value!r}")


def is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """An int or a float, infinities and nan included."""
    return is_int(value) or isinstance(value, float)


def is_share(value: Any) -> bool:
    """A number in [0, 1]."""
    return is_number(value) and 0 <= value <= 1


def is_size(value: Any) -> bool:
    """A finite number >= 0."""
    return is_number(value) and 0 <= value <= LARGEST


def require_size(name: str, value: Any, *, positive: bool = False, optional: bool = False) -> None:
    """ValueError unless the value is a finite number >= 0, or > 0 where it must be `positive`;
    None does where it is `optional`."""
    if optional and value is None:
        return
    rule, null = ("> 0" if positive else ">= 0"), (", or null" if optional else "")
    large_enough = is_number(value) and (value > 0 if positive else value >= 0)
    require(name, value, lambda _: large_enough, f"a number {rule}{null}")
    require(name, value, is_size, f"a number {rule}{null}, and finite")


def require_count(
    name: str, value: Any, text: str, *, least: int = 1, most: int, optional: bool = False
) -> None:
    """ValueError unless the value is an integer from `least` to `most`; `text` is the rule on
    `least`. None does where it is `optional`."""
    if optional and value is None:
        return
    require(name, value, lambda v: is_int(v) and v >= least, text)
    require(name, value, lambda v: v <= most, f"at most {most}")
