"""AdversarialTrainer: replaces samples of each batch by attacked ones, and validates under attack.

A step crafts its samples (`adversarial_batch`) and then is nnU-Net's own train step: its deep
supervision, mixed precision, clipping and optimiser. LNG-SWR's prior is measured on all of it.

Each epoch the first validation batches are attacked too, by FGSM with random start and by a strong
attack (`robust_curve`). From their pseudo Dice come the robust curve, the criterion of
checkpoint_best and the detection of catastrophic overfitting. All of it is kept in nnU-Net's
logger, one value per epoch, so that it travels in checkpoints, and a continued run knows whether it
has fallen back to PGD-2, and which attack its curve is drawn by.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.attacks.terms import Norm
from nnunetv2_lngswr.attacks.threat_model import Ball, ThreatModel
from nnunetv2_lngswr.training.adversarial_batch import (
    Attack,
    at_every_resolution,
    attacked_samples,
    batch_target,
    craft,
    full_resolution,
    select,
)
from nnunetv2_lngswr.training.bounds import CaseRanges, patch_bounds
from nnunetv2_lngswr.training.consistency import ConsistencyLoss
from nnunetv2_lngswr.training.free import Perturbation, Replay
from nnunetv2_lngswr.training.history import RobustCurveLogger, plot_robust_curve
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.training.robust_curve import (
    STRONG,
    curve_attacks,
    moving_average,
    overfits,
    pseudo_dice,
)
from nnunetv2_lngswr.training.schedule import ramp, relative_step_size
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY, ATConfig
from nnunetv2_lngswr.utils.seeds import stream_seed

FALLBACK_STEPS = 2
BEST = "checkpoint_best.pth"


class AdversarialTrainer(PlansEntryTrainer):
    """Adversarial training as the "adversarial" settings of the plans say (`settings.ATConfig`)."""

    # --- settings

    @property
    def _at(self) -> ATConfig:
        assert self.settings.adversarial is not None  # the class has an `adversarial`
        return self.settings.adversarial

    def _written_entry(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        entry = super()._written_entry(configuration)
        return {**entry, ADVERSARIAL_KEY: dataclasses.asdict(self._at)}

    def initialize(self):
        super().initialize()
        self._space = LabelSpace.from_label_manager(self.label_manager)
        self._image_channels = len(self.configuration_manager.normalization_schemes)
        self._choice = torch.Generator().manual_seed(secrets.randbits(63))
        self._starts = torch.Generator(self.device).manual_seed(secrets.randbits(63))
        self._step = self._draws = 0  # within the epoch
        self._robust: list[dict[str, dict]] = []
        self._saving_best = False
        self.logger.local_logger = RobustCurveLogger(self.logger.local_logger.verbose)

    @property
    def _logged(self) -> dict[str, list]:
        return self.logger.local_logger.my_fantastic_logging

    @property
    def _fallen_back(self) -> bool:
        return bool(self._logged["at_fallback"] and self._logged["at_fallback"][-1])

    @property
    def _free(self) -> bool:
        return self._at.scheme == "free" and not self._fallen_back

    @property
    def _attack_steps(self) -> int:
        return FALLBACK_STEPS if self._fallen_back else self._at.attack_steps

    @property
    def _step_size(self) -> float:
        fallback = relative_step_size("pgd", FALLBACK_STEPS)
        return fallback if self._fallen_back else self._at.relative_step_size

    def _seed_streams(self, seed: int, epoch: int) -> None:
        super()._seed_streams(seed, epoch)
        if self.was_initialized:
            own = stream_seed("attack", seed, epoch, self.local_rank)
            self._choice.manual_seed(own)
            self._starts.manual_seed(own)

    def get_tr_and_val_datasets(self):
        datasets = super().get_tr_and_val_datasets()
        self._ranges = CaseRanges(*datasets)
        return datasets

    # --- training

    def on_train_start(self):
        super().on_train_start()
        self._ranges.check_type()
        if self._at.scheme == "free":
            self.dataloader_train = Replay(self.dataloader_train, self._at.replays or 4)

    def on_train_end(self):
        if isinstance(self.dataloader_train, Replay):
            # nnU-Net ends its processes by type
            self.dataloader_train = self.dataloader_train.batches
        super().on_train_end()

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._step = self._draws = 0
        self._perturbation = Perturbation()
        self._replayed = None  # the keys of the batch that is being replayed
        if isinstance(self.dataloader_train, Replay):
            if self._fallen_back:
                self.dataloader_train.times = 1
            # an epoch begins with nothing of the last one, as a continued run does
            self.dataloader_train.restart()

    def train_step(self, batch: dict) -> dict:
        batch = self._on_device(batch)
        result = self._free_step(batch) if self._free else self._crafted_step(batch)
        self._step += 1
        return result

    def _crafted_step(self, batch: dict) -> dict:
        x, samples = batch["data"], self._samples_to_attack(batch)
        ascent = {"steps": self._attack_steps, "relative_step_size": self._step_size}
        attack = partial(craft, **ascent, generator=self._starts, loss=self._at.loss)
        attacked = self._craft(batch, samples, self._epsilon(), attack)
        samples = samples.to(self.device)
        if not self._at.consistency:
            return super().train_step({**batch, "data": x.index_copy(0, samples, attacked)})
        with self._consistency_loss(samples):
            return super().train_step({**batch, "data": torch.cat((x, attacked))})

    def _free_step(self, batch: dict) -> dict:
        """The backward pass of this step's training gives the gradient for the next one's
        perturbation."""
        x = batch["data"]
        if batch["keys"] is not self._replayed:
            self._replayed = batch["keys"]
            self._kept_clean = torch.ones(len(x), dtype=torch.bool)
            self._kept_clean[self._samples_to_attack(batch)] = False
        ball = self._ball(x, batch["keys"], self._epsilon())
        leaf = self._perturbation.added_to(x, ball, self._kept_clean.to(self.device))
        result = super().train_step({**batch, "data": leaf})
        self._perturbation.move(leaf, x, ball, self._at.relative_step_size * ball.epsilon)
        return result

    def _epsilon(self) -> float:
        done = self.current_epoch * self.num_iterations_per_epoch + self._step
        ramp_steps = self._at.ramp_up * self.num_epochs * self.num_iterations_per_epoch
        return self._at.epsilon_fraction * ramp(done, ramp_steps)

    def _samples_to_attack(self, batch: dict) -> Tensor:
        self._draws += 1  # not the step: "free" draws once a batch
        return attacked_samples(
            self._draws - 1, len(batch["data"]), self._at.clean_share, self._choice
        )

    def _craft(self, batch: dict, samples: Tensor, epsilon: float, attack: Attack) -> Tensor:
        """The attacked versions of some samples of a batch on the device, (len(samples), C,
        *spatial)."""
        here = samples.to(self.device)
        x = batch["data"][here]
        if not len(samples):
            return x
        target = batch_target(full_resolution(batch["target"]), self._space)
        return attack(
            self._bare_network(),
            x,
            select(target, here),
            self._ball(x, [batch["keys"][i] for i in samples.tolist()], epsilon),
            autocast=torch.float16 if self.device.type == "cuda" else None,
        )

    def _ball(self, x: Tensor, keys: Sequence[str], epsilon: float) -> Ball:
        ranges = self._ranges(keys) if self._at.epsilon_range == "case" else None
        bounds = patch_bounds(x, ranges, self._image_channels)
        return ThreatModel(norm=Norm(self._at.norm), epsilon=epsilon).ball(bounds)

    def _on_device(self, batch: dict) -> dict:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(self.device, non_blocking=True)

        return {
            **batch,
            "data": move(batch["data"]),
            "target": at_every_resolution(move, batch["target"]),
        }

    @contextmanager
    def _consistency_loss(self, samples: Tensor) -> Iterator[None]:
        own = self.loss
        assert own is not None
        self.loss = ConsistencyLoss(own, self._at.consistency, samples, self._space)
        try:
            yield
        finally:
            self.loss = own

    # --- validation

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self._robust = []

    def validation_step(self, batch: dict) -> dict:
        if len(self._robust) < self._at.val_batches:
            self._robust.append(self._robust_validation_step(self._on_device(batch)))
        return super().validation_step(batch)

    def _robust_validation_step(self, batch: dict) -> dict[str, dict]:
        """nnU-Net's validation figures of the batch under each attack, at the full epsilon, from
        the same starts in every epoch."""
        results = {}
        everyone = torch.arange(len(batch["data"]))
        for name, attack in curve_attacks(self._strong_attack, self._at).items():
            generator = torch.Generator(self.device).manual_seed(len(self._robust))
            attack = partial(attack, generator=generator)
            attacked = self._craft(batch, everyone, self._at.epsilon_fraction, attack)
            # a copy: nnU-Net writes into the target where there is an ignore label
            target = at_every_resolution(torch.clone, batch["target"])
            results[name] = super().validation_step({**batch, "data": attacked, "target": target})
        return results

    @property
    def _strong_attack(self) -> str:
        """One draws the whole curve: a run that is continued from an old log stays with PGD."""
        return self._logged["robust_attack"][0] if self._logged["robust_attack"] else STRONG

    @property
    def _strong_label(self) -> str:
        return f"{self._strong_attack}-{self._at.val_steps}"

    def on_validation_epoch_end(self, val_outputs: list[dict]):
        super().on_validation_epoch_end(val_outputs)
        fgsm, strong = (
            self._pseudo_dice([result[name] for result in self._robust])
            for name in ("fgsm", "strong")
        )
        earlier = self._logged["ema_robust_fg_dice"][: self.current_epoch]
        average = moving_average(earlier, strong)
        clean, weight = self._logged["ema_fg_dice"][-1], self._at.robust_weight
        fallen_back = self._fallen_back
        self._log("robust_attack", self._strong_attack)
        self._log("robust_fg_dice", strong)
        self._log("ema_robust_fg_dice", average)
        self._log("fgsm_fg_dice", fgsm)
        self._log("selection", float((1 - weight) * clean + weight * average))
        if not fallen_back and self._overfits():
            fallen_back = self._at.fallback
        self._log("at_fallback", int(fallen_back))

    def _overfits(self) -> bool:
        """Whether single-step training has overfitted catastrophically in this epoch; says so in
        the log."""
        at = self._at
        if at.attack_steps > 1:
            return False
        # an undefended network shows the same picture: until the ramp's end the training attacks
        # less than this validation does
        if self.current_epoch < at.ramp_up * self.num_epochs:
            return False
        fgsm, strong = self._logged["fgsm_fg_dice"], self._logged["robust_fg_dice"]
        if not overfits(fgsm, strong, at.overfitting_margin):
            return False
        best = int(np.nanargmax(strong))
        reaction = '"fallback" is false: going on as before.'
        if at.fallback:
            reaction = f"Going on with PGD-{FALLBACK_STEPS}."
        self.print_to_log_file(
            f"CATASTROPHIC OVERFITTING: pseudo Dice under {self._strong_label} fell from "
            f"{strong[best]:.3f} (epoch {best}) to {strong[-1]:.3f} while under FGSM it went from "
            f"{fgsm[best]:.3f} to {fgsm[-1]:.3f}. {reaction}"
        )
        return True

    def _log(self, key: str, value: float | str) -> None:
        self.logger.log(key, value, self.current_epoch)

    def _pseudo_dice(self, results: list[dict]) -> float:
        """As nnU-Net's mean_fg_dice, over all ranks; nan without foreground."""
        return pseudo_dice(results, of_all_ranks=self.is_ddp)

    # --- checkpoints, picture

    def on_epoch_end(self):
        at = self._at
        *earlier, value = self._logged["selection"]
        # the first epoch's is written even if its batches hold no foreground: as with nnU-Net,
        # there is always one
        best_before = max((v for v in earlier if not np.isnan(v)), default=-np.inf)
        is_best = not earlier or value > best_before
        self.print_to_log_file(
            f"Robust pseudo dice ({self._strong_label}, epsilon {at.epsilon:.4f}) "
            f"{self._logged['robust_fg_dice'][-1]:.4f}, "
            f"FGSM {self._logged['fgsm_fg_dice'][-1]:.4f}, criterion {value:.4f}"
        )
        super().on_epoch_end()
        if is_best:
            self.print_to_log_file(
                f"New best criterion ({1 - at.robust_weight:g} clean + {at.robust_weight:g} robust)"
                f": {value:.4f}"
            )
            self._save_best()
        if self.local_rank == 0:
            plot_robust_curve(self._logged, self._folder / "adversarial.png")

    def _save_best(self) -> None:
        self.current_epoch -= 1  # nnU-Net has counted on, as before checkpoint_final
        self._saving_best = True
        self.save_checkpoint(str(self._folder / BEST))
        self._saving_best = False
        self.current_epoch += 1

    @property
    def _folder(self) -> Path:
        assert self.output_folder is not None  # nnU-Net made it
        return Path(self.output_folder)

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net asks for the best by clean Dice alone
        if Path(filename).name != BEST or self._saving_best:
            super().save_checkpoint(filename)
