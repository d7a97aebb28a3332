"""Laws of means, intervals and tests."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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


def _p(difference):
    """Of one label whose cases differ by so much."""
    difference = np.asarray(difference, np.float64)[:, None]
    return significance.swap_test(difference, 0 * difference, seed=0)


def test_swap_test_is_exact_for_few_cases():
    # of 2^6 sign patterns, the observed one and its mirror image are the most extreme
    assert _p([1, 2, 3, 4, 5, 6.0]) == pytest.approx(2 / 64)
    assert _p([1, -1, 2, -2.0]) == 1
    assert _p(np.zeros(5)) == 1
    assert _p([np.nan, 1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert _p([3.0]) == 1 and _p([np.nan]) == 1 and _p([]) == 1


def _values(*, cases, labels=3, absent=0.0, seed=0):
    """Of two models; both lack a label where the ground truth and both predictions do."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(size=(2, cases, labels))
    found[:, rng.uniform(size=(cases, labels)) < absent] = np.nan
    found[rng.uniform(size=found.shape) < absent / 4] = np.nan  # one of them alone
    return found


@pytest.mark.parametrize("cases", [2, 7, 13, 14, 40])
def test_with_all_labels_there_p_is_that_of_the_signs_of_the_cases_means(cases):
    for seed in range(3):
        a, b = _values(cases=cases, seed=seed)
        a += 0.15
        by_signs = stats.permutation_test(
            ((a - b).mean(1),),
            lambda v, axis: v.mean(axis=axis),
            permutation_type="samples",
            n_resamples=significance.PERMUTATIONS,
            rng=np.random.default_rng(seed),
        )
        assert significance.swap_test(a, b, seed=seed) == float(by_signs.pvalue)


def test_p_is_of_the_difference_that_the_table_shows_where_labels_are_absent():
    for seed in range(4):
        a, b = _values(cases=6, absent=0.4, seed=seed)
        mean = significance.mean_over_cases
        observed = mean(a) - mean(b)
        swapped = []
        for swap in itertools.product([False, True], repeat=6):
            of_swap = np.array(swap)[:, None]
            one, other = np.where(of_swap, b, a), np.where(of_swap, a, b)
            swapped.append(mean(one) - mean(other))
        p = np.mean(np.abs(swapped) >= abs(observed) - 1e-12)
        assert significance.swap_test(a, b, seed=0) == pytest.approx(p)


