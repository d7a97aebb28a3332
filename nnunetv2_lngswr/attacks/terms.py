"""The words of attacks that settings use; without torch, so that these are validated at once."""

from __future__ import annotations

from enum import StrEnum

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.values import is_number, shown


class Norm(StrEnum):
    """The norm of a perturbation: Linf, or L2 as the root mean square per voxel."""

    LINF = "linf"
    L2 = "l2"


class Unit(StrEnum):
    """The unit of epsilon: the case's intensity range, preprocessed units, or units of the file."""

    RANGE = "range"
    NORMALIZED = "normalized"
    ORIGINAL = "original"


LOSS_NAMES = ("ce", "dice_ce", "masked_ce", "js", "cospgd", "soft_dice", "scale_free_dice")
"""What an attack may ascend; `attacks.losses.LOSSES` holds the functions."""

PGD_PATH = 2.5
"""Length of all steps of PGD together, in units of epsilon (Madry et al. 2018)."""

TORCHATTACKS_PREFIX = "torchattacks:"
"""What the names of attacks start with that the package torchattacks has."""


def check_temperature(value: object) -> None:
    """Refuse what logits cannot be divided by.

    Raises
    ------
    UserError
        A value that is not a positive number.
    """
    if not is_number(value) or value <= 0:
        raise UserError(f"temperature must be a finite number > 0, got {shown(value)}")
