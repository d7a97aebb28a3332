"""A folder of results for the tables of evidence."""

import json

import pytest

from benchmarks import evidence_tables
from tests.benchmarks.evidence import result


@pytest.fixture
def results(tmp_path, monkeypatch):
    rows = [result("vanilla", "attack", "4/255", 0.01)]
    for arm, dice, more in (("vanilla", 0.4, None), ("AT", 0.6, 0.2)):
        rows.append(result(arm, "clean", "", dice + 0.2, more))
        rows.extend(result(arm, "worst", e, dice, more) for e in ("4/255", "8/255"))
    dice = {"clean": 0.71, "worst_linf 4/255": 0.52, "worst_linf 8/255": 0.33}
    record = {
        "configuration": "2d",
        "arms": {"vanilla": {"arm": "vanilla"}, "AT": {"arm": "AT"}},
        "results": rows,
        "runs": [
            {"arm": "AT", "seed": 1, "dice": dice},
            {"arm": "vanilla", "seed": 0, "dice": dice},
        ],
    }
    search = {
        "A": {"seed 0": {"clean": 70.0}, "seed 1": {"clean": 70.0}},
        "B": {"seed 0": {"clean": 71.0}, "seed 1": {"clean": 73.0}},
    }
    (tmp_path / "x.json").write_text(json.dumps(record))
    for arm, dice in search.items():
        (tmp_path / f"{arm}.json").write_text(json.dumps({"dice": {arm: dice}}))
    monkeypatch.setattr(evidence_tables, "RESULTS", tmp_path)
