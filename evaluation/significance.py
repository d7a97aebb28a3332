"""Means over cases as nnU-Net takes them, bootstrap intervals, and paired tests between models.

Values are (cases, labels), nan where a metric is undefined. The mean is nnU-Net's: per label over
the cases that define it, then over labels. Where values are (runs, cases, labels), such as the
severities of a corruption, it is the mean of the runs' means: what one run invents of a label that
a case lacks counts in that run alone. Intervals are percentile intervals over resampled cases;
two models resampled with the same draws are paired. They say how much the figure would vary over
other cases like these; they know nothing of training again (trainings.py does). Where cases share a
patient, whole groups of cases are drawn and swapped, and the percentiles lie further out, as few
groups need it.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from nnunetv2_lngswr.utils.errors import UserError

RESAMPLES = 2000
PERMUTATIONS = 9999
SIGNS_AT_A_TIME = 10**6  # of a permutation test, for its memory
STATISTIC_DIGITS = 12
"""Of a permuted statistic: sums in another order differ by 1e-16, and SciPy takes what is lower by
so little for less than what was observed, the observed one itself included."""
COVERAGE = 0.95


def mean_over_cases(values: np.ndarray) -> float:
    """nnU-Net's foreground mean of (cases, labels); nan where no label is defined in any case.

    Of (runs, cases, labels) the mean over the runs that have one. It is what every mean,
    difference, interval and p value of a table is about.
    """
    return float(weighted_means(values, np.ones((1, values.shape[-2])))[0])


def resample(
    cases: int, *, seed: int, resamples: int = RESAMPLES, groups: np.ndarray | None = None
) -> np.ndarray:
    """Draw cases with replacement; one seed gives one set of draws.

    Parameters
    ----------
    cases
        How many there are.
    seed, resamples
        Of the draws, and how many.
    groups
        (cases,), the number of each case's group, from 0: whole groups are drawn. None: each case
        by itself.

    Returns
    -------
    np.ndarray
        (resamples, cases): how often each case is drawn.

    Raises
    ------
    UserError
        Fewer than one case.
    """
    if cases < 1:
        raise UserError(f"cases must be >= 1, got {cases}")
    units = cases if groups is None else int(groups.max()) + 1
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)
    return draws if groups is None else draws[:, groups]


def method(over: str) -> str:
    """How intervals were taken, in a report's words."""
    return f"95% expanded percentile bootstrap over {over}, {RESAMPLES} resamples"


def coverage_of(drawn: int) -> float:
    """Between which percentiles 95% lie where so many cases, or groups of them, were drawn.

    Hesterberg's expanded percentiles (2015, The American Statistician 69, 371): as far out as
    Student's t lies beyond the normal, and the spread of the draws below that of what is drawn.
    Measured, the plain percentiles cover 89% at 10 groups and these 94%
    (benchmarks/interval_coverage.py).
    """
    if drawn < 2:
        return 1.0
    quantile = stats.t.ppf((1 + COVERAGE) / 2, drawn - 1) * np.sqrt(drawn / (drawn - 1))
    return float(2 * stats.norm.cdf(quantile) - 1)


def interval(
    values: np.ndarray, draws: np.ndarray, *, coverage: float = COVERAGE
) -> tuple[float, float]:
    """95% percentile interval of the mean.

    Parameters
    ----------
    values
        (cases, labels) or (runs, cases, labels).
    draws
        Of `resample`.
    coverage
        Between which percentiles, `coverage_of`.

    Returns
    -------
    tuple
        (low, high); (nan, nan) where undefined.
    """
    return percentiles(weighted_means(values, draws), coverage)


def difference_interval(
    a: np.ndarray,
    b: np.ndarray,
    draws: np.ndarray,
    draws_of_b: np.ndarray | None = None,
    *,
    coverage: float = COVERAGE,
) -> tuple[float, float]:
    """95% interval of mean(a) - mean(b), as `interval`.

    Parameters
    ----------
    a, b
        (cases, labels) or (runs, cases, labels).
    draws
        Of `resample`, of the cases of `a`.
    draws_of_b
        Of other cases, as many; None: `b` is of the same cases, and the same are drawn in both.
    coverage
        As in `interval`.
    """
    of_b = draws if draws_of_b is None else draws_of_b
    return percentiles(weighted_means(a, draws) - weighted_means(b, of_b), coverage)


def drop_reduction(
    clean: np.ndarray,
    dice: np.ndarray,
    of_clean: np.ndarray,
    of_dice: np.ndarray,
    draws: np.ndarray,
    *,
    coverage: float = COVERAGE,
) -> tuple[float, float, float]:
    """By what share a drop is smaller than another: 1 - (clean - dice) / (of_clean - of_dice).

    Parameters
    ----------
    clean, dice
        (cases, labels) or (runs, cases, labels), of the drop.
    of_clean, of_dice
        Likewise, of the other drop.
    draws
        Of `resample`; the same cases are drawn in all four.
    coverage
        As in `interval`.

    Returns
    -------
    tuple
        The share with its 95% interval; (nan, nan, nan) where the other drop is not itself positive
        in 97.5% of the draws: a share of nothing.
    """
    everything = np.vstack([np.ones(draws.shape[1]), draws])
    drop = weighted_means(clean, everything) - weighted_means(dice, everything)
    other = weighted_means(of_clean, everything) - weighted_means(of_dice, everything)
    if not other[0] > 0 or not np.mean(other[1:] > 0) > 1 - (1 - COVERAGE) / 2:
        return float("nan"), float("nan"), float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(other > 0, 1 - drop / other, np.nan)
    return float(share[0]), *percentiles(share[1:], coverage)


