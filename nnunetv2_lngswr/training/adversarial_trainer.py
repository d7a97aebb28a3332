"""AdversarialTrainer: replaces samples of each batch by attacked ones, from the first step or late.

A step crafts its samples (`adversarial_batch`) and then is nnU-Net's own train step: its deep
supervision, mixed precision, clipping and optimiser. LNG-SWR's prior is measured on all of it.
Validation is `robust_validation`'s.

With a `start` above 0 the training has two phases. The first is the plain training of as many
epochs: no attack, no step of another kind, a learning rate that decays to nothing. The last one
attacks, and its learning rate starts again (`restarted_lr`). What is counted over the epochs of an
adversarial training is counted over those of the last phase.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor

from nnunetv2_lngswr.training.adversarial_batch import attacked_samples, craft
from nnunetv2_lngswr.training.consistency import ConsistencyLoss
from nnunetv2_lngswr.training.free import Perturbation, Replay
from nnunetv2_lngswr.training.restarted_lr import RestartedPolyLR
from nnunetv2_lngswr.training.robust_validation import FALLBACK_STEPS, RobustValidationTrainer
from nnunetv2_lngswr.training.schedule import ramp, relative_step_size
from nnunetv2_lngswr.training.settings import ADVERSARIAL_KEY
from nnunetv2_lngswr.training.weight_average import add_to_average, exchange
from nnunetv2_lngswr.utils.errors import UserError
from nnunetv2_lngswr.utils.seeds import stream_seed


class AdversarialTrainer(RobustValidationTrainer):
    """Adversarial training as the "adversarial" settings of the plans say (`settings.ATConfig`)."""

    # --- settings

    def initialize(self):
        super().initialize()
        self._choice = torch.Generator().manual_seed(secrets.randbits(63))
        self._starts = torch.Generator(self.device).manual_seed(secrets.randbits(63))
        self._step = self._draws = 0  # within the epoch
        self._restart_rate()

    def _restart_rate(self) -> None:
        """Not in configure_optimizers, in whose place trainers with other optimisers put theirs."""
        first, at, scheduler = self._first_attacked, self._at, self.lr_scheduler
        as_it_is = first == 0 and at.restart_lr == 1 and at.restart_ramp_up == 0
        if as_it_is or isinstance(scheduler, RestartedPolyLR):
            return
        if type(scheduler) is not PolyLRScheduler:
            raise UserError(
                f'"{ADVERSARIAL_KEY}": start, restart_lr and restart_ramp_up start the learning '
                "rate of nnU-Net's own PolyLRScheduler again, and this trainer has "
                f"{type(scheduler).__name__}: leave them out, with start 0, or train with nnU-Net's"
            )
        assert self.optimizer is not None
        self.lr_scheduler = RestartedPolyLR(
            self.optimizer,
            self.initial_lr,
            self.num_epochs,
            restart=first,
            factor=at.restart_lr,
            ramp_epochs=at.restart_ramp_up * (self.num_epochs - first),
        )
        self.lr_scheduler.step(self.current_epoch)

    def _refuse_foreign_results(self) -> None:
        super()._refuse_foreign_results()
        scheduler = self.lr_scheduler
        if self.current_epoch == 0 or not isinstance(scheduler, RestartedPolyLR):
            return
        # the plans need not tell: the budget may be a subclass's
        for epoch, rate in enumerate(self._logged["lrs"][: self.current_epoch]):
            scheduler.step(epoch)
            here = scheduler.get_last_lr()[0]
            if not math.isclose(rate, here):
                raise UserError(
                    f"the run that is continued has another schedule: the learning rate of epoch "
                    f"{epoch} was {rate:g} there and is {here:g} here, with start "
                    f"{self._at.start:g} of {self.num_epochs} epochs and restart_lr "
                    f"{self._at.restart_lr:g}; continue with the settings it began with, or train "
                    "anew, without --c"
                )

    @property
    def _noise_factor(self) -> float:
        return self._at.late_noise if self._attacking else 1.0

    @property
    def _free(self) -> bool:
        return self._at.scheme == "free" and not self._fallen_back

    @property
    def _frees(self) -> bool:
        """Whether this epoch's steps are those of "free"."""
        return self._free and self._attacking

    @property
    def _shares(self) -> int:
        return self._at.free_steps if self._at.rolling else super()._shares

    @property
    def _rolls(self) -> bool:
        return (self._at.rolling and self._frees) or super()._rolls

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

    # --- training

    def on_train_start(self):
        super().on_train_start()
        self._ranges.check_type()
        first = self._first_attacked
        if first > 0:
            self.print_to_log_file(
                f"Late adversarial training: epochs 0 to {first - 1} are plain, epochs {first} to "
                f"{self.num_epochs - 1} are the last phase (start {self._at.start:g}, restart_lr "
                f"{self._at.restart_lr:g})"
            )
        if self._at.scheme == "free" and not self._at.rolling:
            self.dataloader_train = Replay(self.dataloader_train, times=1)

    def on_train_epoch_start(self):
        if self.current_epoch > self._first_attacked:
            self._exchange_average()  # the last epoch left it in the network
        super().on_train_epoch_start()
        self._restart_rate()  # refuses a schedule that came later
        if 0 < self._first_attacked == self.current_epoch:
            epochs = self.num_epochs - self.current_epoch
            rate = self._logged["lrs"][-1]
            self.print_to_log_file(
                f"Last phase: adversarial training for {epochs} epochs, the learning rate starts "
                f"again at {rate:g}"
            )
        self._step = self._draws = 0
        self._perturbation = Perturbation()
        self._replayed = None  # the keys of the batch that is being replayed
        if isinstance(self.dataloader_train, Replay):
            self.dataloader_train.times = self._at.free_steps if self._frees else 1
            self.dataloader_train.restart()

    def train_step(self, batch: dict) -> dict:
        if not self._attacking:
            return super().train_step(batch)
        batch = self._on_device(batch)
        result = self._free_step(batch) if self._free else self._crafted_step(batch)
        momentum = self._at.weight_average
        if momentum:
            assert self.optimizer is not None  # it has been initialized
            add_to_average(self.optimizer, step=self._steps_attacked, momentum=momentum)
        self._step += 1
        return result

    def on_validation_epoch_start(self):
        if self._attacking:
            self._exchange_average()
        super().on_validation_epoch_start()

    def _exchange_average(self) -> None:
        assert self.optimizer is not None  # it has been initialized
        exchange(self.optimizer)

    def _crafted_step(self, batch: dict) -> dict:
        x, samples = batch["data"], self._samples_to_attack(batch)
        noise = None if self._fallen_back else self._at.unprojected_noise
        ascent = {
            "steps": self._attack_steps,
            "relative_step_size": self._step_size,
            "unprojected_noise": noise,
        }
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
        if self._at.rolling:
            self._perturbation.pass_on(len(batch["data"]))
            batch = self._window.admit({**batch, "kept_clean": self._kept_clean_of(batch)})
            self._kept_clean = batch["kept_clean"]
        elif batch["keys"] is not self._replayed:
            self._replayed = batch["keys"]
            self._kept_clean = self._kept_clean_of(batch)
        x = batch["data"]
        ball = self._ball(x, batch["keys"], self._epsilon())
        leaf = self._perturbation.added_to(x, ball, self._kept_clean.to(self.device))
        result = super().train_step({**batch, "data": leaf})
        self._perturbation.move(leaf, x, ball, self._at.relative_step_size * ball.epsilon)
        return result

    def _epsilon(self) -> float:
        late_epochs = self.num_epochs - self._first_attacked
        ramp_steps = self._at.ramp_up * late_epochs * self.num_iterations_per_epoch
        return self._at.epsilon_fraction * ramp(self._steps_attacked, ramp_steps)

    @property
    def _steps_attacked(self) -> int:
        """Steps of the last phase that are done."""
        epochs = self.current_epoch - self._first_attacked
        return epochs * self.num_iterations_per_epoch + self._step

    def _samples_to_attack(self, batch: dict) -> Tensor:
        self._draws += 1  # not the step: "free" draws once a batch
        return attacked_samples(
            self._draws - 1, len(batch["data"]), self._at.clean_share, self._choice
        )

    def _kept_clean_of(self, batch: dict) -> Tensor:
        clean = torch.ones(len(batch["data"]), dtype=torch.bool)
        clean[self._samples_to_attack(batch)] = False
        return clean

    @contextmanager
    def _consistency_loss(self, samples: Tensor) -> Iterator[None]:
        own = self.loss
        assert own is not None
        self.loss = ConsistencyLoss(own, self._at.consistency, samples, self._space)
        try:
            yield
        finally:
            self.loss = own
