"""Adversarial training on a tiny data set: what is trained on."""

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerLNGSWRAT,
)
from nnunetv2_lngswr.training.adversarial_batch import craft
from tests.training.crafting import SPACE
from tests.training.tiny_training import (
    FULL,
    batches,
    started,
)


def case_extent(trainer, batch):
    """(B, C, 1, ...): what epsilon is a fraction of: the case's range, widened to the patch."""
    low, high = trainer._ranges(batch["keys"])
    x = batch["data"].flatten(2)
    return (torch.maximum(high, x.amax(2)) - torch.minimum(low, x.amin(2))).view(
        *x.shape[:2], *[1] * (batch["data"].ndim - 2)
    )


@pytest.mark.parametrize("dimension", (2, 3))
@pytest.mark.parametrize("norm", ("linf", "l2"))
@pytest.mark.parametrize("scheme", ("fgsm_rs", "pgd", "free"))
def test_samples_are_attacked_within_epsilon_of_their_cases_range(
    make, trained_on, scheme, norm, dimension
):
    cls = nnUNetTrainerAT if norm == "linf" else nnUNetTrainerLNGSWRAT
    trainer = started(make(cls, {"scheme": scheme, "norm": norm, **FULL}, dimension))
    for batch in batches(trainer, 3):
        assert np.isfinite(trainer.train_step(batch)["loss"])
        delta = ((trained_on[-1]["data"] - batch["data"]) / case_extent(trainer, batch)).flatten(1)
        size = delta.abs().amax(1) if norm == "linf" else delta.square().mean(1).sqrt()
        assert (size <= 0.05 * (1 + 1e-4)).all()
        low, high = trainer._ranges(batch["keys"])
        seen, own = (b["data"].flatten(2) for b in (trained_on[-1], batch))
        assert (seen.amin(2) >= torch.minimum(low, own.amin(2))).all() and (
            seen.amax(2) <= torch.maximum(high, own.amax(2))
        ).all()
    assert (size > 0.02).all()  # "free" begins its epoch with none
    assert isinstance(trained_on[-1]["target"], list)  # deep supervision is kept


def test_the_attack_raises_the_loss(make, trained_on):
    trainer = started(
        make(nnUNetTrainerAT, {"scheme": "pgd", "steps": 5, "ramp_up": 0.0, "epsilon": 0.1})
    )
    for batch in batches(trainer, 5):
        trainer.train_step(batch)
        with torch.no_grad():
            after_noise, attacked = (
                float(trainer.loss(trainer.network(x), batch["target"]))
                for x in (
                    batch["data"]
                    + 0.1 * case_extent(trainer, batch) * torch.randn_like(batch["data"]).sign(),
                    trained_on[-1]["data"],
                )
            )
    assert attacked > after_noise


def test_n_fgsm_moves_samples_beyond_epsilon_until_it_falls_back(make, trained_on):
    trainer = started(make(nnUNetTrainerAT, {"scheme": "n_fgsm", **FULL}))
    largest = []
    for fallen_back in (0, 1):
        trainer._logged["at_fallback"].append(fallen_back)
        batch = next(trainer.dataloader_train)
        trainer.train_step(batch)
        delta = (trained_on[-1]["data"] - batch["data"]) / case_extent(trainer, batch)
        largest.append(float(delta.abs().amax()))
    assert 0.1 < largest[0] <= 0.15 * (1 + 1e-4) and 0.049 < largest[1] <= 0.05 * (1 + 1e-4)


@pytest.mark.parametrize("loss", ["ce", "dice_ce", "scale_free_dice"])
def test_the_attack_ascends_the_loss_of_the_settings(make, trained_on, loss):
    trainer = started(make(nnUNetTrainerAT, {"loss": loss, **FULL}))
    batch = next(trainer.dataloader_train)
    x, target = batch["data"], SPACE.target(batch["target"][0][:, 0])
    ball = trainer._ball(x, batch["keys"], 0.05)
    start = trainer._starts.get_state()
    expected = {}
    for name in {"ce", loss}:
        trainer._starts.set_state(start)
        how = {"steps": 1, "relative_step_size": 1.25, "generator": trainer._starts}
        expected[name] = craft(trainer._bare_network(), x, target, ball, **how, loss=name)
    trainer._starts.set_state(start)
    trainer.train_step(batch)
    assert torch.equal(trained_on[-1]["data"], expected[loss])
    assert loss == "ce" or not torch.equal(expected[loss], expected["ce"])


def test_range_of_the_patch_is_smaller_than_the_cases(make, trained_on):
    sizes = {}
    for whose in ("case", "patch"):
        trainer = started(make(nnUNetTrainerAT, {"epsilon_range": whose, **FULL}, plans_name=whose))
        batch = next(trainer.dataloader_train)
        batch["data"] = batch["data"] * 0.5 + 0.1 * torch.arange(2).view(2, 1, 1, 1)
        trainer.train_step(batch)
        sizes[whose] = (trained_on[-1]["data"] - batch["data"]).flatten(1).abs().amax(1)
    extent = batch["data"].flatten(1).amax(1) - batch["data"].flatten(1).amin(1)
    assert (
        torch.allclose(sizes["patch"], 0.05 * extent, rtol=1e-4)
        and (sizes["case"] > 1.2 * sizes["patch"]).all()
    )


