"""report.html of `lngswr score`: the tables of report.md, the pictures, and every case to sort.

No number is made here: they are those of summary.json and cases.csv. Names are text of the template
or JSON, both escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.calibration import BINS, MARGIN
from evaluation.metrics import EMPTY_MASK_RULE, METRICS
from evaluation.report.figures import DPI
from evaluation.report.formats import interval_text, json_ready, number_text, percent_text
from evaluation.report.intervals import few_said
from evaluation.report.page.render import page_text
from evaluation.rows import MEAN_LABEL
from evaluation.scoring.figures import MOST_LABELS
from evaluation.scoring.measures import (
    CALIBRATION,
    LESIONS,
    VOLUME,
    Units,
    measure_text,
    measure_title,
)
from evaluation.scoring.page_cases import score_table_data

SCRIPTS = ("report.js", "case_table.js", "score.js", "page.js")
CSS_DPI = 96
WIDEST = 1400
"""Pixels of a picture that is shrunk to the page; the text of a wider one would get too small."""
MOST_BARS = 12
"""Labels of a single model that have a bar at the top; more are in the table alone."""

Record = Mapping[str, Any]
Summary = Mapping[str, Any]
Table = dict[str, Any]


def score_page(summary: Summary, rows: Sequence[Record], pictures: Mapping[str, bytes]) -> str:
    """The content of report.html.

    Parameters
    ----------
    summary
        Of `build_summary`.
    rows
        Of cases.csv.
    pictures
        {file name: PNG}: scores.png and, with calibration, reliability.png.
    """
    found = Found(summary)
    data = score_table_data(summary, rows, found.units)
    content = {
        "title": f"Scores of {', '.join(found.models)}",
        "facts": _facts(summary, found),
        "over": found.over,
        "headline": _headline(summary, found),
        "notes": _notes(summary, found),
        "means": found.table("means", "Foreground means", METRICS),
        "differences": _differences(found) if found.others else None,
        "tested": sum(_is_defined(r.get("p")) for r in summary["results"]),
        "labels": _labels(summary, found),
        "scored_labels": len(summary["labels"]["scored"]),
        "calibration": _calibration(summary, found),
        "reliability": _reliability(summary),
        "pictures": {name: _picture(png) for name, png in pictures.items()},
        "widest": WIDEST,
        "bins": BINS,
        "margin": MARGIN,
        "units": found.units,
        "options": summary["options"],
        "models": summary["models"],
        "scored": _scored(summary),
        "dataset_json": summary["labels"]["dataset_json"],
        "empty_mask_rule": EMPTY_MASK_RULE,
        "environment": summary["environment"],
    }
    return page_text(content, data, template="score.html.jinja", scripts=SCRIPTS)


class Found:
    """The records of a summary, by model, label and measure."""

    def __init__(self, summary: Summary) -> None:
        self.models = [m["name"] for m in summary["models"]]
        self.others = self.models[1:]
        self.over = "cases" if summary["patients"] is None else "patients"
        of = summary["metrics"]
        self.units = Units(length=of["length_unit"], volume=of["volume_unit"])
        self._records = {(r["model"], r["label"], r["measure"]): r for r in summary["results"]}

    def record(self, model: str, label: str, measure: str) -> Record:
        return self._records[model, label, measure]

    def measures(self) -> list[str]:
        """All of them, in their order."""
        return list(dict.fromkeys(measure for _, _, measure in self._records))

    def title(self, measure: str) -> str:
        return measure_title(measure, self.units)

    def table(
        self,
        key: str,
        title: str,
        measures: Sequence[str],
        *,
        labels: Sequence[str] = (MEAN_LABEL,),
        differences: bool = False,
    ) -> Table:
        """Models, and labels but for their mean, by measures.

        Parameters
        ----------
        key, title
            Of the table.
        measures
            Its columns.
        labels
            As summary.json names them.
        differences
            Those of all models but the first, in place of means.
        """
        what, models = ("difference", self.others) if differences else ("mean", self.models)
        with_label = tuple(labels) != (MEAN_LABEL,)
        body = []
        for label in labels:
            for model in models:
                records = [self.record(model, label, m) for m in measures]
                named = [records[0]["label_name"]] if with_label else []
                body.append([*named, model, *(measure_text(r, what) for r in records)])
        columns = [*(["label"] if with_label else []), "model", *map(self.title, measures)]
        return _table(key, title, columns, body, texts=1 + with_label)


def _table(
    key: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, texts: int
) -> Table:
    """What the template makes a table of; `texts`: how many columns are words, the first ones."""
    return {"id": key, "title": title, "columns": columns, "rows": rows, "texts": texts, "said": ""}


def _facts(summary: Summary, found: Found) -> list[str]:
    patients, labels = summary["patients"], len(summary["labels"]["scored"])
    of = "" if patients is None else f" of {_counted(patients, 'patient')}"
    facts = [_counted(summary["cases"], "case") + of, _counted(labels, "label")]
    return facts + ([f"baseline {found.models[0]}"] if found.others else [])


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _headline(summary: Summary, found: Found) -> list[dict[str, Any]]:
    """Per model its bars of Dice, and what is said of its difference to the first."""
    said = []
    for model in found.models:
        record = found.record(model, MEAN_LABEL, "dice")
        line = {"name": model, "dice": percent_text(record["mean"])}
        line["bars"] = json_ready(_bars(summary, found, model))
        if model in found.others:
            line["difference"] = measure_text(record, "difference")
            line["p_holm"] = number_text(record["p_holm"], undefined="undefined")
        said.append(line)
    return said


def _bars(summary: Summary, found: Found, model: str) -> list[dict[str, Any]]:
    """Of the foreground mean, and of the labels where there is one model."""
    labels = summary["labels"]["scored"]
    named = {MEAN_LABEL: "Foreground Dice"}
    if not found.others and 1 < len(labels) <= MOST_BARS:
        named |= labels
    bars = []
    for label, title in named.items():
        r = found.record(model, label, "dice")
        ends = {"dice": r["mean"], "dice_low": r["mean_low"], "dice_high": r["mean_high"]}
        bars.append({"title": title, "role": "clean", "record": ends})
    return bars


def _notes(summary: Summary, found: Found) -> list[str]:
    few = few_said(summary["patients"] or summary["cases"], found.over, tested=bool(found.others))
    return [*([few.replace("**", "")] if few else []), *summary["notes"]]  # Markdown's stars


def _differences(found: Found) -> Table:
    """All measures of all models but the first, with p."""
    columns = ["measure"]
    for other in found.others:
        columns += [f"{other} - {found.models[0]}", "p", "p (Holm)"]
    body = []
    for measure in found.measures():
        line = [found.title(measure)]
        for other in found.others:
            r = found.record(other, MEAN_LABEL, measure)
            line += [measure_text(r, "difference"), number_text(r["p"]), number_text(r["p_holm"])]
        body.append(line)
    title = f"Differences of foreground means to {found.models[0]}"
    return _table("differences", title, columns, body, texts=1)


def _labels(summary: Summary, found: Found) -> list[Table]:
    """Every label's overlap, surfaces, differences, volumes and lesions."""
    labels, tables = list(summary["labels"]["scored"]), []
    if len(labels) > 1:
        tables.append(found.table("labels", "Overlap and surfaces", METRICS, labels=labels))
    if len(labels) > 1 and found.others:
        title = f"Differences to {found.models[0]}, paired by case; no tests per label"
        tables.append(
            found.table("label-differences", title, METRICS, labels=labels, differences=True)
        )
    volumes = found.table("volumes", "Predicted minus labelled volume", VOLUME, labels=labels)
    means = found.table("lesion-means", "Lesions, mean over cases", LESIONS, labels=labels)
    iou = summary["options"]["lesion_iou"]
    of_lesions = (
        "Lesions are connected components; a predicted one counts where its IoU with a labelled "
        f"one is at least {iou:g}, each lesion once."
    )
    of_volumes = "The signed error is the bias, the absolute one its size."
    lesions = _lesions(summary) | {"said": of_lesions}
    return [*tables, volumes | {"said": of_volumes}, lesions, means]


