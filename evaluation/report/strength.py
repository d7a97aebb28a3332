"""Whether the attacks were strong enough to be believed, and what to raise where they were not.

`checks` reads what the attacks' histories told (evaluation/attack_figures.py) from the rows of all
cases. Foreground Dice throughout, in points of 100 where it is said.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from evaluation.attack_figures import LATE_FALL, NON_FINITE
from evaluation.rows import MEAN_LABEL, Row, is_noise
from nnunetv2_lngswr.attacks.registry import attack_of_report
from nnunetv2_lngswr.attacks.suites import DICE_AFTER, SUITES, suites_among

CONVERGED_FALL = 0.01
AGREEING_RANGE = 0.1

Run = tuple[str, str, str]  # attack, norm, epsilon text


def checks(rows: Sequence[Row]) -> list[str]:
    """One line for everything that speaks against an attack; none where nothing does.

    A loss that is not finite fails the check of its run. An attack whose Dice still fell by more
    than a point over the last quarter of its steps, on the mean over cases, has not converged. And
    where attacks of several steps differ by more than ten points on a case, the weaker ones missed
    what was there. So may the last member of a suite have done where it still took as much from
    what the first had left.

    Parameters
    ----------
    rows
        Of cases.csv, all cases.
    """
    attacked = [r for r in rows if r["kind"] == "attack" and r["label"] == MEAN_LABEL]
    return [
        *_not_finite(attacked),
        *_not_converged(attacked),
        *_disagreeing(attacked),
        *_members_disagreeing(attacked),
    ]


def _not_finite(rows: Iterable[Row]) -> Iterable[str]:
    for run, cases in _by_run(rows).items():
        counts = {r["case"]: _extras(r).get(NON_FINITE, 0) for r in cases}
        found = [case for case, count in counts.items() if count]
        if found:
            yield (
                f"Check failed: {_title(run)} met losses or gradients that are not finite, "
                f"{sum(counts.values())} in all, in {len(found)} of {len(cases)} cases "
                f"({found[0]} first); its Dice says little there. Leave --autocast out, or look "
                "for what overflows in the model."
            )


def _not_converged(rows: Iterable[Row]) -> Iterable[str]:
    for run, cases in _by_run(r for r in rows if not is_noise(r)).items():
        falls = [f for f in (_extras(r).get(LATE_FALL) for r in cases) if f is not None]
        fall = sum(falls) / max(len(falls), 1)
        if fall > CONVERGED_FALL:
            yield (
                f"Warning: {_title(run)} has not converged: Dice fell by {100 * fall:.1f} points "
                f"over the last quarter of its steps, mean over {len(falls)} cases. "
                f"{advice(run[0], cases[0]['steps'])}"
            )


def _disagreeing(rows: Iterable[Row]) -> Iterable[str]:
    """At each norm and budget; one step, noise and attacks that see no gradient are no measure."""
    budgets: dict[tuple[str, str], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        # who judged a fall took steps on this very model
        if LATE_FALL in _extras(row) and not _is_control(row) and not math.isnan(row["dice"]):
            budgets[row["norm"], row["epsilon_text"]][row["case"]].append(row)
    for (norm, epsilon), cases in budgets.items():
        ranges = {case: _range(of_case) for case, of_case in cases.items()}
        far = [case for case, size in ranges.items() if size > AGREEING_RANGE]
        if far:
            worst = max(far, key=ranges.__getitem__)
            ordered = sorted(cases[worst], key=lambda r: r["dice"])
            low, high = ordered[0], ordered[-1]
            yield (
                f"Warning: attacks at {norm} {epsilon} differ by more than "
                f"{100 * AGREEING_RANGE:.0f} points of Dice in {len(far)} of {len(cases)} cases, "
                f"most in {worst}: {high['attack']} {100 * high['dice']:.1f}, "
                f"{low['attack']} {100 * low['dice']:.1f}. Quote worst_{norm}"
                + _advice_on_weaker(high["attack"])
            )


def _members_disagreeing(rows: Iterable[Row]) -> Iterable[str]:
    """Where a suite's last member took much from what the first had left, and may not be done."""
    for run, cases in _by_run(r for r in rows if suites_among([r["attack"]])).items():
        (suite,) = suites_among([run[0]])
        # what is taken by a label that is not there is no sign of too few steps
        of_all_cases = [m.name for m in SUITES[suite] if not m.absent_only]
        first, last = of_all_cases[0], of_all_cases[-1]
        left = {
            r["case"]: tuple(_extras(r).get(DICE_AFTER + name) for name in (first, last))
            for r in cases
        }
        # below 0 there is nothing to find
        open_ends = {case: (a, b) for case, (a, b) in left.items() if a is not None and b}
        far = {case: (a, b) for case, (a, b) in open_ends.items() if a - b > AGREEING_RANGE}
        if far:
            worst = max(far, key=lambda case: far[case][0] - far[case][1])
            high, low = far[worst]
            yield (
                f"Warning: the members of {_title(run)} differ by more than "
                f"{100 * AGREEING_RANGE:.0f} points of Dice in {len(far)} of {len(cases)} cases, "
                f"most in {worst}: {first} {100 * high:.1f}, "
                f"{last} {100 * low:.1f}. {look_further(run[0])}"
            )


def look_further(attack: str) -> str:
    """Advice about a suite, as it is run, which is fixed: a longer attack beside it."""
    norm = "_l2" if attack.endswith("_l2") else ""
    return f"Look further beside the suite: --attacks worst apgd_dice{norm} --steps 200."


def advice(attack: str, steps: int | None = None) -> str:
    """What to do about an attack that has not converged, or found nothing."""
    if suites_among([attack]):
        return look_further(attack)
    spec = attack_of_report(attack)
    # --steps alone is for others
    option = f"--steps {attack}=N" if spec and spec.own_steps else "--steps"
    return f"Raise {option}" + ("." if steps is None else f" (now {steps}).")


def _advice_on_weaker(attack: str) -> str:
    if suites_among([attack]):
        return f", not {attack} alone."
    return f", and raise --steps or --restarts of {attack} where it is to stand alone."


def _range(rows: Sequence[Row]) -> float:
    dice = [r["dice"] for r in rows]
    return max(dice) - min(dice)


def _is_control(row: Row) -> bool:
    spec = attack_of_report(row["attack"])
    return spec is not None and bool(spec.control)


def _by_run(rows: Iterable[Row]) -> Mapping[Run, list[Row]]:
    runs: dict[Run, list[Row]] = defaultdict(list)
    for row in rows:
        runs[row["attack"], row["norm"], row["epsilon_text"]].append(row)
    return runs


def _title(run: Run) -> str:
    attack, norm, epsilon = run
    named = attack if norm in ("", *attack.split("_")) else f"{attack} ({norm})"
    return f"{named} {epsilon}".rstrip()


def _extras(row: Row) -> dict[str, Any]:
    return json.loads(row["extras"] or "{}")
