"""What must hold if the attacks work, said with the figures where it does not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.report import strength
from evaluation.report.records import MEAN_TITLES
from evaluation.rows import Row
from nnunetv2_lngswr.attacks.registry import ATTACKS
from nnunetv2_lngswr.attacks.suites import without_norm

CONTROLS = {spec.name: spec.control for spec in ATTACKS.values() if spec.control}

Record = Mapping[str, Any]


def checks(results: Sequence[Record]) -> list[str]:
    """One line per check.

    On the mean over cases, every attack lowers Dice at least as far as the noise control, and
    white-box attacks at least as far as transfer and square, at the same norm and budget. And no
    attack returns every case as it was.

    Parameters
    ----------
    results
        Records of `records.summarise`.
    """
    lines = [_against(control, results) for control in CONTROLS]
    # where nothing was found in clean images there is nothing to look for
    clean = next((r["dice"] for r in results if r["kind"] == "clean"), 1.0)
    lines += [
        f"Check failed: {run_title(r)} returned every case as it was, having found nothing better; "
        f"its Dice says nothing. {strength.advice(r['attack'])}"
        for r in results
        if r["kind"] == "attack" and r["epsilon"] != 0 and r["mean_linf_range"] == 0 and clean > 0
    ]
    return [line for line in lines if line]


def all_checks(results: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """`checks` of an evaluation's records, then `strength.checks` of the rows they are made of."""
    return [*checks(results), *strength.checks(rows)]


def run_title(record: Record) -> str:
    """'pgd_linf 4/255', 'gamma 3', 'clean'."""
    name = MEAN_TITLES.get(record["kind"], record["attack"])
    parts = (name, record["epsilon_text"], record["severity"])
    return " ".join(str(p) for p in parts if p is not None)


def _against(control: str, results: Sequence[Record]) -> str:
    """What one control says of the attacks at its budgets; nothing where there are none."""
    found = [r for r in results if r["kind"] == "attack" and r["epsilon_text"]]
    weaker = {_budget(r): r["dice"] for r in found if without_norm(r["attack"]) == control}
    attacks = [
        r for r in found if _budget(r) in weaker and not r["attack"].startswith(tuple(CONTROLS))
    ]
    if not attacks:
        return ""
    title = CONTROLS[control]
    defined = [
        r for r in attacks if not math.isnan(r["dice"]) and not math.isnan(weaker[_budget(r)])
    ]
    if not defined:
        return f"Not checked against {title}: Dice is undefined in every case."
    failed = [
        f"{run_title(r)} ({100 * r['dice']:.1f} against {100 * weaker[_budget(r)]:.1f})"
        for r in defined
        if r["dice"] > weaker[_budget(r)]
    ]
    if failed:
        return f"Check failed: {', '.join(failed)} lower Dice less than {title}."
    return (
        f"Check passed: no attack is weaker than {title} at the same budget, by mean Dice "
        f"({len(defined)} comparisons); this checks nothing else."
    )


def _budget(record: Record) -> tuple[str, str]:
    return record["norm"], record["epsilon_text"]
