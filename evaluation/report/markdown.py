"""What an evaluation leaves behind: cases.csv, summary.json and report.md; the pictures are drawn by figures.py.

A row is one case x run x label, where a run is the clean case, an attack with its norm and epsilon, a shift with its severity, or `worst_linf` /
`worst_l2`: per case and budget the run of that norm with the lowest foreground Dice. The label 'mean' is the case's foreground mean.
cases.csv holds no times and is written in a fixed order with fixed float formatting, so equal results give equal bytes.

Means in summary.json and report.md are nnU-Net's (statistics.py); the units and the empty-mask rule are threat_model.py's and metrics.py's.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import significance as statistics
from evaluation.metrics import EMPTY_MASK_RULE, METRICS
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import write_file

SCHEMA_VERSION = 1
MEAN_LABEL = "mean"
NORM_TITLES = {"linf": "Linf", "l2": "L2 (root mean square per voxel)"}
_SIZES = tuple(
    f"{n}_{u}" for u in ("range", "normalized", "original") for n in ("linf", "rms", "l2")
)
_SETTINGS = ("steps", "step_size", "restarts", "loss", "seed", "settings", "extras", "source")
_MODEL = (
    "tile_step_size",
    "mirror_axes",
    "folds",
    "trainer",
    "plans",
    "configuration",
    "checkpoint_sha256",
)
_INTEGERS = (
    "severity",
    "reference_voxels",
    "predicted_voxels",
    "forwards",
    "gradients",
    "steps",
    "restarts",
    "seed",
)

COLUMNS = (
    *(
        "case",
        "fold",
        "kind",
        "attack",
        "norm",
        "epsilon",
        "epsilon_text",
        "epsilon_unit",
        "severity",
        "label",
        "label_name",
    ),
    *METRICS,
    *("dice_drop", "reference_voxels", "predicted_voxels"),
    *_SIZES,
    *("attack_loss", "attack_dice", "forwards", "gradients"),
    *_SETTINGS,
    *_MODEL,
)
_FLOATS = (
    "epsilon",
    *METRICS,
    "dice_drop",
    *_SIZES,
    "attack_loss",
    "attack_dice",
    "step_size",
    "tile_step_size",
)

Row = Mapping[str, Any]
RunKey = tuple[str, str, str, str, Any]  # kind, attack, norm, epsilon_text, severity


def run_key(row: Row) -> RunKey:
    return row["kind"], row["attack"], row["norm"], row["epsilon_text"], row["severity"]


def with_worst(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One case's rows, followed by its worst_linf and worst_l2 at every budget. Runs without a budget (ssah) are in no ball and do not
    take part. A foreground mean of nan (nothing there, nothing found) is no success of an attack."""
    result = [dict(r) for r in rows]
    budgets: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["kind"] == "attack" and row["label"] == MEAN_LABEL and row["epsilon"] is not None:
            budgets.setdefault((row["norm"], row["epsilon_text"]), []).append(row)
    for norm in NORM_TITLES:
        for (n, _), candidates in budgets.items():
            # the control alone is no attack
            if n == norm and not all(_is_noise(c) for c in candidates):
                chosen = min(
                    candidates, key=lambda r: math.inf if math.isnan(r["dice"]) else r["dice"]
                )
                for row in rows:
                    if run_key(row) == run_key(chosen):
                        result.append(
                            {
                                **row,
                                "kind": "worst",
                                "attack": f"worst_{norm}",
                                "source": chosen["attack"],
                            }
                        )
    return result


def _is_noise(row: Row) -> bool:
    return row["attack"] in ("noise", "noise_linf", "noise_l2")


# --- cases.csv ----------------------------------------------------------------------------------------------------------------------


def write_cases(path: Path, rows: Iterable[Row]) -> None:
    """cases.csv: floats with nine significant digits, nan as 'nan', what does not apply as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_field(row.get(c)) for c in COLUMNS] for row in rows)
    write_file(path, text.getvalue())


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The rows of a cases.csv with numbers as numbers and empty fields as None (text columns: ''). ValueError for another file."""
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path} is no cases.csv of this version: columns {', '.join(missing)} are missing"
            )
        return [{c: _parsed(c, row[c]) for c in COLUMNS} for row in reader]


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value + 0.0, ".9g")
    return str(value)


def _parsed(column: str, text: str) -> Any:
    if column in _FLOATS:
        return float(text) if text else None
    if column in _INTEGERS:
        return int(text) if text else None
    return text


# --- summary.json -------------------------------------------------------------------------------------------------------------------