@pytest.mark.parametrize("scheme", ("fgsm_rs", "free"))
def test_clean_share_is_respected(make, trained_on, scheme):
    replays = {"replays": 2} if scheme == "free" else {}
    trainer = started(
        make(nnUNetTrainerAT, {"scheme": scheme, "clean_share": 0.25, **replays, **FULL})
    )
    clean = 0
    for batch in batches(trainer, 8):
        trainer.train_step(batch)
        delta = (trained_on[-1]["data"] - batch["data"]).flatten(1).abs().amax(1)
        clean += int((delta == 0).sum())
    # a quarter of 2 samples x 8 steps; the first step of "free" is clean altogether
    assert clean == 4 if scheme == "fgsm_rs" else 4 <= clean <= 6


@pytest.mark.parametrize("scheme", ("fgsm_rs", "free"))
def test_a_clean_share_of_one_attacks_nothing(make, trained_on, scheme):
    trainer = started(make(nnUNetTrainerAT, {"scheme": scheme, "clean_share": 1.0, **FULL}))
    for batch in batches(trainer, 3):
        trainer.train_step(batch)
        assert torch.equal(trained_on[-1]["data"], batch["data"])


def test_epsilon_ramps_up_over_the_first_share_of_the_steps(make, trained_on):
    trainer = make(
        nnUNetTrainerAT, {"epsilon": 0.05, "ramp_up": 0.5}, num_epochs=4, num_iterations_per_epoch=2
    )
    trainer.on_train_start()
    found = []
    for epoch in range(3):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        for batch in batches(trainer, 2):
            trainer.train_step(batch)
            found.append(
                float(
                    ((trained_on[-1]["data"] - batch["data"]) / case_extent(trainer, batch))
                    .abs()
                    .amax()
                )
            )
    assert np.allclose(found, [0, 0.0125, 0.025, 0.0375, 0.05, 0.05], rtol=1e-3)


def test_free_replays_a_batch_and_moves_its_perturbation_by_the_gradient_of_the_training(
    make, trained_on
):
    trainer = started(make(nnUNetTrainerAT, {"scheme": "free", "replays": 3, **FULL}))
    kept = batches(trainer, 4)
    assert kept[0] is kept[1] is kept[2] is not kept[3]
    leaf = kept[0]["data"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(trainer.loss(trainer.network(leaf), kept[0]["target"]), leaf)
    for batch in kept:
        trainer.train_step(batch)
    deltas = [
        (seen["data"] - batch["data"]) / case_extent(trainer, batch)
        for seen, batch in zip(trained_on, kept)
    ]
    assert deltas[0].abs().amax() == 0
    inside = (deltas[1].abs() > 0.04) & (gradient != 0)  # not stopped by [min, max]
    assert inside.float().mean() > 0.5 and torch.equal(
        deltas[1][inside].sign(), gradient[inside].sign()
    )
    moved = (deltas[2] - deltas[1]).abs()
    assert (moved.amax() <= 0.1001) and (
        moved < 1e-4
    ).float().mean() > 0.3  # steps of epsilon that stay in the ball
    # carried to the next batch, as published, up to its own bounds
    free_to_move = (deltas[3].abs() > 0.049).float().mean()
    assert free_to_move > 0.5
    trainer.on_train_epoch_start()
    assert next(trainer.dataloader_train) is not kept[3]


@pytest.mark.parametrize("clean_share", (0.0, 0.5))
def test_consistency_trains_on_the_clean_batch_and_its_attacked_samples(
    make, trained_on, clean_share
):
    trainer = started(
        make(nnUNetTrainerLNGSWRAT, {"consistency": 6.0, "clean_share": clean_share, **FULL})
    )
    loss = trainer.loss
    for batch in batches(trainer, 2):
        assert np.isfinite(trainer.train_step(batch)["loss"])
        data, n = trained_on[-1]["data"], len(batch["data"])
        assert torch.equal(data[:n], batch["data"]) and len(data) == n + n * (1 - clean_share)
    assert trainer.loss is loss


def test_the_previous_stage_of_a_cascade_has_no_ball(make):
    trainer = started(make(nnUNetTrainerAT, FULL))
    batch = next(trainer.dataloader_train)
    x = torch.cat((batch["data"], torch.eye(16).expand(2, 1, 16, 16)), 1)  # image, then one-hot
    scale = trainer._ball(x, batch["keys"], 0.05).scale
    assert (scale[:, 0] > 0).all() and (scale[:, 1] == 0).all()
