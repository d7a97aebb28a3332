"""What a comparison writes: compare.csv, compare.json, compare.md, compare.png and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.comparison.again_lines import few_lines, run_title, trained_again_lines
from evaluation.comparison.attack_checks import check_lines, checks_of, checks_said
from evaluation.comparison.folders import ComparedModel
from evaluation.comparison.page import comparison_page
from evaluation.comparison.paired_rows import RUN, TESTED, columns_of
from evaluation.groups import Groups
from evaluation.report import calibration
from evaluation.report.figures import draw_comparison
from evaluation.report.formats import csv_text, interval_text, json_ready, share_text
from evaluation.report.intervals import over
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.markdown import escaped, markdown_table

SCHEMA_VERSION = 1

Record = Mapping[str, Any]


def write_comparison(
    folder: Path,
    models: Sequence[ComparedModel],
    records: Sequence[Record],
    notes: Sequence[str],
    groups: Groups | None = None,
) -> None:
    """Write all five files.

    Parameters
    ----------
    folder
        Where they go.
    models
        The first is the baseline.
    records
        Of `paired_rows`.
    notes
        What differs between the models or was left out.
    groups
        Over which intervals and tests are, if not over cases.
    """
    cases = models[0].summary["cases"]
    content = {
        "schema_version": SCHEMA_VERSION,
        "folders": [[str(f) for f in m.folders] for m in models],
        "notes": list(notes),
        "checks": [
            {"model": m.name, **of}
            for m, of_model in zip(models, checks_of(models))
            for of in of_model
        ],
        **({} if groups is None else {"groups": groups.record(cases)}),
        "results": json_ready(records),
    }
    # all of them are made before the first is written
    texts = {
        "compare.csv": csv_text(columns_of(records), records),
        "compare.md": _markdown(models, records, notes, groups),
        "report.html": comparison_page(models, records, notes, groups),
        # last, and gone until then: what is cut off here has none
        "compare.json": json.dumps(content, indent=1),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").unlink(missing_ok=True)
    draw_comparison(
        folder / "compare.png",
        [m.name for m in models],
        records,
        cases=len(cases),
        groups=groups,
    )
    for name, text in texts.items():
        write_file(folder / name, text)


def _markdown(
    models: Sequence[ComparedModel],
    records: Sequence[Record],
    notes: Sequence[str],
    groups: Groups | None,
) -> str:
    baseline, *others = models
    columns = ["", *(escaped(m.name) for m in models)]
    for m in others:
        columns += [f"{escaped(m.name)} - {escaped(baseline.name)}", "p (Holm)", "drop smaller by"]
    by_run: dict[tuple, list[Record]] = {}
    for record in records:
        by_run.setdefault(tuple(record[key] for key in RUN), []).append(record)
    lines = [
        "# Comparison of robustness",
        "",
        _introduction(baseline, groups),
        "",
        *few_lines(groups, baseline.summary["cases"]),
        f"Suite: {baseline.summary.get('suite') or 'none, the attacks were named one by one'}.",
        "",
        *checks_said(models),
        markdown_table(columns, [_line(of_run) for of_run in by_run.values()]),
        "",
        *_calibration(models, list(by_run.values())),
        *trained_again_lines(models, list(by_run.values()), groups),
        *check_lines(models),
        *(f"- {escaped(m.name)}: {escaped(m.place)}" for m in models),
        *(f"- {escaped(note)}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _calibration(models: Sequence[ComparedModel], by_run: Sequence[Sequence[Record]]) -> list[str]:
    """The lines of its table; none where no model's was measured."""
    if not any(map(calibration.is_calibrated, by_run[0])):
        return []
    body = [
        [run_title(of_run[0]), *calibration.cells(of_run)]
        for of_run in by_run
        if of_run[0]["kind"] in calibration.SHOWN
    ]
    table = markdown_table(["", *calibration.columns([escaped(m.name) for m in models])], body)
    lines = ["## Calibration", "", calibration.READ, "", table, ""]
    lacking = [
        escaped(m.name) for m, r in zip(models, by_run[0]) if not calibration.is_calibrated(r)
    ]
    if lacking:
        named = ", ".join(lacking)
        lines += [f"Of {named} an earlier version evaluated some, which did not measure it.", ""]
    return lines


def _introduction(baseline: ComparedModel, groups: Groups | None) -> str:
    cases = baseline.summary["cases"]
    count = f"{len(cases)} cases" if groups is None else groups.said(cases)
    drawn = over(groups)
    return (
        f"{count}, the same in every folder; baseline: {escaped(baseline.name)}. Foreground Dice "
        f"in percent with 95% bootstrap intervals over {drawn}; "
        "differences are paired by case. p: of the difference, by a permutation test that swaps "
        f"the two models within {drawn}, Holm-corrected over all rows in bold; the other rows were "
        "not tested. The last column: by what share of the baseline's drop against clean the drop "
        "is smaller. "
        "Intervals and tests are about these trained models, not about training again."
    )


def _line(records: Sequence[Record]) -> list[str]:
    """The row of one run: its name, every model's Dice, and every other model's differences."""
    title = run_title(records[0])
    if records[0]["kind"] in TESTED:
        title = f"**{title}**"
    line = [title, *(interval_text(r) for r in records)]
    for r in records[1:]:
        p = "" if r["p_holm"] is None else f"{r['p_holm']:.3g}"
        line += [interval_text(r, "difference"), p, share_text(r, "reduction")]
    return line
