"""A benchmark that takes no time, for the tests."""

from pathlib import Path
from typing import Any

from nnunetv2_lngswr.datasets.phantom import PHANTOM_SETS
from nnunetv2_lngswr.experiments.robustness import Preset
from nnunetv2_lngswr.experiments.robustness.benchmark import Benchmark

DATASET = PHANTOM_SETS["2d"].dataset_name
TINY = Preset(
    batch_size={2: 2},
    budget={"num_epochs": 2, "num_iterations_per_epoch": 2, "num_val_iterations_per_epoch": 1},
    evaluation=(
        *("--attacks", "noise", "pgd_linf", "--epsilons", "8/255", "--steps", "1"),
        *("--corruptions", "gamma", "--max-cases", "2", "--disable_tta"),
    ),
)


def make_benchmark(output: Path, **options: Any) -> Benchmark:
    """A benchmark of vanilla 2D trainings on the CPU, but for what `options` say."""
    defaults = {
        "output": output,
        "raw": output / "nnUNet_raw",
        "dataset": DATASET,
        "configuration": "2d",
        "preset_name": "tiny",
        "preset": TINY,
        "settings": {},
        "hold_out": None,
        "device": "cpu",
    }
    return Benchmark(**defaults | options)
