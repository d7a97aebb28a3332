"""The benchmark from its options to its table."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nnunetv2_lngswr.experiments.robustness.arms import ARMS, read_arms
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, claim, find_raw
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.experiments.robustness.execution import run_all
from nnunetv2_lngswr.experiments.robustness.planning import plan_run, prepare
from nnunetv2_lngswr.experiments.robustness.presets import PRESETS, Preset, evaluation_options
from nnunetv2_lngswr.experiments.robustness.table import write_table
from nnunetv2_lngswr.experiments.robustness.times import equal_time_runs
from nnunetv2_lngswr.utils.errors import UserError


def benchmark_robustness(
    dataset: str,
    configuration: str,
    output: Path | str,
    *,
    arms: Sequence[str] = tuple(ARMS),
    folds: Sequence[int] = (0,),
    seeds: Sequence[int] = (0,),
    preset: str = "cpu-small",
    settings: Mapping | None = None,
    variants: Mapping[str, Mapping] | None = None,
    hold_out: int | None = None,
    attacks: Sequence[str] | None = None,
    max_cases: int | None = None,
    equal_time: bool = False,
    device: str | None = None,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train and evaluate every arm for every seed and fold.

    Parameters
    ----------
    dataset, configuration
        nnU-Net's names: of a data set in nnUNet_raw, of what its planner makes.
    output
        Folder for everything; the same one goes on.
    arms
        Names of ARMS; the baseline is always one of them.
    folds, seeds
        Of the trainings.
    preset
        A name in PRESETS.
    settings
        A "lngswr" entry for the plans of all arms (the budget is the preset's).
    variants
        Further arms with settings of their own, {name: {"arm": one of ARMS, **"lngswr" entry}}.
    hold_out
        A fold whose validation cases nothing here trains on or is evaluated on, so that settings
        can be chosen before that fold is looked at.
    attacks, max_cases
        Instead of the preset's.
    equal_time
        A second reading: slower arms again, for as many epochs as the baseline's time allows.
    device
        None takes cuda where there is one.
    dry_run
        Say the commands, run nothing.
    say
        Receives each line for the user.

    Returns
    -------
    Path
        `output`, with robustness.md, robustness.json and the comparison's files.

    Raises
    ------
    UserError
        Unknown arms, a missing data set, an `output` of other settings.
    CommandError
        A command failed.
    """
    all_arms = read_arms(arms, variants or {}, settings or {})
    if hold_out is not None and hold_out in folds:
        raise UserError(f"fold {hold_out} is held out: choose other --folds")
    benchmark = Benchmark(
        output=Path(output).resolve(),
        dataset=dataset,
        configuration=configuration,
        preset_name=preset,
        preset=_preset(preset, attacks, max_cases),
        settings=dict(settings or {}),
        hold_out=hold_out,
        raw=find_raw(dataset),
        device=device or _default_device(),
    )
    claim(benchmark, write=not dry_run)
    commands = Commands(benchmark, say, dry_run)
    prepare(commands)
    runs = [
        plan_run(benchmark, name, arm, seed, fold, dry_run=dry_run)
        for seed in seeds
        for fold in folds
        for name, arm in all_arms.items()
    ]
    run_all(commands, runs)
    if dry_run:
        return benchmark.output
    if equal_time:
        again = list(equal_time_runs(benchmark, runs, all_arms))
        run_all(commands, again)
        runs += again
    write_table(benchmark, runs, all_arms)
    return benchmark.output


def _preset(name: str, attacks: Sequence[str] | None, max_cases: int | None) -> Preset:
    """The preset of this name with other attacks or cases."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name}; presets are {', '.join(PRESETS)}")
    if max_cases is not None and max_cases < 1:
        raise UserError(f"max_cases must be 1 or more, got {max_cases}")
    preset = PRESETS[name]
    evaluation = evaluation_options(preset.evaluation, attacks, max_cases)
    return dataclasses.replace(preset, evaluation=evaluation)


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
