"""From raw data to the plans of every run: fingerprint, plans, splits, preprocessing, copies."""

import json
import shutil
import statistics
from collections.abc import Mapping
from typing import Any

from evaluation.protocol import plan_runs
from nnunetv2_lngswr.experiments.plans import drop_next_stage, resolved
from nnunetv2_lngswr.experiments.preprocessed_labels import copied_cases, outdated
from nnunetv2_lngswr.experiments.robustness.arms import ARMS, settings_of
from nnunetv2_lngswr.experiments.robustness.benchmark import EQUAL_TIME, Benchmark, TrainingRun
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.experiments.robustness.presets import as_evaluate_reads
from nnunetv2_lngswr.experiments.robustness.splits import (
    cases_of_splits,
    has_begun,
    write_splits,
)
from nnunetv2_lngswr.training.settings import PLANS_KEY, check_entry
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file
from nnunetv2_lngswr.utils.names import some_names

# not the cascade, which needs the predictions of another configuration
PLANNED = ("2d", "3d_fullres", "3d_lowres")


def check_evaluation(benchmark: Benchmark) -> None:
    """Raise UserError for what `lngswr evaluate` would refuse of its options after the training."""
    content = read_json(benchmark.raw / benchmark.dataset / "dataset.json")
    labels = content.get("labels") if isinstance(content, dict) else None
    values = labels.values() if isinstance(labels, dict) else ()
    plan_runs(
        as_evaluate_reads(benchmark.preset.evaluation),
        ct=False,  # of corruptions alone, and no preset names one that needs it
        two_dimensional=benchmark.dimensions == 2,
        regions=any(isinstance(v, list) and len(v) > 1 for v in values),
    )


def check_configuration(benchmark: Benchmark) -> None:
    """Raise UserError for a configuration that nnU-Net has not planned, or cannot plan."""
    plans = benchmark.plans_file(benchmark.base_plans)
    if plans.is_file():
        planned = read_json(plans, needs=("configurations",))["configurations"]
        _check_is_planned(benchmark, planned)
    elif benchmark.configuration not in PLANNED:
        raise UserError(
            f"configuration must be one of {', '.join(PLANNED)}, got {benchmark.configuration} (-c)"
        )
    elif benchmark.dimensions == 3 and _are_pictures(benchmark):
        raise UserError(
            f"nnU-Net plans no {benchmark.configuration} for {benchmark.dataset}, whose images are "
            "pictures: -c 2d"
        )


def _check_is_planned(benchmark: Benchmark, planned: Mapping[str, Any]) -> None:
    if benchmark.configuration not in planned:
        raise UserError(
            f"nnU-Net planned no {benchmark.configuration} for {benchmark.dataset}, "
            f"but {', '.join(planned)} (-c)"
        )


def _are_pictures(benchmark: Benchmark) -> bool:
    """Whether the first image has no third axis; no, where that cannot be told."""
    import SimpleITK as sitk

    images = sorted((benchmark.raw / benchmark.dataset / "imagesTr").glob("[!.]*"))
    if not images:
        return False
    header = sitk.ImageFileReader()
    header.SetFileName(str(images[0]))
    try:
        header.ReadImageInformation()
    except RuntimeError:  # a format of another reader, or damaged: nnU-Net says so
        return False
    return header.GetDimension() == 2 or 1 in header.GetSize()[2:]


def check_labels(benchmark: Benchmark) -> None:
    """Raise UserError where trainings have begun on other labels than the data set has now.

    Evaluations would take the new ones.
    """
    changed = _outdated(benchmark) if has_begun(benchmark) else []
    if changed:
        raise UserError(
            f"labels of {benchmark.raw / benchmark.dataset} have changed since models in "
            f"{benchmark.output} were trained ({some_names(changed)}): put those back, or "
            "choose another folder with -o"
        )


