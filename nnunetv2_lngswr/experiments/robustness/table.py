"""What a benchmark leaves behind: robustness.json, robustness.md, and the comparison's files."""

import dataclasses
import json
import math
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evaluation.compare import compare
from evaluation.rows import MEAN_LABEL
from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.experiments.robustness.arms import BASELINE
from nnunetv2_lngswr.experiments.robustness.benchmark import MARKER, Benchmark, TrainingRun
from nnunetv2_lngswr.experiments.robustness.commands import cores, side_by_side
from nnunetv2_lngswr.experiments.robustness.times import epoch_seconds
from nnunetv2_lngswr.training.settings import PLANS_KEY
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.markdown import markdown_table

Runs = Mapping[str, Sequence[TrainingRun]]
Folds = Mapping[str, list[int]]


def write_table(
    benchmark: Benchmark, runs: Sequence[TrainingRun], arms: Mapping[str, Mapping[str, Any]]
) -> None:
    """Compare all arms and write everything into the output folder.

    An arm that lacks a fold of the baseline has other cases and is left out of the comparison, and
    so are folds that the baseline lacks. That is said, and every run is listed all the same.

    Parameters
    ----------
    benchmark
        The one whose runs they are.
    runs
        All that were trained and evaluated, of this call and of earlier ones.
    arms
        As in `arms.read_arms`, for the record.
    """
    by_arm: dict[str, list[TrainingRun]] = {BASELINE: []}
    for run in runs:
        by_arm.setdefault(run.arm, []).append(run)
    lacking, lone = _lacking_folds(by_arm)
    paired = {
        arm: [run for run in of if run.fold not in lone.get(arm, ())]
        for arm, of in by_arm.items()
        if arm not in lacking
    }
    cost = _cost(benchmark, by_arm)
    compared, comparison = _compare(benchmark, paired)
    record = {
        "date": date.today().isoformat(),
        "versions": _versions(),
        "device": benchmark.device,
        "cores": cores(),
        **read_json(benchmark.output / MARKER, needs=("dataset",)),
        "arms": arms,
        "runs": [_run_record(benchmark, run) for run in runs],
        "cost": cost,
        "timed_side_by_side": side_by_side(benchmark),
        "left_out": lacking,
        "left_out_folds": lone,
        **{key: compared[key] for key in ("groups", "checks", "results") if key in compared},
    }
    write_file(benchmark.output / "robustness.json", json.dumps(record, indent=1) + "\n")
    lines = [*_markdown(benchmark, by_arm, cost), *_left_out_lines(lacking, lone)]
    write_file(benchmark.output / "robustness.md", "\n".join(lines) + comparison)


def _compare(benchmark: Benchmark, by_arm: Runs) -> tuple[dict[str, Any], str]:
    """compare.json and the text of a comparison with the baseline."""
    if len(by_arm) < 2:
        return {"results": []}, f"Nothing has the cases of {BASELINE} to be compared with it.\n"
    folders = [[benchmark.evaluation_folder(r) for r in of] for of in by_arm.values()]
    compare(folders, benchmark.output, names=list(by_arm), groups=benchmark.groups)
    compared = read_json(benchmark.output / "compare.json", needs=("results",))
    return compared, (benchmark.output / "compare.md").read_text(encoding="utf-8")


def _lacking_folds(by_arm: Runs) -> tuple[Folds, Folds]:
    """The folds of the baseline that an arm lacks, and those of an arm that the baseline lacks."""
    folds = {arm: {run.fold for run in of} for arm, of in by_arm.items()}
    base = folds[BASELINE]
    lacking = {arm: sorted(base - its) for arm, its in folds.items() if base - its}
    lone = {arm: sorted(its - base) for arm, its in folds.items() if its - base}
    return lacking, lone


def _cost(benchmark: Benchmark, by_arm: Runs) -> dict[str, dict[str, float]]:
    """Of the arms whose training logs are whole; of none without the baseline's."""
    seconds = {}
    for arm, of in by_arm.items():
        with suppress(UserError, OSError):  # a copied or tidied folder
            seconds[arm] = epoch_seconds(benchmark, of)
    baseline = seconds.get(BASELINE)
    if baseline is None:
        return {}
    return {arm: {"epoch_seconds": s, "ratio": s / baseline} for arm, s in seconds.items()}


def _run_record(benchmark: Benchmark, run: TrainingRun) -> dict[str, Any]:
    return {
        **dataclasses.asdict(run),
        "settings": _trained_settings(benchmark, run),
        "validation_dice": validation_dice(benchmark.fold_folder(run)),
        "dice": dice_of(benchmark.evaluation_folder(run)),
        "dice_by_case": dice_by_case(benchmark.evaluation_folder(run)),
    }


def _trained_settings(benchmark: Benchmark, run: TrainingRun) -> dict[str, Any]:
    """The run's "lngswr" entry as its trainer wrote it out, defaults of that day included."""
    file = benchmark.fold_folder(run).parent / "plans.json"
    plans = read_json(file, needs=("configurations",))
    return plans["configurations"][benchmark.configuration][PLANS_KEY]


