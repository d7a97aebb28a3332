"""Folds keep groups together."""

from collections import Counter

import numpy as np
import pytest

from nnunetv2_lngswr.cli import main as cli
from nnunetv2_lngswr.datasets.splits import cases_of, make_folds
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.groups import groups_by_csv, groups_by_pattern
from tests.datasets.image_files import save, speckle


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
    # a group that took no part is no patient
    with pytest.raises(ValueError, match="finds no group in ctl_0, ctl_1"):
        groups_by_pattern(["p1_0", "ctl_0", "ctl_1"], r"(p\d)?_\d")
    with pytest.raises(ValueError, match="finds no group in q"):
        groups_by_pattern(["p1", "q"], r"p?")
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


def test_a_table_that_is_no_utf_8(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes("case,patient\na,1\nb,Müller\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"is not UTF-8 \(byte 0xfc in line 3\): save it as UTF-8"):
        groups_by_csv(["a", "b"], table)
    table.write_bytes("case,patient\na,1\n".encode("utf-16"))
    with pytest.raises(UserError, match="is not UTF-8 .byte 0xff in line 1"):
        groups_by_csv(["a"], table)
    table.write_bytes(b"case,patient\na," + b"1" * 200_000)
    with pytest.raises(UserError, match="is no CSV table .after line 1: field larger"):
        groups_by_csv(["a"], table)
    table.write_bytes(b"case,patient\na\n")
    with pytest.raises(UserError, match="a has no patient"):
        groups_by_csv(["a"], table)


def test_a_table_of_excel(tmp_path):
    table = tmp_path / "table.csv"
    table.write_bytes(b"\xef\xbb\xbfcase,patient\r\na,1\r\nb,2\r\nextra,3\r\n")
    assert groups_by_csv(["a", "b"], table) == {"a": "1", "b": "2"}


def test_a_folder_of_something_else(tmp_path, capsys):
    assert cli.main(["splits", "-i", str(tmp_path), "--pattern", "x"]) == 2
    assert "no dataset.json" in capsys.readouterr().err


@pytest.fixture
def six(tmp_path):
    """Six images of noise."""
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text('{"file_ending": ".png"}')
    for number in range(6):
        save(speckle(number), tmp_path / "imagesTr" / f"c{number}_0000.png")
    return tmp_path


@pytest.mark.parametrize(
    "words, said",
    [
        (["--folds", "0"], "folds must be >= 2, got 0 (--folds)"),
        (["--folds", "-3"], "folds must be >= 2, got -3 (--folds)"),
        (["--folds", "1"], "folds must be >= 2, got 1 (--folds)"),
        (["--folds", "99"], "99 folds need at least 99 groups, got 6: choose fewer (--folds)"),
        (["--max-distance", "257"], "max distance must be in 0..256, got 257"),
        (["--pattern", "(", "--folds", "2"], "no regular expression"),
    ],
)
def test_numbers_that_make_no_splits(six, words, said, capsys):
    assert cli.main(["splits", "-i", str(six), "--join", *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not (six / "splits_final.json").exists()


def test_a_case_without_its_first_channel_is_named(six):
    (six / "imagesTr" / "c3_0000.png").rename(six / "imagesTr" / "c3_0001.png")
    with pytest.raises(UserError, match="imagesTr: c3 without a first channel"):
        cases_of(six)
    (six / "dataset.json").write_text('{"file_ending": 3}')
    with pytest.raises(UserError, match="file_ending must be such as '.nii.gz', got 3"):
        cases_of(six)
