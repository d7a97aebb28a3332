"""Laws of intervals and tests over groups of cases, against SciPy and statsmodels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from benchmarks.interval_coverage import (
    NULL,
    covered_by_groups,
    intervals,
    rejected,
    simulate,
)
from evaluation import significance

GROUPS = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4])


def values(seed=0, labels=1):
    rng = np.random.default_rng(seed)
    return rng.normal(0.3, 0.2, (2, len(GROUPS), labels))


def test_groups_of_one_case_change_nothing():
    alone = np.arange(9)
    one, other = (significance.resample(9, seed=3, groups=g) for g in (None, alone))
    assert np.array_equal(one, other)
    a, b = values()
    p = significance.swap_test(a, b, seed=0)
    assert significance.swap_test(a, b, seed=0, groups=alone) == p


def test_whole_groups_are_drawn():
    draws = significance.resample(9, seed=0, groups=GROUPS)
    for group in range(5):
        of = draws[:, group == GROUPS]
        assert (of == of[:, :1]).all()
    first = [np.flatnonzero(g == GROUPS)[0] for g in range(5)]
    assert (draws[:, first].sum(1) == 5).all()


def test_the_swap_test_is_that_of_the_signs_of_the_groups_sums():
    for seed in range(4):
        a, b = values(seed)
        sums = np.bincount(GROUPS, (a - b)[:, 0])
        exact = np.mean(
            [
                abs(np.dot(signs, sums)) >= abs(sums.sum()) - 1e-12
                for signs in itertools.product((-1, 1), repeat=5)
            ]
        )
        assert significance.swap_test(a, b, seed=0, groups=GROUPS) == pytest.approx(exact)


def test_a_single_group_says_nothing():
    a, b = values()
    assert significance.swap_test(a + 1, b, seed=0, groups=np.zeros(9, int)) == 1
    # nor do groups whose cases are all undefined
    a[GROUPS > 0] = b[GROUPS > 0] = np.nan
    assert significance.swap_test(a + 1, b, seed=0, groups=GROUPS) == 1


def test_copies_of_a_case_make_no_interval_narrower():
    rng = np.random.default_rng(0)
    once = rng.normal(0, 1, (12, 1))
    copied = np.repeat(once, 5, axis=0)
    groups = np.repeat(np.arange(12), 5)
    coverage = significance.coverage_of(12)
    alone = significance.interval(once, significance.resample(12, seed=1), coverage=coverage)
    draws = significance.resample(60, seed=1, groups=groups)
    assert significance.interval(copied, draws, coverage=coverage) == pytest.approx(alone)


def test_percentiles_lie_as_far_out_as_students_t():
    # Hesterberg 2015: for normal groups the interval is the one of t, up to the draws' chance
    for count in (10, 40):
        sample = np.random.default_rng(count).normal(size=(count, 1))
        draws = significance.resample(count, seed=0, resamples=40_000, groups=np.arange(count))
        low, high = significance.interval(sample, draws, coverage=significance.coverage_of(count))
        half = stats.t.ppf(0.975, count - 1) * stats.sem(sample[:, 0])
        assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    wide = [significance.coverage_of(n) for n in (2, 3, 10, 40, 10**6)]
    assert wide == sorted(wide, reverse=True) and wide[-1] == pytest.approx(0.95, abs=1e-5)
    assert significance.coverage_of(1) == 1


def test_the_benchmark_takes_the_intervals_of_the_reports():
    draws = significance.resample(9, seed=0, groups=GROUPS)
    sample = values()[:, :, 0]
    found = intervals(sample, draws, 0.05)
    for i in range(2):
        assert tuple(found[:, i]) == pytest.approx(significance.interval(sample[i, :, None], draws))


def test_a_null_of_patients_is_a_null():
    """10 patients x 4 slices, ICC .7: over slices p < .05 in 28%, and 70% are covered."""
    null = simulate(np.random.default_rng(0), 1500, interaction=0, **NULL)[:, 0]
    covered = covered_by_groups(null)
    assert covered["cases"] == pytest.approx(0.70, abs=0.04)
    assert 0.93 <= covered["groups"] <= 0.97
    found = rejected(null[:100])
    assert 0.2 <= found["cases"] <= 0.4 and found["groups"] <= 0.1


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values):
    expected = multipletests(p_values, method="holm")[1]
    assert significance.holm(p_values) == pytest.approx(expected.tolist())
