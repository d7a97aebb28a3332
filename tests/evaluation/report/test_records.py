"""Laws of the means, intervals and drops of a summary."""

import numpy as np
import pytest

from evaluation.report import records
from evaluation.report.records import Table
from evaluation.significance import mean_over_cases
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


def test_a_mean_over_runs_is_the_mean_of_what_the_runs_say():
    """One false positive, in a case without the label, counts in that run alone."""
    nan = float("nan")

    def rows(name, *of_cases):
        return [
            row(case, "shift", name, dice, severity=severity)
            for case, of_severities in zip("ab", of_cases)
            for severity, dice in enumerate(of_severities, 1)
        ]

    made = [row(case, "clean", "clean", dice) for case, dice in (("a", 0.9), ("b", nan))]
    made += rows("gamma", [0.9] * 5, [nan] * 4 + [0.0]) + rows("jpeg", [0.9] * 5, [nan] * 5)
    found = {(r["kind"], r["attack"], r["severity"]): r for r in records.summarise(made, seed=0)}
    severities = [found["shift", "gamma", s]["dice"] for s in range(1, 6)]
    assert severities == pytest.approx([0.9] * 4 + [0.45])
    gamma, everything = (
        found[key] for key in (("shift_mean", "gamma", None), ("shifts_mean", "all shifts", None))
    )
    assert gamma["dice"] == pytest.approx(np.mean(severities))
    assert gamma["labels"]["1"]["dice"] == pytest.approx(gamma["dice"])
    assert everything["dice"] == pytest.approx(np.mean([*severities, *[0.9] * 5]))
    assert everything["drop"] == pytest.approx(0.9 - everything["dice"])
    assert everything["dice_low"] <= everything["dice"] <= everything["dice_high"]


def test_a_case_that_fewer_trainings_have_counts_as_much_as_any():
    rows = [row("a", "clean", "clean", 0.8), row("b", "clean", "clean", 0.4)]
    table = Table([*rows, row("a", "clean", "clean", 0.6)])
    values = table.values("dice", table.clean)
    assert values[:, :, 0].tolist() == [[0.8, 0.4], [0.6, 0.4]]
    assert mean_over_cases(values) == pytest.approx((0.7 + 0.4) / 2)
