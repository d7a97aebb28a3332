"""Folds keep groups together."""

from collections import Counter

import numpy as np
import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.splits import groups_by_csv, groups_by_pattern, make_folds


def test_every_case_is_validated_once_and_groups_stay_together():
    rng = np.random.default_rng(0)
    groups = {f"c{i}": f"g{rng.integers(40)}" for i in range(200)}
    folds = make_folds(groups, folds=5)
    assert sorted(c for f in folds for c in f["val"]) == sorted(groups)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(groups)
        assert not {groups[c] for c in fold["train"]} & {groups[c] for c in fold["val"]}
    assert max(len(f["val"]) for f in folds) - min(len(f["val"]) for f in folds) <= max(
        Counter(groups.values()).values()
    )


def test_folds_depend_on_the_seed_and_not_on_the_order():
    groups = {f"c{i}": f"g{i // 2}" for i in range(40)}
    assert make_folds(dict(reversed(groups.items()))) == make_folds(groups)
    assert make_folds(groups, seed=1) != make_folds(groups)


def test_classes_are_spread_over_the_folds():
    strata = {f"c{i}": "rare" if i < 10 else "common" for i in range(50)}
    for fold in make_folds({c: c for c in strata}, folds=5, strata=strata):
        assert Counter(strata[c] for c in fold["val"]) == {"rare": 2, "common": 8}


def test_too_few_groups():
    with pytest.raises(ValueError, match="5 folds need at least 5 groups, got 2"):
        make_folds({"a": "1", "b": "1", "c": "2"})


def test_groups_by_pattern():
    assert groups_by_pattern(["p1_a", "p1_b", "p2_a"], r"^(p\d)_") == {
        "p1_a": "p1",
        "p1_b": "p1",
        "p2_a": "p2",
    }
    assert groups_by_pattern(["x 1", "y 1"], r"^(\w) (\d)") == {"x 1": "x|1", "y 1": "y|1"}
    with pytest.raises(ValueError, match="finds no group in q"):
        groups_by_pattern(["p1", "q"], r"^p")
    with pytest.raises(ValueError, match="no regular expression"):
        groups_by_pattern(["p1"], "(")


@pytest.mark.parametrize(
    "text, said",
    [
        ("case,who\na,1\n", "has no column patient"),
        ("case,patient\na,1\n", "has no row for b"),
        ("case,patient\na,1\nb,1\na,2\n", "a has two groups, 1 and 2"),
        ("case,patient\na,1\nb,\n", "b has no patient"),
    ],
)
def test_a_bad_table(tmp_path, text, said):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=said):
        groups_by_csv(["a", "b"], table)


def test_a_table_of_excel(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfcase,patient\r\na,1\r\nb,2\r\nextra,3\r\n")
    assert groups_by_csv(["a", "b"], table) == {"a": "1", "b": "2"}


def test_a_folder_of_something_else(tmp_path, capsys):
    assert cli.main(["splits", "-i", str(tmp_path), "--pattern", "x"]) == 2
    assert "no dataset.json" in capsys.readouterr().err
