"""Rules that settings are held to: each failure names the field, the rule and the value found."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any


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
    return is_number(value) and 0 <= value < math.inf
