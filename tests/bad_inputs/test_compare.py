"""`lngswr compare`: bad arguments and damaged OUT folders."""

import csv
import io

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import DROP

A, B = "ROOT/out_vanilla", "ROOT/out_lngswr"
OUT = ("-o", "ROOT/compared_now")
PART = "out_lngswr/parts/case3.json"
CSV, SUMMARY = "out_lngswr/cases.csv", "out_lngswr/summary.json"


def compare(*words: str) -> tuple[str, ...]:
    return ("compare", A, B, *OUT, *words)


def table(name: str, change, *says: str):
    return bad(f"cases.csv {name}", compare(), "out_lngswr", *says, spoil=change)


def summary(name: str, keys: str, value, *says: str):
    change = spoil.change_json(SUMMARY, {keys: value})
    return bad(f"summary.json: {name}", compare(), "out_lngswr", *says, spoil=change)


def change_rows(change):
    """Rows of cases.csv, as dicts, are replaced by those that `change` makes of them."""

    def spoiled(root) -> None:
        path = root / CSV
        lines = list(csv.DictReader(io.StringIO(path.read_text())))
        text = io.StringIO()
        writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(change(lines))
        path.write_text(text.getvalue())

    return spoiled


def set_all(**values: str):
    return change_rows(lambda lines: [line | values for line in lines])