def drop_outdated(commands: Commands) -> None:
    """Remove what was planned and preprocessed of other labels than the data set has now."""
    its = commands.benchmark
    # once trainings have begun `check_labels` has refused, and labels are not read again
    if has_begun(its) or not _outdated(its):
        return
    said = f"The labels of {its.dataset} have changed: planned and preprocessed anew"
    commands.say(said + (", which is not among these commands." if commands.dry_run else "."))
    if not commands.dry_run:
        # under another name first: what a kill leaves of it must not look whole
        gone = its.preprocessed.with_name(f".{its.dataset}.outdated")
        shutil.rmtree(gone, ignore_errors=True)
        its.preprocessed.rename(gone)
        shutil.rmtree(gone)


def _outdated(benchmark: Benchmark) -> list[str]:
    """Cases of which other labels were preprocessed; none as long as nothing was."""
    raw, preprocessed = benchmark.raw / benchmark.dataset, benchmark.preprocessed
    copied = copied_cases(raw, preprocessed)
    return outdated(raw, preprocessed, copied | cases_of_splits(benchmark)) if copied else []


def plan_data(commands: Commands) -> None:
    """Take the data's fingerprint and plan by it, as far as that is not done yet.

    Raises
    ------
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


def preprocess(commands: Commands) -> None:
    """Hand the splits to nnU-Net and preprocess the data, as far as that is not done yet.

    Raises
    ------
    CommandError
        nnU-Net's command failed.
    """
    its = commands.benchmark
    write_splits(commands)
    done = its.preprocessed / f"{its.base_plans}_{its.configuration}.done"
    if not done.is_file():
        what = ("-d", its.dataset_id, "-plans_name", its.base_plans, "-c", its.configuration)
        commands.run("preprocess", ["nnUNetv2_preprocess", *what, "-np", commands.processes])
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
        shown += EQUAL_TIME
    if settings:
        plans += f"_{name}"
    if not dry_run:
        entry = {**_shared_settings(benchmark), "seed": seed, **settings}
        if epochs:
            entry["num_epochs"] = epochs
        _write_plans(benchmark, plans, entry, variant=name if settings else None)
    return TrainingRun(shown, seed, fold, plans, ARMS[arm["arm"]])


def check_arms(benchmark: Benchmark, arms: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError for what an arm's trainer would refuse of its settings.

    Budget and batches must be enough for it; patch and network are known once there are plans.
    """
    from nnunetv2_lngswr import trainers

    batch_size = benchmark.preset.batch_size.get(benchmark.dimensions)
    planned = _planned(benchmark)
    for name, arm in arms.items():
        entry = {**_shared_settings(benchmark), **settings_of(arm)}
        trainer = getattr(trainers, ARMS[arm["arm"]])
        try:
            check_entry(entry, batch_size=batch_size)
            # its own defaults may ask for more: a late phase for enough epochs
            trainer.settings_to_train_with({**planned, PLANS_KEY: entry})
        except UserError as error:
            raise UserError(f"arm {name}: {error}") from None


def _planned(benchmark: Benchmark) -> dict[str, Any]:
    """The configuration as it is trained, but for its "lngswr" entry; empty as long as there is
    none."""
    file = benchmark.plans_file(benchmark.base_plans)
    if not file.is_file():
        return {}
    configurations = read_json(file, needs=("configurations",))["configurations"]
    if benchmark.configuration not in configurations:
        return {}
    return resolved(configurations, benchmark.configuration) | _batch(benchmark)


def _batch(benchmark: Benchmark) -> dict[str, int]:
    sizes = benchmark.preset.batch_size
    return {"batch_size": sizes[benchmark.dimensions]} if sizes else {}


def _shared_settings(benchmark: Benchmark) -> dict[str, Any]:
    return {**benchmark.settings, **benchmark.preset.budget}


def _write_plans(
    benchmark: Benchmark, name: str, entry: Mapping[str, Any], *, variant: str | None
) -> None:
    plans = read_json(benchmark.plans_file(benchmark.base_plans), needs=("configurations",))
    plans["plans_name"] = name
    configurations = plans["configurations"]
    _check_is_planned(benchmark, configurations)
    configurations[benchmark.configuration] |= {PLANS_KEY: entry, **_batch(benchmark)}
    drop_next_stage(configurations, benchmark.configuration)
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
