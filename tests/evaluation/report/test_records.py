"""Laws of the means, intervals and drops of a summary."""

import pytest

from evaluation.report import records
from tests.evaluation.report.rows import all_rows


def test_summary_means_intervals_and_drops():
    results = records.summarise(all_rows(), seed=0)
    pgd = next(r for r in results if r["attack"] == "pgd_linf" and r["epsilon_text"] == "2/255")
    assert pgd["dice"] == pytest.approx(0.33) and pgd["drop"] == pytest.approx(0.6)
    assert pgd["dice_low"] == pytest.approx(0.30) and pgd["dice_high"] == pytest.approx(0.36)
    assert pgd["drop_low"] == pytest.approx(0.6) and pgd["drop_high"] == pytest.approx(
        0.6
    )  # paired: the same in every case
    assert pgd["labels"]["1"]["dice"] == pytest.approx(0.38)
    gamma = next(r for r in results if r["kind"] == "shift_mean")
    assert gamma["dice"] == pytest.approx(0.78)
    assert results == records.summarise(all_rows(), seed=0)
