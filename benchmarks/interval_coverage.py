"""Do 95% intervals cover 95%, and does p < 0.05 come up in 5% of the nulls? By simulation.

    python -m benchmarks.interval_coverage [--repeats 4000] [-o FILE.json]

The truth is known: differences of Dice whose mean is 0. A case's difference under a training is
T (of the training) + P (of the patient) + C (of the case) + E (of both), with var P + var C = 1,
var P = ICC, and var E = 0.25; var T is varied. Trainings and cases are crossed, as in a comparison.

`groups`: one training, over cases as before groups were known, and over groups. `trainings`:
several trainings, over both levels. That interval is a closed form where nothing is undefined and
patients have as many cases each; `agreement` measures that the code that reports use gives the
same, and `percentiles` what its draws would cover by themselves.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evaluation import significance
from evaluation.trainings import TwoLevelDraws, estimate, mean_figure
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.markdown import markdown_table

TRAININGS = (2, 3, 5, 10)
PATIENTS = (10, 20, 40)
SLICES = (1, 2, 4)
ICC = (0.0, 0.3, 0.7)
SHARES = (0.0, 0.02, 0.1, 0.5)
"""var T, as a multiple of the variance between cases."""
FEW_PATIENTS = (4, 5, 6, 8)
INTERACTION = 0.25
KINDS = ("normal", "skewed")
NULL = {"patients": 10, "slices": 4, "icc": 0.7}
"""The null of the issue: what p and intervals over cases make of it."""
ALPHA = 1 - significance.COVERAGE

Cell = dict[str, Any]


def simulate(
    rng: np.random.Generator,
    repeats: int,
    *,
    patients: int,
    slices: int,
    icc: float,
    trainings: int = 1,
    share: float = 0.0,
    interaction: float = INTERACTION,
    kind: str = "normal",
    effects: np.ndarray | None = None,
) -> np.ndarray:
    """Differences whose true mean is 0, (repeats, trainings, patients, slices).

    Parameters
    ----------
    rng
        What is drawn from.
    repeats, trainings, patients, slices
        How many.
    icc, share, interaction
        Variances, as the module says.
    kind
        Of P and C: normal, or skewed (exponential, skewness 2).
    effects
        P + C of another arm on the same cases, (repeats, 1, patients, slices); None: drawn.
    """

    def drawn(*shape: int) -> np.ndarray:
        if kind == "skewed":
            return rng.exponential(size=(repeats, *shape)) - 1
        return rng.standard_normal((repeats, *shape))

    if effects is None:
        effects = np.sqrt(icc) * drawn(1, patients, 1) + np.sqrt(1 - icc) * drawn(
            1, patients, slices
        )
    of_trainings = rng.standard_normal((repeats, trainings, 1, 1))
    rest = rng.standard_normal((repeats, trainings, patients, slices))
    return np.sqrt(share) * of_trainings + effects + np.sqrt(interaction) * rest


def covered_by_groups(values: np.ndarray, *, seed: int = 0, resamples: int = 1000) -> Cell:
    """Shares of (repeats, patients, slices) whose intervals hold 0: over cases, over groups."""
    repeats, patients, slices = values.shape
    groups = np.repeat(np.arange(patients), slices)
    draws = {
        "cases": (significance.resample(groups.size, seed=seed, resamples=resamples), ALPHA),
        "groups": (
            significance.resample(groups.size, seed=seed, resamples=resamples, groups=groups),
            1 - significance.coverage_of(patients),
        ),
    }
    covered = {}
    for name, (drawn, alpha) in draws.items():
        low, high = intervals(values.reshape(repeats, -1), drawn, alpha)
        covered[name] = float(np.mean((low <= 0) & (high >= 0)))
    return covered


def intervals(values: np.ndarray, draws: np.ndarray, alpha: float) -> np.ndarray:
    """`significance.interval` of each of (repeats, cases), all at once: (2, repeats)."""
    means = values @ (draws / draws.sum(1, keepdims=True)).T
    return np.percentile(means, [50 * alpha, 100 - 50 * alpha], axis=1)


def rejected(values: np.ndarray) -> Cell:
    """Shares of (repeats, patients, slices) with p < 0.05: swapping cases, swapping groups."""
    repeats, patients, slices = values.shape
    groups = np.repeat(np.arange(patients), slices)
    found = dict.fromkeys(("cases", "groups"), 0)
    for i, value in enumerate(values.reshape(repeats, -1, 1)):
        for name, of in (("cases", None), ("groups", groups)):
            p = significance.swap_test(value, np.zeros_like(value), seed=i, groups=of)
            found[name] += p < ALPHA
    return {name: count / repeats for name, count in found.items()}


def half_widths(*arms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The estimate of one arm, or of the difference of two unpaired ones, and its half width.

    Closed form of `evaluation.trainings.estimate`.

    Parameters
    ----------
    arms
        (repeats, trainings, patients) each, means over a patient's cases.

    Returns
    -------
    tuple
        (repeats,) each.
    """
    signs = (1, -1)
    patients = arms[0].shape[2]
    of_patients = sum(sign * arm.mean(1) for sign, arm in zip(signs, arms))
    variances = [np.var(of_patients, axis=1, ddof=1) / patients]
    freedoms = [patients - 1]
    for arm in arms:
        count = arm.shape[1]
        of_training = arm.mean(2, keepdims=True)
        rest = arm - of_training - arm.mean(1, keepdims=True) + arm.mean((1, 2), keepdims=True)
        both = (rest**2).sum((1, 2)) / ((count - 1) * (patients - 1)) / (count * patients)
        alone = of_training.var(1, ddof=1)[:, 0] / count
        variances.append(np.maximum(alone - both, 0))
        freedoms.append(count - 1)
    weighted = np.array(variances).T
    quantile = weighted @ stats.t.isf(ALPHA / 2, freedoms) / weighted.sum(1)
    return of_patients.mean(1), quantile * np.sqrt(weighted.sum(1))


