"""Short trainings on the tiny data set, as the tests of the trainers make them."""

from __future__ import annotations

import numpy as np
import torch

from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLNGSWRAT
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer

SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 2,
    "num_val_iterations_per_epoch": 1,
    "seed": 0,
}
FULL = {"epsilon": 0.05, "ramp_up": 0.0}
"""Adversarial training at its full epsilon from the first step."""
ADVERSARIAL = [nnUNetTrainerAT, nnUNetTrainerLNGSWRAT]


class Killed(Exception):
    """In place of a signal."""


def weights(trainer: PlansEntryTrainer) -> dict[str, torch.Tensor]:
    """A copy of the network's state."""
    return {k: v.clone() for k, v in trainer._bare_network().state_dict().items()}


def steps(trainer: PlansEntryTrainer, n: int) -> list[float]:
    """The losses of n training steps on nnU-Net's own batches."""
    started(trainer)
    return [float(trainer.train_step(next(trainer.dataloader_train))["loss"]) for _ in range(n)]


def started(trainer: PlansEntryTrainer) -> PlansEntryTrainer:
    """The trainer at the beginning of its first epoch."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def batches(trainer: PlansEntryTrainer, n: int) -> list[dict]:
    """n training batches."""
    return [next(trainer.dataloader_train) for _ in range(n)]


def interrupt(trainer: PlansEntryTrainer, epoch: int) -> None:
    """Let `Killed` end the training when this epoch begins, counted from 0."""
    begin = trainer.on_epoch_start

    def killed_in_that_epoch() -> None:
        if trainer.current_epoch == epoch:
            raise Killed
        begin()

    trainer.on_epoch_start = killed_in_that_epoch


def interrupt_second_epoch(trainer: PlansEntryTrainer) -> None:
    """Let `Killed` end the training when its second epoch begins."""
    interrupt(trainer, 1)


def partly_ignored(label: np.ndarray) -> np.ndarray:
    """The ball's upper half becomes class 2, the right side is not annotated (3)."""
    upper = np.arange(label.shape[-2])[:, None] < label.shape[-2] // 2
    label = np.where((label == 1) & upper, 2, label).astype(np.uint8)
    label[..., -8:] = 3
    return label
