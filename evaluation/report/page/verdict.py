"""What report.html says first: how far Dice falls, whether to believe it, what was not tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.protocol import CORRUPTION
from evaluation.report.markdown import UNITS
from evaluation.report.norms import NORMS_WITH_UNIT
from evaluation.report.records import (
    CORRUPTION_MEAN,
    CORRUPTIONS_MEAN,
    NOT_AFFINE_MEAN,
    headline,
)
from evaluation.rows import is_noise
from nnunetv2_lngswr.attacks.suites import suites_among

Record = Mapping[str, Any]
Summary = Mapping[str, Any]

NEVER_TRIED = (
    "Attacks that move, rotate or warp the image, that paint a patch, or that know of no bound: "
    "this evaluation has none."
)

CORRUPTION_BARS = {
    CORRUPTIONS_MEAN: "Mean of all corruptions",
    NOT_AFFINE_MEAN: "Without affine ones",
}


def verdict(summary: Summary) -> dict[str, Any]:
    """The records of the verdict.

    Returns
    -------
    dict
        'clean'; 'worst', the one that report.md names first, or None; 'noise', the control at its
        norm and budget, or None; 'unit'; 'ladder', (title, role, record) of every bar.
    """
    results = summary["results"]
    clean, worst = next(r for r in results if r["kind"] == "clean"), headline(results)
    return {
        "clean": clean,
        "worst": worst,
        "worst_title": "" if worst is None else budget_title(worst),
        "noise": None if worst is None else _noise_beside(results, worst),
        "unit": UNITS[summary["options"]["epsilon_unit"]],
        "ladder": ladder(results),
    }


def ladder(results: Sequence[Record]) -> list[dict[str, Any]]:
    """The bars: clean, every budget's noise and worst, and the mean of the corruptions."""
    clean = next(r for r in results if r["kind"] == "clean")
    bars = [{"title": "Clean", "role": "clean", "record": clean}]
    for worst in (r for r in results if r["kind"] == "worst"):
        noise = _noise_beside(results, worst)
        title = budget_title(worst)
        if noise is not None:
            bars.append({"title": f"Noise, {title}", "role": "control", "record": noise})
        bars.append({"title": f"Worst attack, {title}", "role": "worst", "record": worst})
    bars += [
        {"title": title, "role": "corruption", "record": r}
        for kind, title in CORRUPTION_BARS.items()
        for r in results
        if r["kind"] == kind
    ]
    return bars


def worst_corruption(results: Sequence[Record]) -> Record | None:
    """Of the means over severities, the lowest."""
    means = [r for r in results if r["kind"] == CORRUPTION_MEAN and _is_number(r["dice"])]
    return min(means, key=lambda r: r["dice"], default=None)


def checks(summary: Summary) -> list[dict[str, str]]:
    """The lines of summary.json about its attacks, each with its state: passed, warning, failed."""
    lines = []
    for text in summary.get("checks") or ():
        state, colon, rest = text.partition(": ")
        known = {"Check passed": "passed", "Check failed": "failed", "Warning": "warning"}
        if colon and state in known:
            lines.append({"state": known[state], "text": rest})
        else:
            lines.append({"state": "warning", "text": text})
    return lines


def not_tried(
    results: Sequence[Record], summary: Summary, left_out: Mapping[str, str]
) -> list[str]:
    """What the figures say nothing about.

    Parameters
    ----------
    results
        Records of the runs, budgets rising.
    summary
        As summary.json: what the evaluation was told.
    left_out
        {corruption: why it was not run}.
    """
    attacks = [r for r in results if r["kind"] == "attack" and not is_noise(r)]
    said = [*_norms_not_tried(attacks), *_kinds_not_tried(attacks)]
    if not any(r["kind"] in (CORRUPTION, CORRUPTION_MEAN) for r in results):
        said.append("Image corruptions: none was run.")
    if left_out:
        named = ", ".join(f"{n.replace('_', ' ')} ({why})" for n, why in left_out.items())
        said.append(f"Corruptions left out: {named}.")
    most = summary["options"].get("max_cases")
    if most and len(summary["cases"]) >= most:
        # of joined folders it is the bound of each
        of = "" if len(summary["cases"]) == most else " of a folder"
        said.append(f"More than {most} cases{of} (--max-cases).")
    return [*said, NEVER_TRIED]


def _norms_not_tried(attacks: Sequence[Record]) -> list[str]:
    if not attacks:
        return ["Attacks: none was run, so that nothing is said about a worst case."]
    said = []
    for norm, title in NORMS_WITH_UNIT.items():
        budgets = [r["epsilon_text"] for r in attacks if r["norm"] == norm and r["epsilon_text"]]
        if budgets:
            said.append(f"{title} attacks beyond epsilon {budgets[-1]}.")
        else:
            said.append(f"{title} attacks: none was run.")
    return said


def _kinds_not_tried(attacks: Sequence[Record]) -> list[str]:
    said = []
    names = [r["attack"] for r in attacks]
    if attacks and not suites_among(names):
        said.append(
            "The standard suite: the attacks were named one by one, and stronger ones may leave "
            "less."
        )
    if attacks and not any(n.startswith("square") for n in names):
        said.append("An attack without gradients (square), which would show masked gradients.")
    if attacks and not any(n.startswith("transfer") for n in names):
        said.append("Attacks made on another model (transfer).")
    return said


def budget_title(record: Record) -> str:
    return f"{NORMS_WITH_UNIT[record['norm']]} {record['epsilon_text']}"


def _noise_beside(results: Sequence[Record], worst: Record) -> Record | None:
    """The control of the same norm and budget."""
    same = (r for r in results if all(r[k] == worst[k] for k in ("norm", "epsilon_text")))
    return next((r for r in same if r["kind"] == "attack" and is_noise(r)), None)


def _is_number(value: float | None) -> bool:
    return value is not None and value == value
