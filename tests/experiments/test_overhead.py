"""`lngswr benchmark overhead` on plans that take no time."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nnunetv2_lngswr.cli.main import main
from nnunetv2_lngswr.experiments import overhead


@pytest.mark.parametrize("patch", [(16, 16), (8, 8, 8)])
def test_it_measures_every_arm_and_writes_what_it_says(patch, tmp_path, monkeypatch, capsys):
    plan = {"batch": 2, "patch": patch, "features": (4, 8)}
    monkeypatch.setitem(overhead.PLANS, "tiny", plan)
    # of a process of its own, which does not know this plan
    memory = {"vanilla": 10.0, "LNG": 11.0, "SWR": 12.0, "LNG-SWR": 15.0}
    outputs = {
        name: type("Done", (), {"stdout": f"said before\n{mib}\n"}) for name, mib in memory.items()
    }
    monkeypatch.setattr(overhead.subprocess, "run", lambda command, **_: outputs[command[3]])
    assert (
        main(
            [
                "benchmark",
                "overhead",
                "--plans",
                "tiny",
                "--repeats",
                "2",
                "--threads",
                "1",
                "-o",
                str(tmp_path / "out"),
            ]
        )
        == 0
    )
    result = json.loads((tmp_path / "out" / "overhead.json").read_text())
    arms = result["plans"]["tiny"]["arms"]
    assert list(arms) == ["vanilla", "LNG", "SWR", "LNG-SWR"]
    assert (
        all(arms["vanilla"][kind]["ratio"] == 1 for kind in ("train_step", "infer"))
        and arms["LNG-SWR"]["peak_memory_ratio"] == 1.5
    )
    assert all(
        f[kind]["ratio_min"] <= f[kind]["ratio"] <= f[kind]["ratio_max"]
        for f in arms.values()
        for kind in ("train_step", "infer")
    )
    parts = {row["branch"]: row for row in result["plans"]["tiny"]["profile"]}
    assert list(parts) == ["input", "stage 0", "stage 1"] and parts["stage 0"]["shape"] == [
        2,
        4,
        *patch,
    ]
    assert (
        set(parts["stage 0"]["seconds"]) == {"prior", "noise", "reconstruction"}
        and "reconstruction" not in parts["stage 1"]["seconds"]
    )
    table = (tmp_path / "out" / "overhead.md").read_text()
    assert (
        "| LNG-SWR |" in table
        and result["command"] in table
        and "| LNG-SWR |" in capsys.readouterr().out
    )


MEMORY = """
from nnunetv2_lngswr.experiments.overhead import peak_memory
for batch in (1, 64):
    print(peak_memory("LNG-SWR", {"batch": batch, "patch": (64, 64), "features": (16, 32)}, "cpu"))
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="read from /proc")
def test_peak_memory_grows_with_what_is_kept():
    # in a process of its own: this one may have been larger before
    out = subprocess.run(
        [sys.executable, "-c", MEMORY],
        cwd=Path(__file__).parents[2],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    small, large = map(float, out.splitlines()[-2:])
    # x, its noisy and its reconstructed version at the first stage alone: 63 x 16 x 64 x 64 floats
    assert 0 < small < large - 3 * 15


@pytest.mark.parametrize("arguments, fault", [
    (["--plans", "4d"], "unknown plans 4d; there are 2d, 3d, 3d_large"),
    (["--repeats", "0"], "must be at least 1, got 0"),
    pytest.param(["-device", "cuda"], "no CUDA device", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")),
])  # fmt: skip
def test_bad_input(arguments, fault, capsys):
    assert main(["benchmark", "overhead", *arguments]) == 2
    assert fault in capsys.readouterr().err
