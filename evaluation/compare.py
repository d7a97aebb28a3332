"""Several evaluations in one table and one plot: `python -m evaluation.compare A B [C ...] -o OUT`.

A, B, ... are OUT folders of evaluation.robust on the same cases with the same settings; A is the reference. Attacks and shifts that not every folder
has are left out and named, and worst_linf and worst_l2 are then over the others. Differences are paired by case: mean Dice of the other minus A's, with a bootstrap interval over cases. p values test the mean paired difference by SciPy's permutation test over signs and are
Holm-corrected over one family that is fixed before looking: clean, worst_linf and worst_l2 at every budget, and all shifts together, for every
folder. All other rows have intervals only. The reduction says by what share a drop against clean is smaller than A's. A model trained several times
(folds, seeds) is given as several folders joined by commas: folds add cases, seeds are averaged within a case. OUT gets compare.md, compare.csv, compare.json and compare.png.
"""

from __future__ import annotations

import argparse
import csv
import errno
import io
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import read_json, write_file

# what must agree, or the difference between folders would not be one between models
SAME_OPTIONS = (
    "epsilons",
    "epsilons_l2",
    "epsilon_unit",
    "steps",
    "steps_of",
    "restarts",
    "seed",
    "nsd_tolerance",
)
COLUMNS = (
    *(
        "kind",
        "attack",
        "norm",
        "epsilon_text",
        "severity",
        "folder",
        "model",
        "cases",
        "dice",
        "dice_low",
        "dice_high",
    ),
    *(
        "difference",
        "difference_low",
        "difference_high",
        "reduction",
        "reduction_low",
        "reduction_high",
        "p",
        "p_holm",
    ),
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One or several OUT folders of a model. `name`: as shown, unique among those compared."""

    name: str
    folders: tuple[Path, ...]
    summary: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def place(self) -> str:
        return ", ".join(map(str, self.folders))


def compare(
    folders: Sequence[str | Path | Sequence[str | Path]],
    output_folder: str | Path,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The table as records, one per row and model; written to `output_folder`. A model is an OUT folder, or a sequence of them (folds, seeds). The
    first is the reference. `names`: by default those of the trainers or folders. ValueError for fewer than two models, unfinished folders, and
    settings that are not comparable (named)."""
    if len(folders) < 2:
        raise UserError(f"compare needs at least two folders, got {len(folders)}")
    parts = [
        [_read(Path(f)) for f in ([entry] if isinstance(entry, (str, Path)) else entry)]
        for entry in folders
    ]
    parts, lone = _with_common_attacks(parts)
    results = [_joined(of) for of in parts]
    results = (
        _named(results)
        if names is None
        else [replace(r, name=n) for r, n in zip(results, names, strict=True)]
    )
    for other in results[1:]:
        _check_comparable(results[0], other)
    records = _records(results, seed)
    out = Path(output_folder)
    notes = _notes(results, lone)
    write_file(out / "compare.csv", _csv(records))
    write_file(
        out / "compare.json",
        json.dumps(
            {
                "schema_version": 1,
                "folders": [[str(f) for f in r.folders] for r in results],
                "notes": notes,
                "results": _no_nan(records),
            },
            indent=1,
        ),
    )
    write_file(out / "compare.md", _markdown(results, records, notes))
    _draw(out / "compare.png", results, records)
    return records


# --- reading and checking -----------------------------------------------------------------------------------------------------------


def _with_common_attacks(
    models: Sequence[Sequence[Result]],
) -> tuple[list[list[Result]], list[str]]:
    """The folders of all models with the attacks that all of them have, and the others' names. ValueError if they have none in common."""
    from evaluation.report import markdown as report

    attacks = [
        {report.run_key(r): None for r in part.rows if r["kind"] == "attack"}
        for parts in models
        for part in parts
    ]
    common = {key for key in attacks[0] if all(key in others for others in attacks)}
    lone = dict.fromkeys(
        f"{key[1]} {key[3]}".strip() for keys in attacks for key in keys if key not in common
    )
    if not lone:
        return [list(parts) for parts in models], []
    if not common:
        raise UserError(
            f"{models[0][0].place} and the others are not comparable: they have no attack in common ({', '.join(lone)})"
        )

    def restricted(part: Result) -> Result:
        kept: dict[str, list] = {}
        for row in part.rows:
            if row["kind"] != "worst" and (
                row["kind"] != "attack" or report.run_key(row) in common
            ):
                kept.setdefault(row["case"], []).append(row)
        return replace(
            part, rows=[row for rows in kept.values() for row in report.with_worst(rows)]
        )

    return [[restricted(part) for part in parts] for parts in models], list(lone)


def _joined(parts: Sequence[Result]) -> Result:
    first = parts[0]
    for other in parts[1:]:
        _check_comparable(first, other, same_cases=False)
    folds = list(dict.fromkeys(f for p in parts for f in p.summary["model"]["folds"]))
    cases = list(dict.fromkeys(c for p in parts for c in p.summary["cases"]))
    summary = {**first.summary, "model": {**first.summary["model"], "folds": folds}, "cases": cases}
    return Result(
        name=first.name,
        folders=tuple(p.folders[0] for p in parts),
        summary=summary,
        rows=[r for p in parts for r in p.rows],
    )


def _read(folder: Path) -> Result:
    from evaluation.report import markdown as report

    for name in ("summary.json", "cases.csv"):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: it is no finished OUT folder of evaluation.robust"
            )
    summary = read_json(
        folder / "summary.json", needs=("schema_version", "model", "options", "cases")
    )
    if summary["schema_version"] != report.SCHEMA_VERSION:
        raise UserError(
            f"{folder / 'summary.json'}: schema_version must be {report.SCHEMA_VERSION}, got {summary['schema_version']}; evaluate it again"
        )
    return Result(
        name=summary["model"]["trainer"],
        folders=(folder,),
        summary=summary,
        rows=report.read_cases(folder / "cases.csv"),
    )


