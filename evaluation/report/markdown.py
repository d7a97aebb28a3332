"""report.md: what an evaluation found, for a reader.

Means, intervals and checks are those of summary.json; this module only puts them into words and
tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.corruption_table import is_affine
from evaluation.metrics import EMPTY_MASK_RULE
from evaluation.protocol import CORRUPTION
from evaluation.report import calibration
from evaluation.report.attacked_model import attacked_model, model_title
from evaluation.report.checks import run_title
from evaluation.report.formats import interval_text, number_text, percent_text
from evaluation.report.intervals import cases_said, intervals_said
from evaluation.report.norms import NORM_TITLES
from evaluation.report.records import CORRUPTION_MEAN, CORRUPTIONS_MEAN, NOT_AFFINE_MEAN, headline
from evaluation.rows import is_noise
from nnunetv2_lngswr.attacks.suites import suites_among
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.markdown import escaped, escaped_items, markdown_table

Record = Mapping[str, Any]
Summary = Mapping[str, Any]

QUOTE = (
    "Per case and budget the lowest foreground Dice over all runs of that norm (worst_linf, "
    "worst_l2), then the mean over cases. An upper bound on robust Dice: a stronger attack can "
    "only lower it."
)
SIZES_AS_REACHED = (
    "Sizes of the perturbation as reached, as fraction of the range / preprocessed units / units "
    "of the file (n/a: normalisation not affine)."
)
WITHOUT_BUDGET = "**Without a budget** (the size is an outcome: do not compare it with a budget)"
MEMBERS = "Lowest Dice so far after each member of the suite, on the preprocessed grid"
CORRUPTIONS = (
    "Seeded corruptions of the preprocessed case, clipped into its [min, max]; foreground Dice per "
    "severity. Changes of the whole file's brightness or contrast that z-scoring would undo in "
    "deployment are not undone here. What changes intensities by one affine map is all but undone "
    "by instance normalisation in the network, and has a mean without it."
)
UNITS = {
    "range": "the intensity range of each channel",
    "normalized": "preprocessed intensity units",
    "original": "intensity units of the file",
}


def write_report(path: Path, summary: Summary, *, corrupted: str | None = None) -> None:
    """Write report.md.

    Parameters
    ----------
    path
        The file.
    summary
        As summary.json.
    corrupted
        The case that corruptions.png beside it shows, where there is one.
    """
    sections = [
        _title(summary, corrupted),
        _quote(summary),
        _attacks(summary),
        _corruptions(summary, corrupted),
        _calibration(summary),
        _labels(summary),
        _attacked(summary),
        _cost(summary),
    ]
    write_file(path, "\n\n".join(s for s in sections if s) + "\n")


def _title(summary: Summary, corrupted: str | None) -> str:
    model, clean = summary["model"], _find(summary, "clean")[0]
    cases, dice = cases_said(summary, defined=clean["cases"]), interval_text(clean)
    lines = [
        f"# Robustness of {escaped(model_title(model, 'trainer', 'plans', 'configuration'))}",
        "",
        f"{cases} Clean foreground Dice **{dice}**.{_worst_sentence(summary)}",
        "",
        f"{intervals_said(summary)} Pictures: {_pictures(summary, corrupted)}; "
        "every figure per case: cases.csv.",
    ]
    return "\n".join(lines)


def _worst_sentence(summary: Summary) -> str:
    r = headline(summary["results"])
    if r is None:
        return ""
    return (
        f" Under the worst of all {NORM_TITLES[r['norm']]} attacks at epsilon {r['epsilon_text']} "
        f"of {_unit(summary)}: **{interval_text(r)}**."
    )


def _pictures(summary: Summary, corrupted: str | None) -> str:
    attacked = any(not is_noise(r) for r in _find(summary, "attack"))
    there = {"curves.png": True, "examples.png": attacked, "corruptions.png": corrupted is not None}
    return ", ".join(name for name, is_there in there.items() if is_there)


def _quote(summary: Summary) -> str:
    rows = _find(summary, "worst")
    if not rows:
        return ""
    lines = ["## The numbers to quote", "", QUOTE, _suite(summary), ""]
    for norm, title in NORM_TITLES.items():
        chosen = [r for r in rows if r["norm"] == norm]
        if chosen:
            lines += [f"**{title}**", "", _quote_table(chosen), ""]
    metrics = summary["metrics"]
    unit, tolerance = metrics["surface_unit"], metrics["nsd_tolerance"]
    lines.append(f"HD95 in {unit}, NSD at {tolerance:g} {unit}. {EMPTY_MASK_RULE}")
    lines.append(SIZES_AS_REACHED)
    return "\n".join(lines)


def _suite(summary: Summary) -> str:
    """Which numbers these may be compared with."""
    suite = summary.get("suite")
    if suite is None:
        return (
            "Suite: none, the attacks were named one by one; compare only with reports of the same "
            "attacks and settings."
        )
    others = [
        a["attack"]
        for a in summary["attacks"]
        if a["norm"] and not is_noise(a) and not suites_among([a["attack"]])
    ]
    if others:
        return (
            f"Suite: **{suite}**, beside {', '.join(others)}, which count here: the suite's own "
            f"numbers are in the rows {suite} below, and compare with those of other reports."
        )
    return f"Suite: **{suite}**; compare only with reports of the same suite."


def _quote_table(rows: list[Record]) -> str:
    columns = (
        "epsilon",
        "Dice",
        "drop against clean",
        "IoU",
        "HD95",
        "NSD",
        "mean Linf",
        "mean RMS",
    )
    body = [
        [
            r["epsilon_text"],
            interval_text(r),
            interval_text(r, "drop"),
            percent_text(r["iou"]),
            number_text(r["hd95_mm"]),
            percent_text(r["nsd"]),
            _size(r, "linf"),
            _size(r, "rms"),
        ]
        for r in rows
    ]
    return markdown_table(columns, body)


def _attacks(summary: Summary) -> str:
    parts = []
    for norm, title in NORM_TITLES.items():
        rows = [r for r in summary["results"] if r["norm"] == norm and r["epsilon_text"]]
        rows = [r for r in rows if r["kind"] in ("attack", "worst")]
        if rows:
            parts += [f"**{title}**, foreground Dice at epsilon", "", _budget_table(rows), ""]
    free = [r for r in _find(summary, "attack") if not r["epsilon_text"]]
    if free:
        columns = ("attack", "Dice", "reached Linf", "reached RMS")
        body = [[r["attack"], interval_text(r), _size(r, "linf"), _size(r, "rms")] for r in free]
        parts += [WITHOUT_BUDGET, "", markdown_table(columns, body), ""]
    if not parts:
        return ""
    parts += _members(summary)
    return "\n".join(
        ["## Attacks", "", *parts, *(f"- {escaped(line)}" for line in summary["checks"])]
    )


def _members(summary: Summary) -> list[str]:
    """What each member of the suite adds; an empty list without a suite."""
    records = summary.get("suite_members")
    if not records:
        return []
    names = list(records[0]["dice"])
    body = [
        [r["suite"], NORM_TITLES[r["norm"]], r["epsilon_text"]]
        + [percent_text(r["dice"][name]) for name in names]
        for r in records
    ]
    table = markdown_table(["suite", "norm", "epsilon", *names], body)
    return [MEMBERS, "", table, ""]


def _budget_table(rows: list[Record]) -> str:
    """Attacks by budgets."""
    ordered = sorted(rows, key=lambda r: r["epsilon"])
    budgets = list(dict.fromkeys(r["epsilon_text"] for r in ordered))
    by_run = {(r["attack"], r["epsilon_text"]): r for r in rows}
    body = []
    for name in dict.fromkeys(r["attack"] for r in rows):
        cells = [by_run.get((name, budget)) for budget in budgets]
        title = f"**{name}**" if name.startswith("worst") else name
        body.append([title, *("" if r is None else interval_text(r) for r in cells)])
    return markdown_table(["attack", *budgets], body)


def _corruptions(summary: Summary, corrupted: str | None) -> str:
    rows = _find(summary, CORRUPTION)
    if not rows:
        return ""
    severities = sorted({r["severity"] for r in rows})
    by_run = {(r["attack"], r["severity"]): r["dice"] for r in rows}
    body = []
    for mean in _find(summary, CORRUPTION_MEAN):
        name = mean["attack"]
        dice = [percent_text(by_run[name, s]) for s in severities]
        body.append([name, _strengths(summary, name), *dice, interval_text(mean)])
    total = _find(summary, CORRUPTIONS_MEAN)[0]
    means = [_mean_of_severity(rows, s) for s in severities]
    body.append(["**mean**", "", *means, f"**{interval_text(total)}**"])
    for felt in _find(summary, NOT_AFFINE_MEAN):
        others = [r for r in rows if not is_affine(r["attack"])]
        means = [_mean_of_severity(others, s) for s in severities]
        affine = [c for c in dict.fromkeys(r["attack"] for r in rows) if is_affine(c)]
        title = f"**mean** without {', '.join(affine)}"
        body.append([title, "", *means, f"**{interval_text(felt)}**"])
    columns = ["corruption", "strength of severities 1-5", *severities, "mean"]
    lines = ["## Corruptions", "", CORRUPTIONS, "", markdown_table(columns, body), ""]
    left_out = [f"{name} ({why})" for name, why in summary["shifts_left_out"].items()]
    if left_out:
        lines.append(f"Left out: {', '.join(left_out)}.")
    if corrupted is not None:
        lines += ["", f"What they look like, in case {escaped(corrupted)}:"]
        lines += ["", "![every corruption at every severity](corruptions.png)"]
    return "\n".join(lines)


def _strengths(summary: Summary, name: str) -> str:
    found = summary["shift_strengths"][name]
    return f"{', '.join(f'{s:g}' for s in found['strengths'])} ({found['unit']})"


def _mean_of_severity(rows: list[Record], severity: int) -> str:
    dice = [r["dice"] for r in rows if r["severity"] == severity and r["dice"] is not None]
    return percent_text(float(np.mean(dice)))


def _calibration(summary: Summary) -> str:
    rows = [r for r in summary["results"] if r["kind"] in calibration.SHOWN]
    if not calibration.is_calibrated(rows[0]):
        return ""
    body = [[run_title(r), *calibration.cells([r])] for r in rows]
    table = markdown_table(["", *calibration.columns()], body)
    return "\n".join(["## Calibration", "", calibration.READ, "", table])


def _labels(summary: Summary) -> str:
    rows = [r for r in summary["results"] if r["kind"] in ("clean", "worst", CORRUPTIONS_MEAN)]
    labels = rows[0]["labels"]
    if len(labels) < 2:
        return ""
    columns = ["", *(escaped(f"{label['name']} ({key})") for key, label in labels.items())]
    body = [[run_title(r), *(interval_text(r["labels"][k]) for k in labels)] for r in rows]
    return "\n".join(["## Dice per label", "", markdown_table(columns, body)])


def _attacked(summary: Summary) -> str:
    options = summary["options"]
    lines = [
        "## What was attacked",
        "",
        *escaped_items(attacked_model(summary)),
        f"- epsilon{_epsilon_unit(summary)}; L2 epsilons are root mean squares per voxel in the "
        "same unit; the perturbed case stays inside the clean case's [min, max] per channel",
        f"- seed {options['seed']}",
        *(f"- {escaped(note)}" for note in summary["notes"]),
        f"- {', '.join(f'{k} {v}' for k, v in summary['environment'].items())}",
    ]
    if summary["attacks"]:
        said = "Attacks as they were run (an empty field: the attack has no such setting):"
        lines += ["", said, "", _settings_table(summary)]
    return "\n".join(lines)


def _epsilon_unit(summary: Summary) -> str:
    if summary["options"]["epsilon_unit"] == "range":
        return f": fraction of {_unit(summary)}"
    return f" in {_unit(summary)}"


def _settings_table(summary: Summary) -> str:
    columns = (
        "attack",
        "norm",
        "steps",
        "step size / epsilon",
        "restarts",
        "loss",
        "other settings",
    )
    body = []
    for a in summary["attacks"]:
        numbers = [number_text(a[k]) for k in ("steps", "step_over_epsilon", "restarts")]
        body.append([a["attack"], a["norm"], *numbers, a["loss"] or "", a["other"]])
    return markdown_table(columns, body)


def _cost(summary: Summary) -> str:
    if not summary["cost"]:
        return ""
    body = [
        [c["run"], f"{c['seconds']:.2f}", number_text(c["forwards"]), number_text(c["gradients"])]
        for c in summary["cost"]
    ]
    said = (
        f"Mean per case and budget on {summary['model']['device']}, scoring included; forwards and "
        "gradients are of the whole case."
    )
    table = markdown_table(["run", "seconds", "forwards", "gradients"], body)
    return "\n".join(["## Cost", "", said, "", table])


def _find(summary: Summary, kind: str) -> list[Record]:
    return [r for r in summary["results"] if r["kind"] == kind]


def _unit(summary: Summary) -> str:
    return UNITS[summary["options"]["epsilon_unit"]]


def _size(record: Record, norm: str) -> str:
    values = [record[f"mean_{norm}_{unit}"] for unit in UNITS]
    return " / ".join(number_text(v, undefined="n/a") for v in values)
