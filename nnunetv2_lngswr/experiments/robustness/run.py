"""The benchmark from its options to its table."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.devices import default_device
from nnunetv2_lngswr.experiments.robustness.arms import read_arms
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, claim, find_raw
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.experiments.robustness.execution import run_all
from nnunetv2_lngswr.experiments.robustness.options import Options
from nnunetv2_lngswr.experiments.robustness.planning import (
    check_arms,
    check_configuration,
    check_evaluation,
    check_labels,
    drop_outdated,
    plan_data,
    plan_run,
    preprocess,
)
from nnunetv2_lngswr.experiments.robustness.presets import PRESETS, Preset, evaluation_options
from nnunetv2_lngswr.experiments.robustness.record import (
    add_to_record,
    check_record,
    epochs_at_equal_time,
    read_record,
)
from nnunetv2_lngswr.experiments.robustness.splits import check_folds, check_groups, check_splits
from nnunetv2_lngswr.experiments.robustness.table import write_table
from nnunetv2_lngswr.experiments.robustness.times import equal_time_runs
from nnunetv2_lngswr.installation.register import check_trainers_are_found
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.locks import hold
from nnunetv2_lngswr.utils.output_folder import output_folder

Arms = Mapping[str, Mapping[str, Any]]


def benchmark_robustness(
    dataset: str,
    configuration: str,
    output: Path | str,
    *,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> Path:
    """Train and evaluate every arm for every seed and fold.

    Parameters
    ----------
    dataset, configuration
        nnU-Net's names: of a data set in nnUNet_raw, of what its planner makes.
    output
        Folder for everything; the same one goes on.
    say
        Receives each line for the user.
    **options
        The fields of `Options`: arms, folds, seeds, preset, settings, variants, ...

    Returns
    -------
    Path
        `output`, with robustness.md, robustness.json and the comparison's files.

    Raises
    ------
    UserError
        Unknown arms, a missing data set, folds or a configuration that it does not have, what
        `lngswr evaluate` refuses of its options, an `output` of other settings or splits, or in
        use by another call; nnU-Net does not find the trainers.
    CommandError
        A command failed.
    """
    given = Options(**options)
    check_trainers_are_found()
    arms = read_arms(given.arms, given.variants or {}, given.settings or {})
    benchmark = _benchmark(dataset, configuration, output_folder(output), given)
    # before the folder is made, too
    _check(benchmark, given, arms)
    if given.dry_run:
        _run(benchmark, given, arms, say)
        return benchmark.output
    with hold(benchmark.output, "lngswr benchmark robustness"):
        _check(benchmark, given, arms)
        claim(benchmark)
        _run(benchmark, given, arms, say)
        write_table(benchmark, *read_record(benchmark))
    return benchmark.output


def _check(benchmark: Benchmark, options: Options, arms: Arms) -> None:
    """Refuse what the folder or the data cannot take, as far as it can be told by now."""
    claim(benchmark, write=False)
    check_arms(benchmark, arms)
    check_configuration(benchmark)
    check_evaluation(benchmark)
    check_folds(benchmark, options.folds)
    check_splits(benchmark)
    check_labels(benchmark)
    check_groups(benchmark, options.folds)
    check_record(benchmark, arms)


def _run(benchmark: Benchmark, options: Options, arms: Arms, say: Callable[[str], None]) -> None:
    commands = Commands(benchmark, say, options.dry_run)
    say(benchmark.said)
    drop_outdated(commands)
    plan_data(commands)
    check_arms(benchmark, arms)  # again: patch, batch and network are known now
    preprocess(commands)
    runs = [
        plan_run(benchmark, name, arm, seed, fold, dry_run=options.dry_run)
        for seed in options.seeds
        for fold in options.folds
        for name, arm in arms.items()
    ]
    if not options.dry_run:
        add_to_record(benchmark, runs, arms)
    run_all(commands, runs)
    if options.equal_time and not options.dry_run:
        decided = epochs_at_equal_time(benchmark)
        again = list(equal_time_runs(benchmark, runs, arms, decided=decided, say=say))
        add_to_record(benchmark, again, arms)
        run_all(commands, again)


def _benchmark(dataset: str, configuration: str, output: Path, options: Options) -> Benchmark:
    return Benchmark(
        output=output,
        raw=find_raw(dataset),
        dataset=dataset,
        configuration=configuration,
        preset_name=options.preset,
        preset=_preset(options),
        settings=dict(options.settings or {}),
        hold_out=options.hold_out,
        device=options.device or default_device(),
        groups=options.groups,
    )


def _preset(options: Options) -> Preset:
    """The preset, with other attacks, cases, epochs or resolution."""
    if options.preset not in PRESETS:
        raise UserError(f"unknown preset {options.preset}; presets are {', '.join(PRESETS)}")
    preset = PRESETS[options.preset]
    evaluation = evaluation_options(preset.evaluation, options.attacks, options.max_cases)
    changed: dict[str, Any] = {"evaluation": evaluation}
    if options.epochs is not None:
        changed["budget"] = {**preset.budget, "num_epochs": options.epochs}
    if options.shortest_side is not None:
        changed["shortest_side"] = {2: options.shortest_side, 3: options.shortest_side}
    return dataclasses.replace(preset, **changed)
