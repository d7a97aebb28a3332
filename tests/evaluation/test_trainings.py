"""Laws of the figures over trainings and groups, against closed forms and a mixed model."""

import itertools

import numpy as np
import pandas
import pytest
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM

from benchmarks.interval_coverage import agreement, half_widths, simulate
from evaluation import significance
from evaluation.trainings import (
    TwoLevelDraws,
    difference_figure,
    estimate,
    mean_figure,
    mean_over_trainings,
    reduction_figure,
)


def draws_of(cases, *, per_group=1, seed=0, resamples=2000):
    return TwoLevelDraws.of(
        np.repeat(np.arange(cases // per_group), per_group), seed=seed, resamples=resamples
    )


def absent(seed=0, trainings=3, cases=7, labels=3):
    rng = np.random.default_rng(seed)
    values = rng.uniform(size=(trainings, cases, labels))
    values[rng.uniform(size=values.shape) < 0.3] = np.nan
    return values


def test_the_figure_is_the_mean_of_each_trainings_where_labels_are_absent():
    for seed in range(5):
        values = absent(seed)
        expected = np.mean([significance.mean_over_cases(of) for of in values])
        found = mean_over_trainings(values, np.ones((1, 3)), np.ones((1, 7)))
        assert found == pytest.approx([expected])
        # a training drawn twice and another not at all is what it says
        drawn = mean_over_trainings(values, np.array([[2.0, 0, 1]]), np.ones((1, 7)))
        again = mean_over_trainings(values[[0, 0, 2]], np.ones((1, 3)), np.ones((1, 7)))
        assert drawn == pytest.approx(again)


def test_the_interval_is_its_closed_form():
    assert agreement(np.random.default_rng(0), 8) < 0.03


def test_variances_of_the_levels_are_those_of_a_mixed_model():
    trainings, groups = 6, 14
    rng = np.random.default_rng(3)
    values = simulate(rng, 1, patients=groups, slices=1, icc=1.0, trainings=trainings, share=0.5)
    values = values[0, :, :, 0]
    number = np.indices(values.shape).reshape(2, -1)
    table = pandas.DataFrame({"y": values.ravel(), "s": number[0], "p": number[1], "all": 0})
    parts = {"s": "0 + C(s)", "p": "0 + C(p)"}
    fitted = MixedLM.from_formula("y ~ 1", groups="all", vc_formula=parts, data=table).fit()
    of = dict(zip(sorted(parts), fitted.vcomp))
    found = estimate(
        mean_figure(values[:, :, None]),
        [trainings],
        draws_of(groups, resamples=40_000),
        paired=True,
    )
    assert found.value == pytest.approx(float(fitted.fe_params.iloc[0]))
    assert found.se_trainings**2 == pytest.approx(of["s"] / trainings, rel=0.05)
    expected = of["p"] / groups + fitted.scale / (trainings * groups)
    assert found.se_groups**2 == pytest.approx(expected, rel=0.05)
    assert found.se_trainings**2 + found.se_groups**2 == pytest.approx(
        fitted.bse.iloc[0] ** 2, rel=0.05
    )


def test_pairing_takes_out_what_a_seed_does_to_both_arms():
    rng = np.random.default_rng(0)
    of_seed = rng.normal(0, 1, (5, 1, 1))
    base = of_seed + rng.normal(0, 0.1, (5, 20, 1))
    arm = base + 0.3 + rng.normal(0, 0.02, base.shape)
    figure, draws = difference_figure(arm, base), draws_of(20)
    paired, apart = (estimate(figure, [5, 5], draws, paired=p) for p in (True, False))
    assert paired.value == apart.value == pytest.approx(0.3, abs=0.02)
    assert paired.se_trainings < 0.02 < 0.2 < apart.se_trainings
    # Welch's standard error, where the arms' trainings are independent
    of_arms = [np.var(v.mean((1, 2)), ddof=1) / 5 for v in (arm, base)]
    assert apart.se_trainings == pytest.approx(np.sqrt(sum(of_arms)), rel=0.05)


def test_a_single_level_is_students_t():
    rng = np.random.default_rng(1)
    of_groups = rng.normal(0.2, 1, (1, 15, 1)).repeat(4, axis=0)
    draws = draws_of(15, resamples=40_000)
    found = estimate(mean_figure(of_groups), [4], draws, paired=True)
    expected = stats.ttest_1samp(of_groups[0, :, 0], 0)
    assert found.se_trainings == pytest.approx(0, abs=1e-9)
    assert found.p == pytest.approx(expected.pvalue, abs=0.01)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.02)


def test_p_and_interval_say_the_same():
    rng = np.random.default_rng(2)
    draws = draws_of(12, resamples=300)
    for shift in (0.1, 0.6, 1.0, 3.0):
        values = shift + simulate(rng, 1, patients=12, slices=1, icc=0.5, trainings=3, share=0.2)
        found = estimate(mean_figure(values[0]), [3], draws, paired=True)
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
        assert 0 < found.p <= 1


def test_a_share_of_the_drop_is_that_of_the_table_and_none_of_nothing():
    rng = np.random.default_rng(0)
    clean, base = np.full((3, 10, 1), 0.9), np.full((3, 10, 1), 0.9)
    dice = 0.7 + rng.normal(0, 0.01, clean.shape)
    attacked = 0.5 + rng.normal(0, 0.01, clean.shape)
    draws = draws_of(10)
    found = estimate(reduction_figure(clean, dice, base, attacked), [3, 3], draws, paired=True)
    expected = significance.drop_reduction(
        clean.mean(0), dice.mean(0), base.mean(0), attacked.mean(0), draws.groups
    )
    assert found.value == pytest.approx(expected[0])
    assert found.low < 0.5 < found.high < 0.6
    none = estimate(reduction_figure(clean, dice, base, base), [3, 3], draws, paired=True)
    assert np.isnan([none.value, none.low, none.high, none.p]).all()


def test_a_share_of_the_drop_is_of_the_trainings_and_cases_that_are_drawn():
    rng = np.random.default_rng(0)
    clean, base = (rng.uniform(0.8, 0.9, (count, 4, 1)) for count in (2, 3))
    dice, attacked = (rng.uniform(0.4, 0.7, (count, 4, 1)) for count in (2, 3))
    share = reduction_figure(clean, dice, base, attacked)
    for mine, its, case in itertools.product(range(2), range(3), range(4)):
        drawn = [np.eye(2)[[mine]], np.eye(3)[[its]]], np.eye(4)[[case]]
        drops = (clean - dice)[mine, case, 0], (base - attacked)[its, case, 0]
        assert share(*drawn) == pytest.approx(1 - drops[0] / drops[1])


@pytest.mark.parametrize("trainings", [3, 10])
def test_intervals_over_trainings_and_patients_cover_what_they_say(trainings):
    """By the code of the reports, on few data sets; its closed form, on many."""
    rng = np.random.default_rng(trainings)
    shape = {"patients": 12, "slices": 2, "icc": 0.3, "trainings": trainings, "share": 0.3}
    mean, half = half_widths(simulate(rng, 4000, **shape).mean(3))
    assert 0.93 <= np.mean(np.abs(mean) <= half) <= 0.98
    draws = draws_of(24, per_group=2, resamples=200)
    covered = []
    for values in simulate(rng, 150, **shape).reshape(150, trainings, 24, 1):
        found = estimate(mean_figure(values), [trainings], draws, paired=True)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(covered) >= 0.9
    # what percentiles over cases said of the same: that trainings do not matter
    before = [
        low <= 0 <= high
        for low, high in (
            significance.interval(v.mean(0), significance.resample(24, seed=0, resamples=200))
            for v in simulate(rng, 150, **shape).reshape(150, trainings, 24, 1)
        )
    ]
    assert np.mean(before) < 0.85
