"""What the benchmark leaves: transfer.md, transfer.json and transfer.png."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from evaluation.comparison.again_lines import run_title
from evaluation.report.formats import interval_text, json_ready, percent_text, share_text
from evaluation.report.intervals import FEW
from nnunetv2_lngswr import __version__
from nnunetv2_lngswr.experiments.transfer.cells import Cell
from nnunetv2_lngswr.experiments.transfer.figures import (
    ON_ITS_OWN,
    Figures,
    Pair,
    Record,
    make_figures,
)
from nnunetv2_lngswr.experiments.transfer.heat_map import draw_heat_map
from nnunetv2_lngswr.experiments.transfer.meaning import Meanings, channels
from nnunetv2_lngswr.experiments.transfer.options import Options
from nnunetv2_lngswr.utils.files import write_file
from nnunetv2_lngswr.utils.markdown import escaped, markdown_table

SCHEMA_VERSION = 1
OUTPUTS = ("transfer.md", "transfer.json", "transfer.png")


def write_report(output: Path, cells: Sequence[Cell], options: Options) -> None:
    """Write all three files.

    Parameters
    ----------
    output
        The benchmark's folder.
    cells
        All of them, evaluated.
    options
        As it was called.

    Raises
    ------
    UserError
        As `figures.make_figures`.
    """
    described = [d for cell in cells for d in (cell.model, cell.data_set)]
    figures = make_figures(output, cells, Meanings(options.label_pairs, described))
    content = {
        "schema_version": SCHEMA_VERSION,
        "date": date.today().isoformat(),
        "version": __version__,
        "evaluation": options.evaluation,
        "map_labels": list(options.map_labels),
        "models": [_model_record(cell) for cell in _per_model(cells)],
        "data_sets": [_data_set_record(cell, figures) for cell in _per_data_set(cells)],
        "dice": figures.matrix,
        "own_to_other": figures.ways,
        "side_by_side": figures.side_by_side,
        "notes": figures.notes,
    }
    text = "\n".join(_markdown(cells, options, figures)) + "\n"
    draw_heat_map(
        output / "transfer.png",
        _by_run(figures.matrix),
        [cell.model.name for cell in _per_model(cells)],
        [cell.data_set.name for cell in _per_data_set(cells)],
    )
    write_file(output / "transfer.json", json.dumps(json_ready(content), indent=1) + "\n")
    write_file(output / "transfer.md", text)


def _per_model(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each model."""
    return list({cell.model.number: cell for cell in reversed(cells)}.values())[::-1]


def _per_data_set(cells: Sequence[Cell]) -> list[Cell]:
    """The first cell of each data set."""
    return list({cell.data_set.name: cell for cell in reversed(cells)}.values())[::-1]


