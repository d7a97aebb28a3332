"""AdversarialTraining: what makes an adversarial trainer of a trainer (`trainers.nnUNetTrainerAT`, `trainers.nnUNetTrainerLNGSWRAT`).

A mixin over `trainers.PlansEntryTrainer`. A step replaces samples of the batch by attacked ones and then is nnU-Net's own train step: its
deep supervision, mixed precision, clipping and optimiser. LNG-SWR's prior is measured on what the network is trained on, attacked
samples included.

Each epoch the first validation batches are attacked too, by FGSM with random start and by PGD. From their pseudo Dice come the robust
curve, the criterion of checkpoint_best and the detection of catastrophic overfitting. All of it is kept in nnU-Net's logger, one value per
epoch, so that it travels in checkpoints, and a continued run knows whether it has fallen back to PGD-2.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from torch import Tensor

from nnunetv2_lngswr.attacks.geometry import project_onto_ball, step_direction
from nnunetv2_lngswr.attacks.losses import LabelSpace
from nnunetv2_lngswr.attacks.threat_model import Ball, ThreatModel
from nnunetv2_lngswr.method.config import ADVERSARIAL_KEY, ATConfig, read_adversarial
from nnunetv2_lngswr.training.adversarial_batch import (
    CaseRanges,
    ConsistencyLoss,
    Replay,
    attacked_samples,
    batch_target,
    craft,
    overfits,
    patch_bounds,
    ramp,
    select,
)
from nnunetv2_lngswr.training.history import add_robust_curve, plot_robust_curve

FALLBACK_STEPS = 2
LOGGED = ("robust_fg_dice", "ema_robust_fg_dice", "fgsm_fg_dice", "selection", "at_fallback")
"""Per epoch: pseudo Dice under PGD and its moving average, under FGSM, the criterion of checkpoint_best, and 1 once fallen back."""
BEST = "checkpoint_best.pth"


class RobustCurveLogger(LocalLogger):
    """nnU-Net's logger with the values of `LOGGED`; its progress.png shows the robust curve beside the clean one."""

    def __init__(self, verbose: bool = False) -> None:
        super().__init__(verbose)
        self.my_fantastic_logging |= {key: [] for key in LOGGED}

    def plot_progress_png(self, output_folder: str) -> None:
        arrange = plt.tight_layout

        def add_curve_and_arrange(*args, **kwargs):
            add_robust_curve(plt.gcf(), self.my_fantastic_logging)
            arrange(*args, **kwargs)

        # nnU-Net makes, saves and closes the figure in one function, and arranges it once all is drawn
        with patch.object(plt, "tight_layout", add_curve_and_arrange):
            super().plot_progress_png(output_folder)