def _named(results: Sequence[Result]) -> list[Result]:
    """The trainer's name where that tells them apart, otherwise the folder's, otherwise a number with it."""
    trainers, folders = [r.name for r in results], [r.folders[0].name for r in results]
    for names in (trainers, folders, [f"{i + 1} {n}" for i, n in enumerate(folders)]):
        if len(set(names)) == len(names):
            return [replace(r, name=n) for n, r in zip(names, results)]
    raise AssertionError("numbers tell folders apart")


def _check_comparable(a: Result, b: Result, *, same_cases: bool = True) -> None:
    from evaluation.results_folder import differences

    def settings(result: Result) -> dict[str, Any]:
        options = {k: result.summary["options"].get(k) for k in SAME_OPTIONS}
        options["autocast"] = bool(
            result.summary["options"].get("autocast")
        )  # folders from before it existed
        labels = sorted({(r["label"], r["label_name"]) for r in result.rows})
        cases = {"cases": sorted(result.summary["cases"])} if same_cases else {}
        return {**cases, **options, "labels": [f"{k} {n}" for k, n in labels]}

    found = differences(settings(a), settings(b))
    if found:
        raise UserError(f"{a.place} and {b.place} are not comparable: {'; '.join(found)}")


def _notes(results: Sequence[Result], lone_attacks: Sequence[str]) -> list[str]:
    """Differences that are allowed but must be known."""
    keys = (
        "dataset",
        "configuration",
        "plans",
        "tile_step_size",
        "mirror_axes",
        "patch_size",
        "folds",
    )
    notes = []
    for key in keys:
        values = [r.summary["model"][key] for r in results]
        if any(v != values[0] for v in values):
            notes.append(
                f"{key} differs: {', '.join(f'{r.name} {v}' for r, v in zip(results, values))}"
            )
    if lone_attacks:
        notes.append(
            f"attacks left out of this comparison, also of worst_linf and worst_l2, since not every folder has them: {', '.join(lone_attacks)}"
        )
    shifts = [
        dict.fromkeys(r["attack"] for r in result.rows if r["kind"] == "shift")
        for result in results
    ]
    lone = [
        name
        for name in dict.fromkeys(n for names in shifts for n in names)
        if not all(name in names for names in shifts)
    ]
    if lone:
        notes.append(
            f"shifts left out of this comparison, since not every folder has them: {', '.join(lone)}"
        )
    return notes


# --- the table ----------------------------------------------------------------------------------------------------------------------


def _records(results: Sequence[Result], seed: int) -> list[dict[str, Any]]:
    from evaluation import significance as statistics
    from evaluation.report import markdown as report

    tables = [report.Table(r.rows) for r in results]
    order = tables[0].cases
    draws = statistics.resample(len(order), seed=seed)

    def values_of(table, *keys):
        # the same cases may come in another order
        return table.values("dice", *keys)[[table.cases.index(c) for c in order]]

    clean = [values_of(t, t.clean) for t in tables]
    records = []
    for key, keys in _groups(tables):
        reference = None
        for result, table, its_clean in zip(results, tables, clean):
            values = values_of(table, *keys)
            reference = values if reference is None else reference
            low, high = statistics.interval(values, draws)
            record = {
                **dict(zip(("kind", "attack", "norm", "epsilon_text", "severity"), key)),
                "folder": result.place,
                "model": result.name,
                "cases": len(order),
                "dice": statistics.mean_over_cases(values),
                "dice_low": low,
                "dice_high": high,
                **dict.fromkeys(COLUMNS[COLUMNS.index("difference") :]),
            }
            if result is not results[0]:
                record["difference"] = record["dice"] - statistics.mean_over_cases(reference)
                record["difference_low"], record["difference_high"] = (
                    statistics.difference_interval(values, reference, draws)
                )
                if key[0] != "clean":
                    reduction = statistics.drop_reduction(
                        its_clean, values, clean[0], reference, draws
                    )
                    record |= dict(zip(("reduction", "reduction_low", "reduction_high"), reduction))
                if key[0] in ("clean", "worst", "shifts_mean"):
                    record["p"] = statistics.sign_flip_test(
                        _case_means(values) - _case_means(reference), seed=seed
                    )
            records.append(record)
    family = [r for r in records if r["p"] is not None]
    for record, adjusted in zip(family, statistics.holm([r["p"] for r in family])):
        record["p_holm"] = adjusted
    return records


