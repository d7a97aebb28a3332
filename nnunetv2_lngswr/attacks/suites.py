"""Standard suites: small fixed ensembles with a name and a version, as AutoAttack is one.

A suite is run as one attack (ensemble.py). Its members run one after another, cheapest first; a
member starts anew or goes on from the best point so far, and none runs on a case whose Dice is 0.
Nothing of it can be set, so that `worst-v1` means the same in every report. What it was chosen by,
and what brute force finds beyond it: docs/attacks.md. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Member:
    """One attack of a suite; it works in every norm."""

    name: str
    """In reports."""
    attack: str
    """Its registered name."""
    options: Mapping[str, Any]
    """As `registry.run_attack` takes them, with `steps`."""
    goes_on: bool = False
    """Whether it starts at the best point so far, which it must take as `start`."""


SUITES: dict[str, tuple[Member, ...]] = {
    "worst-v1": (
        Member(name="dice", attack="apgd_dice", options={"steps": 20}),
        Member(
            name="dice_on",
            attack="apgd_dice",
            # larger radii first would leave the point behind that it goes on from
            options={"steps": 20, "radius_schedule": False},
            goes_on=True,
        ),
    ),
}
"""{name: members, cheapest first}. A published suite never changes; a better one is a new one."""
NEWEST = {"worst": "worst-v1"}
"""{what users may write: the newest version of it}."""


def full_name(name: str) -> str:
    """The name with its version where it is a suite's: 'worst' is the newest one.

    Names of other attacks are returned as they are.

    Raises
    ------
    UserError
        A version that does not exist, such as 'worst-v9'.
    """
    if name in NEWEST:
        return NEWEST[name]
    family, dash, _ = name.partition("-")
    if dash and family in NEWEST and name.removesuffix("_l2") not in SUITES:
        raise UserError(f"unknown suite {name!r}; there are {', '.join(SUITES)}")
    return name


def suites_among(names: Iterable[str]) -> list[str]:
    """Those of the names that are suites, whatever their norm, each once."""
    found = [n.removesuffix("_l2") for n in names]
    return list(dict.fromkeys(n for n in found if n in SUITES))


def gradients_of(name: str) -> int:
    """Gradients of the whole case that a suite takes at most, but for one per stage."""
    return sum(member.options["steps"] for member in SUITES[name])
