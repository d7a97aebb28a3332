"""OUT folders and cards made by hand, of two attacks at two budgets on six cases."""

import hashlib
import json

from evaluation.card import make_card
from evaluation.report.cases_table import read_cases, write_cases
from evaluation.report.records import summarise
from evaluation.rows import MEAN_LABEL, with_worst
from nnunetv2_lngswr.attacks.suites import full_name
from tests.evaluation.comparison.results import CASES, write_result

SUITE = full_name("worst")
INPUTS = {case: hashlib.sha256(case.encode()).hexdigest() for case in CASES}


def sha(text):
    """Of a checkpoint of this name."""
    return hashlib.sha256(text.encode()).hexdigest()


def make_out(
    folder,
    *,
    checkpoint="one",
    attack=SUITE,
    suite=SUITE,
    lower=0.0,
    kinds=None,
    epsilons=None,
    model=None,
    options=None,
    summary=None,
    inputs=INPUTS,
    cases=CASES,
):
    """An OUT folder: `attack` is the stronger one in Linf, of L2 there is one more.

    Its Dice is `lower` than it would be, or by {case: so much}. `kinds`: those that are kept.
    """
    of_model = {"checkpoint_sha256": {"0": sha(checkpoint)}, **(model or {})}
    write_result(folder, model=of_model, options=options, inputs=inputs, cases=cases)
    rows = []
    for case in cases:
        of_case = [r for r in read_cases(folder / "cases.csv") if r["case"] == case]
        less = lower.get(case, 0.0) if isinstance(lower, dict) else lower
        for row in of_case:
            if row["attack"] == "pgd_linf":
                row |= {"attack": attack, "dice": row["dice"] - less}
        of_case = [r for r in of_case if r["kind"] != "worst"]
        if kinds is not None:
            of_case = [r for r in of_case if r["kind"] in kinds]
        if epsilons is not None:
            of_case = [r for r in of_case if not r["epsilon_text"] or r["epsilon_text"] in epsilons]
        rows += with_worst(of_case)
    write_cases(folder / "cases.csv", rows)
    content = json.loads((folder / "summary.json").read_text())
    content |= {"suite": suite, "results": summarise(rows, seed=0), **(summary or {})}
    (folder / "summary.json").write_text(json.dumps(content))
    return folder


def with_calibration(folder):
    """An OUT made by hand, with an ECE and a Brier score that grow as Dice falls; and its rows."""
    rows = read_cases(folder / "cases.csv")
    for row in rows:
        row |= {"ece": 0.5 - row["dice"] / 2, "brier": 0.3 - row["dice"] / 4}
    write_cases(folder / "cases.csv", rows)
    return folder, rows


def make(folder, *outs, **more):
    """The card of OUT folders, in `folder`."""
    return make_card(outs, folder, **more).card


def mean_dice(out, attack, epsilon, *, kind="attack"):
    """{case: foreground Dice} in cases.csv."""
    return {
        r["case"]: r["dice"]
        for r in read_cases(out / "cases.csv")
        if (r["kind"], r["attack"], r["epsilon_text"], r["label"])
        == (kind, attack, epsilon, MEAN_LABEL)
    }


def entry(card, norm, epsilon):
    return next(e for e in card["worst"] if (e["norm"], e["epsilon_text"]) == (norm, epsilon))