def _groups(tables) -> list[tuple[tuple, list[tuple]]]:
    """(key of the row, runs that it averages): every run but single severities, then each shift that all tables have, then all of them."""
    groups = [(key, [key]) for key in tables[0].keys if key[0] != "shift"]
    shifts = [
        key for key in tables[0].keys if key[0] == "shift" and all(key in t.keys for t in tables)
    ]
    for name in dict.fromkeys(k[1] for k in shifts):
        groups.append((("shift_mean", name, "", "", None), [k for k in shifts if k[1] == name]))
    if shifts:
        groups.append((("shifts_mean", "all shifts", "", "", None), shifts))
    return groups


def _case_means(values):
    """(cases, labels) -> (cases,), over defined labels."""
    import numpy as np

    defined = ~np.isnan(values)
    count = defined.sum(1)
    return np.where(count > 0, np.where(defined, values, 0).sum(1) / np.maximum(count, 1), np.nan)


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for record in records:
        writer.writerow(
            [
                ""
                if record[c] is None
                else format(record[c] + 0.0, ".9g")
                if isinstance(record[c], float)
                else record[c]
                for c in COLUMNS
            ]
        )
    return text.getvalue()


def _no_nan(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {k: None if isinstance(v, float) and v != v else v for k, v in r.items()} for r in records
    ]


def _markdown(
    results: Sequence[Result], records: Sequence[Mapping[str, Any]], notes: Sequence[str]
) -> str:
    from evaluation.report import markdown as report

    others = results[1:]
    columns = ["", *[r.name for r in results]]
    for r in others:
        columns += [f"{r.name} - {results[0].name}", "p (Holm)", "drop smaller by"]
    body = []
    by_row: dict[tuple, list[Mapping[str, Any]]] = {}
    for record in records:
        by_row.setdefault(
            tuple(record[k] for k in ("kind", "attack", "norm", "epsilon_text", "severity")), []
        ).append(record)
    for (kind, attack, norm, epsilon, _), row in by_row.items():
        title = " ".join(p for p in (attack, norm if attack == "noise" else "", epsilon) if p)
        line = [
            f"**{title}**" if kind in ("clean", "worst", "shifts_mean") else title,
            *[report.interval_text(r) for r in row],
        ]
        for r in row[1:]:
            line += [
                report.interval_text(r, "difference"),
                "" if r["p_holm"] is None else f"{r['p_holm']:.3g}",
                _share(r),
            ]
        body.append(line)
    lines = [
        "# Comparison of robustness",
        "",
        f"{len(results[0].summary['cases'])} cases, the same in every folder; reference: {results[0].name}. Foreground Dice in percent with 95% bootstrap "
        "intervals over cases; differences are paired by case. p: permutation test over signs of the mean paired difference, Holm-corrected over all rows "
        "in bold; the other rows were not tested. The last column: by what share of the reference's drop against clean the drop is smaller. Intervals and tests are about these trained models, not about training again.",
        "",
        report.markdown_table(columns, body),
        "",
        *[f"- {r.name}: {r.place}" for r in results],
        *[f"- {note}" for note in notes],
    ]
    return "\n".join(lines) + "\n"


def _share(record: Mapping[str, Any]) -> str:
    value, low, high = (record[k] for k in ("reduction", "reduction_low", "reduction_high"))
    return (
        ""
        if value is None or value != value
        else f"{100 * value:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"
    )


# --- the plot -----------------------------------------------------------------------------------------------------------------------


def _draw(path: Path, results: Sequence[Result], records: Sequence[Mapping[str, Any]]) -> None:
    from evaluation.report import figures

    figures.draw_comparison(path, [r.name for r in results], records)


# --- the command --------------------------------------------------------------------------------------------------------------------


PROG = "python -m evaluation.compare"


def main(argv: Sequence[str] | None = None, *, prog: str = PROG) -> int:
    """Exit codes: 0 done, 2 bad input or a disk that is full, with the reason on stderr."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Compare OUT folders of evaluation.robust, paired by case."
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="FOLDER[,FOLDER...]",
        help="OUT folders; the first is the reference; commas join a model's folds and seeds",
    )
    parser.add_argument(
        "-o", dest="output_folder", required=True, metavar="OUT", help="output folder"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of bootstrap and permutations; default: %(default)s"
    )
    arguments = vars(parser.parse_args(argv))
    output = arguments["output_folder"]
    try:
        compare(
            [f if Path(f).exists() else f.split(",") for f in arguments["folders"]],
            output,
            seed=arguments["seed"],
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        advice = (
            "; free space and run the same command again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else ""
        )
        print(f"error: {output}: {error.strerror or error}{advice}", file=sys.stderr)
        return 2
    print((Path(output) / "compare.md").read_text().rstrip())
    print(f"\nwritten to {output}: compare.md, compare.csv, compare.json, compare.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
