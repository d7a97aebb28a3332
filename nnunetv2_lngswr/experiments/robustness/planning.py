"""From raw data to the plans of every run: fingerprint, plans, splits, preprocessing, copies."""

import json
import os
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.robustness.arms import ARMS, settings_of
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, TrainingRun
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.training.settings import PLANS_KEY
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

EQUAL_TIME = "same time"


def prepare(commands: Commands) -> None:
    """Plan and preprocess the data, as far as that is not done yet.

    Raises
    ------
    UserError
        A fold is to be held out that the splits do not have.
    CommandError
        One of nnU-Net's commands failed.
    """
    its = commands.benchmark
    number, processes = ("-d", its.dataset_id), ("-np", commands.processes)
    if not its.fingerprint.is_file():
        commands.run("fingerprint", ["nnUNetv2_extract_fingerprint", *number, *processes])
    # found out in a dry run too
    resolution = _resolution_options(commands)
    if not its.plans_file(its.base_plans).is_file():
        commands.run(
            "plan",
            ["nnUNetv2_plan_experiment", *number, *resolution],
            # the planner's threads, which may not be 0
            {"nnUNet_n_proc_DA": commands.processes},
        )
    _write_splits(commands)
    done = its.preprocessed / f"{its.base_plans}_{its.configuration}.done"
    if not done.is_file():
        what = ("-plans_name", its.base_plans, "-c", its.configuration)
        commands.run("preprocess", ["nnUNetv2_preprocess", *number, *what, *processes])
        if not commands.dry_run:
            done.touch()


def low_resolution_spacing(
    fingerprint: Mapping, dimensions: int, shortest_side: int
) -> list[float]:
    """Return the target spacing of a low resolution, in the order of the files.

    Parameters
    ----------
    fingerprint
        nnU-Net's, of the data set.
    dimensions
        2 or 3: how many of the finest axes count.
    shortest_side
        Voxels that the median case keeps along the shortest of these axes.

    Returns
    -------
    list of float
        Per axis, in the files' unit. Axes coarser than needed keep their spacing, and nothing is
        made finer.
    """
    spacing = [statistics.median(s[a] for s in fingerprint["spacings"]) for a in range(3)]
    shape = [statistics.median(s[a] for s in fingerprint["shapes_after_crop"]) for a in range(3)]
    finest = sorted(range(3), key=lambda a: (spacing[a], -shape[a]))[:dimensions]
    extent = min(shape[a] * spacing[a] for a in finest)
    target = []
    for own, voxels in zip(spacing, shape):
        # an axis of one voxel stays: a picture's third
        target.append(float(max(own, extent / shortest_side) if voxels > 1 else own))
    return target


def plan_run(
    benchmark: Benchmark,
    name: str,
    arm: Mapping[str, Any],
    seed: int,
    fold: int,
    *,
    epochs: int | None = None,
    dry_run: bool = False,
) -> TrainingRun:
    """Return one run of an arm, and write the plans it needs.

    Parameters
    ----------
    benchmark
        Its budget and settings are the run's, but for what the arm sets itself.
    name, arm
        The arm's name and itself, as in `arms.read_arms`.
    seed, fold
        Of the training.
    epochs
        Instead of the budget's, for a reading at equal time.
    dry_run
        Write nothing.

    Raises
    ------
    UserError
        nnU-Net planned no such configuration; a variant of this name had other settings before.
    """
    settings = settings_of(arm)
    plans = f"lngswrBenchmarkSeed{seed}"
    shown = name
    if epochs:
        plans += f"Epochs{epochs}"
        shown += f" ({EQUAL_TIME})"
    if settings:
        plans += f"_{name}"
    if not dry_run:
        entry = {**benchmark.settings, **benchmark.preset.budget, "seed": seed, **settings}
        if epochs:
            entry["num_epochs"] = epochs
        _write_plans(benchmark, plans, entry, variant=name if settings else None)
    return TrainingRun(shown, seed, fold, plans, ARMS[arm["arm"]])


def _write_plans(
    benchmark: Benchmark, name: str, entry: Mapping[str, Any], *, variant: str | None
) -> None:
    plans = read_json(benchmark.plans_file(benchmark.base_plans), needs=("configurations",))
    plans["plans_name"] = name
    configurations = plans["configurations"]
    if benchmark.configuration not in configurations:
        raise UserError(
            f"nnU-Net planned no {benchmark.configuration} for {benchmark.dataset}, "
            f"but {', '.join(configurations)}"
        )
    configuration = configurations[benchmark.configuration]
    configuration[PLANS_KEY] = entry
    if benchmark.preset.batch_size:
        configuration["batch_size"] = benchmark.preset.batch_size[benchmark.dimensions]
    text = json.dumps(plans, indent=1)
    file = benchmark.plans_file(name)
    if variant and file.is_file() and file.read_text() != text:
        raise UserError(
            f"variant {variant} has other settings than before ({file}): give it another name"
        )
    write_file(file, text)


def _resolution_options(commands: Commands) -> list[str]:
    """Options of nnU-Net's planner for the preset's resolution; none for the native one."""
    its = commands.benchmark
    if not its.preset.shortest_side:
        return []
    if commands.dry_run and not its.fingerprint.is_file():
        spacing = ["SPACING"]
    else:
        found = read_json(its.fingerprint, needs=("spacings", "shapes_after_crop"))
        side = its.preset.shortest_side[its.dimensions]
        spacing = [f"{s:.4g}" for s in low_resolution_spacing(found, its.dimensions, side)]
    return ["-overwrite_plans_name", its.base_plans, "-overwrite_target_spacing", *spacing]


def _write_splits(commands: Commands) -> None:
    its = commands.benchmark
    splits = _find_splits(its)
    if splits is None:
        commands.say(
            "No splits_final.json beside the data: "
            "nnU-Net splits at random, by case and not by patient."
        )
        if its.hold_out is not None:
            raise UserError(
                f"to hold fold {its.hold_out} out, a splits_final.json beside the data is needed"
            )
    elif not commands.dry_run:
        used = _without_held_out(json.loads(splits.read_text()), its.hold_out)
        write_file(its.preprocessed / "splits_final.json", json.dumps(used, indent=1))


def _find_splits(benchmark: Benchmark) -> Path | None:
    users_own = Path(os.environ.get("nnUNet_preprocessed", benchmark.output))
    for folder in (benchmark.raw, users_own):
        file = folder / benchmark.dataset / "splits_final.json"
        if file.is_file():
            return file
    return None


def _without_held_out(splits: list[dict], hold_out: int | None) -> list[dict]:
    if hold_out is None:
        return splits
    if not 0 <= hold_out < len(splits):
        raise UserError(
            f"fold {hold_out} cannot be held out: there are folds 0 to {len(splits) - 1}"
        )
    held_out = set(splits[hold_out]["val"])
    return [
        {part: [c for c in fold[part] if c not in held_out] for part in ("train", "val")}
        for fold in splits
    ]
