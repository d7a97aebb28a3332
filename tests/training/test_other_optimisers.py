"""Trainers of ours beside nnU-Net's own of another optimiser or schedule, in either order."""

import pytest
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import (
    nnUNetTrainerCosAnneal,
)
from nnunetv2.training.nnUNetTrainer.variants.optimizer.nnUNetTrainerAdam import nnUNetTrainerAdam

from nnunetv2_lngswr.trainers import nnUNetTrainerAT, nnUNetTrainerLateAT, nnUNetTrainerLNGSWR
from nnunetv2_lngswr.utils.errors import UserError
from tests.training.tiny_training import steps

THEIRS = [nnUNetTrainerAdam, nnUNetTrainerCosAnneal]


def mixed(ours, theirs, ours_first):
    """As a user combines them; nnU-Net's constructor looks at the arguments' names."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        super(made, self).__init__(plans, configuration, fold, dataset_json, device)

    bases = (ours, theirs) if ours_first else (theirs, ours)
    made = type(f"{ours.__name__}{theirs.__name__}", bases, {"__init__": __init__})
    return made


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("theirs", THEIRS)
def test_gates_stay_in_their_interval_and_free_of_weight_decay(make, theirs, ours_first):
    trainer = make(mixed(nnUNetTrainerLNGSWR, theirs, ours_first), gate_init=0.99)
    steps(trainer, 6)
    body, gates = trainer.optimizer.param_groups
    assert {id(p) for p in gates["params"]} == {id(p) for p in trainer.lngswr.gate_parameters()}
    assert body["weight_decay"] > 0 and gates["weight_decay"] == 0
    values = [theta.detach() * 16 for theta in trainer.lngswr.gate_parameters()]
    assert all(v.min() >= 0 and v.max() <= 1 for v in values)
    assert any((v - 0.99).abs().max() > 1e-3 for v in values)
    trainer.lr_scheduler.step(1)
    assert body["lr"] == gates["lr"]


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_late_phase_starts_the_rate_again_under_another_optimiser(make, ours_first):
    late = {"start": 0.5}
    trainer = make(mixed(nnUNetTrainerLateAT, nnUNetTrainerAdam, ours_first), late, num_epochs=4)
    trainer.initialize()
    rates = []
    for epoch in range(4):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates[2] == rates[0] > rates[1]


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_schedule_that_cannot_start_again_is_refused(make, ours_first):
    cls = mixed(nnUNetTrainerLateAT, nnUNetTrainerCosAnneal, ours_first)
    with pytest.raises(UserError, match="this trainer has CosineAnnealingLR: leave them out"):
        make(cls, {"start": 0.5}, num_epochs=4).initialize()
    # from the first step nothing starts again
    make(mixed(nnUNetTrainerAT, nnUNetTrainerCosAnneal, ours_first)).initialize()
