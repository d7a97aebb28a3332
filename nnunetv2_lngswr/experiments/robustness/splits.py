"""The folds of a benchmark: whose splits they are, what of them is held out, what may change."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from evaluation.groups import parse_groups
from evaluation.inputs import choose
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.experiments.robustness.presets import as_evaluate_reads
from nnunetv2_lngswr.experiments.robustness.record import RECORD
from nnunetv2_lngswr.experiments.splits import RANDOM_FOLDS, random_splits, read_splits
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file


def check_folds(benchmark: Benchmark, folds: Sequence[int]) -> None:
    """Raise UserError unless the splits are readable and have these folds and the held-out one."""
    file, hold_out = _find_splits(benchmark), benchmark.hold_out
    if file is None and hold_out is not None:
        raise UserError(
            f"to hold fold {hold_out} out, a splits_final.json beside the data is needed"
        )
    count = RANDOM_FOLDS if file is None else len(read_splits(file))
    there = f"there are folds 0 to {count - 1} in {file or 'the random splits of nnU-Net'}"
    if hold_out is not None and hold_out >= count:
        raise UserError(f"fold {hold_out} cannot be held out: {there}")
    # nnU-Net would split at random for such a fold
    beyond = [fold for fold in folds if fold >= count]
    if beyond:
        raise UserError(f"no fold {', '.join(map(str, beyond))} (--folds): {there}")


def check_splits(benchmark: Benchmark) -> None:
    """Raise UserError where trainings have begun with other splits than the data have now.

    A training that goes on, and its evaluation, would take the new ones.
    """
    file, used = _find_splits(benchmark), _copy(benchmark)
    if file is None or not used.is_file() or not has_begun(benchmark):
        return
    there, here = read_splits(used), _without_held_out(read_splits(file), benchmark.hold_out)
    if there == here:
        return
    count = min(len(there), len(here))
    changed = [str(n) for n in range(count) if there[n] != here[n]]
    what = f"in fold {', '.join(changed)}" if changed else f"{len(there)} folds there"
    raise UserError(
        f"{file} differs from the splits that models in {benchmark.output} are trained with "
        f"({used}: {what}): put those back, or choose another folder with -o"
    )


def check_groups(benchmark: Benchmark, folds: Sequence[int]) -> None:
    """Raise UserError unless --groups has a group for every validation case of these folds, and
    not one for all that an evaluation takes."""
    if benchmark.groups is None:
        return
    file = _find_splits(benchmark)
    splits = _random_splits(benchmark) if file is None else read_splits(file)
    if not splits:
        return
    splits = _without_held_out(splits, benchmark.hold_out)
    by_fold = [sorted(set(splits[fold]["val"])) for fold in folds]
    parse_groups(benchmark.groups, sorted({case for cases in by_fold for case in cases}))
    options = as_evaluate_reads(benchmark.preset.evaluation)
    for cases in by_fold:
        parse_groups(benchmark.groups, choose(cases, options.max_cases, seed=options.seed))


def cases_of_splits(benchmark: Benchmark) -> set[str]:
    """The cases that any fold trains on or validates; none where there are no splits."""
    file = _find_splits(benchmark)
    folds = [] if file is None else read_splits(file)
    return {case for fold in folds for part in ("train", "val") for case in fold[part]}


def write_splits(commands: Commands) -> None:
    """Give nnU-Net the splits of the data, without what is held out, or random ones, and say so."""
    its = commands.benchmark
    file = _find_splits(its)
    if file is None:
        commands.say(
            "No splits_final.json beside the data: "
            "they are split at random, as by nnU-Net, by case and not by patient."
        )
    if commands.dry_run:
        return
    if file is not None:
        used = _without_held_out(read_splits(file), its.hold_out)
    elif _copy(its).is_file():
        return
    else:  # trainings side by side would each write nnU-Net's
        used = _random_splits(its)
    write_file(_copy(its), json.dumps(used, indent=1))


def _copy(benchmark: Benchmark) -> Path:
    """The splits that nnU-Net uses."""
    return benchmark.preprocessed / "splits_final.json"


def has_begun(benchmark: Benchmark) -> bool:
    """Whether anything was trained in the folder, or was about to be."""
    results = benchmark.output / "nnUNet_results" / benchmark.dataset
    return (benchmark.output / RECORD).is_file() or any(results.glob("*/fold_*"))


def _find_splits(benchmark: Benchmark) -> Path | None:
    users_own = Path(os.environ.get("nnUNet_preprocessed", benchmark.output))
    for folder in (benchmark.raw, users_own):
        file = folder / benchmark.dataset / "splits_final.json"
        if file.is_file():
            return file
    return None


def _random_splits(benchmark: Benchmark) -> list[dict]:
    from evaluation.model.readers import list_images

    folder = benchmark.raw / benchmark.dataset
    content = read_json(folder / "dataset.json", needs=("file_ending",))
    # where dataset.json places the cases, it names them
    named = content.get("dataset") or list_images(folder / "imagesTr", content["file_ending"])
    return random_splits(named)


def _without_held_out(splits: list[dict], hold_out: int | None) -> list[dict]:
    if hold_out is None:
        return splits
    held_out = set(splits[hold_out]["val"])
    return [
        {part: [c for c in fold[part] if c not in held_out] for part in ("train", "val")}
        for fold in splits
    ]
