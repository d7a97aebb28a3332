"""The table of the suite's choice, of as little as one case."""

import json
import sys

import pytest

from benchmarks import worst_suite_table


def test_one_case_is_in_one_half_and_has_its_margin(tmp_path, monkeypatch, capsys):
    cost = {"forwards": 1, "gradients": 10}
    found = {"clean": {"dice": 0.9}, "dice 20": {"dice": 0.5, **cost}, "brute": {"dice": 0.4}}
    keys = ("dataset", "configuration", "trainer", "norm", "epsilon", "case")
    line = {**dict.fromkeys(keys, "x"), "found": found}
    (tmp_path / "measured.jsonl").write_text(json.dumps(line) + "\n")
    file = tmp_path / "table.json"
    call = ["worst_suite_table.py", str(tmp_path), "-s", "dice 20", "-o", str(file)]
    monkeypatch.setattr(sys, "argv", call)
    worst_suite_table.main()
    table = json.loads(file.read_text())
    ((margin,),) = table["margin"].values()
    assert margin["suite"] == 0.5 and margin["margin"] == pytest.approx(0.1)
    ((step,),) = table["greedy"].values()
    assert step["candidate"] == "dice 20" and "brute force 40.0" in capsys.readouterr().out