def cut_in_line(root) -> None:
    text = (root / CSV).read_text()
    (root / CSV).write_text(text[: text.rindex("\n", 0, len(text) * 2 // 3) + 20])


ARGUMENTS = [
    bad("no folder", ["compare", *OUT], "FOLDER"),
    bad("no output", ["compare", A, B], "-o"),
    bad("one folder", ["compare", A, *OUT], "two"),
    bad("unknown option", compare("--sede", "1"), "--sede"),
    bad("an evaluation's folder", ["compare", A, B, "-o", A], "out_vanilla", "report.html", "-o"),
    bad("folder does not exist", ["compare", A, "ROOT/no", *OUT], "ROOT/no"),
    bad("folder is a file", ["compare", A, f"ROOT/{CSV}", *OUT], f"ROOT/{CSV}"),
    bad("folder is empty text", ["compare", A, "", *OUT], "FOLDER"),
    bad("folder is a circle", ["compare", A, "ROOT/c", *OUT], "ROOT/c", spoil=spoil.circle("c")),
    bad("nothing among commas", ["compare", A, f"{B},,{B}", *OUT], ","),
    bad("one among commas is missing", ["compare", A, f"{B},ROOT/no", *OUT], "ROOT/no"),
    bad("the same folder twice in one model", ["compare", A, f"{B},{B}", *OUT], "out_lngswr"),
    bad(
        "the same folder twice by two names",
        ["compare", A, f"{B},ROOT/l", *OUT],
        "out_lngswr",
        "ROOT/l",
        spoil=spoil.link("l", "out_lngswr"),
    ),
    bad("folder is no UTF-8", ["compare", A, f"ROOT/{FOREIGN}", *OUT], "FOLDER", "UTF-8"),
    bad("groups by a pattern that finds none", compare("--groups", "p\\d"), "case3", "--groups"),
    bad("groups are one", compare("--groups", "case"), "one group", "--groups"),
    bad("groups by a missing table", compare("--groups", "ROOT/t.csv"), "ROOT/t.csv"),
    bad(
        "groups by a table that lacks a case",
        compare("--groups", "ROOT/t.csv"),
        "ROOT/t.csv has no row for case4",
        spoil=spoil.write("t.csv", "case,patient\ncase3,1\n"),
    ),
    bad(
        "groups with a case in two",
        compare("--groups", "ROOT/t.csv"),
        "case3 has two groups, 1 and 2",
        spoil=spoil.write("t.csv", "case,patient\ncase3,1\ncase3,2\ncase4,3\n"),
    ),
    bad("seed -1", compare("--seed", "-1"), "seed", "-1"),
    bad("seed x", compare("--seed", "x"), "--seed", "x"),
    bad("a part is a list", compare(), PART, spoil=spoil.write(PART, "[1]")),
    bad("a part is cut", compare(), PART, spoil=spoil.cut(PART)),
    bad("output is a file", compare("-o", f"ROOT/{CSV}"), f"ROOT/{CSV}"),
    bad("output below a file", compare("-o", f"ROOT/{CSV}/a"), f"ROOT/{CSV}"),
    bad("output is empty text", compare("-o", ""), "-o"),
    bad("output is a circle", compare("-o", "ROOT/c"), "ROOT/c", spoil=spoil.circle("c")),
    bad("output may not be made", compare("-o", "ROOT/out"), "ROOT", refused="."),
    bad("cases.csv may not be read", compare(), CSV, refused=CSV),
]

TABLES = [
    table("is missing", spoil.remove(CSV), "cases.csv"),
    table("is a folder", spoil.folder(CSV), "cases.csv"),
    table("is empty", spoil.write(CSV, ""), "cases.csv"),
    table("is binary", spoil.write(CSV, bytes(range(256))), "cases.csv"),
    table("is Latin-1", spoil.write(CSV, "cäse,kind".encode("latin-1")), "cases.csv"),
    table("holds NUL", spoil.write(CSV, b"case,\x00kind\n1,2\n"), "cases.csv"),
    table("is HTML", spoil.write(CSV, "<html>"), "cases.csv"),
    table("has only its header", change_rows(lambda lines: []), "cases.csv"),
    table("ends in a line", cut_in_line, "cases.csv"),
    table("lacks a column", spoil.write(CSV, "case,kind\n1,2\n"), "cases.csv", "dice"),
    table("has all rows twice", change_rows(lambda lines: lines * 2), "case3"),
    table("has one row twice", change_rows(lambda lines: [*lines, lines[-1]]), "case4"),
    table("lacks the last row", change_rows(lambda lines: lines[:-1]), "case4"),
    table(
        "lacks a case",
        change_rows(lambda lines: [x for x in lines if x["case"] != "case4"]),
        "case4",
    ),
    table(
        "lacks clean",
        change_rows(lambda lines: [x for x in lines if x["kind"] != "clean"]),
        "clean",
    ),
    table("has a text for a number", set_all(dice="good"), "cases.csv", "good"),
    table("has a Dice of 90", set_all(dice="90"), "cases.csv", "90"),
    table("has a Dice below 0", set_all(dice="-0.5"), "cases.csv", "-0.5"),
    table("has an infinite Dice", set_all(dice="inf"), "cases.csv", "inf"),
    table("has no Dice", set_all(dice=""), "cases.csv", "dice"),
    table("has an unknown kind", set_all(kind="attak"), "cases.csv", "attak"),
    table("has a half severity", set_all(severity="1.5"), "cases.csv", "1.5"),
    table("has other labels", set_all(label="7"), "label"),
    table("has other label names", set_all(label_name="spleen"), "spleen"),
    table("has other cases", set_all(case="other"), "other"),
]

SUMMARIES = [
    bad("summary is missing", compare(), "summary.json", spoil=spoil.remove(SUMMARY)),
    bad("summary is a folder", compare(), "summary.json", spoil=spoil.folder(SUMMARY)),
    bad("summary is empty", compare(), SUMMARY, spoil=spoil.write(SUMMARY, "")),
    bad("summary ends early", compare(), SUMMARY, spoil=spoil.cut(SUMMARY)),
    bad("summary is a list", compare(), SUMMARY, spoil=spoil.write(SUMMARY, "[1]")),
    bad("summary is null", compare(), SUMMARY, spoil=spoil.write(SUMMARY, "null")),
    summary("schema_version 99", "schema_version", 99, "99"),
    summary("without model", "model", DROP, "model"),
    summary("model is null", "model", None, "model"),
    summary("model is a list", "model", [1], "model"),
    summary("without trainer", "model.trainer", DROP, "trainer"),
    summary("trainer is a number", "model.trainer", 3, "trainer"),
    summary("without folds", "model.folds", DROP, "folds"),
    summary("folds are a number", "model.folds", 0, "folds"),
    summary("folder is a list", "model.folder", [], "folder"),
    summary("checkpoints are null", "model.checkpoint_sha256", None, "checkpoint_sha256"),
    summary("checkpoints are lists", "model.checkpoint_sha256", {"0": []}, "checkpoint_sha256"),
    summary("options are null", "options", None, "options"),
    summary("options are a list", "options", [], "options"),
    summary("cases are null", "cases", None, "cases"),
    summary("cases are a number", "cases", 2, "cases"),
    summary("no cases", "cases", [], "cases"),
    summary("other cases", "cases", ["case3", "case9"], "cases", "case4"),
    summary("other steps", "options.steps", 99, "steps", "99"),
    summary("other seed", "options.seed", 7, "seed"),
    summary("other unit", "options.epsilon_unit", "normalized", "epsilon_unit"),
]

TABLE = [*ARGUMENTS, *TABLES, *SUMMARIES]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "evaluations")
