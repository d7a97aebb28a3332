"""RestartedPolyLR: nnU-Net's learning rate, started again for the last phase of a training."""

from __future__ import annotations

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

from nnunetv2_lngswr.training.schedule import ramp


class RestartedPolyLR(PolyLRScheduler):
    """nnU-Net's poly decay, once over the epochs before the restart and once over those after it.

    Nothing of it is kept between epochs: a continued training has the same rates.

    Parameters
    ----------
    optimizer
        Whose rates are set, all groups' alike.
    initial_lr
        At the first epoch.
    epochs
        Of the training.
    restart
        The epoch of the restart, below `epochs`; 0: nothing comes before it.
    factor
        Of `initial_lr`: what the rate starts again at.
    ramp_epochs
        After the restart over which it grows to that, linearly epoch by epoch, while it decays; 1
        or less: it starts there.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        initial_lr: float,
        epochs: int,
        *,
        restart: int,
        factor: float,
        ramp_epochs: float = 0.0,
    ) -> None:
        self._restart, self._ramp_epochs = restart, ramp_epochs
        self._before = (initial_lr, restart)
        self._after = (factor * initial_lr, epochs - restart)
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rates of an epoch; None: of the next one."""
        if current_step is None or current_step == -1:
            current_step = self.ctr
            self.ctr += 1
        if current_step < self._restart:
            self.initial_lr, self.max_steps = self._before
        else:
            self.initial_lr, self.max_steps = self._after
            current_step -= self._restart
            self.initial_lr *= ramp(current_step + 1, self._ramp_epochs)
        super().step(current_step)