def summarise(rows: Sequence[Row], *, seed: int) -> list[dict[str, Any]]:
    """One record per run over all cases, in the order of the rows, each with means, 95% bootstrap intervals over cases and the drop against
    clean; and for shifts one per shift ('shift_mean') and one for all of them ('shifts_mean') over severities."""
    table = Table(rows)
    draws = statistics.resample(len(table.cases), seed=seed)
    records = [_record(table, key, [key], draws) for key in table.keys]
    by_shift: dict[str, list[RunKey]] = {}
    for key in table.keys:
        if key[0] == "shift":
            by_shift.setdefault(key[1], []).append(key)
    for name, keys in by_shift.items():
        records.append(_record(table, ("shift_mean", name, "", "", None), keys, draws))
    if by_shift:
        records.append(
            _record(
                table,
                ("shifts_mean", "all shifts", "", "", None),
                [k for ks in by_shift.values() for k in ks],
                draws,
            )
        )
    return records


def checks(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What must hold if the attacks work, said with the figures where it does not: on the mean over cases every attack lowers Dice at least as far as
    the noise control, and white-box attacks at least as far as transfer and square, at the same norm and budget."""
    lines = []
    found = [r for r in results if r["kind"] == "attack" and r["epsilon_text"]]
    controls = {
        "noise": "the noise control",
        "transfer": "the transfer attack",
        "square": "the query attack (square)",
    }
    for control, title in controls.items():
        weaker = {
            (r["norm"], r["epsilon_text"]): r["dice"] for r in found if r["attack"] == control
        }
        attacks = [
            r
            for r in found
            if (r["norm"], r["epsilon_text"]) in weaker
            and not r["attack"].startswith(tuple(controls))
        ]
        if not attacks:
            continue
        attacks = [
            r
            for r in attacks
            if not math.isnan(r["dice"]) and not math.isnan(weaker[r["norm"], r["epsilon_text"]])
        ]
        if not attacks:
            lines.append(f"Not checked against {title}: Dice is undefined in every case.")
            continue
        failed = [r for r in attacks if r["dice"] > weaker[r["norm"], r["epsilon_text"]]]
        names = [
            f"{_run_title(r)} ({100 * r['dice']:.1f} against {100 * weaker[r['norm'], r['epsilon_text']]:.1f})"
            for r in failed
        ]
        lines.append(
            f"Check failed: {', '.join(names)} lower Dice less than {title}."
            if failed
            else f"Check passed: every attack lowers mean Dice at least as far as {title} at the same budget ({len(attacks)} comparisons)."
        )
    for r in results:
        if r["kind"] == "attack" and r["epsilon"] != 0 and r["mean_linf_range"] == 0:
            lines.append(
                f"Check failed: {_run_title(r)} returned every case as it was, having found nothing better; its Dice says nothing. Give it more --steps."
            )
    return lines


class Table:
    """Rows as arrays: `cases`, `labels` {key: name} without the mean, `keys` in order, and `values(metric, key)`, (cases, labels), nan where
    a case has no such run."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.cases = list(dict.fromkeys(r["case"] for r in rows))
        self.labels = {r["label"]: r["label_name"] for r in rows if r["label"] != MEAN_LABEL}
        self.keys: list[RunKey] = []
        self._rows: dict[RunKey, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(run_key(row), []).append(row)
        order = {"clean": 0, "attack": 1, "worst": 2, "shift": 3}
        self.keys = sorted(self._rows, key=lambda k: order[k[0]])
        self.clean = next((k for k in self.keys if k[0] == "clean"), None)

    def values(self, metric: str, *keys: RunKey) -> np.ndarray:
        """(cases, labels), the mean over `keys`, of those that are defined."""
        where, columns = (
            {c: i for i, c in enumerate(self.cases)},
            {k: i for i, k in enumerate(self.labels)},
        )
        total, count = np.zeros((len(where), len(columns))), np.zeros((len(where), len(columns)))
        for key in keys:
            for row in self._rows[key]:
                if row["label"] != MEAN_LABEL and not math.isnan(row[metric]):
                    total[where[row["case"]], columns[row["label"]]] += row[metric]
                    count[where[row["case"]], columns[row["label"]]] += 1
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def case_means(self, column: str, key: RunKey) -> np.ndarray:
        """(cases with this run,) of a column of the foreground-mean rows; empty where it does not apply."""
        return np.array(
            [
                r[column]
                for r in self._rows[key]
                if r["label"] == MEAN_LABEL and r[column] is not None
            ],
            np.float64,
        )

    def first(self, key: RunKey) -> Row:
        return self._rows[key][0]


def _record(table: Table, name: RunKey, keys: list[RunKey], draws: np.ndarray) -> dict[str, Any]:
    kind, attack, norm, epsilon_text, severity = name
    dice, clean = table.values("dice", *keys), table.values("dice", table.clean)
    low, high = statistics.interval(dice, draws)
    drop_low, drop_high = statistics.difference_interval(clean, dice, draws)
    record = {
        "kind": kind,
        "attack": attack,
        "norm": norm or None,
        "epsilon": table.first(keys[0])["epsilon"],
        "epsilon_text": epsilon_text or None,
        "severity": severity,
        "cases": int((~np.isnan(dice)).any(1).sum()),
        "dice": statistics.mean_over_cases(dice),
        "dice_low": low,
        "dice_high": high,
        "drop": statistics.mean_over_cases(clean) - statistics.mean_over_cases(dice),
        "drop_low": drop_low,
        "drop_high": drop_high,
        **{m: statistics.mean_over_cases(table.values(m, *keys)) for m in METRICS if m != "dice"},
    }
    record["labels"] = {}
    for i, (label, label_name) in enumerate(table.labels.items()):
        label_low, label_high = statistics.interval(dice[:, [i]], draws)
        mean = statistics.mean_over_cases(dice[:, [i]])
        record["labels"][label] = {
            "name": label_name,
            "dice": mean,
            "dice_low": label_low,
            "dice_high": label_high,
        }
    if kind in ("attack", "worst"):
        for column in (*_SIZES, "forwards", "gradients"):
            values = table.case_means(column, keys[0])
            record[f"mean_{column}"] = float(values.mean()) if values.size else None
    return record


def attack_settings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How each attack was run, the same at every budget: steps, step size as a multiple of epsilon, restarts, loss, and what else it was told."""
    found = {}
    for row in rows:
        if (
            row["kind"] != "attack"
            or row["label"] != MEAN_LABEL
            or (row["attack"], row["norm"]) in found
        ):
            continue
        settings = json.loads(row["settings"] or "{}")
        # budgets of 0 have no multiples
        multiple = (
            row["step_size"] / row["epsilon"] if row["step_size"] and row["epsilon"] else None
        )
        other = {
            k: v
            for k, v in settings.items()
            if k not in ("steps", "step_size", "restarts", "loss", "epsilon") and v is not None
        }
        found[row["attack"], row["norm"]] = {
            **{k: row[k] for k in ("attack", "norm", "steps", "restarts", "loss")},
            "step_over_epsilon": multiple,
            "other": ", ".join(f"{k} {v}" for k, v in other.items()),
        }
    return list(found.values())


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """JSON without nan (null instead), keys in the order given."""
    write_file(path, json.dumps(_jsonable(summary), indent=1, allow_nan=False) + "\n")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- report.md ----------------------------------------------------------------------------------------------------------------------


def write_report(path: Path, summary: Mapping[str, Any]) -> None:
    """report.md of a summary (schema above)."""
    sections = [
        _title(summary),
        _quote(summary),
        _attacks(summary),
        _shifts(summary),
        _labels(summary),
        _attacked(summary),
        _cost(summary),
    ]
    write_file(path, "\n\n".join(s for s in sections if s) + "\n")


def _title(summary) -> str:
    model, clean = summary["model"], _find(summary, kind="clean")[0]
    head = f"# Robustness of {model['trainer']}, {model['plans']}, {model['configuration']} on {model['dataset']}"
    worst = [r for r in _find(summary, kind="worst") if r["norm"] == "linf"] or _find(
        summary, kind="worst"
    )
    lines = [
        head,
        "",
        f"{clean['cases']} case{'s' if clean['cases'] != 1 else ''}. Clean foreground Dice **{interval_text(clean)}**.",
    ]
    if worst:
        r = worst[len(worst) // 2]
        lines[-1] += (
            f" Under the worst of all {NORM_TITLES[r['norm']]} attacks at epsilon {r['epsilon_text']} of {_unit(summary)}: **{interval_text(r)}**."
        )
    pictures = (
        "curves.png, examples.png"
        if any(not _is_noise(r) for r in _find(summary, kind="attack"))
        else "curves.png"
    )
    lines += [
        "",
        f"Dice in percent, mean over cases [95% bootstrap interval over cases, which takes them as independent]. Pictures: {pictures}; every figure per "
        "case: cases.csv.",
    ]
    return "\n".join(lines)


def _quote(summary) -> str:
    rows = _find(summary, kind="worst")
    if not rows:
        return ""
    head = [
        "## The numbers to quote",
        "",
        "Per case and budget the lowest foreground Dice over all runs of that norm (worst_linf, worst_l2), then the mean over cases. "
        "An upper bound on robust Dice: a stronger attack can only lower it.",
        "",
    ]
    columns = [
        "epsilon",
        "Dice",
        "drop against clean",
        "IoU",
        "HD95",
        "NSD",
        "mean Linf",
        "mean RMS",
    ]
    for norm, title in NORM_TITLES.items():
        chosen = [r for r in rows if r["norm"] == norm]
        if not chosen:
            continue
        body = [
            [
                r["epsilon_text"],
                interval_text(r),
                interval_text(r, "drop"),
                _percent(r["iou"]),
                _number(r["hd95_mm"]),
                _percent(r["nsd"]),
                *[_size(summary, r, n) for n in ("linf", "rms")],
            ]
            for r in chosen
        ]
        head += [f"**{title}**", "", markdown_table(columns, body), ""]
    metrics = summary["metrics"]
    head.append(
        f"HD95 in {metrics['surface_unit']}, NSD at {metrics['nsd_tolerance']:g} {metrics['surface_unit']}. {EMPTY_MASK_RULE}"
    )
    head.append(
        "Sizes of the perturbation as reached, as fraction of the range / preprocessed units / units of the file (n/a: normalisation not affine)."
    )
    return "\n".join(head)


def _attacks(summary) -> str:
    parts = []
    for norm, title in NORM_TITLES.items():
        rows = [
            r
            for r in summary["results"]
            if r["norm"] == norm and r["kind"] in ("attack", "worst") and r["epsilon_text"]
        ]
        if not rows:
            continue
        budgets = list(
            dict.fromkeys(r["epsilon_text"] for r in sorted(rows, key=lambda r: r["epsilon"]))
        )
        names = list(dict.fromkeys(r["attack"] for r in rows))
        by = {(r["attack"], r["epsilon_text"]): r for r in rows}
        body = [
            [
                f"**{n}**" if n.startswith("worst") else n,
                *[interval_text(by[n, b]) if (n, b) in by else "" for b in budgets],
            ]
            for n in names
        ]
        parts += [
            f"**{title}**, foreground Dice at epsilon",
            "",
            markdown_table(["attack", *budgets], body),
            "",
        ]
    free = [r for r in _find(summary, kind="attack") if not r["epsilon_text"]]
    if free:
        body = [
            [r["attack"], interval_text(r), *[_size(summary, r, n) for n in ("linf", "rms")]]
            for r in free
        ]
        parts += [
            "**Without a budget** (the size is an outcome; never compare it with a budget above it)",
            "",
        ]
        parts += [markdown_table(["attack", "Dice", "reached Linf", "reached RMS"], body), ""]
    if not parts:
        return ""
    parts += [f"- {line}" for line in summary["checks"]]
    return "\n".join(["## Attacks", "", *parts])


def _shifts(summary) -> str:
    rows = _find(summary, kind="shift")
    left_out = summary["shifts_left_out"]
    said = (
        [f"Left out: {', '.join(f'{name} ({why})' for name, why in left_out.items())}."]
        if left_out
        else []
    )
    if not rows:
        return ""
    severities = sorted({r["severity"] for r in rows})
    means = {r["attack"]: r for r in _find(summary, kind="shift_mean")}
    by = {(r["attack"], r["severity"]): r for r in rows}
    strengths = summary["shift_strengths"]
    body = [
        [n, f"{', '.join(f'{s:g}' for s in strengths[n]['strengths'])} ({strengths[n]['unit']})"]
        + [_percent(by[n, s]["dice"]) for s in severities]
        + [interval_text(means[n])]
        for n in means
    ]
    total = _find(summary, kind="shifts_mean")[0]
    by_severity = [
        _percent(float(np.mean([by[n, s]["dice"] for n in means if by[n, s]["dice"] is not None])))
        for s in severities
    ]
    body.append(["**mean**", "", *by_severity, f"**{interval_text(total)}**"])
    head = [
        "## Shifts",
        "",
        "Seeded corruptions of the preprocessed case, clipped into its [min, max]; foreground Dice per severity. Changes of the whole file's brightness or "
        "contrast that z-scoring would undo in deployment are not undone here.",
        "",
        markdown_table(
            ["shift", "strength of severities 1-5", *map(str, severities), "mean"], body
        ),
    ]
    return "\n".join([*head, "", *said])


def _labels(summary) -> str:
    rows = [r for r in summary["results"] if r["kind"] in ("clean", "worst", "shifts_mean")]
    labels = rows[0]["labels"]
    if len(labels) < 2:
        return ""
    body = [[_run_title(r), *[interval_text(r["labels"][k]) for k in labels]] for r in rows]
    return "\n".join(
        [
            "## Dice per label",
            "",
            markdown_table(["", *[f"{v['name']} ({k})" for k, v in labels.items()]], body),
        ]
    )


def _attacked(summary) -> str:
    model, options, environment = summary["model"], summary["options"], summary["environment"]
    mirror = (
        "off"
        if model["mirror_axes"] is None
        else f"axes {', '.join(map(str, model['mirror_axes']))}"
    )
    sha = "; ".join(f"fold {f}: {h}" for f, h in model["checkpoint_sha256"].items())
    lines = [
        "## What was attacked",
        "",
        "The function that nnU-Net deploys: preprocessed case, sliding window with Gaussian weights, mirroring where on, mean over folds, to the logits of "
        "the whole case. White box: the attacker knows model and reference, and attacks use the exact gradient of that function. Segmentations, clean "
        "and attacked, come from nnU-Net's own predictor and are scored in the original space.",
        "",
        f"- model: {model['folder']}, {model['checkpoint']}, SHA-256 {sha}",
        f"- protocol: {summary['protocol']}",
        f"- tile step {model['tile_step_size']:g}, mirroring {mirror}, patch {model['patch_size']}, device {model['device']}",
        f"- epsilon: fraction of {_unit(summary)}; L2 epsilons are root mean squares per voxel in the same unit; the perturbed case stays inside the "
        "clean case's [min, max] per channel"
        if options["epsilon_unit"] == "range"
        else f"- epsilon in {_unit(summary)}; L2 epsilons are root mean squares per voxel in the same unit; the perturbed case stays inside the clean "
        "case's [min, max] per channel",
        f"- seed {options['seed']}",
    ]
    lines += [f"- {note}" for note in summary["notes"]]
    lines.append(f"- {', '.join(f'{k} {v}' for k, v in environment.items())}")
    if summary["attacks"]:
        columns = (
            "attack",
            "norm",
            "steps",
            "step size / epsilon",
            "restarts",
            "loss",
            "other settings",
        )
        body = [
            [
                a["attack"],
                a["norm"],
                *[_number(a[k]) for k in ("steps", "step_over_epsilon", "restarts")],
                a["loss"] or "",
                a["other"],
            ]
            for a in summary["attacks"]
        ]
        lines += [
            "",
            "Attacks as they were run (an empty field: the attack has no such setting):",
            "",
            markdown_table(columns, body),
        ]
    return "\n".join(lines)


def _cost(summary) -> str:
    cost = summary["cost"]
    if not cost:
        return ""
    body = [
        [c["run"], f"{c['seconds']:.2f}", _number(c["forwards"]), _number(c["gradients"])]
        for c in cost
    ]
    head = f"## Cost\n\nMean per case and budget on {summary['model']['device']}, scoring included; forwards and gradients are of the whole case.\n"
    return "\n".join([head, markdown_table(["run", "seconds", "forwards", "gradients"], body)])


def _find(summary, *, kind: str) -> list[Mapping[str, Any]]:
    return [r for r in summary["results"] if r["kind"] == kind]


def _run_title(record) -> str:
    return " ".join(
        str(v)
        for v in (record["attack"], record["epsilon_text"], record["severity"])
        if v is not None
    )


def _unit(summary) -> str:
    return {
        "range": "the intensity range of each channel",
        "normalized": "preprocessed intensity units",
        "original": "intensity units of the file",
    }[summary["options"]["epsilon_unit"]]


def _size(summary, record, norm: str) -> str:
    values = [record[f"mean_{norm}_{unit}"] for unit in ("range", "normalized", "original")]
    return " / ".join("n/a" if v is None or math.isnan(v) else f"{v:.3g}" for v in values)


def interval_text(record, what: str = "dice") -> str:
    if record[what] is None or math.isnan(record[what]):
        return "undefined"
    return f"{100 * record[what]:.1f} [{100 * record[f'{what}_low']:.1f}, {100 * record[f'{what}_high']:.1f}]"


def _percent(value) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _number(value) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.3g}"


def markdown_table(columns: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *body]
    return "\n".join(
        "| " + " | ".join(str(c).replace("|", "\\|") for c in line) + " |" for line in lines
    )
