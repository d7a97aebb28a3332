"""The page of one evaluation, from what OUT holds: summary.json, the rows of cases.csv, parts/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.metrics import EMPTY_MASK_RULE
from evaluation.report import markdown
from evaluation.report.attacked_model import attacked_model
from evaluation.report.calibration import is_calibrated
from evaluation.report.formats import json_ready
from evaluation.report.intervals import intervals_said, of_groups, over
from evaluation.report.norms import NORMS_WITH_UNIT
from evaluation.report.page import verdict
from evaluation.report.page.cases import case_table
from evaluation.report.page.charts import evaluation_panels
from evaluation.report.page.pictures import Picture, fill, read_as_jpeg, read_pictures
from evaluation.report.page.render import page_text
from evaluation.rows import MEAN_LABEL, Row

Summary = Mapping[str, Any]


def evaluation_page(folder: Path, summary: Summary, rows: Sequence[Row]) -> str:
    """The content of report.html in an OUT folder.

    Parameters
    ----------
    folder
        OUT; pictures are read from its parts.
    summary
        As summary.json.
    rows
        As cases.csv.
    """
    summary = json_ready(summary)
    name, corruptions = summary["model"]["trainer"], read_as_jpeg(folder / "corruptions.png")
    data = {
        "kind": "evaluation",
        "panels": evaluation_panels(summary["results"]),
        "table": case_table({name: rows}),
        **shared_data(summary, rows),
    }

    def page_with(pictures: list[Picture]) -> str:
        shown = {**data, "pictures": pictures}
        return page_text({**_content(summary, shown), "corruption_picture": corruptions}, shown)

    return fill(page_with, lambda most: read_pictures([folder], rows, most=most))


def shared_data(summary: Summary, rows: Sequence[Row]) -> dict[str, Any]:
    """What the scripts need to know of units and labels."""
    metrics = summary.get("metrics") or {}
    return {
        "label_names": {r["label"]: r["label_name"] for r in rows if r["label"] != MEAN_LABEL},
        "surface_unit": metrics.get("surface_unit", "mm"),
        "nsd_tolerance": metrics.get("nsd_tolerance"),
    }


def shared_content(data: Mapping[str, Any], intervals: str, over: str) -> dict[str, Any]:
    """What the template says of either kind of page, and what its intervals are over."""
    pictures = {p["case"] for p in data["pictures"]}
    first = next(iter(data["pictures"]), {"model": 0})["model"]
    ranked_by = f" in {data['table']['models'][first]}" if data["kind"] == "comparison" else ""
    return {
        "kind": data["kind"],
        "ranked_by": ranked_by,
        "panels": data["panels"],
        "cases": len(data["table"]["cases"]),
        "pictures": len(pictures),
        "labels": data["table"]["labels"],
        "label_names": data["label_names"],
        "all_labels": data["table"]["all_labels"],
        "surface_unit": data["surface_unit"],
        "nsd_tolerance": data["nsd_tolerance"],
        "intervals": intervals.replace("**", ""),  # Markdown's
        "over": over,
        "empty_mask_rule": EMPTY_MASK_RULE,
    }


def _content(summary: Summary, data: Mapping[str, Any]) -> dict[str, Any]:
    model, results = summary["model"], summary["results"]
    attacked = attacked_model(summary)
    return {
        **shared_content(data, intervals_said(summary), over(summary.get("groups"))),
        "title": f"Robustness of {model['trainer']} on {model['dataset']}",
        "model": model,
        "verdict": verdict.verdict(summary),
        "worst_corruption": verdict.worst_corruption(results),
        "checks": verdict.checks(summary),
        "not_tried": verdict.not_tried(results, summary, summary["shifts_left_out"]),
        "suite": summary.get("suite"),
        "quote": markdown.QUOTE,
        "quotes": [r for r in results if r["kind"] == "worst"],
        "calibrated": is_calibrated(results[0]),
        "norms": NORMS_WITH_UNIT,
        "attacked": attacked[0],
        "attacked_facts": [fact.removeprefix("- ") for fact in attacked[2:]],
        "protocol": summary["protocol"] + of_groups(summary),
        "notes": summary["notes"],
        "environment": summary["environment"],
        "seed": summary["options"]["seed"],
        "attacks": summary["attacks"],
        "cost": summary["cost"],
    }