class AdversarialTraining:
    """Adversarial training as the "adversarial" settings of the plans say (`config.ATConfig`)."""

    adversarial = ATConfig()
    """The class's own settings, which the plans override."""

    # --- settings

    @classmethod
    def _settings_of(cls, configuration: dict) -> tuple:
        return (
            *super()._settings_of(configuration),
            read_adversarial(configuration, cls.adversarial),
        )

    @property
    def at(self) -> ATConfig:
        return self._settings_of(self.configuration_manager.configuration)[-1]

    def initialize(self):
        super().initialize()
        self._at = self.at  # read once: `at` parses the plans
        self._space = LabelSpace.from_label_manager(self.label_manager)
        self._image_channels = len(self.configuration_manager.normalization_schemes)
        self._choice = torch.Generator().manual_seed(secrets.randbits(63))
        self._starts = torch.Generator(self.device).manual_seed(secrets.randbits(63))
        self._step = self._draws = 0  # within the epoch
        self._robust: list[dict] = []
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

    def _seed_streams(self, epoch: int) -> None:
        super()._seed_streams(epoch)
        if self.was_initialized:
            keys = repr(("attack", self.run_settings.seed, epoch, self.local_rank)).encode()
            seed = int.from_bytes(hashlib.blake2b(keys, digest_size=8).digest()) >> 1
            self._choice.manual_seed(seed)
            self._starts.manual_seed(seed)

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
            self.dataloader_train = (
                self.dataloader_train.batches
            )  # nnU-Net ends its processes by type
        super().on_train_end()

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self._step = self._draws = 0
        self._carried: Tensor | None = None
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
        attacked = self._craft(
            batch, samples, self._epsilon(), self._starts, self._attack_steps, self._step_size
        )
        if self._at.consistency:
            with self._loss(
                ConsistencyLoss(
                    self.loss, self._at.consistency, samples.to(self.device), self._space
                )
            ):
                return super().train_step({**batch, "data": torch.cat((x, attacked))})
        return super().train_step(
            {**batch, "data": x.index_copy(0, samples.to(self.device), attacked)}
        )

    def _free_step(self, batch: dict) -> dict:
        """The backward pass of this step's training gives the gradient for the next one's perturbation."""
        x = batch["data"]
        if batch["keys"] is not self._replayed:
            self._replayed = batch["keys"]
            self._kept_clean = torch.ones(len(x), dtype=torch.bool)
            self._kept_clean[self._samples_to_attack(batch)] = False
        ball = self._ball(x, batch["keys"], self._epsilon())
        # carried from batch to batch as published, in units of the intensity range
        scale = ball.scale.view(*ball.scale.shape, *[1] * (x.ndim - 2))
        carried = torch.zeros_like(x) if self._carried is None else self._carried * scale
        carried[self._kept_clean.to(self.device)] = 0
        leaf = project_onto_ball(x + carried, x, ball).requires_grad_()
        result = super().train_step({**batch, "data": leaf})
        # with a gradient scaler this is a multiple of the gradient, which a step's direction does not show
        gradient = torch.nan_to_num(leaf.grad, nan=0.0, posinf=0.0, neginf=0.0)
        size = self._at.relative_step_size * ball.epsilon
        moved = (
            project_onto_ball(leaf.detach() + size * step_direction(gradient, ball), x, ball) - x
        )
        self._carried = torch.where(scale > 0, moved / torch.where(scale > 0, scale, 1.0), 0.0)
        return result

    @property
    def _attack_steps(self) -> int:
        return FALLBACK_STEPS if self._fallen_back else self._at.attack_steps

    @property
    def _step_size(self) -> float:
        return 2.5 / FALLBACK_STEPS if self._fallen_back else self._at.relative_step_size

    def _epsilon(self) -> float:
        done = self.current_epoch * self.num_iterations_per_epoch + self._step
        return self._at.epsilon * ramp(
            done, self._at.ramp_up * self.num_epochs * self.num_iterations_per_epoch
        )

    def _samples_to_attack(self, batch: dict) -> Tensor:
        self._draws += 1  # not the step: "free" draws once a batch
        return attacked_samples(
            self._draws - 1, len(batch["data"]), self._at.clean_share, self._choice
        )

    def _craft(
        self,
        batch: dict,
        samples: Tensor,
        epsilon: float,
        generator: torch.Generator,
        steps: int,
        step_size: float,
    ) -> Tensor:
        """The attacked versions of some samples of a batch on the device, (len(samples), C, *spatial)."""
        x = batch["data"][samples.to(self.device)]
        if not len(samples):
            return x
        return craft(
            self._bare_network(),
            x,
            select(
                batch_target(_full_resolution(batch["target"]), self._space),
                samples.to(self.device),
            ),
            self._ball(x, [batch["keys"][i] for i in samples.tolist()], epsilon),
            steps=steps,
            relative_step_size=step_size,
            generator=generator,
            loss=self._at.loss,
            autocast=torch.float16 if self.device.type == "cuda" else None,
        )

    def _ball(self, x: Tensor, keys, epsilon: float) -> Ball:
        ranges = self._ranges(keys) if self._at.epsilon_range == "case" else None
        return ThreatModel(norm=self._at.norm, epsilon=epsilon).ball(
            patch_bounds(x, ranges, self._image_channels)
        )

    def _on_device(self, batch: dict) -> dict:
        target = batch["target"]
        move = lambda t: t.to(self.device, non_blocking=True)  # noqa: E731
        return {
            **batch,
            "data": move(batch["data"]),
            "target": [move(t) for t in target] if isinstance(target, list) else move(target),
        }

    @contextmanager
    def _loss(self, loss) -> Iterator[None]:
        own = self.loss
        self.loss = loss
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
        """nnU-Net's validation figures of the batch under each attack, at the full epsilon, from the same starts in every epoch."""
        results = {}
        everyone = torch.arange(len(batch["data"]))
        for name, steps, size in (
            ("fgsm", 1, 1.25),
            ("pgd", self._at.val_steps, 2.5 / self._at.val_steps),
        ):
            generator = torch.Generator(self.device).manual_seed(len(self._robust))
            attacked = self._craft(batch, everyone, self._at.epsilon, generator, steps, size)
            # a copy: nnU-Net writes into the target where there is an ignore label
            target = (
                [t.clone() for t in batch["target"]]
                if isinstance(batch["target"], list)
                else batch["target"].clone()
            )
            results[name] = super().validation_step({**batch, "data": attacked, "target": target})
        return results

    def on_validation_epoch_end(self, val_outputs: list[dict]):
        super().on_validation_epoch_end(val_outputs)
        dice = {
            name: self._pseudo_dice([result[name] for result in self._robust])
            for name in ("fgsm", "pgd")
        }
        ema = self._logged["ema_robust_fg_dice"][: self.current_epoch]
        # nnU-Net's moving average; an epoch whose batches hold no foreground says nothing
        average = (
            dice["pgd"]
            if not ema or np.isnan(ema[-1])
            else ema[-1]
            if np.isnan(dice["pgd"])
            else 0.9 * ema[-1] + 0.1 * dice["pgd"]
        )
        weight = self._at.robust_weight
        fallen_back = self._fallen_back
        self._log("robust_fg_dice", dice["pgd"])
        self._log("ema_robust_fg_dice", average)
        self._log("fgsm_fg_dice", dice["fgsm"])
        self._log(
            "selection",
            float((1 - weight) * self.logger.get_value("ema_fg_dice", step=-1) + weight * average),
        )
        if not fallen_back and self._overfits():
            fallen_back = self._at.fallback
        self._log("at_fallback", int(fallen_back))

    def _overfits(self) -> bool:
        """Whether single-step training has overfitted catastrophically in this epoch; says so in the log."""
        if self._at.attack_steps > 1:
            return False
        # an undefended network shows the same picture: until the ramp's end the training attacks less than this validation does
        if self.current_epoch < self._at.ramp_up * self.num_epochs:
            return False
        fgsm, pgd = self._logged["fgsm_fg_dice"], self._logged["robust_fg_dice"]
        if not overfits(fgsm, pgd, self._at.overfitting_margin):
            return False
        best = int(np.nanargmax(pgd))
        self.print_to_log_file(
            f"CATASTROPHIC OVERFITTING: pseudo Dice under PGD-{self._at.val_steps} fell from {pgd[best]:.3f} (epoch {best}) "
            f"to {pgd[-1]:.3f} while under FGSM it went from {fgsm[best]:.3f} to {fgsm[-1]:.3f}. "
            + (
                f"Going on with PGD-{FALLBACK_STEPS}."
                if self._at.fallback
                else '"fallback" is false: going on as before.'
            )
        )
        return True

    def _log(self, key: str, value: float) -> None:
        self.logger.log(key, value, self.current_epoch)

    def _pseudo_dice(self, results: list[dict]) -> float:
        """As nnU-Net's mean_fg_dice, over all ranks; nan without foreground."""
        counts = np.stack(
            [np.sum([r[key] for r in results], axis=0) for key in ("tp_hard", "fp_hard", "fn_hard")]
        )
        if self.is_ddp:
            gathered = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, counts)
            counts = np.sum(gathered, axis=0)
        tp, fp, fn = counts.astype(float)
        size = 2 * tp + fp + fn
        return (
            float(np.mean(2 * tp[size > 0] / size[size > 0])) if (size > 0).any() else float("nan")
        )

    # --- checkpoints, picture

    def on_epoch_end(self):
        *earlier, value = self._logged["selection"]
        # the first epoch's is written even if its batches hold no foreground: as with nnU-Net, there is always one
        is_best = not earlier or value > max(
            (v for v in earlier if not np.isnan(v)), default=-np.inf
        )
        self.print_to_log_file(
            f"Robust pseudo dice (PGD-{self._at.val_steps}, epsilon {self._at.epsilon:.4f}) {self._logged['robust_fg_dice'][-1]:.4f}, "
            f"FGSM {self._logged['fgsm_fg_dice'][-1]:.4f}, criterion {value:.4f}"
        )
        super().on_epoch_end()
        if is_best:
            self.print_to_log_file(
                f"New best criterion ({1 - self._at.robust_weight:g} clean + {self._at.robust_weight:g} robust): {value:.4f}"
            )
            self.current_epoch -= 1  # nnU-Net has counted on, as before checkpoint_final
            self._saving_best = True
            self.save_checkpoint(str(Path(self.output_folder) / BEST))
            self._saving_best = False
            self.current_epoch += 1
        if self.local_rank == 0:
            plot_robust_curve(self._logged, Path(self.output_folder) / "adversarial.png")

    def save_checkpoint(self, filename: str) -> None:
        # nnU-Net asks for the best by clean Dice alone
        if Path(filename).name != BEST or self._saving_best:
            super().save_checkpoint(filename)

    def _written_entry(self, configuration: dict) -> dict:
        return {
            **super()._written_entry(configuration),
            ADVERSARIAL_KEY: dataclasses.asdict(self._settings_of(configuration)[-1]),
        }


def _full_resolution(target: Tensor | list[Tensor]) -> Tensor:
    return target[0] if isinstance(target, list) else target
