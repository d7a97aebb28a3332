"""The trainers, one name each, as ``nnUNetv2_train -tr NAME`` takes them.

=========================  ==========================================================================================
nnUNetTrainerLNGSWR        layer-wise noise and selective wavelet reconstruction
nnUNetTrainerLNG           noise only (ablation)
nnUNetTrainerSWR           reconstruction only (ablation)
nnUNetTrainerVanilla       nnU-Net's own trainer, for comparisons at equal budget and seed
nnUNetTrainerVanillaDA5    nnU-Net's own trainer with its strong augmentation
nnUNetTrainerAT            nnU-Net's own network, trained on adversarial samples (`adversarial_training`)
nnUNetTrainerLNGSWRAT      LNG-SWR, trained on adversarial samples
=========================  ==========================================================================================

Each also exists with a short budget: ``_1epoch``, ``_5epochs``, ``_10epochs``, ``_20epochs``, ``_50epochs``,
``_100epochs``, ``_250epochs``. Settings are the class's ``method``; a ``lngswr`` entry in the plans overrides them
(see `config`) and may set budget, seed and warm start for the vanilla trainers too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import (
    nnUNetTrainerDA5,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_lngswr.method.config import PLANS_KEY, LNGSWRConfig, RunSettings, read_plans_entry
from nnunetv2_lngswr.method.network import LNGSWR, attach, find_lngswr
from nnunetv2_lngswr.training.adversarial_batch import ramp
from nnunetv2_lngswr.training.adversarial_trainer import AdversarialTraining
from nnunetv2_lngswr.training.warm_start import load_warm_start
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.files import atomic_path, write_file


def _without_stopwatch(transform) -> None:
    """nnU-Net's Gaussian blur times FFT against convolution and takes the faster: the same seed, on a busier machine, then gives other
    roundings. Let it choose by the size of the kernel, as batchgeneratorsv2 does by default."""
    if isinstance(transform, GaussianBlurTransform):
        transform.benchmark = False
    for inner in [
        *getattr(transform, "transforms", ()),
        *getattr(transform, "list_of_transforms", ()),
    ]:
        _without_stopwatch(inner)
    if getattr(transform, "transform", None) is not None:
        _without_stopwatch(transform.transform)


class PlansEntryTrainer(nnUNetTrainer):
    """nnU-Net's trainer, plus: budget, seed and warm start from the plans, and checkpoints written whole or not at all."""

    epochs: int | None = None
    """Number of epochs of a short-budget variant; None leaves nnU-Net's own."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        # before nnU-Net makes any folder: a mistake in the plans must leave nothing behind
        plans = self._resolve_entry(deepcopy(plans), configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        run = self.run_settings
        self.num_epochs = run.num_epochs or self.epochs or self.num_epochs
        self.num_iterations_per_epoch = (
            run.num_iterations_per_epoch or self.num_iterations_per_epoch
        )
        self.num_val_iterations_per_epoch = (
            run.num_val_iterations_per_epoch or self.num_val_iterations_per_epoch
        )
        # nnU-Net saves every 50 epochs: a short run would have nothing to continue from
        self.save_every = min(self.save_every, max(1, self.num_epochs // 10))

    @property
    def run_settings(self) -> RunSettings:
        return self._settings_of(self.configuration_manager.configuration)[1]

    @classmethod
    def _settings_of(cls, configuration: dict) -> tuple:
        """What of a `lngswr` entry matters to this trainer: (method or None, run, ...), here the run alone."""
        return None, read_plans_entry(configuration)[1]

    def _resolve_entry(self, plans: dict, configuration: str) -> dict:
        """Check the entry and write it out, so that settings travel with the model folder."""
        resolved = PlansManager(plans).get_configuration(configuration).configuration
        self._settings_of(resolved)
        entry = self._written_entry(resolved)
        if entry:
            plans["configurations"][configuration][PLANS_KEY] = json.loads(json.dumps(entry))
        return plans

    def _written_entry(self, configuration: dict) -> dict:
        """The given entry. Subclasses add every setting of theirs, so that a trained model keeps its meaning if a later version changes a
        default."""
        return dict(configuration.get(PLANS_KEY, {}))

    # --- seed

    def initialize(self):
        if self.run_settings.seed is not None:
            self._seed_streams(epoch=-1)
        super().initialize()

    def get_dataloaders(self):
        with self._single_process_if_seeded():
            loaders = super().get_dataloaders()
        if self.run_settings.seed is not None:
            for loader in loaders:
                _without_stopwatch(loader.data_loader.transforms)
        return loaders

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        # by epoch, so that a continued run draws what an uninterrupted one would have drawn
        if self.run_settings.seed is not None:
            self._seed_streams(epoch=self.current_epoch)

    def _seed_streams(self, epoch: int) -> None:
        """The one place where a run's random streams are seeded: from (seed, epoch, rank)."""
        sequence = np.random.SeedSequence([self.run_settings.seed, epoch + 1, self.local_rank])
        state = [int(s) for s in sequence.generate_state(3)]
        random.seed(state[0])
        np.random.seed(state[1])
        torch.manual_seed(state[2])

    @contextmanager
    def _single_process_if_seeded(self) -> Iterator[None]:
        name = "nnUNet_n_proc_DA"
        asked = os.environ.get(name)
        if self.run_settings.seed is None:
            yield
            return
        if asked not in (None, "0"):
            self.print_to_log_file(
                f"INFO: the plans set a seed: augmentation runs in this process ({name}={asked} is not used), "
                "since nnU-Net's worker processes deliver their batches in no fixed order."
            )
        os.environ[name] = "0"
        try:
            yield
        finally:
            if asked is None:
                del os.environ[name]
            else:
                os.environ[name] = asked

    # --- results folder, checkpoints

    def on_train_start(self):
        self._refuse_foreign_results()
        super().on_train_start()
        if self.run_settings.warm_start is not None and self.current_epoch == 0:
            load_warm_start(self._bare_network(), load_checkpoint(self.run_settings.warm_start))
            self.print_to_log_file(f"Warm start from {self.run_settings.warm_start}")

    def save_checkpoint(self, filename: str) -> None:
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_path(filename) as temporary:
            super().save_checkpoint(str(temporary))

    def _refuse_foreign_results(self) -> None:
        """All folds of a results folder share its plans.json: another entry there would relabel finished folds."""
        path = Path(self.output_folder_base) / "plans.json"
        if not path.is_file():
            return
        there = (
            PlansManager(json.loads(path.read_text()))
            .get_configuration(self.configuration_name)
            .configuration
        )
        here = self.configuration_manager.configuration
        if self._settings_of(there) != self._settings_of(here):
            raise UserError(
                f'{path} holds another "{PLANS_KEY}" entry: {there.get(PLANS_KEY)} there, {here.get(PLANS_KEY)} here. '
                "Give the changed plans a 'plans_name' (and file name) of their own, or remove the results folder."
            )

    def _bare_network(self) -> torch.nn.Module:
        network = self.network
        for wrapper in ("module", "_orig_mod"):  # DDP, torch.compile
            network = getattr(network, wrapper, network)
        return network


