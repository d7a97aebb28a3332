"""The folder of a benchmark: whose it is, and where in it a run's evaluation lies."""

import json

import pytest

from nnunetv2_lngswr.experiments.robustness import PRESETS, benchmark_robustness
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.experiments.robustness.benchmark import MARKER, claim
from nnunetv2_lngswr.experiments.robustness.planning import plan_run
from tests.experiments.robustness.settings import DATASET, make_benchmark


def test_an_evaluation_belongs_to_what_was_trained(tmp_path):
    its = make_benchmark(tmp_path)
    runs = [
        plan_run(its, "mild", {"arm": arm, "gate_init": 0.5}, 0, 0, epochs=epochs, dry_run=True)
        for arm in ("LNGSWR", "LNG")
        for epochs in (None, 7, 8)
    ]
    assert len({its.evaluation_folder(r) for r in runs}) == len(runs)


def test_a_folder_of_something_else_or_of_other_settings_is_refused(raw, tmp_path, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark_commands, "run_command", stop)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no benchmark"):
        benchmark_robustness(DATASET, "2d", tmp_path / "full", arms=["AT"], preset="tiny")
    with pytest.raises(KeyboardInterrupt):
        benchmark_robustness(DATASET, "2d", tmp_path / "out", arms=["AT"], preset="tiny")
    with pytest.raises(ValueError, match=r"other settings \(settings\)"):
        benchmark_robustness(
            DATASET,
            "2d",
            tmp_path / "out",
            arms=["AT"],
            preset="tiny",
            settings={"noise_sigma_input": 0.1},
        )


def test_a_folder_of_an_earlier_version_goes_on(tmp_path):
    its = make_benchmark(tmp_path, preset_name="search", preset=PRESETS["search"])
    claim(its)
    record = json.loads((tmp_path / MARKER).read_text())
    record["evaluation"] = [o.replace("--corruptions", "--shifts") for o in record["evaluation"]]
    assert "--shifts" in record["evaluation"]
    (tmp_path / MARKER).write_text(json.dumps(record))
    claim(its)
