from copy import deepcopy

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr.training import rolling
from tests import tiny_dataset
from tests.training.tiny_training import SHORT


@pytest.fixture
def make(tiny_data, monkeypatch, tmp_path):
    """make(trainer class, adversarial settings, dimension=2, **entry): a trainer for tiny data.

    `batch_size`: instead of the plans' 2.
    """

    def make(
        cls, adversarial=None, dimension=2, plans_name="nnUNetPlans", batch_size=None, **entry
    ):
        root, plans = tiny_data(dimension)
        tiny_dataset.use(monkeypatch, root)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
        entry = {**SHORT, **entry}
        if adversarial is not None:
            entry["adversarial"] = adversarial
        plans = {**plans, "plans_name": plans_name}
        if batch_size is not None:
            plans = deepcopy(plans)
            name = tiny_dataset.CONFIGURATION[dimension]
            plans["configurations"][name]["batch_size"] = batch_size
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


@pytest.fixture
def admitted(monkeypatch):
    """The clean batches of the steps of a training, as the window holds them."""
    seen = []
    own = rolling.Window.admit

    def record(self, new):
        seen.append(own(self, new))
        return seen[-1]

    monkeypatch.setattr(rolling.Window, "admit", record)
    return seen
