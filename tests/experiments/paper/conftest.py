import json
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.paper import FOLDERS
from nnunetv2_lngswr.experiments.paper import run as paper_run
from nnunetv2_lngswr.installation import register
from tests.experiments.paper.commands import CASES, NAME, Commands


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """nnU-Net's folders with a converted data set, and trainers that are found."""
    for folder in FOLDERS:
        monkeypatch.setenv(folder, str(tmp_path / folder))
    raw = tmp_path / "nnUNet_raw" / NAME
    raw.mkdir(parents=True)
    dataset = {"numTraining": len(CASES), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(dataset))
    (raw / "labelsTr").mkdir()
    for case in CASES:
        (raw / "labelsTr" / f"{case}.nii.gz").write_text(case)
    folds = []
    for fold in range(5):
        held_out = CASES[2 * fold : 2 * fold + 2]
        folds.append({"train": [c for c in CASES if c not in held_out], "val": held_out})
    (raw / "splits_final.json").write_text(json.dumps(folds))
    monkeypatch.setattr(register, "trainers_are_found", lambda: True)
    return tmp_path


@pytest.fixture
def commands(root, monkeypatch):
    def use(fail_at: int | None = None) -> Commands:
        stand_in = Commands(root, fail_at)
        monkeypatch.setattr(paper_run, "call_command", stand_in)
        return stand_in

    return use
