"""A model's trainings: which OUT folders are one training of it, and which have the same seed.

Folders of one seed are its folds; folders with the same cases are seeds. Each training must have
all cases, or nothing is said of training again. The seed is that of the plans' "lngswr" entry,
which the summary holds; of folders from before it did, that of the benchmark's names of plans.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.rows import Row

BENCHMARK_PLANS = re.compile(r"lngswrBenchmarkSeed(\d+)(?!\d)")
"""As `lngswr benchmark robustness` names the plans of a seed."""


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One training of a model, of all its folds."""

    seed: int | None
    """None: not known."""
    rows: Sequence[Row]
    """As cases.csv, of all cases."""


def seed_of(summary: Mapping[str, Any]) -> int | None:
    """The seed of the training that a summary is about; None where it does not say."""
    model = summary["model"]
    seed = model.get("training_seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        return seed
    named = BENCHMARK_PLANS.match(str(model.get("plans")))
    return int(named[1]) if named else None


def replicates_of(
    parts: Sequence[tuple[int | None, Sequence[str], Sequence[Row]]], cases: Sequence[str]
) -> tuple[Replicate, ...]:
    """The trainings of a model, by its folders.

    Parameters
    ----------
    parts
        Of each folder: its seed, its cases and its rows.
    cases
        Of all folders.

    Returns
    -------
    tuple
        By seed; empty where a training lacks cases that others have, or cannot be told from others.
    """
    seeds = [seed for seed, _, _ in parts]
    together: dict[Any, tuple[int | None, set[str], list[Row]]] = {}
    for seed, of, rows in parts:
        key = (seed, 0)
        # the same cases once more: another training, of a seed that is not known or given twice
        while key in together and together[key][1] & set(of):
            key = (seed, key[1] + 1)
        _, has, all_rows = together.setdefault(key, (seed, set(), []))
        has.update(of)
        all_rows.extend(rows)
    if any(has != set(cases) for _, has, _ in together.values()):
        return ()
    known = None not in seeds and len(together) == len(set(seeds))
    found = [Replicate(seed=s if known else None, rows=r) for s, _, r in together.values()]
    return tuple(sorted(found, key=lambda r: (r.seed is None, r.seed or 0)))


def paired_by_seed(
    a: Sequence[Replicate], b: Sequence[Replicate]
) -> tuple[list[int], list[int], bool] | None:
    """Which trainings of two models are compared, and whether they are pairs.

    Those of common seeds, where there are two or more; else all, unpaired.

    Returns
    -------
    tuple
        Numbers of the trainings of `a`, of `b`, and whether they are paired; None where one of the
        models has fewer than two trainings.
    """
    if min(len(a), len(b)) < 2:
        return None
    of_b = {r.seed: i for i, r in enumerate(b) if r.seed is not None}
    pairs = [(i, of_b[r.seed]) for i, r in enumerate(a) if r.seed in of_b]
    if len(pairs) >= 2:
        return [i for i, _ in pairs], [j for _, j in pairs], True
    return list(range(len(a))), list(range(len(b))), False
