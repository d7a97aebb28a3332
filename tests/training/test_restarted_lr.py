"""The learning rate that starts again: nnU-Net's own decay on either side of the restart."""

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunetv2_lngswr.training.restarted_lr import RestartedPolyLR


def optimizer(groups: int = 1) -> torch.optim.SGD:
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    return torch.optim.SGD([{"params": [p]} for p in parameters], lr=1.0)


def rates(scheduler, epochs) -> list[float]:
    """As nnU-Net asks for them: by the epoch."""
    found = []
    for epoch in epochs:
        scheduler.step(epoch)
        (rate,) = {group["lr"] for group in scheduler.optimizer.param_groups}
        assert scheduler.get_last_lr() == [rate] * len(scheduler.optimizer.param_groups)
        found.append(rate)
    return found


def nnunets(initial_lr: float, epochs: int) -> list[float]:
    return rates(PolyLRScheduler(optimizer(), initial_lr, epochs), range(epochs))


@pytest.mark.parametrize("factor", [1.0, 0.3])
@pytest.mark.parametrize("epochs, restart", [(10, 8), (10, 1), (10, 9), (7, 3), (2, 1)])
def test_each_phase_is_nnunets_decay_over_its_own_epochs(epochs, restart, factor):
    ours = RestartedPolyLR(optimizer(2), 0.01, epochs, restart=restart, factor=factor)
    expected = nnunets(0.01, restart) + nnunets(factor * 0.01, epochs - restart)
    assert rates(ours, range(epochs)) == expected


def test_without_a_first_phase_it_is_nnunets_own():
    ours = RestartedPolyLR(optimizer(), 0.01, 5, restart=0, factor=1.0)
    assert rates(ours, range(5)) == nnunets(0.01, 5)


@pytest.mark.parametrize("epoch", range(6))
def test_a_rate_depends_on_the_epoch_alone(epoch):
    uninterrupted = rates(RestartedPolyLR(optimizer(), 0.01, 6, restart=4, factor=0.5), range(6))
    continued = RestartedPolyLR(optimizer(), 0.01, 6, restart=4, factor=0.5)
    assert rates(continued, range(epoch, 6)) == uninterrupted[epoch:]


def test_it_starts_at_the_initial_rate_and_counts_by_itself_where_no_epoch_is_said():
    ours = RestartedPolyLR(own := optimizer(), 0.01, 4, restart=2, factor=1.0)
    found = [own.param_groups[0]["lr"]]
    for _ in range(3):
        ours.step()
        found.append(own.param_groups[0]["lr"])
    assert found == 2 * nnunets(0.01, 2)


@pytest.mark.parametrize("restart", [0, 3])
def test_a_ramp_is_a_factor_of_the_decay_after_the_restart_alone(restart):
    def found(ramp_epochs):
        scheduler = RestartedPolyLR(
            optimizer(2), 0.01, restart + 8, restart=restart, factor=0.5, ramp_epochs=ramp_epochs
        )
        return rates(scheduler, range(restart + 8))

    factors = [1.0] * restart + [0.25, 0.5, 0.75] + [1.0] * 5
    assert found(4) == pytest.approx([r * f for r, f in zip(found(0), factors, strict=True)])
    assert found(1) == found(0)
