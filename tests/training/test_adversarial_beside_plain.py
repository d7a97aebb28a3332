"""Adversarial training beside plain training: what stays as it was."""

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRAT,
    nnUNetTrainerVanilla,
)
from tests.training.tiny_training import (
    ADVERSARIAL,
    FULL,
    started,
    steps,
    weights,
)


@pytest.mark.parametrize(
    "cls, plain",
    [(nnUNetTrainerAT, nnUNetTrainerVanilla), (nnUNetTrainerLNGSWRAT, nnUNetTrainerLNGSWR)],
)
@pytest.mark.parametrize(
    "settings",
    [{}, {"scheme": "pgd", "norm": "l2"}, {"scheme": "free", "replays": 1}],
    ids=["fgsm_rs", "pgd", "free"],
)
def test_epsilon_zero_is_plain_training(make, cls, plain, settings):
    noise = {
        "noise_sigma_input": 1.0,
        "noise_sigma_stages": 0.5,
        "noise_ramp_up": 0.5,
    }  # whose defaults differ
    attacked = make(cls, {**settings, "epsilon": 0.0, "ramp_up": 0.0}, **noise)
    own = make(plain, **noise)
    assert np.allclose(steps(attacked, 4), steps(own, 4), rtol=1e-6)
    expected, found = weights(own), weights(attacked)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, atol=1e-6), key


@pytest.mark.parametrize("cls", ADVERSARIAL)
def test_same_seed_same_weights(make, cls):
    runs = []
    for _ in range(2):
        trainer = make(cls, FULL)
        steps(trainer, 2)
        runs.append(weights(trainer))
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


@pytest.mark.parametrize(
    "settings",
    [{}, {"scheme": "free", "replays": 3}, {"scheme": "free", "replays": 2, "rolling": True}],
    ids=["fgsm_rs", "free", "rolling"],
)
def test_the_gradient_scaler_changes_nothing_and_is_not_changed(make, trained_on, settings):
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        trainer = make(nnUNetTrainerAT, {**settings, **FULL})
        trainer.initialize()
        trainer.grad_scaler = scaler
        steps(trainer, 3)
        found.append((weights(trainer), [batch["data"] for batch in trained_on[-3:]]))
    assert scaler.get_scale() == 2**10 and scaler.state_dict()["_growth_tracker"] == 3
    (plain, batches_plain), (scaled, batches_scaled) = found
    assert all(torch.allclose(plain[k], scaled[k], atol=1e-5) for k in plain)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(batches_plain, batches_scaled))


def test_attacks_get_the_network_without_the_wrappers_of_ddp_and_compile(make):
    class Wrapper(torch.nn.Module):  # as DistributedDataParallel, which needs a process group
        def __init__(self, module):
            super().__init__()
            self.module = module

    trainer = started(make(nnUNetTrainerAT, FULL))
    bare = trainer.network
    trainer.network = Wrapper(torch.compile(bare))
    batch = trainer._on_device(next(trainer.dataloader_train))
    found = trainer._craft(batch, torch.arange(2), 0.05, lambda network, *args, **kwargs: network)
    assert found is bare


def test_prior_is_measured_once_per_step_on_what_is_trained_on_and_not_by_attacks(make):
    trainer = make(nnUNetTrainerLNGSWRAT, {"scheme": "pgd", **FULL})
    steps(trainer, 2)
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {2}
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.validation_step(next(trainer.dataloader_val))
    trainer.lngswr.commit_priors()
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {2}


@pytest.mark.parametrize(
    "cls, plain", [(nnUNetTrainerAT, nnUNetTrainer), (nnUNetTrainerLNGSWRAT, nnUNetTrainerLNGSWR)]
)
def test_the_network_is_the_plain_trainers(make, cls, plain, rng):
    ours, own = make(cls, FULL), make(plain)
    for trainer in (ours, own):
        trainer.initialize()
    assert weights(ours).keys() == own.network.state_dict().keys()
    own.network.load_state_dict(weights(ours))

    def hooks(network):
        modules = network.modules()
        return [(type(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]

    assert hooks(ours.network) == hooks(own.network)
    x = torch.randn(1, 1, 16, 16, generator=rng)
    with torch.no_grad():
        assert torch.equal(ours.network.eval()(x)[0], own.network.eval()(x)[0])
