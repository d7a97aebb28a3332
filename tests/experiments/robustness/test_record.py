"""What a folder holds: every arm that was ever trained in it, whatever the last call was told."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from nnunetv2_lngswr.experiments.robustness import benchmark_robustness, table
from nnunetv2_lngswr.experiments.robustness import commands as benchmark_commands
from nnunetv2_lngswr.experiments.robustness import run as benchmark_run
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.locks import hold
from tests.experiments.robustness.settings import DATASET


@pytest.fixture
def evaluated(raw, ran, monkeypatch):
    """Commands leave an evaluation's summary; comparing is stood in for, and is noted here."""
    stand_in, compared = benchmark_commands.run_command, []

    def run(command, log, **options):
        stand_in(command, log, **options)
        if command[:2] == ["lngswr", "evaluate"]:
            out = Path(command[command.index("-o") + 1])
            out.mkdir(parents=True)
            (out / "summary.json").write_text('{"results": [], "cases": ["a"]}')

    def compare(folders, output, *, names, groups=None):
        compared.append(dict(zip(names, [len(of) for of in folders])))
        (output / "compare.json").write_text('{"results": []}')
        (output / "compare.md").write_text("compared")

    monkeypatch.setattr(benchmark_commands, "run_command", run)
    monkeypatch.setattr(benchmark_run, "write_table", table.write_table)
    monkeypatch.setattr(table, "compare", compare)
    monkeypatch.setattr(table, "epoch_seconds", lambda benchmark, runs: 1.0)
    monkeypatch.setattr(table, "_trained_settings", lambda benchmark, run: {})
    monkeypatch.setattr(table, "dice_of", lambda evaluation: {"clean": 0.5})
    monkeypatch.setattr(table, "dice_by_case", lambda evaluation: {})
    return compared


def arms_of(out: Path) -> list[str]:
    return [run["arm"] for run in json.loads((out / "robustness.json").read_text())["runs"]]


def test_a_call_with_fewer_arms_keeps_those_of_earlier_calls(evaluated, tmp_path):
    out = tmp_path / "out"
    for arms in (["LNG", "SWR"], ["AT"], []):
        benchmark_robustness(DATASET, "2d", out, arms=arms, preset="tiny")
    assert evaluated[-1] == dict.fromkeys(["vanilla", "LNG", "SWR", "AT"], 1)
    assert arms_of(out) == ["vanilla", "LNG", "SWR", "AT"]
    record = json.loads((out / "robustness.json").read_text())
    assert set(record["arms"]) == set(record["cost"]) == set(evaluated[-1])


def test_a_folder_of_an_earlier_version_keeps_its_arms(evaluated, tmp_path):
    out = tmp_path / "out"
    benchmark_robustness(DATASET, "2d", out, arms=["LNG"], preset="tiny")
    (out / "runs.json").unlink()
    benchmark_robustness(DATASET, "2d", out, arms=["SWR"], preset="tiny")
    assert arms_of(out) == ["vanilla", "LNG", "SWR"]


