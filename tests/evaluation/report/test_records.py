"""Laws of the means, intervals and drops of a summary."""

import pytest

from evaluation.report import records
from tests.evaluation.report.rows import all_rows, row


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


def test_corruptions_that_normalisation_undoes_do_not_dilute_a_second_mean():
    def rows(**dice_of):
        found = [row("a", "clean", "clean", 0.9)]
        for name, dice in dice_of.items():
            found += [row("a", "shift", name, d, severity=s) for s, d in enumerate(dice, 1)]
        return found

    def means(made):
        return {r["kind"]: r["dice"] for r in records.summarise(made, seed=0)}

    found = means(rows(contrast=(0.9, 0.88), gamma=(0.8, 0.6)))
    assert found["shifts_mean"] == pytest.approx(0.795)
    assert found["not_affine_mean"] == pytest.approx(0.7)
    # where nothing is left out, or nothing is left, it would say what is said already
    assert "not_affine_mean" not in means(rows(gamma=(0.8, 0.6), jpeg=(0.7, 0.5)))
    assert "not_affine_mean" not in means(rows(contrast=(0.9, 0.9)))
