"""The page of a comparison: the models side by side, from their folders and the compared rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation import significance
from evaluation.comparison.attack_checks import checks_of, summed_up
from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.notes import lone_corruptions
from evaluation.comparison.paired_rows import RUN, TESTED
from evaluation.groups import Groups
from evaluation.metrics import METRICS
from evaluation.protocol import CORRUPTION
from evaluation.report.formats import json_ready
from evaluation.report.intervals import intervals_said, over
from evaluation.report.norms import NORMS_WITH_UNIT
from evaluation.report.page import verdict
from evaluation.report.page.cases import case_table
from evaluation.report.page.charts import comparison_panels
from evaluation.report.page.evaluation_page import shared_content, shared_data
from evaluation.report.page.pictures import Picture, fill, read_side_by_side
from evaluation.report.page.render import page_text
from evaluation.report.records import (
    CORRUPTION_MEAN,
    MEAN_TITLES,
    Table,
    headline,
    mean_groups,
)
from evaluation.rows import RunKey

Record = Mapping[str, Any]


def comparison_page(
    models: Sequence[ComparedModel],
    records: Sequence[Record],
    notes: Sequence[str],
    groups: Groups | None = None,
) -> str:
    """The content of report.html beside compare.md.

    Parameters
    ----------
    models
        The first is the baseline.
    records
        Of `paired_rows`.
    notes
        What differs between the models or was left out.
    groups
        Of cases, over which the intervals are.
    """
    baseline = models[0]
    summary = json_ready(baseline.summary)
    by_model = {m.name: _with_other_metrics(m, records) for m in models}
    data = {
        "kind": "comparison",
        "panels": comparison_panels(by_model),
        "table": case_table({m.name: m.rows for m in models}),
        **shared_data(summary, [r for m in models for r in m.rows]),
    }
    cases = summary["cases"]
    found = {"groups": groups and groups.record(cases), "cases": cases}
    content = {
        "title": f"Robustness of {len(models)} models on {summary['model'].get('dataset')}",
        "models": [{"name": m.name, "place": m.place} for m in models],
        "suite": summary.get("suite"),
        "arms": _arms(by_model),
        "checks": _checks(models),
        "runs": _runs(records),
        "tested": TESTED,
        "norms": NORMS_WITH_UNIT,
        "mean_titles": MEAN_TITLES,
        "notes": list(notes),
        "not_tried": verdict.not_tried(
            by_model[baseline.name], summary, _left_out(models, by_model[baseline.name])
        ),
    }
    said = intervals_said(found), over(groups)

    def page_with(pictures: list[Picture]) -> str:
        shown = {**data, "pictures": pictures}
        return page_text(json_ready({**shared_content(shown, *said), **content}), shown)

    folders = [(m.folders, m.rows) for m in models]
    return fill(page_with, lambda most: read_side_by_side(folders, most=most))


def _with_other_metrics(model: ComparedModel, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The records of one model, with the means of the metrics that a comparison does not test."""
    table = Table(model.rows)
    corruptions = [k for k in table.keys if k[0] == CORRUPTION]
    averaged: dict[RunKey, list[RunKey]] = dict(mean_groups(corruptions))
    completed = []
    for record in (r for r in records if r["model"] == model.name):
        run: RunKey = tuple(record[k] for k in RUN)  # pyright: ignore  # five by RUN's length
        keys = averaged.get(run, [run])
        others = {
            m: significance.mean_over_cases(table.values(m, *keys))
            for m in METRICS
            if m != "dice" and all(k in table.keys for k in keys)
        }
        completed.append({**record, **others})
    return completed


def _checks(models: Sequence[ComparedModel]) -> list[dict[str, Any]]:
    """Per model what the checks of its folders say, all in all and line by line."""
    found = []
    for model, folders in zip(models, checks_of(models)):
        state, said = summed_up(folders)
        found.append({"name": model.name, "state": state, "said": said, "folders": folders})
    return found


def _left_out(models: Sequence[ComparedModel], records: Sequence[Record]) -> dict[str, str]:
    """{corruption that has no row: why}, of any folder of any model."""
    compared = {r["attack"] for r in records if r["kind"] == CORRUPTION_MEAN}
    reasons = dict.fromkeys(lone_corruptions(models), "not every folder has it")
    for summary in (s for m in models for s in m.summaries):
        reasons |= summary.get("shifts_left_out") or {}
    return {name: why for name, why in reasons.items() if name not in compared}


def _arms(by_model: Mapping[str, Sequence[Record]]) -> list[dict[str, Any]]:
    """Per model what the verdict says of it: its bars, and its difference from the baseline."""
    arms = []
    for name, records in by_model.items():
        clean, worst = records[0], headline(records)
        arms.append(
            {
                "name": name,
                "bars": [b for b in verdict.ladder(records) if b["role"] != "control"],
                "clean": clean,
                "headline": worst,
                "headline_title": "" if worst is None else verdict.budget_title(worst),
            }
        )
    return arms


def _runs(records: Sequence[Record]) -> list[list[Record]]:
    """The records of every run, one per model."""
    by_run: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        by_run.setdefault(tuple(record[key] for key in RUN), []).append(record)
    return list(by_run.values())
