"""How far a figure would vary over other trainings and other patients: a two-level bootstrap.

Trainings (seeds) and groups of cases are crossed: every training is evaluated on the same cases. So
trainings are drawn, groups are drawn, and both at once, with replacement; what both together do
beyond each alone is their interaction. From the spread of the draws follows the variance that each
level adds to the figure, freed of the (n - 1) / n by which draws of n fall short.

With three seeds, percentiles of such draws cover far less than 95% (benchmarks/
interval_coverage.py). The interval is therefore the figure plus or minus its standard error times
Student's t, each level's quantile (n - 1 degrees of freedom) weighted with the level's variance, as
Cochran and Cox do (1957, Experimental Designs, 4.14): with two seeds that differ it is wide, since
two seeds say little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from evaluation.significance import COVERAGE, RESAMPLES, resample, weighted_means

Weights = np.ndarray
"""(resamples, units) or (1, units): how often each is drawn."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure over trainings and groups."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of 'the figure is 0', of the same standard error and t as the interval."""
    se_trainings: float
    """Standard error that trainings add; the variance of the level is its square."""
    se_groups: float
    """Standard error that groups add, their interaction with trainings included."""


@dataclass(frozen=True, kw_only=True)
class TwoLevelDraws:
    """One set of draws for all figures of a table."""

    groups: Weights
    """(resamples, cases)."""
    count_of_groups: int
    seed: int

    @classmethod
    def of(cls, groups: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> TwoLevelDraws:
        """Draw groups.

        Parameters
        ----------
        groups
            (cases,), the number of each case's group, from 0.
        seed, resamples
            Of the draws, and how many.
        """
        drawn = resample(len(groups), seed=seed, resamples=resamples, groups=groups)
        return cls(groups=drawn, count_of_groups=int(groups.max()) + 1, seed=seed)

    def trainings(self, count: int, which: int) -> Weights:
        """(resamples, count), of the arm `which`: arms of one number are drawn alike."""
        rng = np.random.default_rng([self.seed, which + 1])
        return rng.multinomial(count, np.full(count, 1 / count), size=len(self.groups)) * 1.0


def mean_over_trainings(values: np.ndarray, trainings: Weights, cases: Weights) -> np.ndarray:
    """The mean over drawn trainings of each one's mean over drawn cases, which is nnU-Net's.

    Parameters
    ----------
    values
        (trainings, cases, labels) or (trainings, runs, cases, labels), nan where undefined.
    trainings, cases
        Weights, as many rows as each other, or one.

    Returns
    -------
    np.ndarray
        (resamples,); nan where no training that is drawn has a defined label.
    """
    means = np.stack([weighted_means(of_training, cases) for of_training in values], 1)
    known = ~np.isnan(means)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (trainings * np.where(known, means, 0)).sum(1) / (trainings * known).sum(1)


Figure = Callable[[Sequence[Weights], Weights], np.ndarray]
"""(weights of each arm's trainings, weights of cases) -> (resamples,)."""


def estimate(
    figure: Figure, trainings: Sequence[int], draws: TwoLevelDraws, *, paired: bool
) -> Estimate:
    """A figure with its interval over trainings and groups.

    Parameters
    ----------
    figure
        What is estimated.
    trainings
        How many each arm has, at least two.
    draws
        Of groups.
    paired
        The arms have the same seeds, in the same order: a training is drawn in all arms at once.

    Returns
    -------
    Estimate
        nan throughout where the figure, or too much of what is drawn, is undefined.
    """
    single = [np.ones((1, count)) for count in trainings]
    one_case_each = np.ones((1, draws.groups.shape[1]))
    value = float(figure(single, one_case_each)[0])
    of_groups = figure(single, draws.groups)
    groups = draws.count_of_groups
    variances = [_variance(of_groups - value, groups)]
    freedoms = [groups - 1]
    for arms in [range(len(trainings))] if paired else [[i] for i in range(len(trainings))]:
        count = trainings[arms[0]]
        drawn = draws.trainings(count, arms[0])
        weights = [drawn if i in arms else w for i, w in enumerate(single)]
        of_trainings = figure(weights, one_case_each)
        together = figure(weights, draws.groups) - of_trainings - of_groups + value
        interaction = _variance(together, groups, count)
        variances.append(max(_variance(of_trainings - value, count) - interaction, 0.0))
        freedoms.append(count - 1)
    return _estimate(value, np.array(variances), np.array(freedoms))


def mean_figure(values: np.ndarray) -> Figure:
    """The mean of one arm; values as in `mean_over_trainings`."""
    return lambda trainings, cases: mean_over_trainings(values, trainings[0], cases)


def difference_figure(a: np.ndarray, b: np.ndarray) -> Figure:
    """mean(a) - mean(b), of two arms."""

    def difference(trainings: Sequence[Weights], cases: Weights) -> np.ndarray:
        mean = mean_over_trainings
        return mean(a, trainings[0], cases) - mean(b, trainings[1], cases)

    return difference


def reduction_figure(
    clean: np.ndarray, dice: np.ndarray, of_clean: np.ndarray, of_dice: np.ndarray
) -> Figure:
    """By what share a drop is smaller than another arm's, as `significance.drop_reduction`.

    nan where the other drop is not positive.
    """
    drop, of_drop = difference_figure(clean, dice), difference_figure(of_clean, of_dice)

    def share(trainings: Sequence[Weights], cases: Weights) -> np.ndarray:
        mine = drop([trainings[0]] * 2, cases)
        other = of_drop([trainings[1]] * 2, cases)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(other > 0, 1 - mine / other, np.nan)

    return share


def _variance(deviations: np.ndarray, *counts: int) -> float:
    """Variance of what is drawn, times n / (n - 1) for each n drawn of.

    nan where more than 2.5% of the draws are undefined.
    """
    defined = deviations[~np.isnan(deviations)]
    if defined.size < (1 + COVERAGE) / 2 * deviations.size:
        return float("nan")
    factor = np.prod([count / (count - 1) for count in counts])
    return float(np.var(defined) * factor)


def _estimate(value: float, variances: np.ndarray, freedoms: np.ndarray) -> Estimate:
    """The first variance is the groups'."""
    total = float(variances.sum())
    if np.isnan(value) or np.isnan(total):
        nan = float("nan")
        return Estimate(value=nan, low=nan, high=nan, p=nan, se_trainings=nan, se_groups=nan)
    error = float(np.sqrt(total))

    def quantile(tail: float) -> float:
        if not total:
            return 0.0
        return float(variances @ stats.t.isf(tail, freedoms) / total)

    half = quantile((1 - COVERAGE) / 2) * error
    return Estimate(
        value=value,
        low=value - half,
        high=value + half,
        p=_two_sided(abs(value), error, quantile),
        se_trainings=float(np.sqrt(variances[1:].sum())),
        se_groups=float(np.sqrt(variances[0])),
    )


def _two_sided(size: float, error: float, quantile: Callable[[float], float]) -> float:
    """The p at which the interval of coverage 1 - p ends at 0."""
    if not error:
        return 1.0 if not size else 0.0
    least = 1e-12
    if quantile(least) * error <= size:
        return 2 * least
    beyond = optimize.root_scalar(lambda t: quantile(t) * error - size, bracket=(least, 0.5))
    return 2 * float(beyond.root)
