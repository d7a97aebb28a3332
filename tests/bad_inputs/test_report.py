"""`lngswr report`: bad arguments and damaged OUT folders; the page that was there stays."""

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import bad, rows
from tests.bad_inputs.spoil import DROP

OUT = "ROOT/out_vanilla"
CSV, SUMMARY = "out_vanilla/cases.csv", "out_vanilla/summary.json"


def summary(name: str, keys: str, value, *says: str):
    change = spoil.change_json(SUMMARY, {keys: value})
    return bad(f"summary.json: {name}", ("report", OUT), SUMMARY, *says, spoil=change)


TABLE = [
    bad("no folder", ["report"], "OUT"),
    bad("unknown option", ["report", OUT, "--dark"], "--dark"),
    bad("folder does not exist", ["report", "ROOT/no"], "ROOT/no"),
    bad("folder is a file", ["report", f"ROOT/{CSV}"], f"ROOT/{CSV}"),
    bad("the first of two does not exist", ["report", "ROOT/no", OUT], "ROOT/no"),
    bad("no table", ["report", OUT], "cases.csv", spoil=spoil.remove(CSV)),
    bad("table ends early", ["report", OUT], "cases.csv", spoil=spoil.cut(CSV)),
    bad("summary is missing", ["report", OUT], "summary.json", spoil=spoil.remove(SUMMARY)),
    bad("summary ends early", ["report", OUT], SUMMARY, spoil=spoil.cut(SUMMARY)),
    summary("schema_version 99", "schema_version", 99, "99"),
    summary("without protocol", "protocol", DROP, "protocol"),
    summary("without results", "results", DROP, "results"),
    summary("results are empty", "results", [], "clean"),
    summary("results lack Dice", "results", [{"kind": "shift_mean"}], "results.dice"),
]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluations")
