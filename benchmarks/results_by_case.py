"""What `lngswr compare` says of trainings, from the Dice by case that robustness.json files keep.

So arms of one benchmark are tested against those of another on the same cases, by the same
intervals and tests, when the models and evaluations are long gone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.paired_rows import paired_rows
from evaluation.comparison.replicates import Part, replicates_of
from evaluation.groups import Groups
from evaluation.rows import Row

KEY = "dice_by_case"


def are_there(record: Mapping[str, Any], arms: Sequence[str]) -> bool:
    """Whether every training of these arms has its Dice by case."""
    runs = [run for run in record["runs"] if run["arm"] in arms]
    return {run["arm"] for run in runs} == set(arms) and all(run.get(KEY) for run in runs)


def results_of(
    record: Mapping[str, Any], arms: Sequence[str], *, seed: int = 0
) -> list[dict[str, Any]]:
    """One record per arm and run, as "results" of a robustness.json.

    Parameters
    ----------
    record
        A robustness.json, or several put together.
    arms
        The first is the baseline; Holm's correction is over all of them.
    seed
        Of bootstrap and permutations.

    Raises
    ------
    SystemExit
        The trainings are of different cases.
    """
    models = [_model(record, arm) for arm in arms]
    cases = models[0].summary["cases"]
    other = [m.name for m in models if set(m.summary["cases"]) != set(cases)]
    if other:
        raise SystemExit(f"{', '.join(other)}: other cases than {arms[0]}")
    said = record.get("groups")
    groups = Groups(of=said["of"], found=said["found"]) if said else None
    return paired_rows(models, seed=seed, groups=groups)


def _model(record: Mapping[str, Any], arm: str) -> ComparedModel:
    runs = [run for run in record["runs"] if run["arm"] == arm]
    parts = [
        Part(seed=run["seed"], cases=list(run[KEY]["clean"]), rows=list(_rows(run[KEY])))
        for run in runs
    ]
    cases = list(dict.fromkeys(case for part in parts for case in part.cases))
    return ComparedModel(
        name=arm,
        folders=tuple(Path(run["plans"]) for run in runs),
        summary={"cases": cases},
        rows=[row for part in parts for row in part.rows],
        replicates=replicates_of(parts, cases),
    )


def _rows(dice_by_case: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Iterator[Row]:
    """Rows of cases.csv, as far as a comparison of Dice reads them."""
    for run, by_case in dice_by_case.items():
        attack, _, epsilon_text = run.partition(" ")
        worst = {"kind": "worst", "norm": attack.removeprefix("worst_")}
        names = {"kind": "clean", "norm": ""} if run == "clean" else worst
        names |= {"attack": attack, "epsilon_text": epsilon_text, "severity": None}
        for case, of_labels in by_case.items():
            for number, dice in enumerate(of_labels):
                label = {"case": case, "label": str(number), "label_name": str(number)}
                yield {**names, **label, "dice": float("nan") if dice is None else dice}
