"""Adversarial training on a tiny data set: what is attacked, what stays as it was, validation, checkpoints, continuing, bad input."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr import adversarial_training, trainers
from nnunetv2_lngswr.checkpoints import load_checkpoint
from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWR, nnUNetTrainerLNGSWRAT, nnUNetTrainerVanilla
from tests import tiny_dataset
from tests.test_trainers import SHORT, Killed, steps, weights

FULL = {"epsilon": 0.05, "ramp_up": 0.0}
BOTH = [nnUNetTrainerAT, nnUNetTrainerLNGSWRAT]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    roots = {dimension: tmp_path_factory.mktemp(f"tiny{dimension}") for dimension in (2, 3)}
    return {dimension: (root, tiny_dataset.make_dataset(root, dimension)) for dimension, root in roots.items()}


@pytest.fixture
def make(datasets, monkeypatch, tmp_path):
    """make(trainer class, adversarial settings, dimension=2, entry={...}): a trainer for the tiny data set."""

    def make(cls, adversarial=None, dimension=2, **entry):
        root, plans = datasets[dimension]
        tiny_dataset.use(monkeypatch, root)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
        entry = {**SHORT, **entry} | ({"adversarial": adversarial} if adversarial is not None else {})
        return tiny_dataset.make_trainer(cls, plans, entry=entry, dimension=dimension)

    return make


@pytest.fixture
def trained_on(monkeypatch):
    """The batches that reach nnU-Net's own train step."""
    seen = []
    own = nnUNetTrainer.train_step

    def record(self, batch):
        seen.append({**batch, "data": batch["data"].detach().clone()})
        return own(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", record)
    return seen


def started(trainer):
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


@pytest.mark.parametrize("dimension", (2, 3))
@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("scheme", ("fgsm_rs", "pgd", "free"))
def test_smoke(make, scheme, norm, dimension):
    trainer = make(nnUNetTrainerLNGSWRAT, {"scheme": scheme, "norm": norm, **FULL}, dimension)
    losses = steps(trainer, 3)
    assert np.isfinite(losses).all()


def test_run(make):
    trainer = make(nnUNetTrainerLNGSWRAT, {**FULL}, num_epochs=3)
    trainer.run_training()
    print(sorted(p.name for p in Path(trainer.output_folder).iterdir()))
    print(next(Path(trainer.output_folder).glob("training_log*")).read_text()[-3000:])