def agreement(rng: np.random.Generator, count: int = 40) -> float:
    """Largest relative difference of half widths between the closed form and the code."""
    found = []
    for i in range(count):
        trainings, slices = TRAININGS[i % len(TRAININGS)], SLICES[i % len(SLICES)]
        shape = {"patients": 10 + i, "slices": slices, "trainings": trainings}
        values = simulate(rng, 1, icc=0.3, share=0.2, **shape)[0]
        _, expected = half_widths(values.mean(2)[None])
        groups = np.repeat(np.arange(shape["patients"]), slices)
        draws = TwoLevelDraws.of(groups, seed=i, resamples=20_000)
        figure = mean_figure(values.reshape(trainings, -1, 1))
        ours = estimate(figure, [trainings], draws, paired=True)
        found.append(abs((ours.high - ours.low) / 2 / expected[0] - 1))
    return float(max(found))


def covered_by_percentiles(values: np.ndarray, *, seed: int = 0, resamples: int = 1000) -> float:
    """What percentiles of the two-level draws cover; values: (repeats, trainings, patients, n)."""
    repeats, trainings, patients, slices = values.shape
    groups = np.repeat(np.arange(patients), slices)
    draws = TwoLevelDraws.of(groups, seed=seed, resamples=resamples)
    drawn = draws.trainings(trainings, 0)
    covered = 0
    for value in values.reshape(repeats, trainings, -1, 1):
        means = mean_figure(value)([drawn], draws.groups)
        low, high = np.percentile(means, [50 * ALPHA, 100 - 50 * ALPHA])
        covered += low <= 0 <= high
    return covered / repeats


def cells_of_groups(rng: np.random.Generator, repeats: int) -> list[Cell]:
    """One training: coverage over cases and over groups."""
    grid = [*itertools.product(PATIENTS, SLICES, ICC), *((n, 4, 0.7) for n in FEW_PATIENTS)]
    cells = []
    for kind, (patients, slices, icc) in itertools.product(KINDS, grid):
        what = {"kind": kind, "patients": patients, "slices": slices, "icc": icc}
        values = simulate(rng, repeats, interaction=0, **what)[:, 0]
        cells.append({**what, "covered": covered_by_groups(values)})
    return cells


def cells_of_trainings(rng: np.random.Generator, repeats: int) -> list[Cell]:
    """Several trainings: coverage of the interval over both levels, paired and unpaired."""
    cells = []
    for kind, trainings, patients, slices, icc, share in itertools.product(
        KINDS, TRAININGS, PATIENTS, SLICES, ICC, SHARES
    ):
        shape = {"patients": patients, "slices": slices, "icc": icc, "kind": kind}
        what = {**shape, "trainings": trainings, "share": share}
        values = simulate(rng, repeats, **what)
        other = simulate(rng, repeats, effects=np.zeros((1, 1, patients, slices)), **what)
        paired, unpaired = half_widths(values.mean(3)), half_widths(values.mean(3), other.mean(3))
        covered = {
            name: float(np.mean(np.abs(mean) <= half))
            for name, (mean, half) in (("paired", paired), ("unpaired", unpaired))
        }
        cells.append({**what, "covered": covered})
    return cells


