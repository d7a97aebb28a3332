"""The options of an evaluation, and what takes their place."""

import dataclasses

import pytest

from evaluation.command_line import build_parser
from nnunetv2_lngswr.experiments.robustness import (
    PRESETS,
    benchmark_robustness,
    evaluation_options,
)
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json
from tests.experiments.robustness.settings import DATASET, TINY


def test_other_attacks_and_cases_take_the_place_of_the_presets():
    options = evaluation_options(
        ("--attacks", "noise", "ssah_project", "--steps", "10", "ssah_project=30", "--disable_tta"),
        ["fgsm"],
        7,
    )
    assert options == ("--attacks", "fgsm", "--steps", "10", "--disable_tta", "--max-cases", "7")
    # nor do other attacks go without budgets, since the preset's had none of theirs
    linf = ("--attacks", "worst", "--epsilons-l2", "none", "--disable_tta")
    assert evaluation_options(linf, ["pgd_l2"], None) == ("--attacks", "pgd_l2", "--disable_tta")
    # in a preset of Linf alone they stay in Linf unless one is named in L2
    kept = ("--attacks", "worst-v2", "pgd_linf", "--epsilons-l2", "none", "--disable_tta")
    assert evaluation_options(linf, ["worst", "pgd_linf"], None) == kept
    for name in ("pgd_l2_dice_ce", "segpgd_l2", "worst-v2_l2"):
        assert "none" not in evaluation_options(linf, ["worst", name], None)
    assert evaluation_options(options, ["noise", "fgsm"], 8)[-4:] == (
        "10",
        "--disable_tta",
        "--max-cases",
        "8",
    )


def test_other_attacks_replace_those_of_the_preset_with_their_steps(
    raw, tmp_path, ran, monkeypatch
):
    assert "ssah_project=30" in PRESETS["cpu-small"].evaluation
    monkeypatch.setitem(
        PRESETS, "tiny", dataclasses.replace(TINY, evaluation=PRESETS["cpu-small"].evaluation)
    )
    benchmark_robustness(
        DATASET,
        "2d",
        tmp_path / "out",
        arms=[],
        preset="tiny",
        attacks=["pgd_l2", "fgsm"],
        max_cases=3,
    )
    (command,) = (c for c, _ in ran if c[0] == "lngswr")
    options = vars(build_parser().parse_args(command[2:]))
    assert options["attacks"] == ["pgd_l2", "fgsm"]
    assert options["steps"] is None  # those of ssah_project went with it
    assert options["max_cases"] == 3


def test_epochs_and_resolution_replace_those_of_the_preset(raw, tmp_path, ran):
    call = {"arms": [], "preset": "tiny", "epochs": 7, "shortest_side": 16}
    out = benchmark_robustness(DATASET, "2d", tmp_path / "out", **call)
    (plan,) = (c for c, _ in ran if c[0] == "nnUNetv2_plan_experiment")
    # 64 rows of 1 mm
    assert plan[plan.index("-overwrite_target_spacing") + 1 :] == ["999", "4", "4"]
    plans = read_json(out / "nnUNet_preprocessed" / DATASET / "lngswrBenchmarkSeed0.json")
    budget = plans["configurations"]["2d"]["lngswr"]
    assert budget == {**TINY.budget, "num_epochs": 7, "seed": 0}
    with pytest.raises(UserError, match=r"other settings \(.*budget"):
        benchmark_robustness(DATASET, "2d", out, **{**call, "epochs": 8})
