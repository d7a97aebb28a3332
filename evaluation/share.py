"""Which of the cases are this call's: by its arguments, or by what torchrun sets."""

from __future__ import annotations

import os

from nnunetv2_lngswr.utils.errors import UserError


def find_share(num_parts: int | None, part_id: int | None) -> tuple[int, int]:
    """How many share the cases, and which of them this call is.

    Parameters
    ----------
    num_parts, part_id
        As given; None: WORLD_SIZE and RANK.

    Raises
    ------
    UserError
        Numbers out of range, and both ways at once.
    """
    ranks = _ranks()
    if num_parts is None and part_id is None:
        return ranks
    if ranks[0] > 1:
        raise UserError(
            f"torchrun (WORLD_SIZE={ranks[0]}) and num_parts/part_id both divide the cases; "
            "use one of them"
        )
    if not isinstance(num_parts, int) or num_parts < 1:
        raise UserError(f"num_parts must be >= 1, got {num_parts}")
    part_id = 0 if part_id is None else part_id
    if not isinstance(part_id, int) or not 0 <= part_id < num_parts:
        raise UserError(
            f"part_id must be in 0..{num_parts - 1} (num_parts {num_parts}), got {part_id}"
        )
    return num_parts, part_id


def _ranks() -> tuple[int, int]:
    """WORLD_SIZE and RANK, as torchrun sets them, or (1, 0)."""
    texts = {"WORLD_SIZE": os.environ.get("WORLD_SIZE", "1"), "RANK": os.environ.get("RANK", "0")}
    ranks = {}
    for name, text in texts.items():
        try:
            ranks[name] = int(text)
        except ValueError:
            raise UserError(
                f"the environment variable {name} must be a number, as torchrun sets it, got "
                f"{text!r}; unset it to evaluate in one part"
            ) from None
    size, rank = ranks["WORLD_SIZE"], ranks["RANK"]
    if size < 1 or not 0 <= rank < size:
        raise UserError(
            f"the environment variables WORLD_SIZE and RANK must be >= 1 and in 0..WORLD_SIZE-1, "
            f"as torchrun sets them, got WORLD_SIZE={size} and RANK={rank}; unset both to evaluate "
            "in one part"
        )
    return size, rank
