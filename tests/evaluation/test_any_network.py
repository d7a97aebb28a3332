"""docs/any-network.md: its code runs as it stands there, and finds what it should."""

import re
from pathlib import Path

import torch

from evaluation.report.cases_table import read_cases

PAGE = Path(__file__).parents[2] / "docs/any-network.md"


def test_the_manuals_example_with_monai_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        exec(compile(code, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("# Robustness of UNet, 2d on phantoms\n\n2 cases.")
    out = tmp_path / "OUT"
    for name in ("report.md", "summary.json", "curves.png", "examples.png"):
        assert (out / name).stat().st_size > 1000, name
    means = [r for r in read_cases(out / "cases.csv") if r["label"] == "mean"]
    dice = {(r["case"], r["attack"]): r["dice"] for r in means}
    for case in ("thyroid_p015_0", "thyroid_p015_1"):
        assert dice[case, "clean"] > 0.6
        assert dice[case, "worst-v2"] < 0.3 < dice[case, "noise"]
    report = (out / "report.md").read_text()
    assert "Suite: **worst-v2**; compare only" in report
    assert "- inference: SlidingWindowInferer(roi_size=(96, 96), sw_batch_size=4" in report