def _by_run(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(run_title(record), []).append(record)
    return found


def _model_record(cell: Cell) -> dict[str, Any]:
    model = cell.model
    return {
        "name": model.name,
        "folder": str(model.folder),
        "trainer": model.trainer,
        "configuration": model.configuration,
        "folds": list(model.folds),
        "checkpoint_sha256": dict(model.checkpoint_sha256),
        "data_set": model.dataset,
        "labels": model.dataset_json["labels"],
        "channels": channels(model),
    }


def _data_set_record(cell: Cell, figures: Figures) -> dict[str, Any]:
    its = cell.data_set
    of_it = {m: pair for (m, name), pair in figures.pairs.items() if name == its.name}
    return {
        "name": its.name,
        "labels": its.dataset_json["labels"],
        "channels": channels(its),
        "cases": {model: pair.cases for model, pair in of_it.items()},
        "groups": {
            model: None if pair.groups is None else pair.groups.record(pair.cases)
            for model, pair in of_it.items()
        },
    }


def _markdown(cells: Sequence[Cell], options: Options, figures: Figures) -> list[str]:
    data_sets = [cell.data_set.name for cell in _per_data_set(cells)]
    chosen = "" if options.max_cases is None else f", of each at most {options.max_cases} (seeded)"
    lines = [
        "# Transfer between data sets",
        "",
        "Foreground Dice in percent with 95% bootstrap intervals over cases, or over groups of "
        "cases where these are known. **Bold**: a model on its own data set, on the validation "
        f"cases of its folds; everywhere else on all cases{chosen}. Folds are evaluated one by one "
        "on every data set, and averaged within a case. Evaluated with "
        f"`{' '.join(options.evaluation)}`, written {date.today().isoformat()}. Intervals and "
        "tests are about these trained models, not about training again.",
        "",
        _models_table(cells),
        "",
        _data_sets_table(cells, figures),
        "",
        *_few_lines(figures),
    ]
    for title, records in _by_run(figures.matrix).items():
        lines += [f"## {title}", "", _matrix(records, data_sets), ""]
    return [*lines, *_way_lines(figures), *_side_by_side_lines(figures), *_note_lines(figures)]


def _models_table(cells: Sequence[Cell]) -> str:
    rows = []
    for cell in _per_model(cells):
        its = cell.model
        said = (its.name, its.dataset, " ".join(map(str, its.folds)), str(its.folder))
        rows.append([escaped(text) for text in said])
    return markdown_table(["model", "trained on", "folds", "folder"], rows)


def _data_sets_table(cells: Sequence[Cell], figures: Figures) -> str:
    rows = []
    for cell in _per_data_set(cells):
        its = cell.data_set
        labels = ", ".join(f"{name} {value}" for name, value in its.dataset_json["labels"].items())
        counts = [
            f"{'own' if pair.own else 'others'}: {_count_said(pair)}"
            for (_, name), pair in figures.pairs.items()
            if name == its.name
        ]
        said = [escaped(text) for text in (its.name, labels, ", ".join(channels(its)))]
        rows.append([*said, "; ".join(dict.fromkeys(counts))])
    return markdown_table(["data set", "labels", "channels", "evaluated"], rows)


def _count_said(pair: Pair) -> str:
    if pair.groups is None:
        return f"{len(pair.cases)} cases"
    return pair.groups.said(pair.cases)


def _few_lines(figures: Figures) -> list[str]:
    few = []
    for (_, data_set), pair in figures.pairs.items():
        groups, cases = pair.groups, pair.cases
        count, what = (len(cases), "cases") if groups is None else (groups.count(cases), "groups")
        if count < FEW:
            few.append(f"{count} {what} of {data_set}")
    if not few:
        return []
    named = ", ".join(dict.fromkeys(few))
    return [f"**Few** ({named}): intervals over them cover less than 95%.", ""]


def _matrix(records: Sequence[Record], data_sets: Sequence[str]) -> str:
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        text = interval_text(record)
        own = record["own"]
        rows.setdefault(record["model"], {})[record["data_set"]] = f"**{text}**" if own else text
    body = [[model, *(of[name] for name in data_sets)] for model, of in rows.items()]
    return markdown_table(["model", *data_sets], body)


def _way_lines(figures: Figures) -> list[str]:
    by_run = _by_run(figures.ways)
    rows: dict[tuple[str, str], list[str]] = {}
    for records in by_run.values():
        for r in records:
            dice = f"{percent_text(r['own_dice'])} -> {percent_text(r['dice'])}"
            way = rows.setdefault((r["model"], r["data_set"]), [])
            way.append(f"{dice}: {interval_text(r, 'difference')}")
    return [
        "## From the own data set to another",
        "",
        "Own -> other: the difference. Both are drawn by themselves, since their cases differ; it "
        "holds what the model lacks there and how hard these images are.",
        "",
        markdown_table(["model", "to", *by_run], [[*key, *row] for key, row in rows.items()]),
        "",
    ]


def _side_by_side_lines(figures: Figures) -> list[str]:
    blocks: dict[tuple[str, str], list[Record]] = {}
    for record in figures.side_by_side:
        blocks.setdefault((record["data_set"], record["where"]), []).append(record)
    if not blocks:
        return []
    lines = [
        "## Models side by side, on the same cases",
        "",
        "Paired by case, against the first model of each table. p: by a permutation test, "
        "Holm-corrected over all tests of this page. The last column: by what share of the first "
        "model's drop against clean the drop is smaller.",
        "",
    ]
    columns = ["model", "", "Dice", "difference", "p (Holm)", "drop smaller by"]
    for (data_set, where), records in blocks.items():
        lines += [f"### {data_set}, {records[0]['cases']} cases ({where})", ""]
        if where == ON_ITS_OWN:
            lines += [f"Those that {records[0]['baseline']} was not trained on.", ""]
        lines += [markdown_table(columns, [_side_by_side_row(r) for r in records]), ""]
    return lines


def _side_by_side_row(r: Record) -> list[str]:
    row = [r["model"], run_title(r), interval_text(r)]
    if r["model"] == r["baseline"]:
        return [*row, "", "", ""]
    p = "" if r["p_holm"] is None else f"{r['p_holm']:.3g}"
    share = share_text(r, "reduction") if r["reduction"] is not None else ""
    return [*row, interval_text(r, "difference"), p, share]


def _note_lines(figures: Figures) -> list[str]:
    return [f"- {escaped(note)}" for note in dict.fromkeys(figures.notes)]
