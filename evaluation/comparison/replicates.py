"""A model's trainings: which OUT folders are one training of it, and which have the same seed.

Folders of one seed are the folds of one training, unless they have cases in common: then it was
trained in several model folders, or again in its place. Where the seed is not known, folders of one
model folder are. Each training must have all cases, or nothing is said of training again; nor is it
where folds have the same cases (new images, by one fold after the other), since folds are no
repetitions. The seed is that of the plans' "lngswr" entry, which the summary holds; of folders from
before it did, that of the benchmark's names of plans.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True, kw_only=True)
class Part:
    """One folder of a model, as far as it says of which training it is."""

    seed: int | None
    """Of `seed_of`."""
    cases: Sequence[str]
    rows: Sequence[Row]
    """As cases.csv."""
    folder: str | None = None
    """Of the model; None: not known."""
    folds: Sequence[Any] = ()


def part_of(summary: Mapping[str, Any], rows: Sequence[Row]) -> Part:
    """That of an OUT folder, by its summary.json."""
    model = summary["model"]
    return Part(
        seed=seed_of(summary),
        cases=summary["cases"],
        rows=rows,
        folder=model.get("folder"),
        folds=model["folds"],
    )


def replicates_of(parts: Sequence[Part], cases: Sequence[str]) -> tuple[Replicate, ...]:
    """The trainings of a model, by its folders.

    Parameters
    ----------
    parts
        Its folders.
    cases
        Of all of them.

    Returns
    -------
    tuple
        By seed; empty where nothing is to be said of training again.
    """
    by_seed = _grouped(parts, lambda part: part.seed if part.seed is not None else (part.folder,))
    groups = []
    for group in by_seed:
        # a seed that was trained in several places
        groups += [group] if _is_one_training(group) else _grouped(group, lambda part: part.folder)
    found = []
    for group in groups:
        if _is_one_training(group):
            found.append(group)
        elif all(part.cases == group[0].cases and part.folds == group[0].folds for part in group):
            found += [[part] for part in group]  # one fold, trained again in its place
        else:
            return ()
    if any({case for part in of for case in part.cases} != set(cases) for of in found):
        return ()
    seeds = [of[0].seed for of in found]
    known = None not in seeds and len(set(seeds)) == len(seeds)
    replicates = [
        Replicate(
            seed=of[0].seed if known else None, rows=[row for part in of for row in part.rows]
        )
        for of in found
    ]
    return tuple(sorted(replicates, key=lambda r: (r.seed is None, r.seed or 0)))


def _grouped(parts: Sequence[Part], key: Callable[[Part], Any]) -> list[list[Part]]:
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        groups.setdefault(key(part), []).append(part)
    return list(groups.values())


def _is_one_training(parts: Sequence[Part]) -> bool:
    """No case is in two of them: they are folds."""
    counts = Counter(case for part in parts for case in set(part.cases))
    return max(counts.values(), default=0) <= 1


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
