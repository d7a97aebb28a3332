"""The tables of evidence: what a robustness.json, or a search's JSON, says, line by line.

Each kind takes the JSON and the arms to show and gives the head and the lines, as texts; what they
show, evidence_tables.py says.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from scipy import stats

from benchmarks.pareto import step_cost, step_ratios
from benchmarks.results_by_case import are_there, results_of
from benchmarks.robustify import FROM_SCRATCH, GIVEN, kept
from benchmarks.small_search import differences
from benchmarks.spectral_reading_figures import cells
from benchmarks.trainings import ELSEWHERE, RUN_KEYS, by_seed, label, settings
from evaluation.comparison.trained_again import NO_SPREAD
from nnunetv2_lngswr.experiments.robustness.arms import BASELINE

READINGS = {("clean", ""): "clean", ("worst", "4/255"): "4/255", ("worst", "8/255"): "8/255"}
ATTACKED = ("4/255", "8/255")
DATA_SETS = {"Dataset622_LungNodule2D": "lung nodules", "Dataset611_ThyroidUS": "thyroid"}
SMALLER = tuple(f"drop smaller at {reading}" for reading in ATTACKED)
Rows = dict[str, dict[str, dict[str, Any]]]
"""Results by arm and reading."""
DiceBySeed = Mapping[int, Mapping[str, float]]
"""Of an arm's trainings, by reading."""


def rows_of(record: Mapping[str, Any]) -> Rows:
    """What a robustness.json has of clean images and under the suite."""
    rows: Rows = {}
    for result in record["results"]:
        reading = READINGS.get((result["kind"], result["epsilon_text"] or ""))
        if reading:
            rows.setdefault(result["model"], {})[reading] = result
    return rows


