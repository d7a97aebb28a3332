"""The trainings that robustness.json files hold: those of several files as one, Dice by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_by_case import KEY
from nnunetv2_lngswr.experiments.robustness.arms import BASELINE
from nnunetv2_lngswr.experiments.robustness.benchmark import EQUAL_TIME
from nnunetv2_lngswr.utils.files import read_json

LABELS = {
    "vanilla": "vanilla",
    "DA5": "strong augmentation (DA5)",
    "LNG": "noise alone",
    "SWR": "reconstruction alone",
    "LNGSWR": "LNG-SWR",
    "LNGSWRGuided": "LNG-SWR, guided",
    "LNGSWRguided-0125": "LNG-SWR, guided by 0.0125",
    "LNGSWRguided-025": "LNG-SWR, guided by 0.025",
    "LNGSWRguided-05": "LNG-SWR, guided by 0.05",
    "LNGSWRguided": "LNG-SWR, guided by 0.1",
    "samples-stay": "LNG-SWR, samples stay two steps",
    "guided-without-noise": "guided by 0.0125, no random noise",
    "LNGSWRDA5": "LNG-SWR with DA5",
    "LNGSWRDA5guided-0125": "LNG-SWR with DA5, guided by 0.0125",
    "LateAT": "late AT",
    "LateAT-4": "late AT at 4/255",
    "LateATDA5": "late AT with DA5",
    "LNGSWRLateAT": "LNG-SWR, then late AT",
    "AT": "AT from the first step",
}
RUN_KEYS = ("clean", "worst_linf 4/255", "worst_linf 8/255")
"""Of the Dice of a run, that are shown."""
SAME_DICE = 1e-6
"""Of one training in two files."""
SAME_BENCHMARK = ("dataset", "configuration", "budget")
"""Of files that are put together across machines."""
ELSEWHERE = "elsewhere"
"""Names, in a record that was put together, of the arms of other machines than the first."""


def label(arm: str) -> str:
    """What pages and pictures call an arm."""
    name = arm.removesuffix(EQUAL_TIME)
    return LABELS.get(name, f"`{name}`") + (f", {EQUAL_TIME.strip(' ()')}" if name != arm else "")


def settings(record: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """{"arm": trainer's short name, **settings} of an arm, or of its reading at equal time."""
    its: Mapping[str, Any] = record["arms"][arm.removesuffix(EQUAL_TIME)]
    return its


def joined(paths: Sequence[Path]) -> dict[str, Any]:
    """Several robustness.json as one, which is the first with what the others add.

    Of a training that is in several, the record with Dice by case is kept.

    Raises
    ------
    SystemExit
        The files have no training of vanilla in common, or differ in an arm's settings, in the Dice
        of a training or in the groups of cases.
    """
    record, *others = (read_json(path) for path in paths)
    for other in others:
        _join(record, other, ", ".join(path.name for path in paths))
    return record


def across_machines(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Benchmarks of several types of CPU as one: the first, with the arms that only others have.

    Of an arm of several, its trainings on the first of them: the same seed comes out otherwise on
    another type of CPU (`evidence_tables`, machines), so these are not further seeds.

    Raises
    ------
    SystemExit
        The records differ in data set, budget, groups of cases or the settings of an arm.
    """
    first, *others = records
    record = dict(first, arms=dict(first["arms"]), **{ELSEWHERE: []})
    for other in others:
        differ = [key for key in SAME_BENCHMARK if other.get(key) != record.get(key)]
        differ += ["groups"] if _groups(other) != _groups(record) else []
        differ += [
            a for a in other["arms"] if record["arms"].get(a, other["arms"][a]) != other["arms"][a]
        ]
        if differ:
            raise SystemExit(f"benchmarks of two machines differ in {', '.join(differ)}")
        new = [arm for arm in other["arms"] if arm not in record["arms"]]
        record["arms"] |= {arm: other["arms"][arm] for arm in new}
        record["runs"] = [*record["runs"], *(r for r in other["runs"] if r["arm"] in new)]
        more = [row for row in other.get("results", ()) if row["model"] in new]
        record["results"] = [*record.get("results", ()), *more]
        record[ELSEWHERE] = [*record[ELSEWHERE], *new]
    return record


def by_seed(record: Mapping[str, Any], arm: str) -> dict[int, dict[str, float]]:
    """Dice by reading, of every training of an arm."""
    runs = [run for run in record["runs"] if run["arm"] == arm]
    found = {run["seed"]: run["dice"] for run in runs}
    if len(found) < len(runs):
        raise SystemExit(f"{arm} has several folds per seed, which this table does not show")
    return found


def _join(record: dict[str, Any], other: Mapping[str, Any], files: str) -> None:
    """Of benchmarks whose common trainings came out the same: they are one."""
    arms, others = record["arms"], other["arms"]
    differ = sorted(arm for arm in arms.keys() & others if arms[arm] != others[arm])
    if differ:
        raise SystemExit(f"{files}: other settings of {', '.join(differ)}")
    mine, its = ({_name(run): run for run in one["runs"]} for one in (record, other))
    common = mine.keys() & its.keys()
    if BASELINE not in {arm for arm, *_ in common}:
        raise SystemExit(f"{files}: no training of {BASELINE} is in both")
    for name in common:
        dice = [run[name]["dice"] for run in (mine, its)]
        if any(abs(dice[0][key] - dice[1][key]) >= SAME_DICE for key in RUN_KEYS):
            raise SystemExit(f"{files}: the trainings of {name[0]} are not the same in both")
    if _groups(record) != _groups(other):
        raise SystemExit(f"{files}: other groups of cases")
    fuller = {name: run for name, run in its.items() if name not in mine or KEY in run}
    record["runs"] = list((mine | fuller).values())
    known = {row["model"] for row in record.get("results", ())}
    more = [row for row in other.get("results", ()) if row["model"] not in known]
    record["results"] = [*record.get("results", ()), *more]
    record["arms"] = others | arms


def _name(run: Mapping[str, Any]) -> tuple[str, int, int]:
    return run["arm"], run["seed"], run.get("fold", 0)


def _groups(record: Mapping[str, Any]) -> Any:
    return (record.get("groups") or {}).get("of")