def validation_dice(fold: Path) -> float | None:
    """nnU-Net's own mean validation Dice of a fold_X folder; None where that is not known.

    Of clean images, all cases of the fold and with mirroring, other than what is evaluated here.
    """
    file = fold / "validation" / "summary.json"
    if not file.is_file():  # a copied or tidied folder
        return None
    dice = read_json(file).get("foreground_mean", {}).get("Dice")
    return dice if dice is not None and math.isfinite(dice) else None


def dice_of(evaluation: Path) -> dict[str, float]:
    """Mean Dice of one run: clean, worst_linf and worst_l2 per budget, all corruptions.

    How far they lie apart within an arm is what training again changes, which only the figures over
    trainings cover.

    Parameters
    ----------
    evaluation
        OUT of its `lngswr evaluate`.
    """
    results = read_json(evaluation / "summary.json", needs=("results",))["results"]
    return {
        _run_name(r): r["dice"] for r in results if r["kind"] in ("clean", "worst", "shifts_mean")
    }


def dice_by_case(evaluation: Path) -> dict[str, dict[str, list[float | None]]]:
    """What the intervals are drawn from, so that arms of later benchmarks can be tested with these.

    Returns
    -------
    dict
        {"clean", "worst_linf 4/255", ...: {case: Dice of each label, in the order of the labels}};
        None where a label is in neither ground truth nor prediction.
    """
    # not at the top, which the command's help imports
    from evaluation.report.cases_table import read_cases
    from evaluation.report.formats import json_ready

    found: dict[str, dict[str, list[float | None]]] = {}
    for row in read_cases(evaluation / "cases.csv"):
        if row["kind"] in ("clean", "worst") and row["label"] != MEAN_LABEL:
            run = found.setdefault(_run_name(row), {})
            run.setdefault(row["case"], []).append(row["dice"])
    return json_ready(found)


def _run_name(row: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (row["attack"], row["epsilon_text"])))


def _versions() -> dict[str, str]:
    return {
        "nnunetv2_lngswr": __version__,
        **{package: version(package) for package in ("torch", "nnunetv2")},
        "python": platform.python_version(),
    }


def _markdown(benchmark: Benchmark, by_arm: Runs, cost: Mapping) -> list[str]:
    cases = len({case for run in by_arm[BASELINE] for case in _cases(benchmark, run)})
    return [
        f"# Robustness on {benchmark.dataset}, {benchmark.configuration}",
        "",
        f"{benchmark.said}; {cases} validation cases. Written {date.today().isoformat()}.",
        "",
        _arms_table(by_arm, cost),
        "",
        *_times_line(benchmark, by_arm),
        "Dice in percent of each training by itself; the intervals further down do not cover "
        "training again, but for those under 'Trained again', where arms have several seeds:",
        "",
        _runs_table(benchmark, by_arm),
        "",
    ]


def _cases(benchmark: Benchmark, run: TrainingRun) -> list[str]:
    file = benchmark.evaluation_folder(run) / "summary.json"
    return read_json(file, needs=("cases",))["cases"]


def _left_out_lines(lacking: Folds, lone: Folds) -> list[str]:
    said = [
        f"Left out of the comparison: {arm}, which has other cases than {BASELINE}. "
        f"A call with it and `--folds {_listed(folds)}` adds what is missing."
        for arm, folds in lacking.items()
    ]
    said += [
        f"Left out of the comparison: {arm} on fold {_listed(folds)}, which {BASELINE} has not "
        f"been trained on. A call with `--folds {_listed(folds)}` adds that."
        for arm, folds in lone.items()
    ]
    return [line for text in said for line in (text, "")]


def _listed(folds: Sequence[int]) -> str:
    return " ".join(map(str, folds))


def _arms_table(by_arm: Runs, cost: Mapping) -> str:
    rows = []
    for arm, of in by_arm.items():
        trainings = ", ".join(f"{r.seed}/{r.fold}" for r in of)
        ratio = f"{cost[arm]['ratio']:.2f}" if arm in cost else "not known"
        rows.append([arm, of[0].trainer, trainings, ratio])
    return markdown_table(["arm", "trainer", "seeds and folds", "epoch time / vanilla"], rows)


def _times_line(benchmark: Benchmark, by_arm: Runs) -> list[str]:
    """What such times are not."""
    if side_by_side(benchmark) == 1 or len(by_arm) < 2:
        return []
    return [
        "Trainings run side by side here, and an epoch's time depends on what runs beside it: "
        "`lngswr benchmark overhead` measures the cost of a step.",
        "",
    ]


def _runs_table(benchmark: Benchmark, by_arm: Runs) -> str:
    dice = [(r, dice_of(benchmark.evaluation_folder(r))) for of in by_arm.values() for r in of]
    rows = []
    for run, its in dice:
        percent = (f"{100 * d:.1f}" for d in its.values())
        rows.append([run.arm, f"{run.seed}/{run.fold}", *percent])
    return markdown_table(["arm", "seed/fold", *dice[0][1]], rows)