class nnUNetTrainerVanilla(PlansEntryTrainer):
    """nnU-Net's own trainer and network: the arm to compare with."""


class nnUNetTrainerVanillaDA5(PlansEntryTrainer, nnUNetTrainerDA5):
    """nnU-Net's own trainer with its strong augmentation (nnUNetTrainerDA5)."""


class nnUNetTrainerLNGSWR(PlansEntryTrainer):
    """Layer-wise noise guided selective wavelet reconstruction (arXiv 2511.16162), as docs of `network` describe."""

    method = LNGSWRConfig()
    _steps = 0  # begun in this run

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> torch.nn.Module:
        """nnU-Net's network for the plans, with LNG-SWR attached. Prediction calls this on the class."""
        network = super().build_network_architecture(
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )
        return attach(network, cls._settings_of(configuration_manager.configuration)[0])

    @classmethod
    def _settings_of(cls, configuration: dict) -> tuple:
        _, *others = super()._settings_of(configuration)
        return (read_plans_entry(configuration, cls.method)[0], *others)

    def _written_entry(self, configuration: dict) -> dict:
        return {
            **super()._written_entry(configuration),
            **dataclasses.asdict(self._settings_of(configuration)[0]),
        }

    @property
    def lngswr(self) -> LNGSWR:
        return find_lngswr(self.network)

    def configure_optimizers(self):
        optimizer, scheduler = super().configure_optimizers()
        gates = self.lngswr.gates()
        if gates:
            # weight decay would pull the gates towards the identity
            (group,) = optimizer.param_groups
            kept = {id(p) for p in gates}
            group["params"] = [p for p in group["params"] if id(p) not in kept]
            optimizer.add_param_group(
                {
                    **{k: v for k, v in group.items() if k != "params"},
                    "params": gates,
                    "weight_decay": 0.0,
                }
            )
        return optimizer, scheduler

    def on_train_start(self):
        super().on_train_start()
        if self.is_ddp and self.run_settings.seed is None:
            # torch starts every process from the same default seed: compiled noise would be equal on all ranks
            torch.manual_seed(secrets.randbits(63))
        self._history = self._read_history()

    def _seed_streams(self, epoch: int) -> None:
        super()._seed_streams(epoch)
        if self.network is not None:
            self.lngswr.seed_noise(self.run_settings.seed, epoch, self.local_rank)

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._steps = self.current_epoch * self.num_iterations_per_epoch

    def train_step(self, batch: dict) -> dict:
        self._steps += 1
        ramp_steps = (
            self.lngswr.config.noise_ramp_up * self.num_epochs * self.num_iterations_per_epoch
        )
        self.lngswr.set_noise_strength(ramp(self._steps, ramp_steps))
        result = super().train_step(batch)
        self.lngswr.commit_priors()
        self.lngswr.clamp_gates_()
        return result

    # --- gains and priors, for people to look at

    def on_epoch_end(self):
        if self.local_rank == 0:
            self._history.append({"epoch": self.current_epoch, "branches": self.lngswr.state()})
            self._log_state(self._history[-1]["branches"])
            write_file(self._history_file, json.dumps(self._history, indent=1))
            from nnunetv2_lngswr.training.history import plot_history

            plot_history(self._history, Path(self.output_folder) / "lngswr.png")
        super().on_epoch_end()

    @property
    def _history_file(self) -> Path:
        return Path(self.output_folder) / "lngswr.json"

    def _read_history(self) -> list[dict]:
        if self.current_epoch == 0 or not self._history_file.is_file():
            return []
        return [
            entry
            for entry in json.loads(self._history_file.read_text())
            if entry["epoch"] < self.current_epoch
        ]

    def _log_state(self, branches: dict[str, dict]) -> None:
        for name, values in branches.items():
            parts = [
                f"{key} {np.round(value, 3).tolist()}"
                for key, value in values.items()
                if key != "bands"
            ]
            self.print_to_log_file(f"LNG-SWR {name} {values['bands']}:", ", ".join(parts))


