"""A training that is killed at any moment and continued by --c ends as one that was left alone."""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests import tiny_dataset
from tests.utils.running import mentioning, wait_until

ENTRY = {
    "num_epochs": 5,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
}
MOMENTS = 20
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")


@pytest.fixture
def start(tmp_path):
    """start(results): a process that trains there, or goes on; its number."""
    plans = tiny_dataset.make_dataset(tmp_path)
    plans["configurations"]["2d"]["lngswr"] = ENTRY
    folder = tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))

    def train(results: Path) -> int:
        process = os.fork()  # a start of Python with torch would take most of the time
        if process:
            return process
        try:
            _train(tmp_path, results)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)

    return train


def _train(root: Path, results: Path) -> None:
    """`nnUNetv2_train`, as after `lngswr register`, in this process."""
    log = os.open(root / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        os.environ[variable] = str(root / variable)
    os.environ |= {"nnUNet_results": str(results), "nnUNet_def_n_proc": "1"}
    torch.set_num_threads(1)
    from nnunetv2.run import run_training
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

    from nnunetv2_lngswr import trainers

    module.default_num_processes = 1  # of the validation, read from the environment long ago
    run_training.recursive_find_trainer_class_by_name = lambda name: getattr(trainers, name)
    words = ["999", "2d", "0", "-tr", "nnUNetTrainerLNGSWR", "-device", "cpu"]
    goes_on = any(results.rglob("checkpoint_*.pth"))
    sys.argv = ["nnUNetv2_train", *words, *(["--c"] if goes_on else [])]
    run_training.run_training_entry()
    sys.stdout.flush()
    os._exit(0)


def fold_of(results: Path) -> Path:
    return next(results.rglob("fold_0"))


def final_weights(results: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(fold_of(results) / "checkpoint_final.pth")
    assert checkpoint["current_epoch"] == ENTRY["num_epochs"]
    return checkpoint["network_weights"]


def waited(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def ends_within(process: int, seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds

    def ended() -> bool:
        known = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return known is not None or time.monotonic() > end

    return ended


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_at_random_moments(start, tmp_path, name):
    began = time.monotonic()
    assert waited(start(tmp_path / "whole")) == 0, (tmp_path / "log").read_text()
    seconds, whole = time.monotonic() - began, final_weights(tmp_path / "whole")
    rng, hit, folder = random.Random(0), 0, 0
    while hit < MOMENTS:
        results, folder = tmp_path / f"results{folder}", folder + 1
        status = None
        while status != 0:
            process = start(results)
            wait_until(ends_within(process, rng.uniform(0.0, seconds)), seconds + 60)
            os.kill(process, getattr(signal, name))
            status = waited(process)
            assert status in (0, -getattr(signal, name)), (tmp_path / "log").read_text()[-3000:]
            hit += status != 0
            wait_until(lambda place=str(results): not mentioning(place))
            for checkpoint in results.rglob("checkpoint_*.pth"):
                load_checkpoint(checkpoint)  # never half of one
        ours = final_weights(results)
        assert all(torch.equal(ours[key], value) for key, value in whole.items())
        assert not list(fold_of(results).glob(".partial*"))
    print(f"{hit} times {name}, {folder} trainings finished, {seconds:.0f} s each")
