"""The tables of evidence: what a robustness.json, or a search's JSON, says, line by line.

Each kind takes the JSON and the arms to show and gives the head and the lines, as texts; what they
show, evidence_tables.py says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.evidence_cells import (
    ATTACKED,
    READINGS,
    SMALLER,
    compared_twice,
    difference,
    differences_by_seed,
    in_brackets,
    interval,
    marked,
    mean_dice,
    percent,
    reductions,
    rows_of,
    twice,
)
from benchmarks.pareto import step_cost, step_ratios
from benchmarks.results_by_case import are_there, results_of
from benchmarks.robustify import FROM_SCRATCH, GIVEN, kept
from benchmarks.small_search import differences
from benchmarks.trainings import RUN_KEYS, by_seed, label, settings
from nnunetv2_lngswr.experiments.robustness.arms import BASELINE


def both(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    rows, costs = rows_of(record), step_ratios(record)
    yield "", "train step", *READINGS.values(), "clean minus vanilla", *SMALLER
    for arm in arms:
        dice = [percent(rows[arm][reading]["dice"]) for reading in READINGS.values()]
        cost = f"{step_cost(settings(record, arm), costs):.3g}"
        yield marked(record, arm), cost, *dice, *compared_twice(rows[arm])


def cases(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    yield from _compared(record, arms, "")


def again(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    rows = rows_of(record)
    arms = [arm for arm in arms if rows[arm]["clean"].get("trainings", 1) > 1]
    yield from _compared(record, arms, "_again")


def _compared(record: Mapping[str, Any], arms: Sequence[str], of: str) -> Iterable[Sequence[str]]:
    rows = rows_of(record)
    minus = (f"{reading} minus vanilla" for reading in READINGS.values())
    yield "", *READINGS.values(), *minus, *SMALLER
    for arm in arms:
        found = [rows[arm][reading] for reading in READINGS.values()]
        dice = [percent(row["dice"]) for row in found]
        dice[1:] = [
            f"{value} {interval(row, f'dice{of}')}" for value, row in zip(dice[1:], found[1:])
        ]
        yield (
            marked(record, arm),
            *dice,
            *(difference(row, of) for row in found),
            *reductions(rows[arm], of),
        )


def late(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    said = record.get("against_late_at")
    if said is None and not are_there(record, ["LateAT", *arms]):
        raise SystemExit("nothing is known of a comparison with late AT")
    said = said or results_of(record, ["LateAT", *arms])
    rows = rows_of({"results": said})
    yield "minus late AT", *READINGS.values()
    for arm in arms:
        yield label(arm), *(difference(rows[arm][reading], "") for reading in READINGS.values())


def beside(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    first, *others = arms
    rows = rows_of({"results": results_of(record, arms)})
    yield f"minus {label(first)}", *READINGS.values(), *SMALLER
    for arm in others:
        clean, *smaller = compared_twice(rows[arm])
        minus = (twice(rows[arm][reading], "difference", percent, 1) for reading in ATTACKED)
        yield label(arm), clean, *minus, *smaller


def seeds(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    names = sorted({run["seed"] for run in record["runs"]})
    yield "clean, 4/255, 8/255", *(f"seed {seed}" for seed in names)
    for arm in arms:
        its, keys = by_seed(record, arm), RUN_KEYS
        yield (
            label(arm),
            *(
                ", ".join(percent(its[seed][key]) for key in keys) if seed in its else ""
                for seed in names
            ),
        )


def shares(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    reference, *others = arms
    yield (
        "by seed; of the means",
        *SMALLER,
        *(f"gain at {reading}, of {reference}'s" for reading in ATTACKED),
        *(f"drop smaller at {reading}, of {reference}'s" for reading in ATTACKED),
    )
    base, best = by_seed(record, BASELINE), by_seed(record, reference)
    for arm in others:
        its = by_seed(record, arm)
        seeds = sorted(base.keys() & best.keys() & its.keys())
        of_runs = [[seed] for seed in seeds] + [seeds]
        found = [_shares(*([of[s] for s in some] for of in (base, best, its))) for some in of_runs]
        yield label(arm), *map(_by_seed_and_mean, zip(*found))


def _shares(
    base: Sequence[Mapping[str, float]],
    best: Sequence[Mapping[str, float]],
    mine: Sequence[Mapping[str, float]],
) -> list[float]:
    """How much smaller the drop is; what is kept of the best one's gain in Dice, and of that."""
    dice = {GIVEN: base, FROM_SCRATCH: best, "mine": mine}
    gain, drop = (kept(dice, of_dice=of_dice)["mine"] for of_dice in (True, False))
    clean, *attacked = RUN_KEYS
    before, after = map(mean_dice, (base, mine))
    smaller = [1 - (after[clean] - after[k]) / (before[clean] - before[k]) for k in attacked]
    return [*smaller, *(of[key] for of in (gain, drop) for key in attacked)]


def _by_seed_and_mean(shares: Sequence[float]) -> str:
    *of_seeds, of_means = (f"{100 * share:.0f}" for share in shares)
    return f"{', '.join(of_seeds)}; {of_means}%"


def against(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    first, *others = arms
    yield (
        f"minus {label(first)}, by seed",
        *READINGS.values(),
        *(f"{reading}: mean" for reading in READINGS.values()),
    )
    base = by_seed(record, first)
    for arm in others:
        yield label(arm), *differences_by_seed(base, by_seed(record, arm))


def search(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    dice = {arm: record["dice"][arm] for arm in arms}
    readings = list(next(iter(dice[arms[0]].values())))
    minus = differences(dice)
    yield "", *readings, *(f"{reading} minus `{arms[0]}`" for reading in readings)
    for arm in arms:
        means = [
            sum(d[reading] for d in dice[arm].values()) / len(dice[arm]) for reading in readings
        ]
        found = minus[arm].values() if arm in minus else []
        said = [f"{d['mean']:+.1f}{in_brackets(d['standard_error'])}" for d in found]
        yield f"`{arm}`", *(f"{mean:.1f}" for mean in means), *(said or [""] * len(readings))


KINDS: dict[str, Callable[[Mapping[str, Any], Sequence[str]], Iterable[Sequence[str]]]] = {
    kind.__name__: kind
    for kind in (both, cases, again, late, beside, seeds, shares, against, search)
}
