"""Which cases nnU-Net will validate a fold on, which the given model must not have seen."""

import json
from types import SimpleNamespace

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr.experiments.robustify.preprocessed import validated

CASES = [f"case_{i}" for i in range(12)]
"""Not in the order of their numbers once they are sorted."""


def by_nnunet(folder, fold):
    """What its trainer splits off in a folder with or without splits_final.json."""
    trainer = SimpleNamespace(
        fold=fold,
        dataset_class=lambda *_, **__: SimpleNamespace(identifiers=CASES),
        preprocessed_dataset_folder="",
        preprocessed_dataset_folder_base=str(folder),
        folder_with_segs_from_previous_stage=None,
        print_to_log_file=lambda *_: None,
    )
    return set(nnUNetTrainer.do_split(trainer)[1])


@pytest.mark.parametrize("fold", [0, 3, 4, 7])
def test_without_splits_they_are_those_that_nnunet_makes(tmp_path, fold):
    assert validated(fold, None, CASES) == by_nnunet(tmp_path, fold)


@pytest.mark.parametrize("fold", [0, 1, 2, 6])
def test_a_fold_beyond_the_splits_is_nnunets_own_draw(tmp_path, fold):
    splits = [{"train": CASES[2:], "val": CASES[:2]}, {"train": CASES[:9], "val": CASES[9:]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(splits))
    assert validated(fold, splits, CASES) == by_nnunet(tmp_path, fold)
