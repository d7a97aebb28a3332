"""From finished evaluations to numbers: per model and data set, along the way, and side by side.

Means are nnU-Net's, intervals are bootstrapped over cases or groups of them, tests are paired by
case (evaluation.comparison). A model's own data set and another one have different cases: the
difference between them is of two independent samples, each drawn by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evaluation import significance
from evaluation.comparison.folders import ComparedModel, read_folder
from evaluation.comparison.models import join_models
from evaluation.comparison.notes import NOTED
from evaluation.comparison.paired_rows import COLUMNS, RUN, TESTED, paired_rows
from evaluation.groups import Groups, common_groups, parse_groups
from evaluation.protocol import CORRUPTION
from evaluation.report.records import CORRUPTIONS_MEAN, Drawn, Table, mean_groups
from evaluation.rows import RunKey, run_key
from nnunetv2_lngswr.experiments.transfer.cells import Cell
from nnunetv2_lngswr.experiments.transfer.meaning import Meanings

SEED = 0  # of bootstrap and permutations, as of `lngswr compare`
ON_ITS_OWN, ON_ALL = "validation", "all that were chosen"
_KEPT = [column for column in COLUMNS if column != "folder"]

Record = dict[str, Any]
Key = tuple[str, str]  # names of a model and a data set


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One model on one data set, all folds."""

    own: bool
    parts: Sequence[ComparedModel]
    """Of each fold."""
    joined: ComparedModel
    groups: Groups | None
    given_groups: str | None

    @property
    def cases(self) -> list[str]:
        return self.joined.summary["cases"]


@dataclass(kw_only=True)
class Figures:
    """All numbers of a report."""

    pairs: dict[Key, Pair]
    matrix: list[Record]
    """Per model, data set and run: Dice with its interval."""
    ways: list[Record]
    """Per model, other data set and run: what is lost against its own data set."""
    side_by_side: list[Record]
    """Per data set, cases and run: models against the first of them, paired by case."""
    notes: list[str] = field(default_factory=list)


def make_figures(output: Path, cells: Sequence[Cell], meanings: Meanings) -> Figures:
    """Read all evaluations and make numbers of them.

    Parameters
    ----------
    output
        The benchmark's folder.
    cells
        All of them, finished.
    meanings
        Of the names of labels.

    Raises
    ------
    UserError
        An evaluation is damaged, or was made from other files than that of another model.
    """
    parts: dict[Key, list[ComparedModel]] = {}
    for cell in cells:
        part = _with_meanings(read_folder(cell.folder(output)), meanings)
        parts.setdefault((cell.model.name, cell.data_set.name), []).append(part)
    parts, notes = _with_common_corruptions(parts)
    pairs = {}
    for cell in cells:
        key = cell.model.name, cell.data_set.name
        if key not in pairs:
            pairs[key] = _pair(cell, parts[key])
    figures = Figures(pairs=pairs, matrix=[], ways=[], side_by_side=[], notes=notes)
    for key, pair in pairs.items():
        figures.matrix += _dice_of(key, pair)
    own = {model: pair for (model, _), pair in pairs.items() if pair.own}
    for (model, data_set), pair in pairs.items():
        if not pair.own:
            figures.ways += _way(model, data_set, own[model], pair)
    for data_set in dict.fromkeys(name for _, name in pairs):
        _add_side_by_side(figures, data_set)
    _correct_for_all_tests(figures.side_by_side)
    return figures


def tested_runs(table: Table) -> list[tuple[RunKey, list[RunKey]]]:
    """(the run, those that it averages): clean, the worst at every budget, all corruptions."""
    corruptions = [key for key in table.keys if key[0] == CORRUPTION]
    means = [mean for mean in mean_groups(corruptions) if mean[0][0] == CORRUPTIONS_MEAN]
    return [*((key, [key]) for key in table.keys if key[0] in TESTED), *means]


def _pair(cell: Cell, parts: Sequence[ComparedModel]) -> Pair:
    (joined,), _ = join_models([parts], [cell.model.name])
    cases = joined.summary["cases"]
    groups = (
        common_groups(joined.recorded_groups, cases)
        if cell.groups is None
        else parse_groups(cell.groups, cases)
    )
    return Pair(own=cell.own, parts=parts, joined=joined, groups=groups, given_groups=cell.groups)


def _with_meanings(part: ComparedModel, meanings: Meanings) -> ComparedModel:
    """Labels by what they mean: models may call them otherwise."""
    rows = [{**row, "label_name": meanings.of(row["label_name"])} for row in part.rows]
    return replace(part, rows=rows)


def _with_common_corruptions(
    parts: Mapping[Key, Sequence[ComparedModel]],
) -> tuple[dict[Key, list[ComparedModel]], list[str]]:
    """Without those that not every evaluation has, so that their mean is of the same ones."""
    runs = [
        dict.fromkeys(run_key(row) for row in part.rows if row["kind"] == CORRUPTION)
        for of in parts.values()
        for part in of
    ]
    lone = {key for keys in runs for key in keys if not all(key in others for others in runs)}
    found = {
        key: [replace(p, rows=[r for r in p.rows if run_key(r) not in lone]) for p in of]
        for key, of in parts.items()
    }
    names = sorted({key[1] for key in lone})
    said = "corruptions left out, since they do not apply to every model: " + ", ".join(names)
    return found, [said] if names else []


