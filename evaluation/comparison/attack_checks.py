"""Whether the attacks of what is compared can be believed: what every folder's own checks say.

A model of several folders (folds, seeds) is as believable as each of them, so that none is left
out. The lines are those of summary.json, as report.md has them, but for attacks that the comparison
leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluation.comparison.folders import ComparedModel
from evaluation.report.checks import all_checks
from evaluation.report.page import verdict
from evaluation.report.records import summarise
from evaluation.rows import Row, is_noise
from nnunetv2_lngswr.utils.markdown import escaped

TITLE = "Can the attacks be believed?"


def checks_of(models: Sequence[ComparedModel]) -> list[list[dict[str, Any]]]:
    """Per model and folder {'folder', 'checks': [{'state', 'text'}]}; nothing without attacks.

    A folder that was not checked has no lines.
    """
    # all models have the same: attacks that not all have were left out
    if not any(r["kind"] == "attack" and not is_noise(r) for r in models[0].rows):
        return [[] for _ in models]
    return [
        [
            {"folder": str(folder), "checks": verdict.checks(summary)}
            for folder, summary in zip(m.folders, m.summaries)
        ]
        for m in models
    ]


def checks_of_rows(rows: Sequence[Row]) -> list[str]:
    """What an evaluation of these rows of cases.csv alone would have said."""
    return all_checks(summarise(rows, seed=0), rows)


def summed_up(folders: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """(the worst state of one model's folders, how many lines of which): ('failed', '1 failed').

    States are those of lines, and 'unchecked' where nothing worse was found than no check.

    Parameters
    ----------
    folders
        Of `checks_of`.
    """
    states = [line["state"] for of in folders for line in of["checks"]]
    counts = {state: states.count(state) for state in ("failed", "warning")}
    unchecked = sum(not of["checks"] for of in folders)
    said = []
    if counts["failed"]:
        said.append(f"{counts['failed']} failed")
    if counts["warning"]:
        said.append(f"{counts['warning']} warning{'s' if counts['warning'] > 1 else ''}")
    if not said and states:
        said.append("passed")
    if unchecked:
        said.append("not checked" + (f" in {unchecked} of {len(folders)} folders" * bool(states)))
    worst = next((state for state, count in counts.items() if count), "")
    return worst or ("unchecked" if unchecked else "passed"), ", ".join(said)


def checks_said(models: Sequence[ComparedModel]) -> list[str]:
    """compare.md's line before its table: of each model, whether its checks held."""
    found = [summed_up(folders) for folders in checks_of(models) if folders]
    if not found:
        return []
    each = "; ".join(f"{escaped(m.name)}: {said}" for m, (_, said) in zip(models, found))
    if not any(state in ("failed", "warning") for state, _ in found):
        return [f"Checks of the attacks, as in each folder's report.md: {each}.", ""]
    return [
        f"**Not all attacks can be believed.** Their checks: {each}. What they say is under "
        f'"{TITLE}".',
        "",
    ]


def check_lines(models: Sequence[ComparedModel]) -> list[str]:
    """compare.md's section with every line that speaks against an attack; nothing without any."""
    lines = []
    for model, folders in zip(models, checks_of(models)):
        for of in folders:
            place = f"- {escaped(model.name)}, {escaped(of['folder'])}"
            lines += [
                f"{place}: {line['state']}: {escaped(line['text'])}"
                for line in of["checks"]
                if line["state"] != "passed"
            ]
            if not of["checks"]:
                lines.append(f"{place}: not checked, there was nothing to compare")
    if not lines:
        return []
    read = (
        "What the checks of each folder say, as in its report.md. Where attacks failed or may have "
        "missed what was there, robust Dice is too high, and differences may be wrong."
    )
    return [f"## {TITLE}", "", read, "", *lines, ""]
