"""compare.md's lines on groups and on training again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.replicates import paired_by_seed
from evaluation.groups import Groups
from evaluation.report.formats import interval_text, percent_text, share_text
from evaluation.report.intervals import few_said, over
from evaluation.report.records import MEAN_TITLES
from nnunetv2_lngswr.utils.markdown import escaped, markdown_table

HOW = (
    "Dice in percent over trainings and {over}, of the rows that were tested: 95% intervals from a "
    "two-level bootstrap, as mean plus or minus standard error times Student's t (percentiles of "
    "so few trainings cover too little). Spread: the standard error of the difference that "
    "trainings and {over} each add; its square is the variance of that level. p: of the "
    "difference, of the same standard error and t, Holm-corrected over this table; none where the "
    "trainings happen to agree (a spread of 0.0), since it would be of {over} alone."
)

Record = Mapping[str, Any]


def few_lines(groups: Groups | None, cases: Sequence[str]) -> list[str]:
    """What must be said of few groups or cases."""
    count, what = (len(cases), "cases") if groups is None else (groups.count(cases), "groups")
    said = few_said(count, what, tested=True)
    return [said, ""] if said else []


def trained_again_lines(
    models: Sequence[ComparedModel], runs: Sequence[Sequence[Record]], groups: Groups | None
) -> list[str]:
    """The table over trainings; nothing where no model was trained several times.

    Parameters
    ----------
    models
        The first is the baseline.
    runs
        The records of each run, in the order of the models.
    groups
        Over which intervals are, if not over cases.
    """
    shown = [i for i, m in enumerate(models) if any("trainings" in of[i] for of in runs)]
    lines = []
    if len({len(m.folders) for m in models}) > 1 or len(models[0].folders) > 1:
        lines = [f"- {escaped(m.name)}: {_trainings_said(m, models[0])}" for m in models]
    if not shown:
        return [*lines, ""] if lines else []
    baseline, drawn = escaped(models[0].name), over(groups)
    columns = [""]
    for i in shown:
        columns.append(escaped(models[i].name))
        if i:
            spread = f"spread: trainings, {drawn}"
            columns += [
                f"{escaped(models[i].name)} - {baseline}",
                spread,
                "p (Holm)",
                "drop smaller by",
            ]
    tested = [of for of in runs if any("trainings" in r for r in of)]
    table = markdown_table(columns, [_line(of, shown) for of in tested])
    return ["## Trained again", "", HOW.format(over=drawn), "", *lines, "", table, ""]


def run_title(record: Record) -> str:
    """Such as 'worst_linf 8/255'."""
    norm = record["norm"] if record["attack"] == "noise" else ""
    name = MEAN_TITLES.get(record["kind"], record["attack"])
    return " ".join(part for part in (name, norm, record["epsilon_text"]) if part)


def _trainings_said(model: ComparedModel, baseline: ComparedModel) -> str:
    """How many there are, and how they are compared."""
    count = len(model.replicates)
    if not count:
        return (
            f"{len(model.folders)} folders, which do not make up whole trainings: nothing is said "
            "of training it again. Each needs all cases, its folds other ones, and a seed or a "
            "model folder of its own"
        )
    if count == 1:
        return "trained once: nothing is known of training it again"
    seeds = [r.seed for r in model.replicates]
    known = f" of seeds {', '.join(map(str, seeds))}" if None not in seeds else ""
    said = f"{count} trainings{known}"
    chosen = paired_by_seed(model.replicates, baseline.replicates)
    if model is baseline or chosen is None:
        return said
    if not chosen[2]:
        return f"{said}, not paired with {escaped(baseline.name)}'s by seed"
    paired = ", ".join(str(seeds[i]) for i in chosen[0])
    return f"{said}, paired with {escaped(baseline.name)}'s by seed ({paired})"


def _line(records: Sequence[Record], shown: Sequence[int]) -> list[str]:
    line = [run_title(records[0])]
    for i in shown:
        line += _cells(records[i]) if i else _cells(records[i])[:1]
    return line


def _cells(record: Record) -> list[str]:
    low, high = record["dice_again_low"], record["dice_again_high"]
    own = interval_text({"dice": record["dice"], "dice_low": low, "dice_high": high})
    if record["difference_again"] is None:
        return [own, "", "", "", ""]
    spread = ", ".join(percent_text(record[key]) for key in ("se_trainings", "se_groups"))
    p = record["p_again_holm"]
    return [
        own,
        interval_text(record, "difference_again"),
        spread,
        "" if p is None else f"{p:.3g}",
        share_text(record, "reduction_again"),
    ]
