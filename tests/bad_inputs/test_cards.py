"""`lngswr card` and `lngswr leaderboard`: bad arguments, damaged folders, cards and zips."""

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import FOREIGN, bad, rows
from tests.bad_inputs.spoil import DROP

A, B = "ROOT/out_vanilla", "ROOT/out_lngswr"
OUT = ("-o", "ROOT/made_now")
CARD_A, CARD_B = "ROOT/card_vanilla", "ROOT/card_lngswr"
CARD = "card_lngswr/robustness_card.json"
ZIP = "model.zip"
TABLE_OUT = ("-o", "ROOT/table.html")
SUMMARY = "out_lngswr/summary.json"


def card(*words: str) -> tuple[str, ...]:
    return ("card", B, *OUT, *words)


def leaderboard(*words: str) -> tuple[str, ...]:
    return ("leaderboard", CARD_A, CARD_B, *(words or TABLE_OUT))


def into(name: str, *says: str, **more):
    return bad(f"zip {name}", card("--into", f"ROOT/{ZIP}"), ZIP, *says, **more)


def summary(name: str, keys: str, value, *says: str):
    change = spoil.change_json(SUMMARY, {keys: value})
    return bad(f"summary.json: {name}", card(), "out_lngswr", *says, spoil=change)


def content(name: str, keys: str, value, *says: str):
    change = spoil.change_json(CARD, {keys: value})
    return bad(f"card: {name}", leaderboard(), CARD, *says, spoil=change)


CARDS = [
    bad("no folder", ["card", *OUT], "OUT"),
    bad("folder does not exist", ["card", "ROOT/no", *OUT], "ROOT/no"),
    bad("folder is a file", ["card", f"ROOT/{ZIP}", *OUT], f"ROOT/{ZIP}"),
    bad("folder is no UTF-8", ["card", f"ROOT/{FOREIGN}", *OUT], "OUT", "UTF-8"),
    bad("folder is a model", ["card", "ROOT/images", *OUT], "no OUT folder"),
    bad("of two models", ["card", A, B, *OUT], "checkpoint_sha256", "leaderboard"),
    bad("the same twice", ["card", B, B, *OUT], "twice"),
    bad("unfinished", card(), "summary.json", "finished", spoil=spoil.remove(SUMMARY)),
    bad("summary is cut", card(), SUMMARY, spoil=spoil.cut(SUMMARY)),
    bad("rows are missing", card(), "out_lngswr", spoil=spoil.cut("out_lngswr/cases.csv")),
    bad("output is a file", card("-o", f"ROOT/{ZIP}"), f"ROOT/{ZIP}"),
    bad("output is empty text", card("-o", ""), "-o"),
    bad("name is empty text", card("--name", ""), "--name"),
    bad("output may not be made", card("-o", "ROOT/new"), "ROOT", refused="."),
    summary("schema_version 99", "schema_version", 99, "99"),
    summary("hash is no hash", "model.checkpoint_sha256", {"0": "abc"}, "checkpoint_sha256"),
    summary("hash is a list", "model.checkpoint_sha256", [1], "checkpoint_sha256"),
    summary("no hash", "model.checkpoint_sha256", DROP, "checkpoint_sha256"),
    summary("dataset is a number", "model.dataset", 3, "dataset"),
    summary("seed is a text", "options.seed", "x", "options.seed"),
    summary("unit is a list", "options.epsilon_unit", [1], "epsilon_unit"),
    summary("suite is a list", "suite", ["worst-v1"], "suite"),
    summary("checks are a text", "checks", "passed", "checks"),
    summary("notes are numbers", "notes", [1], "notes"),
    summary("environments are a number", "environments", 3, "environments"),
    summary("environment is null", "environments", [None], "environments"),
    summary("metrics are null", "metrics", None, "metrics"),
    summary("threat model is a list", "threat_model", [1], "threat_model"),
    summary("strengths are a list", "shift_strengths", [1], "shift_strengths"),
    summary("a strength is a text", "shift_strengths.gaussian_blur", "x", "shift_strengths"),
]

ZIPS = [
    into("does not exist", "does not exist", spoil=spoil.remove(ZIP)),
    into("is a folder", spoil=spoil.folder(ZIP)),
    into("is empty", "no zip", spoil=spoil.write(ZIP, "")),
    into("is a text", "no zip", spoil=spoil.write(ZIP, "hello")),
    into("is cut", "no zip", spoil=spoil.cut(ZIP)),
    into("may not be read", refused=ZIP),
    bad(
        "zip of another model",
        ["card", A, *OUT, "--into", f"ROOT/{ZIP}"],
        ZIP,
        "fold 0 has SHA-256",
    ),
    bad("zip is empty text", card("--into", ""), "--into"),
]

LEADERBOARDS = [
    bad("no card", ["leaderboard", *TABLE_OUT], "CARD"),
    bad("no file", ["leaderboard", CARD_A], "-o"),
    bad("card does not exist", ["leaderboard", "ROOT/no", *TABLE_OUT], "ROOT/no"),
    bad("card is an OUT without one", ["leaderboard", A, *TABLE_OUT], A, "lngswr card"),
    bad(
        "card is a zip without one",
        ["leaderboard", f"ROOT/{ZIP}", *TABLE_OUT],
        "got none",
        "--into",
    ),
    bad("card is a table", ["leaderboard", f"{A}/cases.csv", *TABLE_OUT], "JSON"),
    bad(
        "card is a summary", ["leaderboard", f"{A}/summary.json", *TABLE_OUT], "no robustness card"
    ),
    bad("cards and a zip", ["leaderboard", CARD_A, f"ROOT/{ZIP}", *TABLE_OUT], f"ROOT/{ZIP}"),
    bad("the same card twice", ["leaderboard", CARD_A, CARD_A, *TABLE_OUT], "the same card"),
    bad("card is no UTF-8", ["leaderboard", f"ROOT/{FOREIGN}", *TABLE_OUT], "CARD", "UTF-8"),
    bad("another suffix", leaderboard("-o", "ROOT/table.pdf"), ".html", "table.pdf"),
    bad("no suffix", leaderboard("-o", "ROOT/table"), ".html"),
    bad("table below a file", leaderboard("-o", f"ROOT/{ZIP}/a.md"), f"ROOT/{ZIP}"),
    bad("table is empty text", leaderboard("-o", ""), "-o"),
    bad("table may not be made", leaderboard(), "ROOT", refused="."),
    bad("card is cut", leaderboard(), CARD, "JSON", spoil=spoil.cut(CARD)),
    bad("card is a list", leaderboard(), CARD, spoil=spoil.write(CARD, "[1]")),
    bad("card is deep", leaderboard(), CARD, spoil=spoil.write(CARD, "[" * 100_000)),
    bad("card may not be read", leaderboard(), CARD, refused=CARD),
    content("of another version", "schema_version", 2, "must be 1, got 2"),
    content("version is a list", "schema_version", [1], "got [1]"),
    content("without format", "format", DROP, "no robustness card"),
    content("without a figure", "clean.dice", DROP, "dice"),
    content("Dice of 80", "clean.dice", 80, "80"),
    content("a name of no text", "name", 3, "name"),
    content("a mean that is NaN", "clean.dice", float("nan"), "NaN"),
]

TABLE = [*CARDS, *ZIPS, *LEADERBOARDS]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "cards")
