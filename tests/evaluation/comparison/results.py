"""OUT folders of evaluation.robust, made by hand."""

import json

from evaluation.report.cases_table import write_cases
from evaluation.report.records import write_summary
from nnunetv2_lngswr.utils.files import write_file
from tests.evaluation.report.rows import rows_of, summary_of

CASES = [f"case{i}" for i in range(6)]
OPTIONS = {
    "epsilons": ["1/255", "2/255"],
    "epsilons_l2": [],
    "epsilon_unit": "range",
    "steps": None,
    "steps_of": {},
    "restarts": None,
    "seed": 0,
    "nsd_tolerance": 2.0,
}


def write_result(
    folder,
    *,
    trainer="A",
    gain=0.0,
    cases=CASES,
    order=1,
    options=None,
    model=None,
    keep=lambda row: True,
    inputs=None,
):
    """An OUT folder where every attacked or corrupted Dice is `gain` higher.

    With parts where `inputs` says what each case was made from: {case: hash, or what a part has}.
    """
    rows = []
    for case in cases[::order]:
        for r in rows_of(case, 0.005 * int(case[-1])):
            if keep(r):
                rows.append(r if r["kind"] == "clean" else {**r, "dice": r["dice"] + gain})
    summary = summary_of(rows)
    summary["cases"] = list(cases[::order])
    made_of = {"folder": f"models/{folder.name}", "checkpoint_sha256": {"0": str(folder)}}
    summary["model"] |= {**made_of, "trainer": trainer, **(model or {})}
    summary["options"] |= OPTIONS | (options or {})
    write_cases(folder / "cases.csv", rows)
    write_summary(folder / "summary.json", summary)
    for case, sha in (inputs or {}).items():
        part = {"inputs_sha256": sha} if isinstance(sha, str) else sha
        write_file(folder / "parts" / f"{case}.json", json.dumps(part))
    return folder