@pytest.mark.parametrize("unit", [1, 1e-4, 3e3])
def test_p_of_small_differences_counts_what_ties(unit):
    """Sums in another order differ by 1e-16, which is no difference."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        b = rng.uniform(0.5, 0.9, (8, 2))
        a = b + (0.002 if seed % 2 else rng.uniform(0.001, 0.006, (8, 1)))
        a[: seed % 3] = b[: seed % 3] - 0.002
        differences = (a - b).mean(1)
        signs = np.array(list(itertools.product([1, -1], repeat=8)))
        swapped, observed = np.abs(signs @ differences), abs(differences.sum())
        p = np.mean(swapped >= observed - 1e-9)
        assert significance.swap_test(unit * a, unit * b, seed=0) == pytest.approx(p), seed


def test_a_difference_of_nothing_is_not_significant_where_labels_are_absent():
    # +0.02 in the label that every case has, -0.02 in the one that two of 20 have
    b = np.full((20, 2), 0.5)
    b[2:, 1] = np.nan
    a = b + np.array([0.02, -0.02])
    assert significance.mean_over_cases(a) - significance.mean_over_cases(b) == pytest.approx(0)
    assert significance.swap_test(a, b, seed=0) > 0.4  # the mean of the cases' means has 0.0002


same_seed = settings(max_examples=20, deadline=None, derandomize=True)


@same_seed
@given(seed=st.integers(0, 10**6), cases=st.integers(2, 9), absent=st.sampled_from([0, 0.3, 0.8]))
def test_order_and_sides_do_not_matter_to_p_and_mean(seed, cases, absent):
    a, b = _values(cases=cases, absent=absent, seed=seed)
    p = significance.swap_test(a, b, seed=1)
    assert 0 < p <= 1
    assert significance.swap_test(b, a, seed=1) == pytest.approx(p)
    rows, columns = np.random.default_rng(seed).permutation(cases), [2, 0, 1]
    assert significance.swap_test(a[rows][:, columns], b[rows][:, columns], seed=1) == p
    means = [significance.mean_over_cases(v) for v in (a, a[rows][:, columns])]
    assert means[0] == pytest.approx(means[1], nan_ok=True)
    empty = np.full((1, 3), np.nan)
    assert significance.swap_test(np.vstack([a, empty]), np.vstack([b, empty]), seed=1) == p


@same_seed
@given(seed=st.integers(0, 10**6), cases=st.integers(1, 12), absent=st.sampled_from([0, 0.4]))
def test_intervals_move_with_the_values_and_hold_them(seed, cases, absent):
    a, b = _values(cases=cases, absent=absent, seed=seed)
    draws = significance.resample(cases, seed=seed, resamples=200)
    assert (draws.sum(1) == cases).all()
    low, high = significance.interval(a, draws)
    if np.isnan(a).all():
        assert np.isnan([low, high]).all()
        return
    assert np.nanmin(a) - 1e-9 <= low <= high <= np.nanmax(a) + 1e-9
    assert significance.interval(2 * a + 1, draws) == pytest.approx((2 * low + 1, 2 * high + 1))
    around = significance.difference_interval(a, b, draws)
    back = significance.difference_interval(b, a, draws)
    assert around == pytest.approx((-back[1], -back[0]), nan_ok=True)
    assert significance.difference_interval(a, a, draws) == (0, 0)


@same_seed
@given(st.lists(st.floats(0, 1), max_size=8), st.randoms(use_true_random=False))
def test_holm_keeps_order_and_bounds_whatever_the_order_of_rows(p_values, random):
    adjusted = significance.holm(p_values)
    count = len(p_values)
    for p, more in zip(p_values, adjusted):
        assert p <= more <= min(1, count * p) + 1e-12
    pairs = sorted(zip(p_values, adjusted))
    assert [q for _, q in pairs] == sorted(adjusted)
    order = random.sample(range(count), count)
    again = significance.holm([p_values[i] for i in order])
    assert again == [adjusted[i] for i in order]


def test_holm_by_hand():
    # Holm (1979): smallest p times 4, next times 3, ..., never falling
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, 0.7]) == [1, 1]
    assert significance.holm([]) == []


def test_of_several_runs_every_figure_is_of_the_mean_of_their_means():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(size=(2, 4, 8, 2))
    a[1, 2:5, 0] = np.nan
    b[3, 0] = np.nan
    mean = significance.mean_over_cases
    means = [np.mean([mean(run) for run in of]) for of in (a, b)]
    assert [mean(of) for of in (a, b)] == pytest.approx(means)
    draws = significance.resample(8, seed=0, resamples=50)
    low, high = significance.difference_interval(a, b, draws)
    drawn = [
        np.mean([[mean(np.repeat(run, np.int64(d), axis=0)) for run in of] for of in (a, b)], 1)
        for d in draws
    ]
    expected = significance.percentiles(np.array([one - other for one, other in drawn]), 0.95)
    assert (low, high) == pytest.approx(expected)
    # exact: every way to swap the two models within cases
    statistics = []
    for signs in itertools.product([True, False], repeat=8):
        kept = np.array(signs)[None, :, None]
        statistics.append(mean(np.where(kept, a, b)) - mean(np.where(kept, b, a)))
    larger = np.abs(statistics) >= abs(statistics[0]) - 1e-12
    assert significance.swap_test(a, b, seed=0) == pytest.approx(larger.mean())


def test_runs_that_define_the_same_are_as_their_mean():
    rng = np.random.default_rng(4)
    a, b = rng.uniform(size=(2, 3, 9, 2))
    a[:, 4, 1] = np.nan
    draws = significance.resample(9, seed=0)
    assert significance.interval(a, draws) == pytest.approx(significance.interval(a.mean(0), draws))
    tests = [significance.swap_test(*of, seed=0) for of in ((a, b), (a.mean(0), b.mean(0)))]
    assert tests[0] == tests[1]


@pytest.mark.parametrize("counts", [(3, 3), (2, 3), (1, 3), (4, 2)])
def test_models_are_swapped_where_one_alone_defines_other_cases_in_some_runs(counts):
    """As where one invents a label in a single run, or was trained more often than the other."""
    rng = np.random.default_rng(5)
    a, b = (rng.uniform(size=(count, 7, 2)) for count in counts)
    b[-1, 2, 0] = np.nan
    runs = math.lcm(*counts)
    mean = significance.mean_over_cases
    many = [np.repeat(of, runs // len(of), axis=0) for of in (a, b)]
    statistics = []
    for signs in itertools.product([True, False], repeat=7):
        kept = np.array(signs)[None, :, None]
        statistics.append(mean(np.where(kept, *many)) - mean(np.where(kept, *many[::-1])))
    larger = np.abs(statistics) >= abs(statistics[0]) - 1e-12
    assert statistics[0] == pytest.approx(mean(a) - mean(b))
    assert significance.swap_test(a, b, seed=0) == pytest.approx(larger.mean())


def test_a_drop_reduction_is_the_share_and_its_interval_that_of_shares_drawn():
    rng = np.random.default_rng(0)
    clean, of_clean = rng.uniform(0.7, 0.9, (2, 30, 1))
    dice, of_dice = (
        clean - rng.uniform(0.0, 0.2, (30, 1)),
        of_clean - rng.uniform(0.1, 0.5, (30, 1)),
    )
    draws = significance.resample(30, seed=1)
    found = significance.drop_reduction(clean, dice, of_clean, of_dice, draws)
    drops, others = (clean - dice)[:, 0], (of_clean - of_dice)[:, 0]
    assert found[0] == pytest.approx(1 - drops.mean() / others.mean())
    shares = 1 - (draws @ drops) / (draws @ others)
    assert found[1:] == pytest.approx(np.percentile(shares, [2.5, 97.5]), abs=1e-9)


def test_a_share_of_a_drop_that_may_be_none_is_not_a_number():
    clean = np.full((10, 1), 0.8)
    dice = clean - np.array([0.3] + [-0.01] * 9)[:, None]  # positive unless the first is not drawn
    draws = significance.resample(10, seed=0)
    share = np.mean(draws @ (clean - dice)[:, 0] > 0)
    assert 0.5 < share < 0.9
    assert np.isnan(significance.drop_reduction(clean, dice, clean, dice, draws)).all()
