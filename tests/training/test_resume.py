"""Killed with SIGKILL, in an epoch or while saving, and continued by nnU-Net's --c."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests import tiny_dataset

# `nnUNetv2_train`, with a trainer that is found as after `lngswr register` and a hook that kills
# this process
DRIVER = """
import os, signal, sys, torch
import nnunetv2.run.run_training as command
from nnunetv2_lngswr import trainers
command.recursive_find_trainer_class_by_name = lambda name: getattr(trainers, name)

def die(): os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv.pop(1)
if where == "epoch":
    train_step, calls = trainers.nnUNetTrainerLNGSWR.train_step, [0]
    def killed(self, batch):
        calls[0] += 1
        if calls[0] == 6: die()  # the second step of the third epoch
        return train_step(self, batch)
    trainers.nnUNetTrainerLNGSWR.train_step = killed
elif where == "saving":
    save = torch.save
    def half(obj, path):
        folder, name = os.path.split(path)
        # the target's name follows the mark of the writer
        if os.path.exists(os.path.join(folder, name.split("-", 4)[-1])):  # overwriting: half of it
            with open(path, "wb") as file: file.write(b"half a checkpoint")
            die()
        save(obj, path)
    torch.save = half
command.run_training_entry()
"""
ENTRY = {
    "num_epochs": 4,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
}


def train(root: Path, where: str, *options: str) -> subprocess.CompletedProcess:
    environment = os.environ | {
        v: str(root / v) for v in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    }
    environment |= {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        "nnUNet_def_n_proc": "1",
    }
    command = [
        sys.executable,
        "-c",
        DRIVER,
        where,
        "999",
        "2d",
        "0",
        "-tr",
        "nnUNetTrainerLNGSWR",
        "-device",
        "cpu",
        *options,
    ]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("where, epochs_done", [("epoch", 2), ("saving", 1)])
def test_sigkill_and_continue(tmp_path, where, epochs_done):
    plans = tiny_dataset.make_dataset(tmp_path)
    plans["configurations"]["2d"]["lngswr"] = ENTRY
    (tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME / "nnUNetPlans.json").write_text(
        json.dumps(plans)
    )
    killed = train(tmp_path, where)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    fold = (
        tmp_path
        / "nnUNet_results"
        / tiny_dataset.NAME
        / "nnUNetTrainerLNGSWR__nnUNetPlans__2d"
        / "fold_0"
    )
    latest = load_checkpoint(fold / "checkpoint_latest.pth")
    assert latest["current_epoch"] == epochs_done
    steps = {k: v for k, v in latest["network_weights"].items() if k.endswith("prior.steps")}
    assert steps and all(v == 2 * epochs_done for v in steps.values())

    continued = train(tmp_path, "never", "--c")
    assert continued.returncode == 0, continued.stdout + continued.stderr
    final = load_checkpoint(fold / "checkpoint_final.pth")
    assert final["current_epoch"] == 4 and (fold / "validation" / "summary.json").is_file()
    for key, value in final["network_weights"].items():
        if key.endswith("prior.steps"):
            assert value == 8  # two steps in each of four epochs, each counted once
    gates = [k for k in final["network_weights"] if k.endswith("theta")]
    assert gates and any(
        not torch.equal(final["network_weights"][k], latest["network_weights"][k]) for k in gates
    )
    assert [e["epoch"] for e in json.loads((fold / "lngswr.json").read_text())] == [0, 1, 2, 3]
    assert not list(fold.glob(".*partial*"))
