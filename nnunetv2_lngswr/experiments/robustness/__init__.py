"""`lngswr benchmark robustness`: arms trained at one equal budget and attacked, in one table.

nnUNetv2_extract_fingerprint -> nnUNetv2_plan_experiment -> nnUNetv2_preprocess, once; then per seed
a copy of the plans with the budget and the seed, and per seed, fold and arm nnUNetv2_train and
lngswr evaluate on the validation cases of the fold; then evaluation.compare over all of them. On a
CPU, 2D runs go side by side, one per core: small convolutions gain nothing from threads. Everything
lands below the output folder with a log per command, nnUNet_raw is only read. Whatever has ended is
not repeated, an interrupted training goes on from its last checkpoint, an interrupted evaluation
with its next run: arms, folds and seeds can be added by later calls.

options.py, presets.py and arms.py say what is run, benchmark.py where it lies, planning.py makes
the plans, execution.py trains and evaluates, times.py reads how long that took, table.py writes it
all up, and run.py calls them in turn.
"""

from nnunetv2_lngswr.experiments.robustness.arms import ARMS, BASELINE
from nnunetv2_lngswr.experiments.robustness.benchmark import TrainingRun
from nnunetv2_lngswr.experiments.robustness.options import Options
from nnunetv2_lngswr.experiments.robustness.presets import PRESETS, Preset, evaluation_options
from nnunetv2_lngswr.experiments.robustness.run import benchmark_robustness

__all__ = [
    "ARMS",
    "BASELINE",
    "PRESETS",
    "Options",
    "Preset",
    "TrainingRun",
    "benchmark_robustness",
    "evaluation_options",
]
