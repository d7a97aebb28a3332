"""`lngswr splits`: bad arguments, data sets and tables."""

import pytest

from nnunetv2_lngswr.cli.main import main
from tests.bad_inputs import spoil
from tests.bad_inputs.harness import bad, rows

PATTERN = ("--pattern", "^(p.)_")
IMAGE = "raw/imagesTr/p0_0_0000.png"


def splits(*words: str, by: tuple[str, ...] = PATTERN) -> tuple[str, ...]:
    how = ("--folds", "3", "--disable_progress_bar")
    return ("splits", "-i", "ROOT/raw", *by, *how, *words)


def table(name: str, content: str | bytes, *says: str):
    argv = splits(by=("--csv", "ROOT/cases.csv"))
    change = spoil.write("cases.csv", content)
    return bad(f"table {name}", argv, "cases.csv", *says, spoil=change)


def dataset(name: str, content: str, *says: str):
    change = spoil.write("raw/dataset.json", content)
    return bad(f"dataset.json {name}", splits(), "raw", *says, spoil=change)


ARGUMENTS = [
    bad("no input", ["splits", *PATTERN], "-i"),
    bad("pattern and table", splits("--csv", "ROOT/cases.csv"), "--csv", "--pattern"),
    bad("unknown option", splits("--patern", "x"), "--patern"),
    bad("input does not exist", splits("-i", "ROOT/no"), "ROOT/no"),
    bad("input is a file", splits("-i", "ROOT/cases.csv"), "ROOT/cases.csv"),
    bad("input is empty text", splits("-i", ""), "-i"),
    bad("input is a circle", splits("-i", "ROOT/c"), "ROOT/c", spoil=spoil.circle("c")),
    bad("pattern is none", splits("--pattern", "(p"), "(p"),
    bad("pattern finds nothing", splits("--pattern", "^q"), "^q", "p0_0"),
    bad("pattern is empty text", splits("--pattern", ""), "finds no group", "--pattern"),
    bad("pattern gives one group", splits("--pattern", "p"), "3 folds", "1"),
    bad("folds 0", splits("--folds", "0"), "--folds", "0"),
    bad("folds 1", splits("--folds", "1"), "--folds", "1"),
    bad("folds -2", splits("--folds", "-2"), "--folds", "-2"),
    bad("folds x", splits("--folds", "x"), "--folds", "x"),
    bad("more folds than groups", splits("--folds", "4"), "4 folds", "3"),
    bad("99 folds", splits("--folds", "99"), "99 folds"),
    bad("seed x", splits("--seed", "x"), "--seed", "x"),
    bad("distance -1", splits("--max-distance", "-1"), "max", "distance", "-1"),
    bad("distance 257", splits("--max-distance", "257"), "distance", "257"),
    bad("distance x", splits("--max-distance", "x"), "--max-distance", "x"),
    bad("join and allow", splits("--join", "--allow-near-duplicates"), "--join"),
    bad("output is a folder", splits("-o", "ROOT/raw"), "ROOT/raw"),
    bad("output below a file", splits("-o", "ROOT/cases.csv/x.json"), "ROOT/cases.csv"),
    bad("output may not be written", splits(), "splits_final.json", refused="raw"),
]

DATASETS = [
    bad("no dataset.json", splits(), "dataset.json", spoil=spoil.remove("raw/dataset.json")),
    bad(
        "dataset.json is a folder", splits(), "dataset.json", spoil=spoil.folder("raw/dataset.json")
    ),
    dataset("is empty", "", "dataset.json"),
    dataset("ends early", '{"file_e', "dataset.json"),
    dataset("is a list", "[1]", "dataset.json", "file_ending"),
    dataset("without an ending", "{}", "dataset.json", "file_ending"),
    dataset("ending is null", '{"file_ending": null}', "file_ending"),
    dataset("ending is a number", '{"file_ending": 3}', "file_ending"),
    dataset("ending of other files", '{"file_ending": ".nii.gz"}', ".nii.gz"),
    dataset("ending is a pattern", '{"file_ending": "/../*"}', "file_ending"),
    bad("no imagesTr", splits(), "imagesTr", spoil=spoil.remove("raw/imagesTr")),
    bad(
        "imagesTr is empty",
        splits(),
        "imagesTr",
        ".png",
        spoil=spoil.both(spoil.remove("raw/imagesTr"), spoil.folder("raw/imagesTr")),
    ),
    bad("imagesTr is a file", splits(), "imagesTr", spoil=spoil.write("raw/imagesTr", "x")),
    bad("image ends early", splits(), IMAGE, spoil=spoil.cut(IMAGE)),
    bad("image is empty", splits(), IMAGE, spoil=spoil.write(IMAGE, "")),
    bad("image is text", splits(), IMAGE, spoil=spoil.write(IMAGE, "no image")),
    bad("image is a folder", splits(), IMAGE, spoil=spoil.folder(IMAGE)),
    bad("image is a circle", splits(), IMAGE, spoil=spoil.circle(IMAGE)),
    bad("image is a link to nothing", splits(), IMAGE, spoil=spoil.link(IMAGE, "no")),
]

TABLES = [
    bad("table does not exist", splits(by=("--csv", "ROOT/no.csv")), "ROOT/no.csv", "--csv"),
    bad("table is a folder", splits(by=("--csv", "ROOT/raw")), "ROOT/raw", "--csv"),
    bad("table is empty text", splits(by=("--csv", "")), "--csv"),
    table("is empty", "", "case"),
    table("has other columns", "name,who\na,b\n", "case", "who"),
    table("has no row for a case", "case,patient\np0_0,p0\n", "p0_1"),
    table("has two groups of a case", "case,patient\np0_0,p0\np0_0,p1\n", "p0_0"),
    table("has an empty group", "case,patient\np0_0,\n", "p0_0"),
    table("has a short row", "case,patient\np0_0\n", "p0_0"),
    table("is Latin-1", "case,patient\np0_0,Müller\n".encode("latin-1")),
    table("is UTF-16", "case,patient\np0_0,p0\n".encode("utf-16")),
    table("is binary", bytes(range(256))),
    table("holds NUL", b"case,patient\np0_0,\x00\n"),
    table("has one huge field", "case,patient\np0_0," + "9" * 200_000 + "\n"),
    table("is of semicolons", "case;patient\np0_0;p0\n", "case"),
]

TABLE = [*ARGUMENTS, *DATASETS, *TABLES]


@pytest.mark.parametrize("row", rows(TABLE))
def test_is_refused_in_one_line(row, refuses):
    refuses(main, row, "raw_data")
