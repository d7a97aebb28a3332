"""How long epochs took, and which arms are trained again for as long as the baseline took."""

import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nnunetv2_lngswr.experiments.robustness.arms import BASELINE
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark, TrainingRun
from nnunetv2_lngswr.experiments.robustness.planning import plan_run

# an arm within this of the baseline's epoch time has had the same time
TIME_TOLERANCE = 1.05


def epoch_seconds(benchmark: Benchmark, runs: Sequence[TrainingRun]) -> float:
    """Return the median over the epochs of all runs, in seconds, from nnU-Net's training logs."""
    seconds = []
    for run in runs:
        for log in benchmark.fold_folder(run).glob("training_log_*.txt"):
            seconds += re.findall(r"Epoch time: ([\d.]+) s", log.read_text())
    return statistics.median(map(float, seconds))


def equal_time_runs(
    benchmark: Benchmark,
    runs: Sequence[TrainingRun],
    arms: Mapping[str, Mapping[str, Any]],
    *,
    dry_run: bool = False,
) -> Iterator[TrainingRun]:
    """Yield all runs of each arm that is slower than the baseline, with fewer epochs.

    So many that the baseline's time is enough. An arm is read as a whole, over its seeds and folds.

    Parameters
    ----------
    benchmark
        The one whose runs they are.
    runs
        Those that were trained with the whole budget.
    arms
        As in `arms.read_arms`.
    dry_run
        Write no plans.
    """
    epochs = benchmark.preset.budget["num_epochs"]
    baseline = epoch_seconds(benchmark, [r for r in runs if r.arm == BASELINE])
    for arm in dict.fromkeys(r.arm for r in runs if r.arm != BASELINE):
        of = [r for r in runs if r.arm == arm]
        ratio = epoch_seconds(benchmark, of) / baseline
        fewer = max(1, round(epochs / ratio))
        if ratio <= TIME_TOLERANCE or fewer == epochs:  # nothing to train less
            continue
        for run in of:
            yield plan_run(
                benchmark, arm, arms[arm], run.seed, run.fold, epochs=fewer, dry_run=dry_run
            )
