"""A robustification of real processes that is ended in its training: the same call goes on."""

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.experiments.robustness.times import training_seconds
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests.pipeline.commands import DRIVER, ROOT
from tests.utils.running import mentioning, wait_until

# `lngswr` with these programs, which find our trainers as after `lngswr register`
LNGSWR = """
import sys
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.installation import register
from nnunetv2_lngswr.utils import processes

programs = sys.argv[1]
register.trainers_are_found = lambda: True
processes.beside_python = lambda name: f"{programs}/{name}"
sys.exit(cli.main(sys.argv[2:]))
"""
EPOCHS = 5
WORDS = ["--share", "0.25", "--settings", '{"seed": 0}', "--skip-evaluation", "-device", "cpu"]
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")


@pytest.fixture
def start(project, tmp_path):
    """start(): the call as a process, with OUT in tmp_path / "out"."""
    _, model = project()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, code, first in (
        ("nnUNetv2_train", DRIVER, "nnUNetv2_train"),
        ("lngswr", LNGSWR, str(programs)),
    ):
        # no script of Python's, which the workers of nnU-Net would run once more
        words = shlex.join([sys.executable, "-c", code, first])
        (programs / name).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / name).chmod(0o755)
    (tmp_path / "matplotlibrc").write_text("savefig.dpi: 20\n")  # else a second per epoch
    environment = os.environ | {
        "MATPLOTLIBRC": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "nnUNet_def_n_proc": "1",
        "nnUNet_n_proc_DA": "0",
    }
    words = [str(programs / "lngswr"), "robustify", str(model), "-o", str(tmp_path / "out")]

    started = []

    def call() -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen([*words, *WORDS], env=environment, **pipes))
        return started[-1]

    yield call
    for process in started:
        process.kill()  # does nothing to one that has ended; its commands end with it
        process.wait()


START = "start/fold_0.pth"


def fold_of(out):
    (fold,) = out.glob("nnUNet_results/*/*/fold_0")
    return fold


def logged(out):
    return "".join(log.read_text() for log in out.rglob("training_log_*.txt"))


def names(out):
    """Of all files; a training that goes on begins another log."""
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    return {name for name in found if "/training_log_" not in name}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_was_ended_in_its_training_ends_with_the_same_files(start, tmp_path):
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = start()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    out.rename(whole)
    process = start()
    wait_until(lambda: "Epoch 2" in logged(out) or process.poll() is not None, 1200)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM), said
    wait_until(lambda: not mentioning(str(out)))
    fold = fold_of(out)
    assert not (fold / "checkpoint_final.pth").exists()
    begun = load_checkpoint(fold / "checkpoint_latest.pth")["current_epoch"]
    assert 0 < begun < EPOCHS
    process = start()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "--c" in said
    assert len(list(fold.glob("training_log_*.txt"))) == 2 and training_seconds(fold) > 0
    check_same(out, whole)


def check_same(out, whole):
    assert names(out) == names(whole)
    final, final_too = (fold_of(folder) / "checkpoint_final.pth" for folder in (out, whole))
    # torch.save writes its temporary name into the file, so that bytes differ
    for ours, theirs in ((final, final_too), (out / START, whole / START)):
        weights = [load_checkpoint(file)["network_weights"] for file in (ours, theirs)]
        assert weights[0].keys() == weights[1].keys()
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert load_checkpoint(final)["current_epoch"] == EPOCHS
    assert (out / "robustify.json").read_bytes() == (whole / "robustify.json").read_bytes()
    validated, expected = (
        json.loads((fold_of(folder) / "validation" / "summary.json").read_text())
        for folder in (out, whole)
    )
    assert validated == expected
