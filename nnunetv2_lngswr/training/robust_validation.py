"""RobustValidationTrainer: judges each epoch's network under attack, and chooses by that.

The first validation batches of an epoch are attacked too, by FGSM with random start and by a strong
attack (`robust_curve`). From their pseudo Dice come the robust curve, the criterion of
checkpoint_best and the detection of catastrophic overfitting. All of it is kept in nnU-Net's
logger, one value per epoch, so that it travels in checkpoints, and a continued run knows whether it
has fallen back to PGD-2, and which attack its curve is drawn by.

Before the last phase of a late adversarial training, validation and checkpoint_best are nnU-Net's
own and nan is logged; the first epoch of the last phase replaces the checkpoint_best of before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
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
    batch_target,
    full_resolution,
)
from nnunetv2_lngswr.training.bounds import CaseRanges, patch_bounds
from nnunetv2_lngswr.training.history import RobustCurveLogger, plot_robust_curve
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.training.robust_curve import (
    STRONG,
    curve_attacks,
    moving_average,
    moving_average_of,
    overfits,
    pseudo_dice,
)
from nnunetv2_lngswr.training.schedule import first_attacked_epoch
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY, ATConfig
from nnunetv2_lngswr.utils.errors import UserError

FALLBACK_STEPS = 2
BEST, LATEST = "checkpoint_best.pth", "checkpoint_latest.pth"


class RobustValidationTrainer(PlansEntryTrainer):
    """What adversarial training rests on: attacked samples, and validation with them."""

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
        self._robust: list[dict[str, dict]] = []
        self._best_is_due = False
        verbose = self.logger.local_logger.verbose
        self.logger.local_logger = RobustCurveLogger(verbose, late_from=self._first_attacked)

    @property
    def _logged(self) -> dict[str, list]:
        return self.logger.local_logger.my_fantastic_logging

    @property
    def _fallen_back(self) -> bool:
        return bool(self._logged["at_fallback"] and self._logged["at_fallback"][-1])

    @cached_property
    def _first_attacked(self) -> int:
        """The epoch with which the last phase begins; 0: it is the only one."""
        try:
            return first_attacked_epoch(self.num_epochs, self._at.start)
        except ValueError as error:  # a subclass has set a budget of its own
            raise UserError(f'"{ADVERSARIAL_KEY}": {error}') from None

    @property
    def _attacking(self) -> bool:
        """Whether this epoch is of the last phase."""
        return self.current_epoch >= self._first_attacked

    # --- attacked samples

    def get_tr_and_val_datasets(self):
        datasets = super().get_tr_and_val_datasets()
        self._ranges = CaseRanges(*datasets)
        return datasets

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
            target.cases(here),
            self._ball(x, [batch["keys"][i] for i in samples.tolist()], epsilon),
            autocast=torch.float16 if self.device.type == "cuda" else None,
        )

    def _ball(self, x: Tensor, keys: Sequence[str], epsilon: float) -> Ball:
        ranges = self._ranges(keys) if self._at.epsilon_range == "case" else None
        bounds = patch_bounds(x, ranges, self._image_channels)
        return ThreatModel(norm=Norm(self._at.norm), epsilon=epsilon).ball(bounds)

    # --- validation

    def on_validation_epoch_start(self):
        super().on_validation_epoch_start()
        self._robust = []

    def validation_step(self, batch: dict) -> dict:
        if self._attacking and len(self._robust) < self._at.val_batches:
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
        self._log("robust_attack", self._strong_attack)
        fallen_back = self._fallen_back
        if self._attacking:
            self._log_robust_dice()
            if not fallen_back and self._overfits():
                fallen_back = self._at.fallback
        else:
            for key in ("robust_fg_dice", "ema_robust_fg_dice", "fgsm_fg_dice", "selection"):
                self._log(key, float("nan"))
        self._log("at_fallback", int(fallen_back))

    def _log_robust_dice(self) -> None:
        fgsm, strong = (
            self._pseudo_dice([result[name] for result in self._robust])
            for name in ("fgsm", "strong")
        )
        earlier = self._logged["ema_robust_fg_dice"][: self.current_epoch]
        average = moving_average(earlier, strong)
        # nnU-Net's average goes back to before the last phase
        clean = moving_average_of(self._logged["mean_fg_dice"][self._first_attacked :])
        weight = self._at.robust_weight
        terms = ((1 - weight, clean), (weight, average))
        self._log("robust_fg_dice", strong)
        self._log("ema_robust_fg_dice", average)
        self._log("fgsm_fg_dice", fgsm)
        # what has no weight may be nan
        self._log("selection", float(sum(w * value for w, value in terms if w)))

    def _overfits(self) -> bool:
        """Whether single-step training has overfitted catastrophically in this epoch; says so in
        the log."""
        at = self._at
        if at.attack_steps > 1:
            return False
        # an undefended network shows the same picture: until the ramp's end the training attacks
        # less than this validation does
        late_epochs = self.num_epochs - self._first_attacked
        if self.current_epoch - self._first_attacked < at.ramp_up * late_epochs:
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
        if not self._attacking:
            super().on_epoch_end()
            return
        at = self._at
        *earlier, value = self._logged["selection"][self._first_attacked :]
        # the first epoch's is written even if its batches hold no foreground: as with nnU-Net,
        # there is always one
        best_before = max((v for v in earlier if not np.isnan(v)), default=-np.inf)
        is_best = not earlier or value > best_before
        self.print_to_log_file(
            f"Robust pseudo dice ({self._strong_label}, epsilon {at.epsilon:.4f}) "
            f"{self._logged['robust_fg_dice'][-1]:.4f}, "
            f"FGSM {self._logged['fgsm_fg_dice'][-1]:.4f}, criterion {value:.4f}"
        )
        self._best_is_due = is_best
        super().on_epoch_end()
        if self._best_is_due:
            self.current_epoch -= 1  # nnU-Net has counted on, as before checkpoint_final
            self._save_best()
            self.current_epoch += 1
        if is_best:
            self.print_to_log_file(
                f"New best criterion ({1 - at.robust_weight:g} clean + {at.robust_weight:g} robust)"
                f": {value:.4f}"
            )
        if self.local_rank == 0:
            plot_robust_curve(
                self._logged, self._folder / "adversarial.png", late_from=self._first_attacked
            )

    def _save_best(self) -> None:
        self._best_is_due = False
        super().save_checkpoint(str(self._folder / BEST))

    @property
    def _folder(self) -> Path:
        assert self.output_folder is not None  # nnU-Net made it
        return Path(self.output_folder)

    def save_checkpoint(self, filename: str) -> None:
        name = Path(filename).name
        # nnU-Net asks for the best by clean Dice alone, as is right until the last phase
        if name == BEST and self._attacking:
            return
        # a run that is killed in between goes on from the latest, and would not judge this epoch
        if name == LATEST and self._best_is_due:
            self._save_best()
        super().save_checkpoint(filename)
