"""A benchmark that is ended at any moment leaves no process, and the same call goes on."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.experiments.robustness.settings import DATASET
from tests.experiments.robustness.stand_ins import CALL, write_programs
from tests.utils.running import mentioning, wait_until

ROOT = Path(__file__).resolve().parents[3]
ARMS = ("--arms", "LNG", "SWR", "AT")
MOMENTS = 20
pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="looks into /proc")


@pytest.fixture
def start(raw, tmp_path):
    """start(out, *options): the call as a process."""
    programs = write_programs(tmp_path / "programs", DATASET)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MARK": str(tmp_path)}
    environment.pop("nnUNet_preprocessed", None)

    def call(out, *options):
        words = [sys.executable, "-c", CALL, str(programs), str(out), *(options or ARMS)]
        return subprocess.Popen(
            words,
            cwd=ROOT,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    return call


def results(out):
    """What came of it: of every run its result."""
    record = json.loads((out / "robustness.json").read_text())
    assert not list(out.rglob("TWICE"))
    return {run["arm"]: run["dice"]["clean"] for run in record["runs"]}


def ended(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out + err


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_at_random_moments(start, tmp_path, name):
    began = time.monotonic()
    status, said = ended(start(tmp_path / "whole"))
    assert status == 0, said
    seconds, whole = time.monotonic() - began, results(tmp_path / "whole")
    assert len(whole) == 4
    rng, hit, folder = random.Random(0), 0, 0
    while hit < MOMENTS:
        out, folder = tmp_path / f"out{folder}", folder + 1
        while True:
            began, process = time.monotonic(), start(out)
            try:
                # most of it is the start of Python; later moments are the more telling ones
                status = process.wait(rng.triangular(0, seconds, seconds * 0.8))
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, name))
                status, said = ended(process)
                hit, seconds = hit + 1, 1.1 * seconds  # the machine may be busier by now
                # it may have been about to end, or just begun to listen
                allowed = (0, -signal.SIGKILL) if name == "SIGKILL" else (0, -15, 143)
                assert status in allowed, said
                wait_until(lambda: not mentioning(str(tmp_path)))
                continue
            status, said = ended(process)
            assert status == 0, said
            # the machine may be less busy by now
            seconds = min(seconds, max(1.0, time.monotonic() - began))
            break
        assert results(out) == whole
    print(f"{hit} times {name}, {folder} folders finished")


@pytest.mark.slow
def test_two_calls_at_once_train_nothing_twice(start, tmp_path):
    out = tmp_path / "out"
    both = [start(out), start(out, "--arms", "LNG")]
    ends = [ended(process) for process in both]
    assert sorted(status for status, _ in ends) == [0, 2], ends
    (refused,) = (said for status, said in ends if status == 2)
    assert "is in use by lngswr benchmark robustness (process" in refused
    status, said = ended(start(out, "--arms", "SWR"))
    assert status == 0, said
    assert {"vanilla", "LNG", "SWR"} <= set(results(out))
