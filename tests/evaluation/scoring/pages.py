"""What `lngswr score` leaves of cases whose names no file could have: what the tests of its
report.html look at."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from evaluation.calibration import calibration_sums
from evaluation.scoring.label_set import LabelSet
from evaluation.scoring.measures import COUNTS, Units, measure_names
from evaluation.scoring.options import ScoreOptions
from evaluation.scoring.run import write_scores
from evaluation.scoring.summary import build_summary
from evaluation.scoring.table import ScoreTable

HOSTILE = "<script>alert(1)</script>"
CASES = ("p0_a", HOSTILE, "p1_<img src=x onerror=alert(1)>", "p2_&amp;'\"", "p3_empty")
EMPTY = CASES[-1]
MODELS = ("a", f"b {HOSTILE}")
NAMES = {1: "organ", 2: f"lesion {HOSTILE}"}


def write_page(
    folder: Path, *, models=MODELS, cases=CASES, names=NAMES, probabilities=True, grouped=True
) -> Path:
    """An OUT folder; in one case nothing is labelled or predicted."""
    table = make_table(models, cases, names, probabilities)
    inputs = SimpleNamespace(
        models=[SimpleNamespace(name=m, folders=[Path("/of") / m]) for m in models],
        notes=[f"left out: {HOSTILE}"],
    )
    summary = build_summary(
        table,
        inputs=inputs,  # pyright: ignore[reportArgumentType]  # what is read of it
        labels=LabelSet(labels=table.labels, names=names),
        options=ScoreOptions(probabilities=probabilities),
        grouped=grouped,
        notes=[],
    )
    write_scores(folder, table, summary)
    return folder


def make_table(models, cases, names, probabilities):
    measures, rng = measure_names(probabilities=probabilities), np.random.default_rng(0)

    def measured(case):
        if case == EMPTY:
            return dict.fromkeys(measures, math.nan) | dict.fromkeys(COUNTS, 0)
        found = {m: float(rng.random()) for m in measures}
        found["hd95_mm"] *= 40
        found["volume_error"] -= 0.5
        counts = {c: int(rng.integers(1000, 9999)) for c in COUNTS}
        counts |= {c: 1e3 * float(rng.random()) for c in COUNTS if c.endswith("volume")}
        return found | counts | {"matched_lesions": 1234}

    def sums():
        y = rng.random((6, 7)) < 0.4
        p = np.clip(0.3 * y + 0.7 * rng.random(y.shape), 0, 1)
        return calibration_sums(p, p > 0.5, y, np.ones_like(y))

    return ScoreTable(
        models=tuple(models),
        cases=tuple(cases),
        groups=tuple(f"patient {c[:2]}" for c in cases),
        labels=tuple(names),
        names=names,
        units=Units(length="mm", volume="ml"),
        measures=measures,
        measured=[[{label: measured(c) for label in names} for c in cases] for _ in models],
        calibration=[[{label: sums() for label in names} for _ in cases] for _ in models]
        if probabilities
        else [],
    )


def summary_in(folder):
    """summary.json, undefined values as nan."""

    def read(value):
        if isinstance(value, dict):
            return {k: math.nan if v is None else read(v) for k, v in value.items()}
        return [read(v) for v in value] if isinstance(value, list) else value

    content = json.loads((folder / "summary.json").read_text())
    return content | {k: read(content[k]) for k in ("results", "lesions", "calibration")}


def rows_in(folder):
    """{(model, case, label): row of cases.csv}."""
    with (folder / "cases.csv").open(newline="") as file:
        return {(r["model"], r["case"], r["label"]): r for r in csv.DictReader(file)}
