"""PlansEntryTrainer: nnU-Net's trainer, with settings from the plans.

Budget, seed and warm start come from the ``"lngswr"`` entry (`settings`), and checkpoints are
written whole or not at all.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.method.config import LNGSWRConfig
from nnunetv2_lngswr.training.adversarial_batch import at_every_resolution
from nnunetv2_lngswr.training.adversarial_settings import check_guidance, check_shares
from nnunetv2_lngswr.training.free import Replay
from nnunetv2_lngswr.training.rolling import Rolling, Window
from nnunetv2_lngswr.training.settings import (
    PLANS_KEY,
    ATConfig,
    TrainerSettings,
    changed_settings,
    current_entry,
    read_settings,
    refuse_no_warm_start,
    refuse_stray_start,
    warn_of_old_keys,
    without_effect,
)
from nnunetv2_lngswr.training.warm_start import load_warm_start
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path, read_json
from nnunetv2_lngswr.utils.seeds import process_seeds

PROCESSES = "nnUNet_n_proc_DA"
"""nnU-Net's environment variable for the number of augmenting processes."""
PLANS_LOOKS = 5
"""At a plans.json that cannot be read, a second apart."""


class PlansEntryTrainer(nnUNetTrainer):
    """nnU-Net's trainer, plus: budget, seed and warm start from the plans, and whole checkpoints.

    Parameters
    ----------
    plans, configuration, fold, dataset_json, device
        As nnU-Net gives them.

    Raises
    ------
    UserError
        The "lngswr" entry of the plans is invalid; no folder has been made then.
    """

    epochs: int | None = None
    """Number of epochs of a short-budget variant; None leaves nnU-Net's own."""
    method: LNGSWRConfig | None = None
    """The class's own settings of LNG-SWR, which the plans override; None: it has none."""
    adversarial: ATConfig | None = None
    """The class's own settings of adversarial training, likewise."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        # before nnU-Net makes any folder: a mistake in the plans must leave nothing behind
        plans = deepcopy(plans)
        beside = [
            key
            for key, value in plans.items()
            if key == PLANS_KEY or isinstance(value, dict) and PLANS_KEY in value
        ]
        if beside:
            raise UserError(
                f'plans: "{beside[0]}" has no effect beside "configurations": put it into the '
                f'configuration, "configurations": {{"{configuration}": {{"{PLANS_KEY}": ...}}}}'
            )
        resolved = PlansManager(plans).get_configuration(configuration).configuration
        self.settings = self.settings_to_train_with(resolved)
        warn_of_old_keys(resolved)
        # of what was asked for, before the rest is written beside it
        self._idle_settings = without_effect(resolved, self.settings)
        # written out, so that settings travel with the model folder
        entry = self._written_entry(resolved)
        if entry:
            plans["configurations"][configuration][PLANS_KEY] = json.loads(json.dumps(entry))
        super().__init__(plans, configuration, fold, dataset_json, device)
        run = self.settings.run
        self.num_epochs = run.num_epochs or self.epochs or self.num_epochs
        self.num_iterations_per_epoch = (
            run.num_iterations_per_epoch or self.num_iterations_per_epoch
        )
        self.num_val_iterations_per_epoch = (
            run.num_val_iterations_per_epoch or self.num_val_iterations_per_epoch
        )
        # nnU-Net saves every 50 epochs: a short run would have nothing to continue from
        self.save_every = min(self.save_every, max(1, self.num_epochs // 10))

    @classmethod
    def read_settings(cls, configuration: Mapping[str, Any]) -> TrainerSettings:
        """What a configuration of the plans says to this trainer, over the class's own settings."""
        return read_settings(
            configuration, method=cls.method, adversarial=cls.adversarial, epochs=cls.epochs
        )

    @classmethod
    def settings_to_train_with(cls, configuration: Mapping[str, Any]) -> TrainerSettings:
        """`read_settings`, and refuse what only a model that is trained already may have."""
        if cls.adversarial is not None:
            refuse_stray_start(configuration)
        return cls.read_settings(configuration)

    def _written_entry(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """The given entry, under the names of this version.

        Subclasses add every setting of theirs, so that a trained model keeps its meaning if a later
        version changes a default.
        """
        return current_entry(configuration)

    @property
    def _noise_factor(self) -> float:
        """Of LNG-SWR's amplitudes in this epoch, for trainers whose training has phases."""
        return 1.0

    @property
    def _attacking(self) -> bool:
        """Whether this epoch trains on attacked samples, for trainers that do."""
        return False

    @property
    def _shares(self) -> int:
        """Steps that samples stay (`rolling`), in the epochs that roll; 1: in none."""
        return 1

    @property
    def _rolls(self) -> bool:
        """Whether samples stay in this epoch."""
        return False

    def _on_device(self, batch: dict) -> dict:
        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(self.device, non_blocking=True)

        return {
            **batch,
            "data": move(batch["data"]),
            "target": at_every_resolution(move, batch["target"]),
        }

    # --- seed

    def initialize(self):
        self._refuse_unequal_shares()
        if self.settings.run.seed is not None:
            self._seed_streams(self.settings.run.seed, epoch=-1)
        super().initialize()

    def _refuse_unequal_shares(self) -> None:
        # ranks of one training may differ by a sample: all look at all sizes, or some would wait
        whole, ranks = self.configuration_manager.batch_size, 1
        if self.is_ddp:
            ranks = torch.distributed.get_world_size()
        method, adversarial = self.settings.method, self.settings.adversarial
        for size in {whole // ranks, -(-whole // ranks)}:
            try:
                if adversarial is not None:
                    check_shares(size, adversarial)
                if method is not None:
                    check_guidance(method, adversarial, size)
            except ValueError as error:
                raise UserError(f'"{PLANS_KEY}": {error}') from None

    def get_dataloaders(self):
        with self._single_process_if_seeded():
            loaders = super().get_dataloaders()
        if self.settings.run.seed is not None:
            for loader in loaders:
                assert isinstance(loader, SingleThreadedAugmenter)
                _without_stopwatch(loader.data_loader.transforms)
        return loaders

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        # an epoch begins with nothing of the last one, as a continued run does
        self._window = Window()
        if isinstance(self.dataloader_train, Rolling):
            self.dataloader_train.restart(rolls=self._rolls)
        # by epoch, so that a continued run draws what an uninterrupted one would have drawn
        if self.settings.run.seed is not None:
            self._seed_streams(self.settings.run.seed, epoch=self.current_epoch)

    def on_train_epoch_end(self, train_outputs: list[dict]):
        super().on_train_epoch_end(train_outputs)
        self._window = Window()  # validation needs the memory

    def _seed_streams(self, seed: int, epoch: int) -> None:
        """Start the run's random streams of an epoch; -1: those of the initialisation."""
        of_random, of_numpy, of_torch = process_seeds(seed, epoch, self.local_rank)
        random.seed(of_random)
        np.random.seed(of_numpy)
        torch.manual_seed(of_torch)

    @contextmanager
    def _single_process_if_seeded(self) -> Iterator[None]:
        asked = os.environ.get(PROCESSES)
        if self.settings.run.seed is None:
            yield
            return
        if asked not in (None, "0"):
            self.print_to_log_file(
                "INFO: the plans set a seed: augmentation runs in this process "
                f"({PROCESSES}={asked} is not used), since nnU-Net's worker processes deliver "
                "their batches in no fixed order."
            )
        os.environ[PROCESSES] = "0"
        try:
            yield
        finally:
            if asked is None:
                del os.environ[PROCESSES]
            else:
                os.environ[PROCESSES] = asked

    # --- results folder, checkpoints

    def on_train_start(self):
        self._refuse_foreign_results()
        # before nnU-Net writes the plans: corrected ones would be those of another training
        start, had_weights = self._warm_start(), self.was_initialized
        super().on_train_start()
        for line in self._idle_settings:
            self.print_to_log_file(line)
        if start is not None:
            path, checkpoint = start
            load_warm_start(self._bare_network(), checkpoint, path)
            self.print_to_log_file(
                f"Warm start from {path}"
                + (", in place of what -pretrained_weights has loaded" if had_weights else "")
            )
        if self._shares > 1:
            self.dataloader_train = Rolling(self.dataloader_train, self._shares)

    def _warm_start(self) -> tuple[str, dict] | None:
        """Where the training starts, and what is there; None of one that goes on."""
        path = self.settings.run.warm_start
        if path is None or self.current_epoch > 0:
            return None
        # the folds of a model share their plans, and each has weights of its own
        path = path.replace("{fold}", str(self.fold))
        refuse_no_warm_start(path)
        return path, load_checkpoint(path)

    def on_train_end(self):
        if isinstance(self.dataloader_train, (Replay, Rolling)):
            # nnU-Net ends its processes by type
            self.dataloader_train = self.dataloader_train.batches
        super().on_train_end()

    def save_checkpoint(self, filename: str) -> None:
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_path(filename) as temporary:
            super().save_checkpoint(str(temporary))

    def perform_actual_validation(self, save_probabilities: bool = False):
        # --val builds the network of the plans that are there now: weights fit other settings too
        self._refuse_other_entry()
        super().perform_actual_validation(save_probabilities)

    def _refuse_foreign_results(self) -> None:
        """Before a training writes into its results folder."""
        self._refuse_other_entry()

    def _refuse_other_entry(self) -> None:
        """All folds of a results folder share its plans.json: another entry there would relabel
        finished folds."""
        assert self.output_folder_base is not None  # nnU-Net made it
        path = Path(self.output_folder_base) / "plans.json"
        if not path.is_file():
            return
        plans = PlansManager(_read_when_written(path))
        there = plans.get_configuration(self.configuration_name).configuration
        differences = changed_settings(self.read_settings(there), self.settings)
        if differences:
            raise UserError(
                f'{path} holds another "{PLANS_KEY}" entry: {differences}. Give the changed plans '
                "a 'plans_name' (and file name) of their own, or remove the results folder."
            )

    def _bare_network(self) -> torch.nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network
        for wrapper in ("module", "_orig_mod"):
            network = getattr(network, wrapper, network)
        assert isinstance(network, torch.nn.Module)
        return network


def _read_when_written(path: Path) -> dict[str, Any]:
    """A results folder's plans.json, which nnU-Net writes in place, and every fold anew: one that
    begins beside this one may be at it."""
    for _ in range(PLANS_LOOKS - 1):
        with suppress(UserError):
            return read_json(path)
        time.sleep(1)
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(
            f"{error}: if no other fold is being started, a training was killed while writing it; "
            "remove it, and this one writes it anew"
        ) from None


def _without_stopwatch(transform: Any) -> None:
    """Let Gaussian blurs choose their algorithm by the size of the kernel.

    nnU-Net's times FFT against convolution and takes the faster: the same seed, on a busier
    machine, then gives other roundings.
    """
    if isinstance(transform, GaussianBlurTransform):
        transform.benchmark = False
    inner = [
        *getattr(transform, "transforms", ()),
        *getattr(transform, "list_of_transforms", ()),
        getattr(transform, "transform", None),
    ]
    for one in inner:
        if one is not None:
            _without_stopwatch(one)
