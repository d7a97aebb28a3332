"""Standard suites: small fixed ensembles with a name and a version, as AutoAttack is one.

A suite is run as one attack (ensemble.py). Its members run one after another, cheapest first; a
member starts anew or goes on from the best point so far, and none runs on a case whose Dice is 0.
Nothing of it can be set, so that `worst-v2` means the same in every report. What it was chosen by,
and what brute force finds beyond it: docs/suite.md. Imports no torch.
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
    """As `registry.run_attack` takes them."""
    gradients: int
    """That it takes at most: a step's, and one at the start of every stage."""
    goes_on: bool = False
    """Whether it starts at the best point so far, which it must take as `start`."""
    absent_only: bool = False
    """Whether it is run on no cases but those that lack a foreground label."""


# larger radii first would leave the point behind that a member goes on from
_ON = {"steps": 20, "radius_schedule": False}
_V1 = (
    Member(name="dice", attack="apgd_dice", options={"steps": 20}, gradients=23),
    Member(name="dice_on", attack="apgd_dice", options=_ON, gradients=21, goes_on=True),
)
SUITES: dict[str, tuple[Member, ...]] = {
    "worst-v1": _V1,
    # on cases that have all labels it is worst-v1
    "worst-v2": (
        *_V1,
        Member(
            name="absent",
            attack="apgd_dice",
            options={**_ON, "absent_labels": True},
            gradients=21,
            goes_on=True,
            absent_only=True,
        ),
    ),
}
"""{name: members, cheapest first}. A published suite never changes; a better one is a new one."""
DICE_AFTER = "dice_after_"
"""What the keys of a result's extras start with; the member's name follows."""
NEWEST = {"worst": "worst-v2"}
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
    if dash and family in NEWEST and not suites_among([name]):
        raise UserError(f"unknown suite {name!r}; there are {', '.join(SUITES)}")
    return name


def seeded_as(name: str) -> str:
    """Whose random numbers an attack draws: all versions of a suite the first one's, so that the
    same members find the same."""
    (suite,) = suites_among([name]) or [""]
    return name.replace(suite, f"{suite.partition('-')[0]}-v1", 1) if suite else name


def words_of_before(words: Iterable[str]) -> list[str]:
    """Words of a command line that was written down when 'worst' was `worst-v1`; later ones have
    the version."""
    return ["worst-v1" if word == "worst" else word for word in words]


def without_norm(attack: str) -> str:
    """The name of an attack that runs in either norm, and is called after it in one."""
    return attack.removesuffix("_l2").removesuffix("_linf")


def suites_among(names: Iterable[str]) -> list[str]:
    """Those of the names that are suites, whatever their norm, each once."""
    found = map(without_norm, names)
    return list(dict.fromkeys(n for n in found if n in SUITES))


def evaluations_of(name: str) -> tuple[int, int]:
    """(forwards, gradients) of the whole case that a suite takes at most of one with all labels.

    A forward for the clean case and for each member's best point, and the members' own gradients.
    """
    members = [member for member in SUITES[name] if not member.absent_only]
    return 1 + len(members), sum(member.gradients for member in members)
