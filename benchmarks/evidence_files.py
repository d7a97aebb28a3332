"""The tables of evidence that are of several files, or of others than a benchmark's.

As in evidence_kinds.py; these take a list of JSON.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.evidence_cells import (
    ATTACKED,
    READINGS,
    SMALLER,
    Rows,
    compared_twice,
    differences_by_seed,
    mean_dice,
    percent,
    reductions,
    rows_of,
    twice,
)
from benchmarks.pareto import step_cost, step_ratios
from benchmarks.robustify import FROM_SCRATCH, GIVEN, kept
from benchmarks.spectral_reading_figures import cells
from benchmarks.trainings import RUN_KEYS, by_seed, label, settings
from nnunetv2_lngswr.experiments.robustness.arms import ARMS, BASELINE

NOT_AFFINE = "not_affine_mean"
"""The kind of row of the mean without corruptions that do nothing to instance normalisation."""
DATA_SETS = {"Dataset622_LungNodule2D": "lung nodules", "Dataset611_ThyroidUS": "thyroid"}


def machines(records: Sequence[Mapping[str, Any]], arms: Sequence[str]) -> Iterable[Sequence[str]]:
    first, second = records
    yield (
        "same seed, other CPU",
        *READINGS.values(),
        *(f"{reading}: mean" for reading in READINGS.values()),
    )
    for arm in arms:
        name, _, other = arm.partition("=")
        yield (
            label(name),
            *differences_by_seed(by_seed(first, name), by_seed(second, other or name)),
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
            cells.append(", ".join(percent(its[of]["dice"]) for of in READINGS.values()))
            again = reductions(its, "_again")[-1] if its[reading].get("trainings", 1) > 1 else ""
            cells.append(again)
        yield cells


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
        yield label(arm), *(percent(statistics.mean(of)) if of else "" for of in found)


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
        dice = mean_dice(first["dice"][arm])
        its = [[100 * of[arm][key] for of in shares] for key in RUN_KEYS[1:] if arm in shares[0]]
        yield (
            {FROM_SCRATCH: f"{FROM_SCRATCH}, from scratch"}.get(arm, arm),
            *(percent(dice[key]) for key in RUN_KEYS),
            *compared_twice(rows[arm]),
            *([f"{drop:.0f}% ({gain:.0f}%)" for drop, gain in its] or [""] * 2),
        )


def calibration(
    records: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> Iterable[Sequence[str]]:
    (record,) = records
    rows = rows_of(record)
    yield "ECE", *READINGS.values()
    for arm in arms or rows:
        yield label(arm), *(_calibrated(rows[arm][reading]) for reading in READINGS.values())


def corruptions(
    records: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> Iterable[Sequence[str]]:
    rows = _by_trainer(records, ("clean", "shifts_mean", NOT_AFFINE))
    head = ("clean", "all corruptions", "minus vanilla", "drop smaller", "but affine ones")
    yield "", *head, "ECE: clean", "all corruptions"
    for arm in arms or rows:
        its = {kind: row for (kind, _), row in rows[arm].items()}
        clean, corrupted = its["clean"], its["shifts_mean"]
        yield (
            label(arm),
            *(percent(row["dice"]) for row in (clean, corrupted)),
            twice(corrupted, "difference", percent, 1),
            twice(corrupted, "reduction", lambda share: f"{100 * share:.0f}%", 0),
            percent(its[NOT_AFFINE]["dice"]),
            *map(_calibrated, (clean, corrupted)),
        )


def each_corruption(
    records: Sequence[Mapping[str, Any]], arms: Sequence[str]
) -> Iterable[Sequence[str]]:
    rows = _by_trainer(records, ("shift_mean",))
    first, *others = arms or rows
    yield "mean over severities", label(first), *(f"{label(arm)}: minus" for arm in others)
    for of, its in rows[first].items():
        minus = (twice(rows[arm][of], "difference", percent, 1) for arm in others)
        yield f"`{of[1]}`", percent(its["dice"]), *minus


def _by_trainer(
    records: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> dict[str, dict[tuple[str, str], dict[str, Any]]]:
    """What a compare.json says of these kinds of rows: {arm: {(kind, attack): row}}."""
    (record,) = records
    arm_of = {trainer: arm for arm, trainer in ARMS.items()}
    rows: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
    for row in record["results"]:
        if row["kind"] in kinds:
            its = rows.setdefault(arm_of[row["model"]], {})
            its[row["kind"], row["attack"]] = row
    return rows


def _calibrated(row: Mapping[str, Any]) -> str:
    return f"{row['ece']:.3f} [{row['ece_low']:.3f}, {row['ece_high']:.3f}]"


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


Kind = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], Iterable[Sequence[str]]]
KINDS_OF_FILES: dict[str, Kind] = {
    kind.__name__: kind
    for kind in (
        overview,
        validation,
        robustified,
        calibration,
        corruptions,
        each_corruption,
        spectra,
    )
}
"""Those that take the JSON of several files as they are."""
KINDS_OF_MACHINES: dict[str, Kind] = {machines.__name__: machines}
"""Those that take one JSON per machine."""
