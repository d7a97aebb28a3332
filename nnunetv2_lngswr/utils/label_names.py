"""The labels of a dataset.json: each has a name and a value, or several where it is a region."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import is_number, shown

BACKGROUND, IGNORE = "background", "ignore"
_LIST = (list, tuple)  # from JSON, or from a checkpoint


def check_labels(labels: object, order: object, where: str) -> None:
    """Refuse labels that nnU-Net could not work with, or of which two would be taken for one.

    Parameters
    ----------
    labels
        What stands under "labels".
    order
        What stands under "regions_class_order"; None for nothing.
    where
        Whose they are, for the text.

    Raises
    ------
    UserError
        Names the label, what was found and what it must be.
    """
    if not isinstance(labels, Mapping):
        raise UserError(
            f'{where}: "labels" must be like {{"background": 0, "tumour": 1}}, got {shown(labels)}'
        )
    for name, value in labels.items():
        if not isinstance(name, str) or not name.strip():
            raise UserError(f'{where}: a name in "labels" is empty')
        if name != BACKGROUND and name.strip().casefold() == BACKGROUND:
            raise UserError(f'{where}: "labels" names {shown(name)} beside "{BACKGROUND}"')
        if not _is_label(value) and not (isinstance(value, _LIST) and all(map(_is_label, value))):
            raise UserError(
                f'{where}: label "{name}" must be a whole number >= 0, or a list of them for a '
                f"region, got {shown(value)}"
            )
    if not _is_label(labels.get(BACKGROUND)) or int(labels[BACKGROUND]) != 0:
        raise UserError(
            f'{where}: "labels" must have "{BACKGROUND}": 0, got {shown(labels.get(BACKGROUND))}'
        )
    _refuse_labels_alike(labels, where)
    foreground = [v for k, v in labels.items() if k not in (BACKGROUND, IGNORE)]
    if not foreground or [] in foreground:
        raise UserError(f'{where}: "labels" must name something beside the background')
    regions = any(isinstance(v, _LIST) and len(v) > 1 for v in foreground)
    if regions and not (isinstance(order, _LIST) and all(map(_is_label, order))):
        raise UserError(
            f'{where}: "labels" has regions, so that "regions_class_order" must be a list of '
            f"labels, got {shown(order)}"
        )


def _refuse_labels_alike(labels: Mapping[str, Any], where: str) -> None:
    seen: dict[frozenset[int], str] = {}
    for name, value in labels.items():
        values = frozenset(int(v) for v in (value if isinstance(value, _LIST) else [value]))
        other = seen.setdefault(values, name)
        if other != name:
            raise UserError(
                f'{where}: the labels "{other}" and "{name}" are both {shown(value)}; '
                "give each a value of its own"
            )


def _is_label(value: object) -> bool:
    """As nnU-Net, which takes "1" and 1.0 for 1."""
    if isinstance(value, str):
        return re.fullmatch("[0-9]{1,9}", value) is not None
    return is_number(value) and value >= 0 and float(value).is_integer()
