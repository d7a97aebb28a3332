"""Laws of means, intervals and tests."""

import numpy as np
import pytest
from scipy import stats

from evaluation import significance


def test_mean_is_nnunets():
    values = np.array([[0.5, np.nan], [0.7, 0.2], [0.9, np.nan]])
    assert significance.mean_over_cases(values) == pytest.approx(
        (0.7 + 0.2) / 2
    )  # per label first: not the mean of all four
    assert np.isnan(significance.mean_over_cases(np.full((3, 1), np.nan)))


def test_interval_is_the_bootstrap_of_scipy():
    values = np.random.default_rng(0).normal(0.6, 0.1, 25)
    ours = significance.interval(
        values[:, None], significance.resample(25, seed=1, resamples=20000)
    )
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_paired_interval_is_narrower_than_the_spread_of_cases():
    rng = np.random.default_rng(0)
    a = rng.normal(0.5, 0.2, (30, 1))
    draws = significance.resample(30, seed=0)
    low, high = significance.difference_interval(a + 0.05, a, draws)
    assert low == pytest.approx(0.05) and high == pytest.approx(0.05)
    assert np.diff(significance.interval(a, draws))[0] > 0.1


def test_sign_flip_test_is_exact_for_few_cases():
    # of 2^6 sign patterns, the observed one and its mirror image are the most extreme
    assert significance.sign_flip_test(np.array([1, 2, 3, 4, 5, 6.0]), seed=0) == pytest.approx(
        2 / 64
    )
    assert significance.sign_flip_test(np.array([1, -1, 2, -2.0]), seed=0) == 1
    assert significance.sign_flip_test(np.zeros(5), seed=0) == 1
    assert significance.sign_flip_test(
        np.array([np.nan, 1, 2, 3, 4, 5, 6]), seed=0
    ) == pytest.approx(2 / 64)


def test_holm_by_hand():
    # Holm (1979): smallest p times 4, next times 3, ..., never falling
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.7]) == [1, 1]
    assert significance.holm([]) == []