def _lesions(summary: Summary) -> Table:
    columns = ["label", "model", "lesions", "predicted", "matched", "F1 (%)"]
    body = [
        [
            r["label_name"],
            r["model"],
            *(r[k] for k in ("reference", "predicted", "matched")),
            *(interval_text(r, k) for k in ("f1", "sensitivity", "precision")),
        ]
        for r in _by_label(summary["lesions"])
    ]
    title = "Lesions of all cases counted together"
    return _table("lesions", title, [*columns, "sensitivity (%)", "precision (%)"], body, texts=2)


def _calibration(summary: Summary, found: Found) -> list[Table]:
    """Of all voxels together, and over cases; nothing without probabilities."""
    if not summary["calibration"]:
        return []
    columns = ["label", "model", *map(found.title, CALIBRATION)]
    body = [
        [
            r["label_name"],
            r["model"],
            *(measure_text({"measure": key, **r}, key) for key in CALIBRATION),
        ]
        for r in _by_label(summary["calibration"])
    ]
    labels = list(summary["labels"]["scored"])
    return [
        _table("calibration", "Voxels of all cases together", columns, body, texts=2),
        found.table("calibration-means", "Mean over cases", CALIBRATION, labels=labels),
    ]


def _reliability(summary: Summary) -> Table:
    """The numbers of reliability.png."""
    drawn = list(summary["labels"]["scored"])[:MOST_LABELS]
    body = [
        [
            r["label_name"],
            r["model"],
            f"{percent_text(b['low'])} to {percent_text(b['high'])}",
            b["voxels"],
            *(percent_text(b[key]) if b["voxels"] else "" for key in _OF_A_BIN),
        ]
        for r in _by_label(summary["calibration"])
        if r["label"] in drawn
        for b in r["bins"]
    ]
    columns = ["label", "model", "bin (%)", "voxels", "mean probability (%)", "have the label (%)"]
    return _table("reliability", "Reliability over the whole image", columns, body, texts=2)


_OF_A_BIN = ("mean_probability", "frequency")


def _by_label(records: Sequence[Record]) -> list[Record]:
    """Models of a label below each other; they come label by label within a model."""
    order = {label: i for i, label in enumerate(dict.fromkeys(r["label"] for r in records))}
    return sorted(records, key=lambda r: order[r["label"]])


def _scored(summary: Summary) -> str:
    labels = summary["labels"]
    names = ", ".join(f"{name} ({label})" for label, name in labels["scored"].items())
    if labels["ignored"] is None:
        return names
    return f"{names}; voxels of {labels['ignored']} do not count"


def _picture(png: bytes) -> dict[str, Any]:
    """As wide as its inches say."""
    pixels = int.from_bytes(png[16:20], "big")  # where the format has it
    return {"data": base64.b64encode(png).decode(), "width": round(pixels * CSS_DPI / DPI)}


def _is_defined(value: float | None) -> bool:
    return value is not None and value == value  # nan is not itself
