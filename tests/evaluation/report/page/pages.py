"""OUT folders with pictures, made by hand: what the tests of report.html look at."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np

from evaluation.case_result import CaseResult
from evaluation.inputs import CaseFiles
from evaluation.picture_stack import Cut, PictureStack
from evaluation.report.cases_table import write_cases
from evaluation.report.records import write_summary
from evaluation.results_folder import ResultsFolder
from tests.evaluation.comparison.results import OPTIONS
from tests.evaluation.report.rows import rows_of, summary_of

SHA = "made by hand"
HOSTILE = "<script>window.hacked = 1</script>"
HOSTILE_CASE = HOSTILE.replace("/", "")  # names files, too
HOSTILE_FILE = "<img src=x onerror=window.hacked=1>&amp;'\""  # a file may be called so
ATTACKS = (
    ("pgd_linf", "linf", "1/255"),
    ("pgd_linf", "linf", "2/255"),
    ("pgd_l2", "l2", "1/255"),
    ("pgd_l2", "l2", "2/255"),
    ("ssah", "", ""),
)
NUMBER = re.compile(r"\d+\.\d+")


def finite(value):
    """All numbers in it."""
    if isinstance(value, dict):
        return {n for v in value.values() for n in finite(v)}
    if isinstance(value, (list, tuple)):
        return {n for v in value for n in finite(v)}
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {float(value)} if is_number and math.isfinite(value) else set()


def make_out(
    folder, *, cases=("a", HOSTILE_FILE, "c"), trainer="T", gain=0.0, pictures=True, label="name 1"
):
    """An OUT folder with two attacks in two norms, one without a budget, and a corruption.

    `gain`: what every attacked Dice is higher; `pictures`: which cases have them (True: all);
    `label`: the name of label 1.
    """
    rows = [r for i, case in enumerate(cases) for r in rows_of(case, 0.001 * i)]
    rows = [r if r["kind"] == "clean" else {**r, "dice": r["dice"] + gain} for r in rows]
    rows = [{**r, "label_name": label} if r["label"] == "1" else r for r in rows]
    summary = summary_of(rows)
    summary["cases"] = list(cases)
    summary["model"] |= {"trainer": trainer}
    summary["options"] |= OPTIONS
    write_cases(folder / "cases.csv", rows)
    write_summary(folder / "summary.json", summary)
    out = ResultsFolder(folder, SHA)
    for i, case in enumerate(cases):
        if "/" in case or not (pictures is True or case in pictures):
            continue
        dice = {(r["attack"], r["epsilon_text"]): r["dice"] for r in rows if is_mean(r, case)}
        example = make_example(seed=i, dice=dice, label=label)
        files = CaseFiles(identifier=case, folds=None, images=(), label=Path())
        own = [r for r in rows if r["case"] == case]
        out.save(files, CaseResult(rows=own, example=example), {}, {})
    return folder


def is_mean(row, case):
    return row["case"] == case and row["label"] == "mean"


def make_example(*, seed=0, shape=(6, 40, 56), dice=None, label="ball"):
    """As run_case.py keeps it: a ball that its prediction loses bit by bit."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices(shape)
    distance = np.hypot(y - shape[1] / 2, x - shape[2] / 2) + 2 * np.abs(z - shape[0] / 2)
    image = rng.normal(0, 0.2, shape).astype(np.float32) + (distance < 12)
    reference = (distance < 12).astype(np.int16)
    before = (distance < 11).astype(np.int16)
    cut, extent = Cut.around(reference, before), float(np.ptp(image))
    stack = PictureStack(image, reference, before, cut=cut, extent=extent)
    for i, (attack, norm, epsilon) in enumerate(ATTACKS):
        delta = rng.choice([-1.0, 1.0], shape) * extent * (1 + i) / 255
        after = np.where(distance < 9 - i, 1, 0) + np.where(distance > 25, 2, 0) * (i > 2)
        stack.consider(
            (norm, epsilon) if epsilon else ("", attack),
            lambda delta=delta: delta,
            lambda after=after: after,
            dice=(dice or {}).get((attack, epsilon), 0.5),
            attack=attack,
            norm=norm,
            epsilon_text=epsilon,
        )
    at = shape[0] // 2
    return {
        "image": image[at],
        "perturbation": delta[at].astype(np.float32),
        "range": extent,
        "reference": reference[at],
        "before": before[at],
        "after": after[at].astype(np.int16),
        "names": {"1": label},
        "case": "x",
        "attack": "pgd_linf",
        "norm": "linf",
        "epsilon_text": "2/255",
        "dice_before": 0.9,
        "dice_after": (dice or {}).get(("pgd_linf", "2/255"), 0.5),
        "stack": stack.arrays(),
        "shown": stack.describe(),
    }


def data_of(page):
    """The JSON element of a page's text."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)