def measure(repeats: int, seed: int = 0) -> dict[str, Any]:
    """Everything, with summaries; what takes the reports' code one by one, on fewer data sets."""
    rng = np.random.default_rng(seed)
    few = min(repeats, 1000)
    null = simulate(rng, repeats, interaction=0, **NULL)[:, 0]
    percentiles = [
        {
            "trainings": trainings,
            "covered": covered_by_percentiles(
                simulate(rng, few, patients=20, slices=2, icc=0.3, trainings=trainings, share=s)
            ),
            "share": s,
        }
        for trainings, s in itertools.product(TRAININGS, SHARES[2:])
    ]
    groups, trainings = cells_of_groups(rng, repeats), cells_of_trainings(rng, repeats)
    return {
        "null": {
            **NULL,
            "repeats_of_p": few,
            "p_below_0.05": rejected(null[:few]),
            "covered": covered_by_groups(null, resamples=significance.RESAMPLES),
        },
        "agreement": agreement(rng),
        "percentiles": percentiles,
        "summary": summaries(groups, trainings),
        "groups": groups,
        "trainings": trainings,
    }


def summaries(groups: list[Cell], trainings: list[Cell]) -> list[Cell]:
    """Least, mean and largest coverage over cells, and the share of cells from 93% to 97%."""
    found = []
    for kind in KINDS:
        of = [c for c in groups if c["kind"] == kind]
        for what in ("cases", "groups"):
            enough = [c["covered"][what] for c in of if c["patients"] >= PATIENTS[0]]
            found.append({"kind": kind, "over": what, "trainings": 1, **_summary(enough)})
        for n in FEW_PATIENTS:
            few = [c["covered"]["groups"] for c in of if c["patients"] == n]
            found.append({"kind": kind, "over": f"{n} groups", "trainings": 1, **_summary(few)})
        for n, what in itertools.product(TRAININGS, ("paired", "unpaired")):
            its = [c for c in trainings if (c["kind"], c["trainings"]) == (kind, n)]
            summary = _summary(c["covered"][what] for c in its)
            over = f"trainings, {what}, and groups"
            found.append({"kind": kind, "over": over, "trainings": n, **summary})
    return found


def _summary(covered: Iterable[float]) -> dict[str, float]:
    values = np.array(list(covered))
    return {
        "cells": len(values),
        "least": float(values.min()),
        "mean": float(values.mean()),
        "largest": float(values.max()),
        "from_93_to_97": float(np.mean((values >= 0.93) & (values <= 0.97))),
    }


def table(found: Mapping[str, Any]) -> str:
    """What is printed."""
    null = found["null"]
    rows = []
    for line in found["summary"]:
        shares = (f"{100 * line[k]:.1f}" for k in ("least", "mean", "largest", "from_93_to_97"))
        rows.append([line["kind"], line["over"], str(line["trainings"]), *shares])
    said = [
        f"null of {null['patients']} patients x {null['slices']} slices, ICC {null['icc']}: "
        + "; ".join(
            f"over {over} p < 0.05 in {100 * null['p_below_0.05'][over]:.1f}%, "
            f"intervals cover {100 * null['covered'][over]:.1f}%"
            for over in ("cases", "groups")
        ),
        f"half widths by the code and by the closed form: within {100 * found['agreement']:.1f}%",
        "percentiles of the two-level draws would cover "
        + ", ".join(
            f"{100 * p['covered']:.1f}% ({p['trainings']} trainings, var T {p['share']})"
            for p in found["percentiles"]
        ),
    ]
    columns = [
        "P and C",
        "over",
        "trainings",
        "least %",
        "mean %",
        "largest %",
        "in 93..97 %",
    ]
    return "\n".join([*said, "", markdown_table(columns, rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=4000, help="data sets per cell (4000)")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write JSON there")
    arguments = parser.parse_args()
    found = measure(arguments.repeats)
    print(table(found))
    if arguments.output:
        packages = ("numpy", "scipy", "nnunetv2_lngswr")
        record = {
            "date": date.today().isoformat(),
            "command": " ".join(["python", *sys.argv]),
            "versions": {p: version(p) for p in packages} | {"python": platform.python_version()},
            "repeats": arguments.repeats,
            "interaction": INTERACTION,
            **found,
        }
        write_file(arguments.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