def swap_test(
    values: np.ndarray, of_other: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> float:
    """Two-sided p of 'within a case it makes no difference which model is which'.

    The statistic is the difference that the tables show, mean_over_cases(values) -
    mean_over_cases(of_other); it is compared with what it becomes where the models are swapped in
    some of the cases, all labels of a case at once. With every label defined in every case that is
    the test over the signs of the cases' mean differences. By SciPy, exact for few cases.

    Parameters
    ----------
    values, of_other
        (cases, labels) or (runs, cases, labels), the same in one order. Cases without a defined
        label in either are left out.
    seed
        Of the permutations, where there are more than PERMUTATIONS.
    groups
        (cases,), the number of each case's group: the models are swapped in all cases of a group at
        once, which is the test over the signs of the groups' summed differences. None: each case by
        itself.

    Returns
    -------
    float
        1.0 where nothing differs, where the difference is undefined and for a single case or group.
    """
    a, b = _runs_of_both(values, of_other)
    known = np.flatnonzero(~(np.isnan(a).all((0, 2)) & np.isnan(b).all((0, 2))))
    a, b = a[:, known], b[:, known]
    units, group = np.unique(known if groups is None else groups[known], return_inverse=True)
    count = len(units)
    # in units of the largest value, so that equal statistics can be rounded to be equal
    largest = np.nanmax(np.abs([a, b]), initial=0)
    a, b = (values / largest if largest > 0 else values for values in (a, b))
    observed = np.round(mean_over_cases(a) - mean_over_cases(b), STATISTIC_DIGITS)
    if count < 2 or np.isnan(observed) or np.array_equal(a, b, equal_nan=True):
        return 1.0

    def difference(signs: np.ndarray, axis: int) -> np.ndarray:
        # +1: the group stays as it is, -1: it is swapped
        kept = (np.moveaxis(signs, axis, -1).reshape(-1, count) > 0).astype(np.float64)
        kept = kept if groups is None else kept[:, group]
        taken = np.hstack([kept, 1 - kept])
        found = weighted_means(np.concatenate([a, b], 1), taken)
        other = weighted_means(np.concatenate([b, a], 1), taken)
        found = np.round(found - other, STATISTIC_DIGITS)
        # a swap after which a model has no label left counts against a difference
        found[np.isnan(found)] = observed
        return found.reshape(signs.shape[:-1])

    test = stats.permutation_test(
        (np.ones(count),),
        difference,
        permutation_type="samples",
        n_resamples=PERMUTATIONS,
        batch=max(1, SIGNS_AT_A_TIME // count),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (Holm 1979), in the given order."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def add_holm(
    records: Sequence[MutableMapping[str, Any]], *, p: str = "p", corrected: str = "p_holm"
) -> None:
    """Fill in `corrected` where a record has a `p`, over all of these: one family of tests."""
    tested = [r for r in records if r.get(p) is not None and not np.isnan(r[p])]
    for record, adjusted in zip(tested, holm([r[p] for r in tested])):
        record[corrected] = adjusted


def weighted_means(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """`mean_over_cases` of each draw of `resample`, (resamples,); nan where none is defined."""
    means = np.stack([_of_run(run, draws) for run in _with_runs(values)])
    known = ~np.isnan(means)
    with np.errstate(invalid="ignore"):
        return np.where(known, means, 0).sum(0) / known.sum(0)


def _of_run(values: np.ndarray, draws: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        per_label = (draws @ np.where(defined, values, 0)) / (draws @ defined)
        known = ~np.isnan(per_label)
        return np.where(known, per_label, 0).sum(1) / known.sum(1)


def _runs_of_both(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """(runs, cases, labels) of as many runs, each counted as often: run by run they are swapped."""
    both = [of[None] if of.ndim == 2 else of for of in (np.asarray(a), np.asarray(b))]
    runs = math.lcm(*map(len, both))
    as_many = [np.repeat(of, runs // len(of), axis=0) for of in both]
    return np.split(_with_runs(np.concatenate(as_many, 1)), 2, axis=1)


def _with_runs(values: np.ndarray) -> np.ndarray:
    """(runs, cases, labels); runs that define the same are one, their mean, which is quicker."""
    values = np.asarray(values, np.float64)
    if values.ndim == 2:
        return values[None]
    same = (np.isnan(values) == np.isnan(values[0])).all()
    return values.mean(0, keepdims=True) if same else values


def percentiles(samples: np.ndarray, coverage: float) -> tuple[float, float]:
    """The percentile interval of what is defined of (resamples,); nan where nothing is."""
    samples = samples[~np.isnan(samples)]
    if not samples.size:
        return float("nan"), float("nan")
    low, high = np.percentile(samples, [50 * (1 - coverage), 50 * (1 + coverage)])
    return float(low), float(high)
