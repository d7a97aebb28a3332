"""Which of the two kinds a model is of, by its description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GIVEN = "network"
"""`kind` in the description of a network that was given; those of nnU-Net's folders have none."""


def is_given(model: Mapping[str, Any]) -> bool:
    """Whether a description is of a network that was given, not of nnU-Net's folder."""
    return model.get("kind") == GIVEN
