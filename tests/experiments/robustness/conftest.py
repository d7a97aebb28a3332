import json
from pathlib import Path

import pytest

from nnunetv2_lngswr.datasets.phantom import write_phantom
from nnunetv2_lngswr.experiments.robustness import PRESETS
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.experiments.robustness import run as benchmark_run
from tests.experiments.robustness.settings import DATASET, TINY


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A phantom data set in nnUNet_raw."""
    folder = tmp_path / "nnUNet_raw"
    write_phantom("2d", folder)
    monkeypatch.setenv("nnUNet_raw", str(folder))
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    return folder


@pytest.fixture
def ran(monkeypatch):
    """What would be run; nnU-Net's planner leaves plans."""
    seen = []

    def run(command, log, *, environment, say, show=""):
        command = [str(c) for c in command]
        seen.append((command, dict(environment)))
        if command[0] == "nnUNetv2_plan_experiment":
            folder = Path(environment["nnUNet_preprocessed"]) / DATASET
            folder.mkdir(parents=True, exist_ok=True)
            plans = {"configurations": {"2d": {"batch_size": 12}}}
            (folder / "nnUNetPlans.json").write_text(json.dumps(plans))

    monkeypatch.setattr(benchmark_commands, "run_command", run)
    monkeypatch.setattr(benchmark_run, "write_table", lambda benchmark, runs, arms: None)
    return seen
