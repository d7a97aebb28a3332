"""nnU-Net's plans as the experiments read and change them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError

_NEXT = "next_stage"


def resolved(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with what it inherits, as nnU-Net's PlansManager does.

    Raises
    ------
    UserError
        It inherits from itself, or from one that is missing.
    """
    found: dict[str, Any] = {}
    seen, parent = set(), name
    while parent is not None:
        if parent in seen or parent not in configurations:
            raise UserError(
                f"plans: configuration {name} must inherit from another one that is there, got "
                f'"inherits_from": "{parent}"'
            )
        seen.add(parent)
        found = {**configurations[parent], **found}
        parent = configurations[parent].get("inherits_from")
    return found


def drop_next_stage(configurations: dict[str, Any], name: str) -> None:
    """Let a configuration hand nothing on to a cascade's second stage.

    After its training nnU-Net predicts every case for that stage too, which fails where the stage's
    data are not preprocessed, and nothing here trains it.

    Parameters
    ----------
    configurations
        Of the plans; changed in place.
    name
        Which one. Others that inherit from it hand nothing on either.
    """
    if resolved(configurations, name).get(_NEXT) is not None:
        # null rather than nothing, which would leave what is inherited
        configurations[name][_NEXT] = None
