"""Adversarial training: continuing, bad input, one entry for all arms."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRAT,
    nnUNetTrainerVanilla,
)
from nnunetv2_lngswr.training.history import LOGGED
from tests import tiny_dataset
from tests.training.tiny_training import (
    ADVERSARIAL,
    FULL,
    SHORT,
    Killed,
    interrupt_second_epoch,
    weights,
)


@pytest.mark.parametrize(
    "settings", [{}, {"scheme": "free", "replays": 2}], ids=["fgsm_rs", "free"]
)
def test_a_continued_run_ends_where_an_uninterrupted_one_ends(make, settings):
    settings = {**settings, "epsilon": 0.05, "ramp_up": 1.0, "clean_share": 0.25}
    whole = make(nnUNetTrainerLNGSWRAT, settings)
    whole.run_training()
    trainer = make(nnUNetTrainerLNGSWRAT, settings)
    interrupt_second_epoch(trainer)
    with pytest.raises(Killed):
        trainer.run_training()
    continued = make(nnUNetTrainerLNGSWRAT, settings)
    continued.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    expected, found = weights(whole), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert all(whole._logged[key] == continued._logged[key] for key in LOGGED)


@pytest.mark.parametrize("cls", [nnUNetTrainerVanilla, *ADVERSARIAL])
def test_bad_settings_are_refused_before_any_folder_is_made(make, cls):
    settings = {"epsilom": 0.1} if cls is nnUNetTrainerVanilla else {"epsilon": -1}
    with pytest.raises(ValueError, match='plans: .*"adversarial"'):
        make(cls, settings)
    assert not Path(os.environ["nnUNet_results"]).exists()


def test_integer_images_are_refused_before_the_first_epoch(tmp_path, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    plans = tiny_dataset.make_dataset(tmp_path)
    tiny_dataset.use(monkeypatch, tmp_path)
    folder = tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME / "nnUNetPlans_2d"
    for case in tiny_dataset.CASES:
        data, seg, _, properties = nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)
        integers, seg = (100 * data[:]).astype(np.int16), seg[:]
        for file in folder.glob(f"{case}*.b2nd"):
            file.unlink()
        nnUNetDatasetBlosc2.save_case(integers, seg, properties, str(folder / case))
    trainer = tiny_dataset.make_trainer(nnUNetTrainerAT, plans, entry=SHORT)
    with pytest.raises(
        ValueError, match="floating-point images, but the preprocessed case case0 holds int16"
    ):
        trainer.on_train_start()


def test_another_entry_is_refused_in_the_same_results_folder(make):
    make(nnUNetTrainerAT, FULL).on_train_start()
    make(nnUNetTrainerAT, FULL).on_train_start()
    with pytest.raises(ValueError, match='holds another "lngswr" entry'):
        make(nnUNetTrainerAT, {**FULL, "norm": "l2"}).on_train_start()


def test_another_entry_is_refused_where_only_validation_is_run(make):
    """As by nnUNetv2_train --val after planning anew, which drops the entry."""
    make(nnUNetTrainerAT, FULL).on_train_start()
    other = make(nnUNetTrainerAT, {**FULL, "norm": "l2"})
    other.initialize()
    with pytest.raises(ValueError, match='holds another "lngswr" entry'):
        other.perform_actual_validation()


def test_one_entry_serves_all_arms(make):
    for cls in (nnUNetTrainerVanilla, nnUNetTrainerLNGSWR, *ADVERSARIAL):
        make(cls, FULL).on_train_start()