class nnUNetTrainerLNG(nnUNetTrainerLNGSWR):
    """Ablation: layer-wise noise only."""

    method = LNGSWRConfig(reconstruction=False)


class nnUNetTrainerSWR(nnUNetTrainerLNGSWR):
    """Ablation: selective wavelet reconstruction only."""

    method = LNGSWRConfig(noise=False)


class nnUNetTrainerAT(AdversarialTraining, PlansEntryTrainer):
    """Adversarial training of nnU-Net's own network: FGSM with random start by default, see `config.ATConfig`."""


class nnUNetTrainerLNGSWRAT(nnUNetTrainerLNGSWR, nnUNetTrainerAT):
    """LNG-SWR with adversarial training. The noise is milder: on top of attacks, that of nnUNetTrainerLNGSWR underfits (docs/evidence.md)."""

    method = LNGSWRConfig(noise_sigma_input=0.25, noise_sigma_stages=0.1, noise_ramp_up=0.0)


__all__ = [
    "nnUNetTrainerLNGSWR",
    "nnUNetTrainerLNG",
    "nnUNetTrainerSWR",
    "nnUNetTrainerVanilla",
    "nnUNetTrainerVanillaDA5",
    "nnUNetTrainerAT",
    "nnUNetTrainerLNGSWRAT",
]

# short budgets under nnU-Net's own naming (nnUNetTrainer_1epoch, nnUNetTrainer_5epochs, ...)
for _name in tuple(__all__):
    for _epochs in (1, 5, 10, 20, 50, 100, 250):
        _variant = f"{_name}_{_epochs}epoch" + ("s" if _epochs > 1 else "")
        globals()[_variant] = type(
            _variant,
            (globals()[_name],),
            {
                "epochs": _epochs,
                "__doc__": f"{_name} for {_epochs} epochs.",
                "__module__": __name__,
            },
        )
        __all__.append(_variant)
