"""Laws of cases.csv: equal results give equal bytes, the worst is the lowest."""

import numpy as np
import pytest

from evaluation.report import cases_table
from tests.evaluation.report.rows import all_rows, row, rows_of


def test_worst_is_the_lowest_of_its_norm_and_budget_and_ssah_takes_no_part():
    rows = rows_of("a")
    worst = [r for r in rows if r["kind"] == "worst" and r["label"] == cases_table.MEAN_LABEL]
    assert {
        (r["attack"], r["epsilon_text"]): (r["source"], round(r["dice"], 3)) for r in worst
    } == {
        ("worst_linf", "1/255"): ("pgd_linf", 0.6),
        ("worst_linf", "2/255"): ("pgd_linf", 0.3),
        ("worst_l2", "1/255"): ("pgd_l2", 0.7),
        ("worst_l2", "2/255"): ("pgd_l2", 0.5),
    }
    for w in worst:
        assert all(
            w["dice"] <= r["dice"]
            for r in rows
            if r["kind"] == "attack"
            and r["label"] == cases_table.MEAN_LABEL
            and cases_table.run_key(r)[2:] == cases_table.run_key(w)[2:]
        )
    assert len([r for r in rows if r["kind"] == "worst"]) == 3 * len(worst)


def test_nothing_there_and_nothing_found_is_no_success():
    rows = [
        row(
            "a",
            "attack",
            "noise",
            float("nan"),
            norm="linf",
            epsilon=0.1,
            label=cases_table.MEAN_LABEL,
        )
    ]
    rows += [
        row("a", "attack", "pgd_linf", 0.0, norm="linf", epsilon=0.1, label=cases_table.MEAN_LABEL)
    ]
    assert cases_table.with_worst(rows)[-1]["source"] == "pgd_linf"
    assert cases_table.with_worst(rows[::-1])[-1]["source"] == "pgd_linf"


def test_the_noise_control_alone_is_no_worst_attack():
    rows = cases_table.with_worst(
        [r for r in rows_of("a") if r["kind"] == "clean" or r["attack"] == "noise"]
    )
    assert not [r for r in rows if r["kind"] == "worst"]


def test_cases_csv_round_trips_and_is_deterministic(tmp_path):
    rows = all_rows()
    rows[0]["dice"] = float("nan")
    rows[1]["dice_drop"] = -0.0
    for name in ("a", "b"):
        cases_table.write_cases(tmp_path / name, rows)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text() and "\r" not in text and "-0," not in text
    back = cases_table.read_cases(tmp_path / "a")
    assert len(back) == len(rows)
    assert (
        np.isnan(back[0]["dice"])
        and back[0]["epsilon"] is None
        and back[3]["dice"] == pytest.approx(rows[3]["dice"], rel=1e-8)
    )
    cases_table.write_cases(tmp_path / "c", back)
    assert (tmp_path / "c").read_text() == text
    assert not any("second" in c or "time" in c for c in cases_table.COLUMNS)


def test_another_csv_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("case,dice\na,1\n")
    with pytest.raises(ValueError, match="no cases.csv of this version"):
        cases_table.read_cases(tmp_path / "x.csv")
