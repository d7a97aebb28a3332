"""What differs between two records of settings, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """'key: was A, is B' for every leaf that differs; long lists by what is only on one side."""
    found = []
    for key in dict.fromkeys([*before, *now]):
        a, b = before.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{prefix}{key}.")
        elif isinstance(a, list) and isinstance(b, list) and len(a) + len(b) > 12:
            found.append(f"{prefix}{key}: {_difference_of_lists(a, b)}")
        else:
            found.append(f"{prefix}{key}: was {_short(a)}, is {_short(b)}")
    return found


def _difference_of_lists(before: list, now: list) -> str:
    gone, new = [v for v in before if v not in now], [v for v in now if v not in before]
    sides = [f"{word} {_first(v)}" for word, v in (("without", gone), ("with new", new)) if v]
    what = " and ".join(sides) or "in another order"
    return f"{len(before)} before, {len(now)} now, {what}"


def _first(values: list, count: int = 3) -> str:
    return ", ".join(map(str, values[:count])) + (" ..." if len(values) > count else "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
