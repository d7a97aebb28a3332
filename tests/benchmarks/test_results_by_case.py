"""Figures from the Dice by case of a JSON are those of `lngswr compare` from the folders."""

import json

import pytest

from benchmarks import evidence_cells, evidence_tables, trainings
from benchmarks.results_by_case import are_there, results_of
from evaluation.compare import compare
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.report.records import summarise, write_summary
from nnunetv2_lngswr.experiments.robustness.table import dice_by_case, dice_of
from tests.evaluation.comparison.test_groups_and_trainings import CASES, PATTERN, result

ARMS = {"vanilla": 0.0, "AT": 0.02, "LNGSWR": 0.01}


def compared_rows(records):
    return {
        (r["model"], r["attack"], r["epsilon_text"] or ""): {
            k: v for k, v in r.items() if k not in ("folder", "kind", "norm", "severity")
        }
        for r in records
        if r["kind"] in ("clean", "worst")
    }


@pytest.fixture
def trained(tmp_path):
    """OUT folders by arm, of two seeds; a Dice that is undefined among them."""
    found = {}
    for arm, shift in ARMS.items():
        found[arm] = [
            result(
                tmp_path / f"{arm}{seed}",
                shift=shift,
                spread=0.03,
                seed=10 * seed + len(arm),
                training_seed=seed,
                trainer=arm,
            )
            for seed in (0, 1)
        ]
    for folder in found["AT"]:
        rows = read_cases(folder / "cases.csv")
        for row in rows:
            if row["case"] == CASES[2] and row["label"] == "2":
                row["dice"] = float("nan")
        write_cases(folder / "cases.csv", rows)
        summary = json.loads((folder / "summary.json").read_text())
        write_summary(folder / "summary.json", summary | {"results": summarise(rows, seed=0)})
    return found


def record_of(trained, arms):
    return {
        "arms": {arm: {"arm": arm} for arm in arms},
        "groups": {"found": "", "of": {case: case[:2] for case in CASES}},
        "runs": [
            {
                "arm": arm,
                "seed": seed,
                "plans": folder.name,
                "dice": dice_of(folder),
                "dice_by_case": json.loads(json.dumps(dice_by_case(folder), allow_nan=False)),
            }
            for arm in arms
            for seed, folder in enumerate(trained[arm])
        ],
    }


def test_they_are_those_of_compare(trained, tmp_path):
    from_folders = compare(list(trained.values()), tmp_path / "out", names=[*ARMS], groups=PATTERN)
    found = compared_rows(results_of(record_of(trained, ARMS), list(ARMS)))
    expected = compared_rows(from_folders)
    assert found.keys() == expected.keys() and len(found) >= 3 * len(ARMS)
    for key, row in found.items():
        its = expected[key]
        assert row == pytest.approx({k: its[k] for k in row}, abs=1e-9, nan_ok=True), key
        assert {"difference_again_low", "p_again"} <= row.keys()


def test_arms_of_two_files_are_tested_as_one_table(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_tables, "RESULTS", tmp_path)
    monkeypatch.setitem(evidence_cells.READINGS, ("worst", "1/255"), "4/255")
    monkeypatch.setitem(evidence_cells.READINGS, ("worst", "2/255"), "8/255")
    monkeypatch.setattr(trainings, "RUN_KEYS", ("clean", "worst_linf 1/255"))
    for name, arms in (("a", ["vanilla", "AT"]), ("b", ["vanilla", "LNGSWR"])):
        record = record_of(trained, arms)
        assert are_there(record, arms)
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    compare(list(trained.values()), tmp_path / "out", names=[*ARMS], groups=PATTERN)
    whole = json.loads((tmp_path / "out" / "compare.json").read_text()) | {
        "arms": dict.fromkeys(ARMS),
        "runs": [],
    }
    (tmp_path / "whole.json").write_text(json.dumps(whole))
    for kind in ("cases", "again"):
        joined = evidence_tables.table(f"{kind} a.json,b.json vanilla AT LNGSWR")
        assert joined == evidence_tables.table(f"{kind} whole.json vanilla AT LNGSWR")


def test_an_arm_is_set_beside_another_as_compare_would(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_tables, "RESULTS", tmp_path)
    for text, reading in (("1/255", "4/255"), ("2/255", "8/255")):
        monkeypatch.setitem(evidence_cells.READINGS, ("worst", text), reading)
    (tmp_path / "a.json").write_text(json.dumps(record_of(trained, ARMS)))
    of = [trained[arm] for arm in ("AT", "LNGSWR")]
    rows = compare(of, tmp_path / "out", names=["AT", "LNGSWR"], groups=PATTERN)
    row = next(r for r in rows if r["model"] == "LNGSWR" and r["kind"] == "worst")
    line = evidence_tables.table("beside a.json AT LNGSWR").splitlines()[-1]
    said = [cell.strip() for cell in line.strip("|").split("|")][2]
    ends = [100 * row[f"difference{of}_{end}"] for of in ("", "_again") for end in ("low", "high")]
    expected = "{:.1f} [{:.1f}, {:.1f}]; [{:.1f}, {:.1f}]"
    assert said == expected.format(100 * row["difference"], *ends)


def test_other_cases_are_refused(trained):
    record = record_of(trained, ["vanilla", "AT"])
    for of in record["runs"][-1]["dice_by_case"].values():
        del of[CASES[0]]
    for run in record["runs"][2:3]:
        for of in run["dice_by_case"].values():
            del of[CASES[0]]
    with pytest.raises(SystemExit, match="AT: other cases than vanilla"):
        results_of(record, ["vanilla", "AT"])
