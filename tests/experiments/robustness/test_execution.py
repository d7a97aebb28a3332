"""Runs side by side: how many, what they do while they wait, and what ends them."""

import threading
import time

import pytest

from nnunetv2_lngswr.experiments.robustness import TrainingRun, execution
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.experiments.robustness.commands import Commands
from nnunetv2_lngswr.utils.errors import CommandError
from tests.experiments.robustness.settings import make_benchmark


def vanilla_runs(count):
    return [TrainingRun("vanilla", 0, fold, "p", "nnUNetTrainerVanilla") for fold in range(count)]


@pytest.mark.parametrize(
    ("configuration", "device", "most"),
    [("2d", "cpu", 3), ("2d", "cuda", 1), ("3d_fullres", "cpu", 1)],
)
def test_2d_runs_go_side_by_side_on_a_cpu_and_a_failure_starts_no_more(
    tmp_path, monkeypatch, configuration, device, most
):
    monkeypatch.setattr(benchmark_commands, "cores", lambda: 3)
    lock, now, peak, started = threading.Lock(), [0], [0], []

    def run(self, name, command, *, show=""):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
            started.append(name)
        time.sleep(0.1)
        with lock:
            now[0] -= 1
        if name.endswith("fold5"):
            raise CommandError("training failed")

    monkeypatch.setattr(Commands, "run", run)
    its = make_benchmark(tmp_path, configuration=configuration, device=device)
    with pytest.raises(CommandError, match="training failed"):
        execution.run_all(Commands(its, print), vanilla_runs(12))
    assert peak[0] == most
    assert "train_vanilla_seed0_fold5" in started
    assert "train_vanilla_seed0_fold11" not in started


def test_after_a_failure_a_training_that_goes_on_beside_it_is_not_evaluated(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_commands, "cores", lambda: 2)
    told, begun, ran = threading.Event(), threading.Event(), []

    def run(self, name, command, *, show=""):
        ran.append(name)
        if name.endswith("fold0"):
            assert begun.wait(20)
            raise CommandError("training failed")
        begun.set()
        assert told.wait(20)

    monkeypatch.setattr(Commands, "run", run)
    monkeypatch.setattr(execution, "end_running", told.set)
    with pytest.raises(CommandError, match="training failed"):
        execution.run_all(Commands(make_benchmark(tmp_path), print), vanilla_runs(2))
    assert sorted(ran) == ["train_vanilla_seed0_fold0", "train_vanilla_seed0_fold1"]


@pytest.mark.parametrize(("groups", "words"), [(None, []), (r"-p\d+", [r"--groups=-p\d+"])])
def test_groups_reach_the_evaluations(tmp_path, monkeypatch, groups, words):
    ran = []
    monkeypatch.setattr(Commands, "run", lambda self, name, command: ran.append(command))
    its = make_benchmark(tmp_path, groups=groups)
    execution.evaluate(Commands(its, print), vanilla_runs(1)[0])
    assert ran[0][ran[0].index("--disable_progress_bar") + 1 :] == words


@pytest.mark.parametrize(("configuration", "policy"), [("2d", "passive"), ("3d_fullres", None)])
def test_runs_that_share_the_cores_do_not_crowd_them(tmp_path, monkeypatch, configuration, policy):
    surroundings = {}
    monkeypatch.setattr(
        benchmark_commands,
        "run_command",
        lambda command, log, environment, **options: surroundings.update(environment),
    )
    monkeypatch.setattr(benchmark_commands, "cores", lambda: 2)
    its = make_benchmark(tmp_path, configuration=configuration)
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    Commands(its, print).run("train", ["true"])
    assert surroundings["nnUNet_raw"] == str(its.raw)
    assert surroundings.get("OMP_WAIT_POLICY") == policy
    assert surroundings.get("nnUNet_def_n_proc") == (policy and "1")
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    Commands(its, print).run("train", ["true"])
    assert surroundings.get("nnUNet_def_n_proc") == (policy and "3")


def test_ctrl_c_ends_the_commands_of_all_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_commands, "cores", lambda: 2)
    started = []

    def train(commands, run):
        started.append(tmp_path / f"{run.name}.on")
        code = f"import pathlib, time; pathlib.Path({str(started[-1])!r}).touch()\ntime.sleep(60)"
        commands.run(run.name, ["python", "-c", code])

    def interrupt(futures):
        while len(started) < 2 or not all(on.is_file() for on in started):
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(execution, "train", train)
    monkeypatch.setattr(execution, "as_completed", interrupt)
    commands = Commands(make_benchmark(tmp_path), lambda line: None)
    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execution.run_all(commands, vanilla_runs(6))
    assert time.monotonic() - before < 30 and len(started) == 2