def _dice_of(key: Key, pair: Pair) -> list[Record]:
    table = Table(pair.joined.rows)
    drawn = Drawn.of(table.cases, pair.groups, SEED)
    found = []
    for run, keys in tested_runs(table):
        dice = table.values("dice", *keys)
        low, high = significance.interval(dice, drawn.draws, coverage=drawn.coverage)
        found.append(
            {
                "model": key[0],
                "data_set": key[1],
                "own": pair.own,
                **dict(zip(RUN, run)),
                "cases": len(table.cases),
                "groups": _count(pair),
                "dice": significance.mean_over_cases(dice),
                "dice_low": low,
                "dice_high": high,
            }
        )
    return found


def _count(pair: Pair) -> int | None:
    return None if pair.groups is None else pair.groups.count(pair.cases)


def _way(model: str, data_set: str, own: Pair, other: Pair) -> list[Record]:
    here, there = Table(own.joined.rows), Table(other.joined.rows)
    labels = list(here.labels)
    # two seeds: the same draws would tie case to case
    drawn = [
        Drawn.of(table.cases, pair.groups, seed)
        for table, pair, seed in ((here, own, SEED), (there, other, SEED + 1))
    ]
    of_here, of_there = (d.draws for d in drawn)
    coverage = max(d.coverage for d in drawn)
    found = []
    for run, keys in tested_runs(here):
        before = here.dice(here.cases, labels, keys)
        after = there.dice(there.cases, labels, keys)
        low, high = significance.difference_interval(
            after, before, of_there, of_here, coverage=coverage
        )
        mean, others = significance.mean_over_cases(before), significance.mean_over_cases(after)
        found.append(
            {
                "model": model,
                "own_data_set": own.joined.summary["model"]["dataset"],
                "data_set": data_set,
                **dict(zip(RUN, run)),
                "own_dice": mean,
                "dice": others,
                "difference": others - mean,
                "difference_low": low,
                "difference_high": high,
            }
        )
    return found


def _add_side_by_side(figures: Figures, data_set: str) -> None:
    """On the validation cases of the models of this data set, and on all cases the others'."""
    here = {model: pair for (model, name), pair in figures.pairs.items() if name == data_set}
    own = {model: pair for model, pair in here.items() if pair.own}
    foreign = {model: pair for model, pair in here.items() if not pair.own}
    if own:
        _compare_with_own(figures, data_set, own, foreign)
    _compare(figures, data_set, ON_ALL, foreign)


def _compare_with_own(
    figures: Figures, data_set: str, own: Mapping[str, Pair], foreign: Mapping[str, Pair]
) -> None:
    baseline, first = next(iter(own.items()))
    others = {m: pair for m, pair in {**own, **foreign}.items() if m != baseline}
    lacking = [m for m, pair in others.items() if not set(first.cases) <= set(pair.cases)]
    if lacking:
        figures.notes.append(
            f"not beside {baseline} on its validation cases of {data_set}, since they were not "
            f"evaluated on all of these: {'; '.join(lacking)}"
        )
    chosen = {baseline: first, **{m: pair for m, pair in others.items() if m not in lacking}}
    _compare(figures, data_set, ON_ITS_OWN, chosen, only=first.cases)


def _compare(
    figures: Figures,
    data_set: str,
    where: str,
    pairs: Mapping[str, Pair],
    only: Sequence[str] | None = None,
) -> None:
    if len(pairs) < 2:
        return
    parts = [[_restricted(p, only) for p in pair.parts] for pair in pairs.values()]
    models, notes = join_models([[p for p in of if p.summary["cases"]] for of in parts], [*pairs])
    first = next(iter(pairs.values()))
    cases = models[0].summary["cases"]
    if first.given_groups is not None:
        groups = parse_groups(first.given_groups, cases)
    else:
        groups = common_groups([r for m in models for r in m.recorded_groups], cases)
    for row in paired_rows(models, seed=SEED, groups=groups):
        if row["kind"] in TESTED:
            place = {"data_set": data_set, "where": where, "baseline": models[0].name}
            figures.side_by_side.append({**place, **{key: row[key] for key in _KEPT}})
    # what models are and were trained on stands in the table of models
    told = tuple(f"{key} differs" for key in NOTED)
    figures.notes += [f"{data_set}, {where}: {n}" for n in notes if not n.startswith(told)]


def _restricted(part: ComparedModel, only: Sequence[str] | None) -> ComparedModel:
    if only is None:
        return part
    kept = set(only)
    return replace(
        part,
        rows=[row for row in part.rows if row["case"] in kept],
        summary={**part.summary, "cases": [c for c in part.summary["cases"] if c in kept]},
    )


def _correct_for_all_tests(records: Sequence[Record]) -> None:
    """Holm over the whole report: it is one family."""
    significance.add_holm(records)
