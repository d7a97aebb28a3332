"""Which arms are trained again at equal time."""

import json
import statistics

import pytest

from nnunetv2_lngswr.experiments.robustness import PRESETS, times
from nnunetv2_lngswr.experiments.robustness.planning import plan_run
from nnunetv2_lngswr.experiments.robustness.record import add_to_record, epochs_at_equal_time
from tests.experiments.robustness.settings import make_benchmark


def test_equal_time_is_decided_for_an_arm_as_a_whole_and_never_for_the_baseline(
    tmp_path, monkeypatch
):
    seconds = {
        ("vanilla", 0): [10, 10],
        ("vanilla", 1): [7, 7],
        ("LNGSWR", 0): [20, 20],
        ("LNGSWR", 1): [7, 12],
        ("SWR", 0): [8, 9],
        ("SWR", 1): [8, 8],
    }
    monkeypatch.setattr(
        times,
        "epoch_seconds",
        lambda benchmark, runs: statistics.median(s for r in runs for s in seconds[r.arm, r.seed]),
    )
    its = make_benchmark(tmp_path, preset=PRESETS["cpu-small"])
    arms = {name: {"arm": name} for name in ("vanilla", "LNGSWR", "SWR")}
    runs = [plan_run(its, arm, arms[arm], seed, 0, dry_run=True) for seed in (0, 1) for arm in arms]
    again = list(times.equal_time_runs(its, runs, arms, dry_run=True))
    # medians: 8.5, 16 and 8
    assert [(r.arm, r.seed, r.plans) for r in again] == [
        ("LNGSWR (same time)", s, f"lngswrBenchmarkSeed{s}Epochs5") for s in (0, 1)
    ]


def test_an_arm_is_not_trained_again_for_as_many_epochs(tmp_path, monkeypatch):
    def again(ratio):
        monkeypatch.setattr(
            times, "epoch_seconds", lambda _, runs: ratio if runs[0].arm == "LNGSWR" else 1.0
        )
        return [r.plans for r in times.equal_time_runs(its, runs, arms, dry_run=True)]

    its = make_benchmark(tmp_path)  # two epochs
    arms = {name: {"arm": name} for name in ("vanilla", "LNGSWR")}
    runs = [plan_run(its, arm, arms[arm], 0, 0, dry_run=True) for arm in arms]
    assert again(1.05) == [] and again(1.3) == ["lngswrBenchmarkSeed0Epochs1"]
    assert again(2.2) == []


@pytest.mark.parametrize(("ratio", "epochs"), [(1.06, 9), (1.2, 8), (1.75, 6), (1.8, 5), (3.0, 3)])
def test_equal_time_is_the_baselines_time(tmp_path, monkeypatch, ratio, epochs):
    monkeypatch.setattr(times, "epoch_seconds", lambda _, runs: ratio if runs[0].arm == "AT" else 1)
    its = make_benchmark(tmp_path, preset=PRESETS["cpu-small"])  # ten epochs
    arms = {name: {"arm": name} for name in ("vanilla", "AT")}
    runs = [plan_run(its, arm, arms[arm], 0, 0, dry_run=True) for arm in arms]
    (again,) = times.equal_time_runs(its, runs, arms, dry_run=True)
    assert again.at_equal_time == ("AT", epochs)
    assert epochs * ratio <= 10 * times.TIME_TOLERANCE < (epochs + 1) * ratio


def test_further_seeds_get_the_epochs_of_the_first_at_equal_time(tmp_path, monkeypatch):
    monkeypatch.setattr(times, "epoch_seconds", lambda _, runs: 2.0 if runs[0].arm == "AT" else 1)
    its = make_benchmark(tmp_path, preset=PRESETS["cpu-small"])
    arms = {name: {"arm": name} for name in ("vanilla", "AT")}
    first = plan_run(its, "AT", arms["AT"], 0, 0, epochs=6, dry_run=True)
    add_to_record(its, [first], arms)
    decided = epochs_at_equal_time(its)
    assert decided == {"AT": 6}
    runs = [plan_run(its, arm, arms[arm], 1, 0, dry_run=True) for arm in arms]
    again = times.equal_time_runs(its, runs, arms, decided=decided, dry_run=True)
    assert [run.plans for run in again] == ["lngswrBenchmarkSeed1Epochs6"]


def test_an_epoch_takes_the_mean_of_both_kinds_that_late_adversarial_training_has(tmp_path):
    """Of each training; epochs that were trained again count once."""
    its = make_benchmark(tmp_path)
    runs = [plan_run(its, "LateAT", {"arm": "LateAT"}, seed, 0, dry_run=True) for seed in range(3)]
    for run, slower in zip(runs, (0.0, 0.1, 9.0)):
        fold = its.fold_folder(run)
        fold.mkdir(parents=True)
        (fold / "debug.json").write_text(json.dumps({"num_epochs": "10"}))
        took = [1.0 + slower] * 8 + [1.7 + slower] * 2
        lines = [f"Epoch {e}\nEpoch time: {s} s" for e, s in enumerate(took)]
        again = "\nEpoch 9\nEpoch time: 50.0 s\n"
        (fold / "training_log_2026_1_1_00_00_00.txt").write_text("\n".join(lines[:9]) + again)
        (fold / "training_log_2026_1_2_00_00_00.txt").write_text("\n".join(lines[9:]))
    assert times.epoch_seconds(its, runs) == pytest.approx(1.14 + 0.1)


def test_an_arm_without_a_last_phase_at_equal_time_is_left_out_and_told(tmp_path, monkeypatch):
    monkeypatch.setattr(
        times, "epoch_seconds", lambda _, runs: 1.0 if runs[0].arm == "vanilla" else 3.0
    )
    its = make_benchmark(tmp_path, preset=PRESETS["cpu-small"])  # ten epochs
    arms = {name: {"arm": name} for name in ("vanilla", "LateAT", "AT")}
    runs = [plan_run(its, arm, arms[arm], 0, 0, dry_run=True) for arm in arms]
    told = []
    again = times.equal_time_runs(its, runs, arms, say=told.append, dry_run=True)
    assert [r.arm for r in again] == ["AT (same time)"]
    assert len(told) == 1 and "LateAT is left out at equal time, 3 epochs:" in told[0]
