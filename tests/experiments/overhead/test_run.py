"""`lngswr benchmark overhead` on plans that take no time."""

import json

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.experiments.overhead import PLANS
from nnunetv2_lngswr.experiments.overhead import run as overhead_run
from nnunetv2_lngswr.utils.errors import CommandError

CALL = ["benchmark", "overhead", "--plans", "tiny", "--repeats", "2", "--threads", "1"]


@pytest.mark.parametrize("patch", [(16, 16), (8, 8, 8)])
def test_it_measures_every_arm_and_writes_what_it_says(patch, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PLANS, "tiny", {"batch": 2, "patch": patch, "features": (4, 8)})
    # of a process of its own, which does not know this plan
    memory = {"vanilla": 10.0, "LNG": 11.0, "SWR": 12.0, "LNG-SWR": 15.0}
    memory["LNG-SWR, guided"] = 16.0
    outputs = {name: f"said before\n{mib}\n" for name, mib in memory.items()}
    monkeypatch.setattr(overhead_run, "capture_command", lambda command, **_: outputs[command[3]])
    out = tmp_path / "out"
    assert main([*CALL, "-o", str(out)]) == 0
    result = json.loads((out / "overhead.json").read_text())
    check_arms(result["plans"]["tiny"]["arms"])
    check_profile(result["plans"]["tiny"]["profile"], patch)
    table = (out / "overhead.md").read_text()
    assert "| LNG-SWR |" in table and result["command"] in table
    assert "| LNG-SWR |" in capsys.readouterr().out


def check_arms(arms):
    assert list(arms) == ["vanilla", "LNG", "SWR", "LNG-SWR", "LNG-SWR, guided"]
    assert all(arms["vanilla"][kind]["ratio"] == 1 for kind in ("train_step", "infer"))
    assert arms["LNG-SWR"]["peak_memory_ratio"] == 1.5
    for figures in arms.values():
        for kind in ("train_step", "infer"):
            figure = figures[kind]
            assert figure["ratio_min"] <= figure["ratio"] <= figure["ratio_max"]


def check_profile(profile, patch):
    parts = {row["branch"]: row for row in profile}
    assert list(parts) == ["input", "stage 0", "stage 1"]
    assert parts["stage 0"]["shape"] == [2, 4, *patch]
    assert set(parts["stage 0"]["seconds"]) == {"prior", "noise", "reconstruction"}
    assert "reconstruction" not in parts["stage 1"]["seconds"]


def test_a_process_that_fails_is_told_with_its_last_lines():
    with pytest.raises(CommandError, match=r"exit status 1(.|\n)*KeyError: 'no such plan'"):
        overhead_run._memory_of_a_process(["LNG", "no such plan", "1", "cpu", "0"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--plans", "4d"], "unknown plans 4d; there are 2d, 3d, 3d_large"),
        (["--repeats", "0"], "must be at least 1, got 0"),
        pytest.param(
            ["-device", "cuda"],
            "no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_bad_input(arguments, fault, capsys):
    assert main(["benchmark", "overhead", *arguments]) == 2
    assert fault in capsys.readouterr().err
