"""`lngswr benchmark robustness` as a whole: its commands, what it refuses, once for real."""

import json
import re
import time

import numpy as np
import pytest

from evaluation.significance import mean_over_cases
from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.experiments.robustness import ARMS, benchmark_robustness
from nnunetv2_lngswr.installation import register
from nnunetv2_lngswr.installation.register import trainers_are_found
from tests.experiments.robustness.settings import DATASET

CALL = ["benchmark", "robustness", "-c", "2d"]
SHARED = ["--settings", '{"adversarial": {"epsilon": "2/255"}}']


def test_a_dry_run_says_the_commands_and_writes_nothing(raw, tmp_path, capsys):
    out = tmp_path / "out"
    call = [*CALL, "-d", DATASET, "-o", str(out), "--folds", "0", "2", "--dry-run"]
    assert cli.main(call) == 0
    said = capsys.readouterr().out.splitlines()
    commands = [line.split() for line in said if line.startswith("$ ")]
    trained = [(c[c.index("-tr") + 1], c[4]) for c in commands if c[1] == "nnUNetv2_train"]
    assert trained == [(t, f) for f in ("0", "2") for t in ARMS.values()]
    assert [c[1] for c in commands[:3]] == [
        "nnUNetv2_extract_fingerprint",
        "nnUNetv2_plan_experiment",
        "nnUNetv2_preprocess",
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", DATASET, "--arms", "LNGSWRR"], "unknown arm LNGSWRR; arms are vanilla, DA5"),
        (
            ["-d", DATASET, "--arms", "nnUNetTrainerLNGSWR"],
            "unknown arm nnUNetTrainerLNGSWR (a trainer; its arm is LNGSWR)",
        ),
        (["-d", DATASET, "--preset", "big"], "unknown preset big"),
        (["-d", "Dataset999_None"], "no data set Dataset999_None"),
        (["-d", DATASET, "--settings", "{"], "--settings must be JSON"),
        (["-d", DATASET, "--settings", '{"noise_sigma": 1}'], 'unknown key "noise_sigma"'),
        (["-d", DATASET, "--hold-out", "0"], "fold 0 is held out"),
        (["-d", DATASET, "--max-cases", "0"], "max_cases must be an integer >= 1, got 0"),
        (["-d", DATASET, "--epochs", "0"], "epochs must be 1 or more, got 0 (--epochs)"),
        (
            ["-d", DATASET, "--shortest-side", "4"],
            "shortest_side must be 8 or more, got 4 (--shortest-side)",
        ),
        (["-d", DATASET, "--attacks", "pgd_linf", "pgdl2"], "pgdl2"),
        (["-d", DATASET, "--variants", "missing.json"], "missing.json does not exist (--variants)"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(raw, tmp_path, capsys, arguments, message):
    assert cli.main([*CALL, "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-c", "foo"], "configuration must be one of 2d, 3d_fullres, 3d_lowres, got foo"),
        (["-c", "3d_fullres"], "plans no 3d_fullres for .* pictures"),
        (["-c", "3d_cascade_fullres"], "got 3d_cascade_fullres"),
        (["--folds", "9"], "no fold 9 .* folds 0 to 4"),
        (["--folds", "-1"], "folds must be different numbers >= 0, got -1"),
        (["--folds", "0", "0"], "folds must be different numbers >= 0, got 0 0"),
        (["--seeds", "-1"], "seeds must be different"),
        (["--seeds", "1", "1"], "seeds must be different"),
        (["--hold-out", "9"], "fold 9 cannot be held out: there are folds 0 to 4"),
        (["--hold-out", "-1"], "hold_out must be"),
        (["--settings", "[]"], "settings must be an object"),
        (["--settings", "null"], "--settings must be a JSON object, got null"),
        (["--settings", "3"], "settings must be an object, got 3"),
        (["--settings", '{"num_epochs": 3}'], "settings must not set num_epochs"),
        (["--settings", '{"seed": 3}'], "settings must not set seed"),
        (["--settings", '{"adversarial": {"start": 0.999}}'], "start must leave at least one whol"),
        (
            ["--variants", '{"late": {"arm": "AT", "adversarial": {"start": 0.999}}}'],
            "start must leave at least one whole epoch to the attack, got 0.999 of ",
        ),
        (
            ["--variants", '{"p": {"arm": "AT", "adversarial": {"scheme": "pgd"}}}', *SHARED],
            'variant p sets "adversarial", and so do the settings for all arms',
        ),
        (["--variants", "[]"], "variants must be an object"),
        (["--variants", "null"], "--variants must be a JSON object, got null"),
        (["--variants", '{"a": {"arm": [], "gate_init": 0}}'], "unknown arm"),
        (["--variants", '{"..": {"arm": "SWR", "gate_init": 0}}'], "not begin with a dot"),
        (["-d", f"../nnUNet_raw/{DATASET}"], "no data set ../nnUNet_raw"),
        (["-d", "901"], f"no data set 901 .* it has {DATASET}"),
        (["-o", "raw/dataset.json/x"], "is a file"),
    ],
)
def test_a_dry_run_refuses_what_a_run_refuses(raw, tmp_path, capsys, arguments, message):
    if arguments[0] == "--variants":
        (tmp_path / "variants.json").write_text(arguments[1])
        arguments = ["--variants", str(tmp_path / "variants.json"), *arguments[2:]]
    if arguments[0] == "-o":
        arguments = ["-o", str(raw / DATASET / "dataset.json" / "x")]
    call = [*CALL, "-d", DATASET, "-o", str(tmp_path / "out"), *arguments]
    for more in (["--dry-run"], []):
        assert cli.main([*call, *more]) == 2
        said = capsys.readouterr().err
        assert re.search(message, said) and said.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_folds_beyond_the_random_splits_are_refused(raw, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    (raw / DATASET / "splits_final.json").unlink()
    call = [*CALL, "-d", DATASET, "-o", str(tmp_path / "out"), "--dry-run", "--folds"]
    assert cli.main([*call, "4"]) == 0
    assert cli.main([*call, "5"]) == 2
    assert "no fold 5" in capsys.readouterr().err


def test_trainers_that_nnunet_does_not_find_are_told_first(raw, tmp_path, ran, monkeypatch, capsys):
    monkeypatch.setattr(register, "trainers_are_found", lambda: False)
    call = [*CALL, "-d", DATASET, "-o", str(tmp_path / "out"), "--preset", "tiny"]
    for more in (["--dry-run"], []):
        assert cli.main([*call, *more]) == 2
        assert "lngswr register" in capsys.readouterr().err
    assert not ran and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_arms_are_trained_attacked_compared_and_never_twice(raw, tmp_path, monkeypatch):
    if not trainers_are_found():
        pytest.skip("nnU-Net's commands do not find the trainers here: lngswr register")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    said = []
    call = {"arms": ["LNGSWR"], "preset": "tiny", "say": said.append}
    out = benchmark_robustness(DATASET, "2d", tmp_path / "out", equal_time=True, **call)
    record = json.loads((out / "robustness.json").read_text())
    check_arms(record)
    check_cases(raw, out)
    for run in record["runs"]:
        check_training(out, run)
    check_dice(record)
    assert "epoch time / vanilla" in (out / "robustness.md").read_text()
    assert (out / "compare.png").is_file()
    # nothing of that is done again, another seed is added
    before, count = time.time(), sum(s.startswith("$ ") for s in said)
    said.clear()
    benchmark_robustness(DATASET, "2d", out, **call)
    assert not [s for s in said if s.startswith("$ ")] and count >= 7
    assert all(p.stat().st_mtime < before for p in (out / "nnUNet_results").rglob("*.pth"))


def check_arms(record):
    arms = {r["arm"] for r in record["runs"]}
    assert record["arms"] == {"vanilla": {"arm": "vanilla"}, "LNGSWR": {"arm": "LNGSWR"}}
    assert {"vanilla", "LNGSWR"} <= arms <= {"vanilla", "LNGSWR", "LNGSWR (same time)"}
    assert set(record["cost"]) == arms == {r["model"] for r in record["results"]}
    assert record["cost"]["vanilla"]["ratio"] == 1


def check_cases(raw, out):
    splits = json.loads((raw / DATASET / "splits_final.json").read_text())
    used = json.loads((out / "nnUNet_preprocessed" / DATASET / "splits_final.json").read_text())
    assert used == splits
    folder = out / "evaluations" / "nnUNetTrainerVanilla__lngswrBenchmarkSeed0__2d__fold_0"
    evaluated = json.loads((folder / "summary.json").read_text())["cases"]
    assert len(evaluated) == 2 and {c.split(".")[0] for c in evaluated} <= set(splits[0]["val"])


def check_training(out, run):
    trainer, plans = ARMS[run["arm"].split(" ")[0]], run["plans"]
    folder = out / "nnUNet_results" / DATASET / f"{trainer}__{plans}__2d"
    written = json.loads((folder / "plans.json").read_text())
    entry = written["configurations"]["2d"]["lngswr"]
    assert entry["seed"] == 0 and entry["num_iterations_per_epoch"] == 2
    assert entry["num_epochs"] == 2 if "same" not in run["arm"] else entry["num_epochs"] < 2
    assert run["settings"] == entry and ("noise_ramp_up" in entry) == ("LNGSWR" in run["arm"])


def check_dice(record):
    alone = [r for r in record["results"] if r["model"] == "vanilla"]
    for name, dice in next(r["dice"] for r in record["runs"] if r["arm"] == "vanilla").items():
        assert [dice] == pytest.approx(
            [r["dice"] for r in alone if f"{r['attack']} {r['epsilon_text']}".strip() == name]
        )
    assert {"clean", "worst_linf 8/255"} <= set(record["runs"][0]["dice"])
    for run in record["runs"]:
        assert 0 <= run["validation_dice"] <= 1
        by_case = run["dice_by_case"]["clean"]
        assert len(by_case) == 2
        assert mean_over_cases(np.array([*by_case.values()], float)) == pytest.approx(
            run["dice"]["clean"]
        )
