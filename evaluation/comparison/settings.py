"""Which settings must agree, or a difference between folders would not be one between models.

An option of attacks binds those that it sets, and a suite, which is fixed, by none. Budgets may
differ: what is compared is run at those that all folders have.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from evaluation.comparison.folders import ComparedModel
from evaluation.session import BEST_ITERATE_BEFORE
from nnunetv2_lngswr.attacks.registry import attack_of_report

SAME_OPTIONS = ("epsilon_unit", "seed", "nsd_tolerance")
ATTACK_OPTIONS = ("steps", "steps_of", "restarts", "temperature")


def settings_to_agree(model: ComparedModel, same_cases: bool) -> dict[str, Any]:
    """What must be the same in models that are compared, whatever attacked them.

    The suite is asked for besides.
    """
    options = model.summary["options"]
    labels = sorted({(r["label"], r["label_name"]) for r in model.rows})
    return {
        **({"cases": sorted(model.summary["cases"])} if same_cases else {}),
        **{key: options.get(key) for key in SAME_OPTIONS},
        # folders from before it existed have none
        "autocast": bool(options.get("autocast")),
        "best iterate": model.summary.get("best_iterate", BEST_ITERATE_BEFORE),
        "labels": [f"{key} {name}" for key, name in labels],
    }


def compared_settings(model: ComparedModel, same_cases: bool) -> dict[str, Any]:
    """`settings_to_agree`, and what sets the attacks among the model's rows."""
    options = model.summary["options"]
    attacks = sorted({r["attack"] for r in model.rows if r["kind"] == "attack"})
    steps_of = dict(options.get("steps_of") or {})
    found = settings_to_agree(model, same_cases)
    for name in attacks:
        taken, own_steps = _takes(name)
        if "steps" in taken:
            steps = None if own_steps else options.get("steps")
            found[f"steps of {name}"] = steps_of.get(name, steps)
    for key in ("restarts", "temperature"):
        if any(key in _takes(name)[0] for name in attacks):
            found[key] = options.get(key)
    return found


def _takes(attack: str) -> tuple[Collection[str], bool]:
    """The options that set an attack, and whether its steps are none of --steps N."""
    spec = attack_of_report(attack)
    if spec is None:  # of torchattacks, or of another version
        return ATTACK_OPTIONS, False
    return spec.tunable, spec.own_steps
