"""Ideas for LNG-SWR, tried outside of the package: what pays moves in, what does not stays.

    python -m benchmarks.noise_trials TRIAL DATASET TRAINER PLANS

trains fold 0 of the plans' 2d with that trainer, changed by TRIAL (or `none`), in one thread and
without nnU-Net's validation. `small_search` calls it; what it trains is evaluated as any model of
the trainer.

sensitivity   The noise of a stage is coloured by what the loss is sensitive to: the energy of its
              gradient per channel and stride, a running mean, gives the variance there. The sum of
              the variances is that of the default noise.
guided_input  "noise_guided" of the entry acts on the image alone; guided_stages: after the stages
              alone.
gate_ramp     The gains act in full from the middle of the training on, and grow until then, as the
              noise does (after FPCM, Bu et al., arXiv 2307.09763).
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
from nnunetv2.run import run_training
from torch import Tensor

from nnunetv2_lngswr import trainers
from nnunetv2_lngswr.method.noise import MULTISCALE_STRIDES, LayerwiseNoise, channel_sd
from nnunetv2_lngswr.method.reconstruction import SelectiveWaveletReconstruction
from nnunetv2_lngswr.training.lngswr_trainer import LNGSWRTrainer
from nnunetv2_lngswr.training.schedule import ramp

EVERY, MOMENTUM = 5, 0.1
"""Steps between two looks at the gradient, and the weight of the newest."""
POWER = 0.5
"""Of the gradient's energy, that the noise's variance is proportional to."""
LEAST, MOST = 0.1, 10.0
"""Of a channel's and stride's variance, in units of the default noise's."""


def block_sums(x: Tensor, stride: int) -> Tensor:
    """Sums over blocks of `stride` voxels along every axis of (N, C, *spatial); the last ones are
    cut off."""
    for axis in range(2, x.ndim):
        starts = torch.arange(0, x.shape[axis], stride)
        sums = x.cumsum(axis)
        ends = (starts + stride).clamp(max=x.shape[axis]) - 1
        x = sums.index_select(axis, ends).diff(
            dim=axis, prepend=torch.zeros_like(sums.narrow(axis, 0, 1))
        )
    return x


class SensitivityNoise(LayerwiseNoise):
    """Multiscale noise whose variance per channel and stride follows the gradient's energy there.

    A loss that is linear in the noise changes by the sum over a stride's blocks of gradient times
    noise: its variance is the energy of the blocks' sums, which a white gradient has the same at
    every stride.
    """

    energy: Tensor | None = None
    """(C, strides), running mean."""
    _steps = 0

    def forward(self, x: Tensor, sd: Tensor | None = None) -> Tensor:
        if not self.training or self.sigma_max == 0:
            return x
        sd = channel_sd(x) if sd is None else sd
        generator = self._generator_on(x.device)
        ones = [1] * (x.ndim - 2)
        drawn = torch.rand((x.shape[0], 1, *ones), generator=generator)
        amplitude = (sd * self.strength).view(1, -1, *ones) * self.sigma_max * drawn
        variances = self.variances(x.shape[1])
        noise = torch.zeros_like(x)
        for i, stride in enumerate(MULTISCALE_STRIDES):
            blocks = [-(-length // stride) for length in x.shape[2:]]
            fine = torch.rand((*x.shape[:2], *blocks), generator=generator).sub_(0.5).mul_(12**0.5)
            for axis in range(2, x.ndim):
                fine = fine.repeat_interleave(stride, axis).narrow(axis, 0, x.shape[axis])
            noise += fine * variances[:, i].sqrt().view(1, -1, *ones)
        noise *= amplitude
        self._steps += 1
        if self._steps % EVERY == 1 and torch.is_grad_enabled():
            noise.requires_grad_()
            noise.register_hook(partial(self._look, sd.detach().clone()))
        return x + noise

    def variances(self, channels: int) -> Tensor:
        """(C, strides), 1 in the mean over the channels and the sum over the strides."""
        strides = len(MULTISCALE_STRIDES)
        if self.energy is None:
            return torch.full((channels, strides), 1 / strides)
        shares = self.energy**POWER
        shares = (shares / shares.mean().clamp(min=1e-30)).clamp(LEAST, MOST)
        return shares / shares.mean() / strides

    @torch.no_grad()
    def _look(self, sd: Tensor, gradient: Tensor) -> None:
        dims = (0, *range(2, gradient.ndim))
        energies = [block_sums(gradient, s).square().sum(dims) for s in MULTISCALE_STRIDES]
        new = torch.stack(energies, dim=1) * sd[:, None].square()
        if self.energy is None:
            self.energy = new
        self.energy = torch.lerp(self.energy, new, MOMENTUM)


class Sensitivity(LNGSWRTrainer):
    def initialize(self):
        super().initialize()
        for _, branch in self.lngswr.branches():
            if branch.noise is not None:
                branch.noise.__class__ = SensitivityNoise


class GuidedInput(LNGSWRTrainer):
    def initialize(self):
        super().initialize()
        for name, branch in self.lngswr.branches():
            if name != "input" and branch.guidance is not None:
                branch.guidance.size = 0.0


class GuidedStages(LNGSWRTrainer):
    def initialize(self):
        super().initialize()
        guidance = self.lngswr.image.guidance
        assert guidance is not None  # the entry has "noise_guided"
        guidance.size = 0.0


class GateRamp(LNGSWRTrainer):
    share = 0.0
    """How far the gates are applied."""

    def initialize(self):
        super().initialize()
        for _, branch in self.lngswr.branches():
            if branch.reconstruction is not None:
                branch.reconstruction.gate = partial(self._gate, branch.reconstruction)

    def _gate(self, reconstruction: SelectiveWaveletReconstruction) -> Tensor:
        return self.share * SelectiveWaveletReconstruction.gate(reconstruction)

    def train_step(self, batch: dict) -> dict:
        steps = self.num_epochs * self.num_iterations_per_epoch
        self.share = ramp(self._steps + 1, 0.5 * steps)
        return super().train_step(batch)


TRIALS = {
    "sensitivity": Sensitivity,
    "guided_input": GuidedInput,
    "guided_stages": GuidedStages,
    "gate_ramp": GateRamp,
}


def changed_trainer(name: str, trial: str) -> type[Any]:
    """The trainer of this name with the trial in it, under the same name: its folders are found as
    the trainer's."""
    own = {"perform_actual_validation": lambda self, *_: None}
    bases = (TRIALS[trial],) if trial in TRIALS else ()
    return type(name, (*bases, getattr(trainers, name)), own)


if __name__ == "__main__":
    chosen, dataset, trainer, plans = sys.argv[1:]
    # eager small networks take half as much again of two threads
    torch.set_num_threads(1)
    run_training.recursive_find_trainer_class_by_name = partial(changed_trainer, trial=chosen)
    run_training.run_training(dataset, "2d", 0, trainer, plans, device=torch.device("cpu"))