def test_what_was_begun_only_is_not_in_the_table(evaluated, tmp_path, monkeypatch):
    out, run = tmp_path / "out", benchmark_commands.run_command

    def killed(command, log, **options):
        if "nnUNetTrainerSWR" in command:
            raise KeyboardInterrupt
        run(command, log, **options)

    monkeypatch.setattr(benchmark_commands, "run_command", killed)
    monkeypatch.setattr(benchmark_commands, "cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        benchmark_robustness(DATASET, "2d", out, arms=["LNG", "SWR"], preset="tiny")
    monkeypatch.setattr(benchmark_commands, "run_command", run)
    benchmark_robustness(DATASET, "2d", out, arms=[], preset="tiny")
    assert arms_of(out) == ["vanilla", "LNG"]


def test_an_arm_with_other_cases_is_listed_and_its_leaving_out_is_said(evaluated, tmp_path):
    out = tmp_path / "out"
    benchmark_robustness(DATASET, "2d", out, arms=["LNG"], preset="tiny")
    benchmark_robustness(DATASET, "2d", out, arms=["SWR"], preset="tiny", folds=[0, 1])
    assert evaluated[-1] == {"vanilla": 2, "SWR": 2}
    text = (out / "robustness.md").read_text()
    assert "Left out of the comparison: LNG" in text and "`--folds 1` adds" in text
    assert sorted(arms_of(out)) == sorted(["vanilla", "LNG", "vanilla", "SWR", "SWR"])
    benchmark_robustness(DATASET, "2d", out, arms=["LNG"], preset="tiny", folds=[1])
    assert evaluated[-1] == {"vanilla": 2, "LNG": 2, "SWR": 2}


def test_a_fold_that_the_baseline_lacks_is_left_out_and_said(evaluated, tmp_path):
    out = tmp_path / "out"
    benchmark_robustness(DATASET, "2d", out, arms=["LNG"], preset="tiny", folds=[0, 1])
    for folder in (out / "evaluations").glob("nnUNetTrainerVanilla__*fold_1"):
        shutil.rmtree(folder)  # as where a call ended before it came to that
    benchmark_robustness(DATASET, "2d", out, arms=["LNG"], preset="tiny")
    assert evaluated[-1] == {"vanilla": 1, "LNG": 1}
    text = (out / "robustness.md").read_text()
    assert "LNG on fold 1, which vanilla has not" in text and "`--folds 1` adds" in text
    assert json.loads((out / "robustness.json").read_text())["left_out_folds"] == {"LNG": [1]}


def test_the_baseline_alone_is_listed(evaluated, tmp_path):
    out = benchmark_robustness(DATASET, "2d", tmp_path / "out", arms=[], preset="tiny")
    assert "Nothing has the cases of vanilla" in (out / "robustness.md").read_text()
    assert arms_of(out) == ["vanilla"] and evaluated == []


def test_one_name_cannot_stand_for_two_arms(evaluated, tmp_path):
    out = tmp_path / "out"
    for arm, refused in (("LNG", False), ("LNG", False), ("LNGSWR", True)):
        variants = {"mild": {"arm": arm, "noise_sigma_input": 0.5}}
        options = {"arms": [], "preset": "tiny", "variants": variants}
        if refused:
            before = sorted(out.rglob("*"))
            with pytest.raises(UserError, match="variant mild has other settings than before"):
                benchmark_robustness(DATASET, "2d", out, **options)
            assert sorted(out.rglob("*")) == before
        else:
            benchmark_robustness(DATASET, "2d", out, **options)


def test_a_second_call_at_once_is_refused_and_runs_nothing(raw, ran, tmp_path):
    out, refused = tmp_path / "out", []

    def call():
        try:
            benchmark_robustness(DATASET, "2d", out, arms=["AT"], preset="tiny")
        except UserError as error:
            refused.append(str(error))

    with hold(out, "another lngswr benchmark"):
        # the thread that holds it may hold it again
        second = threading.Thread(target=call)
        second.start()
        second.join()
        assert "is in use by another lngswr benchmark (process" in refused[0]
        assert [p.name for p in out.iterdir()] == [".lock"] and ran == []
        # a dry run writes nothing and is not in the way
        benchmark_robustness(DATASET, "2d", out, arms=["AT"], preset="tiny", dry_run=True)
    call()
    assert len(refused) == 1 and ran


def test_an_arm_whose_logs_are_gone_has_no_epoch_time(evaluated, tmp_path, monkeypatch):
    def seconds(benchmark, runs):
        if runs[0].arm == "AT":
            raise UserError("the training logs must have the time of each of its 2 epochs")
        return 2.0

    monkeypatch.setattr(table, "epoch_seconds", seconds)
    out = tmp_path / "out"
    benchmark_robustness(DATASET, "2d", out, arms=["AT", "SWR"], device="cpu")
    assert set(json.loads((out / "robustness.json").read_text())["cost"]) == {"vanilla", "SWR"}
    assert "| AT | nnUNetTrainerAT | 0/0 | not known |" in (out / "robustness.md").read_text()


@pytest.mark.parametrize(
    ("summary", "dice"),
    [
        ('{"foreground_mean": {"Dice": 0.75}}', 0.75),
        ('{"foreground_mean": {"Dice": NaN}}', None),
        ("{}", None),
        (None, None),
    ],
)
def test_nnunets_own_validation_is_kept_where_it_is_known(tmp_path, summary, dice):
    if summary is not None:
        (tmp_path / "validation").mkdir()
        (tmp_path / "validation" / "summary.json").write_text(summary)
    assert table.validation_dice(tmp_path) == dice
