"""splits_final.json: what is refused, by name."""

import json

import pytest

from nnunetv2_lngswr.experiments.splits import read_splits
from nnunetv2_lngswr.utils.errors import UserError

FOLD = {"train": ["a"], "val": ["b"]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "not readable as JSON"),
        ("{}", "must be a list of folds"),
        ("[]", "must be a list of folds"),
        ("null", "must be a list of folds"),
        (json.dumps([FOLD, {"train": ["a"]}]), 'fold 1 must have "val"'),
        (json.dumps([{"train": "a", "val": []}]), 'fold 0 must have "train"'),
        (json.dumps([{"train": [1], "val": []}]), 'fold 0 must have "train"'),
        ("[null]", "fold 0"),
    ],
)
def test_what_are_no_splits_is_refused(tmp_path, content, said):
    file = tmp_path / "splits_final.json"
    file.write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        read_splits(file)
    assert str(file) in str(refused.value)


def test_splits_are_read(tmp_path):
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps([FOLD]))
    assert read_splits(file) == [FOLD]
