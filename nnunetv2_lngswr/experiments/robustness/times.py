"""How long epochs took, and which arms are trained again for as long as the baseline took."""

import math
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.experiments.robustness.arms import BASELINE
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, TrainingRun
from nnunetv2_lngswr.experiments.robustness.planning import check_arms, plan_run
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from nnunetv2_lngswr.utils.values import shown

# an arm within this of the baseline's epoch time has had the same time
TIME_TOLERANCE = 1.05
# "Epoch 3" when one begins, "Epoch time: 29.4 s" when it has ended, both behind a time stamp
_EPOCH_LINE = re.compile(r"\bEpoch (?:(\d+)|time: ([\d.]+) s)\s*$", re.MULTILINE)


def epoch_seconds(benchmark: Benchmark, runs: Sequence[TrainingRun]) -> float:
    """Return the mean time of an epoch of one run, in seconds: the median over the runs.

    A mean, since late adversarial training has epochs of two kinds.
    """
    return statistics.median(
        statistics.mean(_seconds_of_epochs(benchmark.fold_folder(run))) for run in runs
    )


def training_seconds(fold: Path) -> float:
    """Return how long all epochs of a finished training took together, validation batches included.

    A training that was continued has several logs, and trains epochs again that it had no
    checkpoint of: each counts once, as it was trained last.

    Parameters
    ----------
    fold
        Its fold_X folder, with nnU-Net's debug.json and training_log_*.txt.

    Raises
    ------
    UserError
        The logs lack an epoch, or debug.json does not say how many there are.
    """
    return sum(_seconds_of_epochs(fold))


def _seconds_of_epochs(fold: Path) -> list[float]:
    seconds: dict[int, float] = {}
    for log in sorted(fold.glob("training_log_*.txt"), key=_begun):
        epoch = None
        for begun, took in _EPOCH_LINE.findall(log.read_text(encoding="utf-8", errors="replace")):
            if begun:
                epoch = int(begun)
            elif epoch is not None:
                seconds[epoch] = float(took)
    said = read_json(fold / "debug.json", needs=("num_epochs",))["num_epochs"]
    if not re.fullmatch("[1-9][0-9]{0,8}", str(said)):
        raise UserError(f"{fold / 'debug.json'}: num_epochs must be a number, got {shown(said)}")
    count = int(said)
    missing = [epoch for epoch in range(count) if epoch not in seconds]
    if missing:
        raise UserError(
            f"{fold}: the training logs must have the time of each of its {count} epochs, "
            f"got none of epoch {missing[0]}"
        )
    return [seconds[epoch] for epoch in range(count)]


def _begun(log: Path) -> list[int]:
    """When: nnU-Net does not pad month and day, so that names do not sort."""
    return [int(number) for number in re.findall(r"\d+", log.name)]


def equal_time_runs(
    benchmark: Benchmark,
    runs: Sequence[TrainingRun],
    arms: Mapping[str, Mapping[str, Any]],
    *,
    decided: Mapping[str, int] | None = None,
    say: Callable[[str], None] = lambda line: None,
    dry_run: bool = False,
) -> Iterator[TrainingRun]:
    """Yield all runs of each arm that is slower than the baseline, with fewer epochs.

    So many that the baseline's time, within TIME_TOLERANCE, is enough. An arm is read as a whole,
    over its seeds and folds.

    Parameters
    ----------
    benchmark
        The one whose runs they are.
    runs
        Those that were trained with the whole budget.
    arms
        As in `arms.read_arms`.
    decided
        {arm: epochs} of its earlier runs at equal time, which further seeds and folds get too.
    say
        Receives which arms cannot be trained so short.
    dry_run
        Write no plans.
    """
    epochs = benchmark.preset.budget["num_epochs"]
    decided = decided or {}
    baseline = epoch_seconds(benchmark, [r for r in runs if r.arm == BASELINE])
    for arm in dict.fromkeys(r.arm for r in runs if r.arm != BASELINE):
        of = [r for r in runs if r.arm == arm]
        ratio = epoch_seconds(benchmark, of) / baseline
        if arm not in decided and ratio <= TIME_TOLERANCE:  # nothing to train less
            continue
        fewer = decided.get(arm, math.floor(epochs / ratio * TIME_TOLERANCE))
        if fewer < 1:
            say(f"{arm} is left out at equal time: one epoch of it takes longer than {epochs}")
            continue
        try:
            check_arms(benchmark, {arm: {**arms[arm], "num_epochs": fewer}})
        except UserError as error:  # a late phase of no whole epoch
            say(f"{arm} is left out at equal time, {fewer} epochs: {error}")
            continue
        for run in of:
            yield plan_run(
                benchmark, arm, arms[arm], run.seed, run.fold, epochs=fewer, dry_run=dry_run
            )
