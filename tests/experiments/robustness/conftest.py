import json
from pathlib import Path

import pytest

from nnunetv2_lngswr.datasets.phantom import write_phantom
from nnunetv2_lngswr.experiments.robustness import PRESETS
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.experiments.robustness import run as benchmark_run
from nnunetv2_lngswr.installation import register
from tests.experiments.robustness.settings import DATASET, TINY

PLANNED = {
    "batch_size": 12,
    "patch_size": [64, 48],
    "architecture": {"arch_kwargs": {"strides": [[1, 1], [2, 2], [2, 2]]}},
}
FINGERPRINT = {"spacings": [[999.0, 1.0, 1.0]], "shapes_after_crop": [[1, 64, 96]]}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A phantom data set in nnUNet_raw, and trainers that nnU-Net finds."""
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    folder = tmp_path / "nnUNet_raw"
    write_phantom("2d", folder)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return folder


@pytest.fixture
def ran(monkeypatch):
    """What would be run; nnU-Net's planner leaves fingerprint and plans."""
    seen = []

    def run(command, log, *, environment, say, show=""):
        command = [str(c) for c in command]
        seen.append((command, dict(environment)))
        folder = Path(environment["nnUNet_preprocessed"]) / DATASET
        if command[0] == "nnUNetv2_extract_fingerprint":
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "dataset_fingerprint.json").write_text(json.dumps(FINGERPRINT))
        if command[0] == "nnUNetv2_plan_experiment":
            named = "-overwrite_plans_name"
            name = command[command.index(named) + 1] if named in command else "nnUNetPlans"
            plans = {"configurations": {"2d": PLANNED}}
            (folder / f"{name}.json").write_text(json.dumps(plans))

    monkeypatch.setattr(benchmark_commands, "run_command", run)
    monkeypatch.setattr(benchmark_run, "write_table", lambda benchmark, runs, arms: None)
    return seen
