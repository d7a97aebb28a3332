"""A stranger's inference in words: results of two that are said alike are taken for one."""

import hashlib
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from torch import nn

MOST_VALUES, DEEPEST = 64, 4
"""Of an array that is written out; of settings within settings."""


def described(value: Any, depth: int = 0) -> str:
    """What tells two inferences apart: names, and settings that are plain values."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, (np.ndarray, np.generic)):
        if value.size > MOST_VALUES:
            return f"array of {hashlib.sha256(value.tobytes()).hexdigest()[:8]}"
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return str(value)
    named = getattr(value, "__qualname__", None)
    if named is not None and not inspect.ismethod(value):
        return str(named)
    # weights are hashed; what holds itself has no end
    if isinstance(value, nn.Module) or depth == DEEPEST:
        return str(type(value).__name__)
    inner = partial(described, depth=depth + 1)
    if isinstance(value, (list, tuple)):
        return f"({', '.join(map(inner, value))})"
    if isinstance(value, Mapping):
        return f"{{{_settings_text(value, inner)}}}"
    if isinstance(value, partial):
        settings = {**dict(enumerate(value.args)), **value.keywords}
        return f"{inner(value.func)}({_settings_text(settings, inner)})"
    if inspect.ismethod(value):
        return f"{inner(value.__self__)}.{value.__name__}"
    return f"{type(value).__name__}({_settings_text(getattr(value, '__dict__', {}), inner)})"


def _settings_text(settings: Mapping[Any, Any], inner: Callable[[Any], str]) -> str:
    said = {name: v for name, v in settings.items() if not str(name).startswith("_")}
    return ", ".join(f"{name}={inner(value)}" for name, value in said.items())