def both(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    rows, costs = rows_of(record), step_ratios(record)
    yield "", "train step", *READINGS.values(), "clean minus vanilla", *SMALLER
    for arm in arms:
        dice = [_percent(rows[arm][reading]["dice"]) for reading in READINGS.values()]
        cost = f"{step_cost(settings(record, arm), costs):.3g}"
        yield _marked(record, arm), cost, *dice, *_compared_twice(rows[arm])


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
        dice = [_percent(row["dice"]) for row in found]
        dice[1:] = [
            f"{value} {_interval(row, f'dice{of}')}" for value, row in zip(dice[1:], found[1:])
        ]
        yield (
            _marked(record, arm),
            *dice,
            *(_difference(row, of) for row in found),
            *_reductions(rows[arm], of),
        )


def late(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    said = record.get("against_late_at")
    if said is None and not are_there(record, ["LateAT", *arms]):
        raise SystemExit("nothing is known of a comparison with late AT")
    said = said or results_of(record, ["LateAT", *arms])
    rows = rows_of({"results": said})
    yield "minus late AT", *READINGS.values()
    for arm in arms:
        yield label(arm), *(_difference(rows[arm][reading], "") for reading in READINGS.values())


def beside(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    first, *others = arms
    rows = rows_of({"results": results_of(record, arms)})
    yield f"minus {label(first)}", *READINGS.values(), *SMALLER
    for arm in others:
        clean, *smaller = _compared_twice(rows[arm])
        minus = (_twice(rows[arm][reading], "difference", _percent, 1) for reading in ATTACKED)
        yield label(arm), clean, *minus, *smaller


def seeds(record: Mapping[str, Any], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    names = sorted({run["seed"] for run in record["runs"]})
    yield "clean, 4/255, 8/255", *(f"seed {seed}" for seed in names)
    for arm in arms:
        its, keys = by_seed(record, arm), RUN_KEYS
        yield (
            label(arm),
            *(
                ", ".join(_percent(its[seed][key]) for key in keys) if seed in its else ""
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
    before, after = map(_mean_dice, (base, mine))
    smaller = [1 - (after[clean] - after[k]) / (before[clean] - before[k]) for k in attacked]
    return [*smaller, *(of[key] for of in (gain, drop) for key in attacked)]


def _mean_dice(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {key: statistics.mean(run[key] for run in runs) for key in RUN_KEYS}


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
        yield label(arm), *_differences(base, by_seed(record, arm))


def _differences(base: DiceBySeed, its: DiceBySeed) -> Iterable[str]:
    """By reading: of each seed that both have, then their means."""
    seeds = sorted(base.keys() & its.keys())
    values = [[100 * (its[seed][key] - base[seed][key]) for seed in seeds] for key in RUN_KEYS]
    yield from (", ".join(f"{value:.1f}" for value in of) for of in values)
    yield from map(_mean_over_seeds, values)


def robustified(
    records: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> Iterable[Sequence[str]]:
    first, *_ = records
    rows: Rows = {}
    for record in records:
        rows = rows_of(record) | rows
    shares = [kept(first["dice"], of_dice=of_dice) for of_dice in (False, True)]
    of_at = (f"of {FROM_SCRATCH}'s at {reading} (in Dice)" for reading in ATTACKED)
    yield "", *READINGS.values(), "clean minus vanilla", *SMALLER, *of_at
    for arm in arms or (GIVEN, *sorted(shares[0]), FROM_SCRATCH):
        dice = _mean_dice(first["dice"][arm])
        its = [[100 * of[arm][key] for of in shares] for key in RUN_KEYS[1:] if arm in shares[0]]
        yield (
            {FROM_SCRATCH: f"{FROM_SCRATCH}, from scratch"}.get(arm, arm),
            *(_percent(dice[key]) for key in RUN_KEYS),
            *_compared_twice(rows[arm]),
            *([f"{drop:.0f}% ({gain:.0f}%)" for drop, gain in its] or [""] * 2),
        )


def overview(records: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    reading = ATTACKED[-1]
    head = ["", "train step"]
    for record in records:
        name = DATA_SETS.get(record["dataset"], record["dataset"])
        head += [f"{name}: {', '.join(READINGS.values())}", f"drop smaller at {reading}"]
    yield head
    for arm in arms:
        found = next(record for record in records if arm in record["arms"])
        cells = [label(arm), f"{step_cost(settings(found, arm), step_ratios(found)):.3g}"]
        for record in records:
            its = rows_of(record).get(arm)
            if its is None:
                cells += ["", ""]
                continue
            cells.append(", ".join(_percent(its[of]["dice"]) for of in READINGS.values()))
            again = _reductions(its, "_again")[-1] if its[reading].get("trainings", 1) > 1 else ""
            cells.append(again)
        yield cells


def spectra(records: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    (record,) = records
    titles = {
        name: label(model["trainer"].removeprefix("nnUNetTrainer").replace("Vanilla", BASELINE))
        for name, model in record["models"].items()
    }
    yield from cells(record["figures"], titles)
    for perturbation, what in (("pgd_linf", ""), ("noise", ", random signs")):
        for name, title in titles.items():
            its = record["growth"][name][perturbation]
            factors = f"x {its['reconstruction']:.2f} x {its['layers']:.3g}"
            yield f"image to bottleneck{what}", title, factors, *[""] * 5


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
        said = [f"{d['mean']:+.1f}{_error(d['standard_error'])}" for d in found]
        yield f"`{arm}`", *(f"{mean:.1f}" for mean in means), *(said or [""] * len(readings))


def validation(
    records: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> Iterable[Sequence[str]]:
    budgets = [record["budget"] for record in records]
    yield "", *(f"{b['num_epochs']} x {b['num_iterations_per_epoch']}" for b in budgets)
    for arm in arms or list(dict.fromkeys(arm for record in records for arm in record["arms"])):
        found = [
            [run["validation_dice"] for run in record["runs"] if run["arm"] == arm]
            for record in records
        ]
        yield label(arm), *(_percent(statistics.mean(of)) if of else "" for of in found)


def machines(records: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    first, second = records
    yield (
        "same seed, other CPU",
        *READINGS.values(),
        *(f"{reading}: mean" for reading in READINGS.values()),
    )
    for arm in arms:
        name, _, other = arm.partition("=")
        yield label(name), *_differences(by_seed(first, name), by_seed(second, other or name))


KINDS: dict[str, Callable[[Mapping[str, Any], Sequence[str]], Iterable[Sequence[str]]]] = {
    kind.__name__: kind
    for kind in (both, cases, again, late, beside, seeds, shares, against, search)
}
KINDS_OF_FILES = {kind.__name__: kind for kind in (overview, validation, robustified, spectra)}
"""Those that take the JSON of several files as they are."""
KINDS_OF_MACHINES = {machines.__name__: machines}
"""Those that take one JSON per machine."""


def _mean_over_seeds(values: Sequence[float]) -> str:
    """With Student's interval over the seeds alone: the cases are the same."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.isf(0.025, len(values) - 1)) * error
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def _error(standard_error: float | None) -> str:
    """Nothing is known of it from one seed."""
    return "" if standard_error is None else f" ({standard_error:.1f})"


def _marked(record: Mapping[str, Any], arm: str) -> str:
    """The arm's label; with * if it was trained on another machine than vanilla."""
    return label(arm) + " *" * (arm in record.get(ELSEWHERE, ()))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(row: Mapping[str, Any], of: str, digits: int = 0) -> str:
    low, high = (100 * row[f"{of}_{end}"] for end in ("low", "high"))
    return f"[{low:.{digits}f}, {high:.{digits}f}]"


def _difference(row: Mapping[str, Any], of: str) -> str:
    name = f"difference{of}"
    if row[name] is None:
        return ""
    # as compare has it since: trainings that happen to agree are not tested
    agree = of and row["se_trainings"] <= NO_SPREAD
    p = None if agree else row[f"p{of}_holm"]
    said = "" if p is None else f", p {p:.2f}" if p >= 0.1 else f", p {p:.1g}"
    return f"{_percent(row[name])} {_interval(row, name, 1)}{said}"


def _reductions(rows: Mapping[str, Mapping[str, Any]], of: str) -> list[str]:
    name = f"reduction{of}"
    found = [rows[reading] for reading in ATTACKED]
    return [
        "" if row[name] is None else f"{100 * row[name]:.0f}% {_interval(row, name)}"
        for row in found
    ]


def _compared_twice(its: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    """The difference from vanilla on clean images and how much smaller the drop is."""
    yield _twice(its["clean"], "difference", _percent, 1)
    for reading in ATTACKED:
        yield _twice(its[reading], "reduction", lambda share: f"{100 * share:.0f}%", 0)


def _twice(row: Mapping[str, Any], name: str, said: Callable[[float], str], digits: int) -> str:
    """A figure with its interval over cases and, of several trainings, that over trainings too."""
    if row[name] is None:
        return ""
    again = f"{name}_again"
    known = row.get("trainings") and row.get(again) is not None
    # not side by side, which is a link in Markdown
    second = f"; {_interval(row, again, digits)}" if known else ""
    return f"{said(row[name])} {_interval(row, name, digits)}{second}"
