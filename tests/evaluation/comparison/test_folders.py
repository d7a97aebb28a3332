"""An OUT folder is compared whole or not at all: what lacks, is there twice or damaged."""

import json

import pytest

from evaluation.comparison.folders import read_folder
from evaluation.comparison.models import read_models
from evaluation.report.cases_table import read_cases, write_cases
from nnunetv2_lngswr.utils.errors import UserError
from tests.evaluation.comparison.results import CASES, write_result


@pytest.fixture
def folder(tmp_path):
    return write_result(tmp_path / "a")


def keep_rows(keep):
    """A damage: rows of cases.csv are taken out."""

    def damage(folder):
        rows = read_cases(folder / "cases.csv")
        write_cases(folder / "cases.csv", [r for r in rows if keep(r)])

    return damage


def add_rows(change):
    """A damage: `change` of the last row is added."""

    def damage(folder):
        rows = read_cases(folder / "cases.csv")
        write_cases(folder / "cases.csv", [*rows, {**rows[-1], **change}])

    return damage


def cut(characters):
    def damage(folder):
        path = folder / "cases.csv"
        path.write_text(path.read_text()[:-characters])

    return damage


TABLES = {
    "a row": (
        keep_rows(lambda r: (r["case"], r["attack"], r["label"]) != ("case3", "ssah", "2")),
        "lacks 1 rows: ssah of case3 in label 2; evaluate it again",
    ),
    "a case": (keep_rows(lambda r: r["case"] != "case3"), "lacks .*clean of case3 in label"),
    "a run": (keep_rows(lambda r: r["attack"] != "ssah"), "lacks 18 rows: ssah of case0 in label"),
    "a label of one case": (
        keep_rows(lambda r: (r["case"], r["label"]) != ("case5", "mean")),
        "clean of case5 in label mean",
    ),
    "the clean run": (keep_rows(lambda r: r["kind"] != "clean"), "lacks 18 rows: clean of case0"),
    "everything": (keep_rows(lambda r: False), "cases.csv lacks all rows"),
    "a row twice": (
        add_rows({}),
        "has 1 rows more than once: .* of case5 in label mean",
    ),
    "another Dice": (add_rows({"dice": 0.1}), "has 1 rows more than once"),
    "a foreign case": (add_rows({"case": "case9"}), "cases that summary.json .* not list: case9"),
    "a foreign label": (add_rows({"label": "9"}), "lacks .*in label 9"),
    "a foreign kind": (add_rows({"kind": "best"}), "kind must be one of clean, .*got 'best'"),
    "cut": (cut(10), "line .*fewer fields"),
    "cut at the end of a line": (cut(110), "fewer fields|lacks 1 rows"),
}


@pytest.mark.parametrize("damage, message", TABLES.values(), ids=TABLES)
def test_a_table_that_is_not_whole_is_refused(damage, message, folder):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        read_folder(folder)
    assert str(folder / "cases.csv") in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": None}, "model is damaged, got None"),
        ({"model": {}}, "does not say which model it is of: model.trainer is None"),
        ({"model": {"trainer": "A"}}, "model.folds is None"),
        ({"cases": {}}, "cases is damaged"),
        ({"cases": [1]}, "cases is damaged"),
        ({"options": []}, "options is damaged"),
        ({"results": 3}, "results is damaged"),
        ({"results": [{"kind": "attack", "attack": []}]}, "results is damaged"),
        ({"schema_version": [1]}, "schema_version must be 1"),
    ],
)
def test_a_damaged_summary_is_refused(change, message, folder):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        read_folder(folder)
    assert str(path) in str(caught.value)


def test_what_keys_of_old_versions_lack_is_no_damage(folder):
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    del summary["results"], summary["model"]["patch_size"]
    path.write_text(json.dumps(summary))
    assert read_models([folder, folder])[1] != []


def test_each_cases_files_are_known_from_its_part(folder):
    assert read_folder(folder).inputs == {}
    inputs = {case: case.upper() for case in CASES[1:]}
    write_result(folder, inputs=inputs)
    assert read_folder(folder).inputs == inputs
    # of a cross-validation, where the part is named after its fold too
    rows = [{**r, "fold": "0+1"} for r in read_cases(folder / "cases.csv")]
    write_cases(folder / "cases.csv", rows)
    assert read_folder(folder).inputs == {}
    (folder / "parts" / "case0.fold0-1.json").write_text(json.dumps({"inputs_sha256": "x"}))
    assert read_folder(folder).inputs == {"case0": "x"}


def test_of_a_cascade_the_previous_stage_is_known_apart(folder):
    """What a cascade was given besides may be the model's own; earlier versions did not part it."""
    write_result(folder, model={"cascade": True}, inputs=dict.fromkeys(CASES, "of all"))
    found = read_folder(folder)
    assert found.inputs == {} == found.previous_stages
    part = {
        "inputs_sha256": "of all",
        "image_and_label_sha256": "of both",
        "previous_stage_sha256": "of the stage",
    }
    write_result(folder, model={"cascade": True}, inputs={"case0": part, "case1": "of all"})
    found = read_folder(folder)
    assert found.inputs == {"case0": "of both"}
    assert found.previous_stages == {"case0": "of the stage"}
