"""The arms of a benchmark: trainers by their short names, and variants with settings of their own.

An arm is kept as robustness.json holds it: {"arm": one of ARMS, **its "lngswr" entry}.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nnunetv2_lngswr.experiments.robustness.presets import SHORT_BUDGET
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY, check_entry
from nnunetv2_lngswr.utils.errors import UserError

ARMS = {
    "vanilla": "nnUNetTrainerVanilla",
    "DA5": "nnUNetTrainerVanillaDA5",
    "LNG": "nnUNetTrainerLNG",
    "SWR": "nnUNetTrainerSWR",
    "LNGSWR": "nnUNetTrainerLNGSWR",
    "LNGSWRGuided": "nnUNetTrainerLNGSWRGuided",
    "AT": "nnUNetTrainerAT",
    "LateAT": "nnUNetTrainerLateAT",
    "LNGSWRAT": "nnUNetTrainerLNGSWRAT",
    "LNGSWRLateAT": "nnUNetTrainerLNGSWRLateAT",
    "LNGSWRDA5": "nnUNetTrainerLNGSWRDA5",
    "LateATDA5": "nnUNetTrainerLateATDA5",
}
BASELINE = "vanilla"


def read_arms(
    arms: Sequence[str], variants: Mapping[str, Mapping], settings: Mapping
) -> dict[str, dict[str, Any]]:
    """Return all arms by name, the baseline first.

    Parameters
    ----------
    arms
        Names of ARMS.
    variants
        Further arms, {name: {"arm": one of ARMS, **"lngswr" entry}}.
    settings
        A "lngswr" entry for all arms.

    Raises
    ------
    UserError
        An unknown arm, a variant without an arm, a name, a setting or a value that is refused.
    """
    found = {name: {"arm": name} for name in dict.fromkeys([BASELINE, *arms])}
    for name, variant in variants.items():
        # as in the "arms" of robustness.json, so that these can be run again
        if variant != {"arm": name}:
            _check_variant(name, variant, settings)
        found[name] = dict(variant)
    unknown = [arm["arm"] for arm in found.values() if arm["arm"] not in list(ARMS)]
    if unknown:
        raise UserError(
            f"unknown arm {', '.join(map(_with_its_arm, unknown))}; arms are {', '.join(ARMS)}"
        )
    _check_entries([settings, *map(settings_of, found.values())])
    return found


def settings_of(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the "lngswr" entry of an arm: what it has besides the name of its trainer."""
    return {key: value for key, value in arm.items() if key != "arm"}


def equal_for_all(entry: Mapping[str, Any]) -> list[str]:
    """Return the keys of a "lngswr" entry that are the same for all arms: seed and budget."""
    return sorted({"seed", *SHORT_BUDGET} & set(entry))


def _with_its_arm(name: Any) -> str:
    arms = [arm for arm, trainer in ARMS.items() if trainer == name]
    return f"{name} (a trainer; its arm is {arms[0]})" if arms else str(name)


def _check_variant(name: str, variant: Any, settings: Mapping) -> None:
    if not re.fullmatch(r"[\w+-][\w.+-]*", name) or name in ARMS:
        raise UserError(
            "a variant's name must be made of letters, digits and . + - _, not begin with a dot "
            f"and not be an arm's, got {name!r}"
        )
    if not isinstance(variant, Mapping) or "arm" not in variant:
        raise UserError(
            f'variant {name} must be an object with "arm" and settings, got {variant!r}'
        )
    if len(variant) == 1 and variant["arm"] in list(ARMS):
        raise UserError(
            f"variant {name} has no settings, so it is the arm {variant['arm']} itself: "
            "name that in arms"
        )
    equal = equal_for_all(variant)
    if equal:
        raise UserError(
            f"variant {name} must not set {', '.join(equal)}: seed and budget are those of all arms"
        )
    if ADVERSARIAL_KEY in variant and ADVERSARIAL_KEY in settings:
        raise UserError(
            f'variant {name} sets "{ADVERSARIAL_KEY}", and so do the settings for all arms, of '
            "which it would keep nothing: say all of it in the variant, and not in --settings"
        )


def _check_entries(entries: Iterable[Mapping]) -> None:
    for entry in entries:
        check_entry(entry)
