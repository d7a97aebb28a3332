"""Adversarial training on a tiny data set: what is attacked, what stays as it was, validation, checkpoints, continuing, bad input."""

import json
import os
from pathlib import Path

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
from nnunetv2_lngswr.training import adversarial_trainer, robust_curve
from nnunetv2_lngswr.training.history import LOGGED
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests import tiny_dataset
from tests.test_trainers import SHORT, Killed, steps, weights

FULL = {"epsilon": 0.05, "ramp_up": 0.0}
BOTH = [nnUNetTrainerAT, nnUNetTrainerLNGSWRAT]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    roots = {dimension: tmp_path_factory.mktemp(f"tiny{dimension}") for dimension in (2, 3)}
    return {
        dimension: (root, tiny_dataset.make_dataset(root, dimension))
        for dimension, root in roots.items()
    }


@pytest.fixture
def make(datasets, monkeypatch, tmp_path):
    """make(trainer class, adversarial settings, dimension=2, entry={...}): a trainer for the tiny data set."""

    def make(cls, adversarial=None, dimension=2, plans_name="nnUNetPlans", **entry):
        root, plans = datasets[dimension]
        plans = {**plans, "plans_name": plans_name}
        tiny_dataset.use(monkeypatch, root)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
        entry = {**SHORT, **entry} | (
            {"adversarial": adversarial} if adversarial is not None else {}
        )
        return tiny_dataset.make_trainer(cls, plans, entry=entry, dimension=dimension)

    return make


@pytest.fixture
def trained_on(monkeypatch):
    """The batches that reach nnU-Net's own train step."""
    seen = []
    own = nnUNetTrainer.train_step

    def record(self, batch):
        seen.append({**batch, "data": batch["data"].detach().clone()})
        return own(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", record)
    return seen


def started(trainer):
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def batches(trainer, n):
    return [next(trainer.dataloader_train) for _ in range(n)]


def case_extent(trainer, batch):
    """(B, C, 1, ...): what epsilon is a fraction of: the case's range, widened to the patch."""
    low, high = trainer._ranges(batch["keys"])
    x = batch["data"].flatten(2)
    return (torch.maximum(high, x.amax(2)) - torch.minimum(low, x.amin(2))).view(
        *x.shape[:2], *[1] * (batch["data"].ndim - 2)
    )


# --- what is trained on


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


@pytest.mark.parametrize("cls", BOTH)
def test_same_seed_same_weights(make, cls):
    runs = []
    for _ in range(2):
        trainer = make(cls, FULL)
        steps(trainer, 2)
        runs.append(weights(trainer))
    assert all(torch.equal(runs[0][k], runs[1][k]) for k in runs[0])


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


@pytest.mark.parametrize(
    "settings", [{}, {"scheme": "free", "replays": 3}], ids=["fgsm_rs", "free"]
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


def test_crafting_gets_the_network_without_the_wrappers_of_ddp_and_compile(make, monkeypatch):
    class Wrapper(torch.nn.Module):  # as DistributedDataParallel, which needs a process group
        def __init__(self, module):
            super().__init__()
            self.module = module

    trainer = started(make(nnUNetTrainerAT, FULL))
    bare = trainer.network
    trainer.network = Wrapper(torch.compile(bare))
    monkeypatch.setattr(adversarial_trainer, "craft", lambda network, *args, **kwargs: network)
    found = trainer._craft(
        trainer._on_device(next(trainer.dataloader_train)),
        torch.arange(2),
        0.05,
        trainer._starts,
        1,
        1.25,
    )
    assert found is bare


def test_the_previous_stage_of_a_cascade_has_no_ball(make):
    trainer = started(make(nnUNetTrainerAT, FULL))
    batch = next(trainer.dataloader_train)
    x = torch.cat((batch["data"], torch.eye(16).expand(2, 1, 16, 16)), 1)  # image, then one-hot
    scale = trainer._ball(x, batch["keys"], 0.05).scale
    assert (scale[:, 0] > 0).all() and (scale[:, 1] == 0).all()


def test_prior_is_measured_once_per_step_on_what_is_trained_on_and_not_by_attacks(make):
    trainer = make(nnUNetTrainerLNGSWRAT, {"scheme": "pgd", **FULL})
    steps(trainer, 2)
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {2}
    trainer.on_validation_epoch_start()
    with torch.no_grad():
        trainer.validation_step(next(trainer.dataloader_val))
    trainer.lngswr.commit_priors()
    assert {int(b.prior.steps) for _, b in trainer.lngswr.branches()} == {2}


# --- inference


@pytest.mark.parametrize(
    "cls, plain", [(nnUNetTrainerAT, nnUNetTrainer), (nnUNetTrainerLNGSWRAT, nnUNetTrainerLNGSWR)]
)
def test_the_network_is_the_plain_trainers(make, cls, plain, rng):
    ours, own = make(cls, FULL), make(plain)
    for trainer in (ours, own):
        trainer.initialize()
    assert weights(ours).keys() == {k for k in own.network.state_dict()}
    own.network.load_state_dict(weights(ours))
    hooks = lambda network: [
        (type(m), len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()
    ]
    assert hooks(ours.network) == hooks(own.network)
    x = torch.randn(1, 1, 16, 16, generator=rng)
    with torch.no_grad():
        assert torch.equal(ours.network.eval()(x)[0], own.network.eval()(x)[0])


# --- validation, checkpoints


@pytest.fixture
def dice_of_epoch(monkeypatch):
    """Prescribes pseudo Dice per epoch: {"clean": [...], "fgsm": [...], "pgd": [...]}."""

    def prescribe(trainer, **curves):
        order = iter(zip(*(curves[name] for name in ("fgsm", "pgd"))))
        values = []

        def pseudo_dice(results):
            if not values:
                values.extend(next(order))
            return values.pop(0)

        trainer._pseudo_dice = pseudo_dice
        log = trainer.logger.log
        clean = curves["clean"]
        trainer.logger.log = lambda key, value, step: log(
            key, clean[step] if key == "mean_fg_dice" else value, step
        )

    return prescribe


def partly_ignored(label):
    """The ball's upper half becomes class 2, the right side is not annotated (3)."""
    upper = np.arange(label.shape[-2])[:, None] < label.shape[-2] // 2
    label = np.where((label == 1) & upper, 2, label).astype(np.uint8)
    label[..., -8:] = 3
    return label


@pytest.mark.parametrize("labels, order", [
    ({"background": 0, "lower": 1, "upper": 2, "ignore": 3}, None),
    ({"background": 0, "ball": [1, 2], "upper": [2], "ignore": 3}, [1, 2]),
], ids=["labels", "regions"])  # fmt: skip
def test_clean_validation_is_the_plain_trainers_where_voxels_are_ignored(
    tmp_path, monkeypatch, labels, order
):
    plans = tiny_dataset.make_dataset(
        tmp_path, labels=labels, regions_class_order=order, relabel=partly_ignored
    )
    tiny_dataset.use(monkeypatch, tmp_path)
    dataset = json.loads(
        (tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME / "dataset.json").read_text()
    )
    trainer = tiny_dataset.make_trainer(
        nnUNetTrainerAT,
        plans,
        entry={**SHORT, "adversarial": {"consistency": 1.0, **FULL}},
        dataset=dataset,
    )
    started(trainer)
    assert np.isfinite(trainer.train_step(next(trainer.dataloader_train))["loss"])
    trainer.on_validation_epoch_start()
    batch = next(trainer.dataloader_val)
    with torch.no_grad():
        figures = trainer.validation_step({**batch, "target": [t.clone() for t in batch["target"]]})
        expected = nnUNetTrainer.validation_step(trainer, batch)
    assert all(np.array_equal(figures[key], expected[key]) for key in expected)
    robust = trainer._robust[0]["pgd"]
    counted = [r["tp_hard"] + r["fn_hard"] for r in (robust, expected)]
    assert np.array_equal(*counted) and counted[0].sum() > 0


def test_pseudo_dice_is_that_of_all_ranks(make, monkeypatch):
    trainer = make(nnUNetTrainerAT, FULL)
    results = [
        {"tp_hard": np.array([3, 0]), "fp_hard": np.array([1, 0]), "fn_hard": np.array([1, 0])}
    ] * 2
    assert trainer._pseudo_dice(results) == 12 / 16  # the second class is nowhere
    other = np.array([[0, 2], [0, 2], [4, 0]])  # tp, fp, fn there

    def gather(into, counts):
        into[:] = [counts, other]

    trainer.is_ddp = True
    monkeypatch.setattr(robust_curve.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(robust_curve.dist, "all_gather_object", gather)
    assert trainer._pseudo_dice(results) == pytest.approx((12 / 20 + 4 / 6) / 2)


def test_training_logs_the_robust_curve_in_log_picture_and_checkpoint(make):
    trainer = make(
        nnUNetTrainerLNGSWRAT, {"val_batches": 1, **FULL}, num_val_iterations_per_epoch=2
    )
    trainer.run_training()
    folder = Path(trainer.output_folder)
    assert {
        "progress.png",
        "adversarial.png",
        "lngswr.png",
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    } <= {p.name for p in folder.iterdir()}
    log = next(folder.glob("training_log*.txt")).read_text()
    assert (
        "Robust pseudo dice (PGD-5, epsilon 0.0500)" in log
        and "New best criterion (0.5 clean + 0.5 robust)" in log
    )
    logged = load_checkpoint(folder / "checkpoint_final.pth")["logging"]
    assert all(len(logged[key]) == 2 for key in LOGGED)
    assert logged["selection"][0] == pytest.approx(
        (logged["ema_fg_dice"][0] + logged["robust_fg_dice"][0]) / 2
    )
    assert logged["ema_robust_fg_dice"][1] == pytest.approx(
        0.9 * logged["robust_fg_dice"][0] + 0.1 * logged["robust_fg_dice"][1]
    )
    entry = json.loads((Path(trainer.output_folder_base) / "plans.json").read_text())[
        "configurations"
    ]["2d"]["lngswr"]
    assert (
        entry["adversarial"]["epsilon"] == 0.05
        and entry["adversarial"]["scheme"] == "fgsm_rs"
        and entry["noise_sigma_input"] == 0.25
    )


def test_progress_picture_has_the_robust_curve(make, monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    trainer = make(nnUNetTrainerAT, FULL)
    trainer.initialize()
    for values in trainer._logged.values():
        values.append(0.5)
    labels = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, path: labels.extend(
            line.get_label() for a in figure.axes for line in a.lines
        ),
    )
    trainer.logger.plot_progress_png(str(tmp_path))
    assert {"pseudo dice", "robust pseudo dice", "robust pseudo dice (mov. avg.)"} <= set(labels)


def test_best_checkpoint_is_chosen_by_clean_and_robust_dice(make, dice_of_epoch):
    # clean Dice rises all along, robust Dice falls in the last epoch
    trainer = make(
        nnUNetTrainerAT, {**FULL, "scheme": "pgd", "steps": 1, "fallback": False}, num_epochs=3
    )
    trainer.initialize()
    dice_of_epoch(trainer, clean=[0.5, 0.6, 0.7], fgsm=[0.4, 0.5, 0.0], pgd=[0.4, 0.5, 0.0])
    trainer.run_training()
    best = load_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth")
    assert best["current_epoch"] == 2 and len(best["logging"]["epoch_end_timestamps"]) == 2
    assert trainer._best_ema == pytest.approx(trainer.logger.get_value("ema_fg_dice", step=-1))


def test_without_foreground_the_first_epoch_leaves_a_best_checkpoint(make, dice_of_epoch):
    trainer = make(nnUNetTrainerAT, FULL)
    trainer.initialize()
    nothing = [float("nan")] * 2
    dice_of_epoch(trainer, clean=[0.7] * 2, fgsm=nothing, pgd=nothing)
    trainer.run_training()
    assert (
        load_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth")["current_epoch"] == 1
    )


@pytest.mark.parametrize("scheme, steps_before", [("fgsm_rs", 1), ("free", 0)])
def test_overfitting_falls_back_to_pgd_2_and_stays_there_when_continued(
    make, dice_of_epoch, trained_on, scheme, steps_before
):
    curves = {"clean": [0.7] * 4, "fgsm": [0.5, 0.6, 0.9, 0.6], "pgd": [0.4, 0.5, 0.0, 0.5]}
    trainer = make(nnUNetTrainerAT, {"scheme": scheme, **FULL}, num_epochs=4)
    trainer.initialize()
    dice_of_epoch(trainer, **curves)
    gradients, own = [], adversarial_trainer.craft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            adversarial_trainer,
            "craft",
            lambda *a, **k: gradients.append((trainer.current_epoch, k["steps"])) or own(*a, **k),
        )
        trainer.run_training()
    assert trainer._logged["at_fallback"] == [0, 0, 1, 1]
    in_training = lambda epoch: [
        s for e, s in gradients if e == epoch and s != trainer._at.val_steps
    ][:2]
    assert in_training(3) == [2, 2] and (in_training(1)[0] == 1)
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    assert (
        "CATASTROPHIC OVERFITTING: pseudo Dice under PGD-5 fell from 0.500 (epoch 1) to 0.000 while under FGSM"
        in log
    )
    assert "Going on with PGD-2" in log
    continued = make(nnUNetTrainerAT, {"scheme": scheme, **FULL}, num_epochs=4)
    continued.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    assert continued._fallen_back and continued._attack_steps == 2
    continued.on_train_start()
    continued.current_epoch = 3
    continued.on_train_epoch_start()
    first, second = batches(continued, 2)
    assert first is not second  # no replays any more


def test_without_fallback_overfitting_is_only_logged(make, dice_of_epoch):
    trainer = make(nnUNetTrainerAT, {"fallback": False, **FULL})
    trainer.initialize()
    dice_of_epoch(trainer, clean=[0.7] * 2, fgsm=[0.5, 0.9], pgd=[0.4, 0.0])
    trainer.run_training()
    assert trainer._logged["at_fallback"] == [0, 0]
    assert (
        "going on as before"
        in next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    )


@pytest.mark.parametrize("settings, epoch, expected", [
    ({"ramp_up": 0.5}, 1, False),  # nothing is trained against this epsilon yet
    ({"ramp_up": 0.5}, 2, True),
    ({"ramp_up": 0.0, "scheme": "free"}, 1, True),
    ({"ramp_up": 0.0, "scheme": "pgd", "steps": 1}, 1, True),
    ({"ramp_up": 0.0, "scheme": "pgd"}, 1, False),  # PGD-3 gains nothing by PGD-2
], ids=str)  # fmt: skip
def test_overfitting_is_that_of_a_single_step_at_the_full_epsilon(make, settings, epoch, expected):
    trainer = make(nnUNetTrainerAT, settings, num_epochs=4)
    trainer.initialize()
    trainer._logged.update(fgsm_fg_dice=[0.5, 0.9], robust_fg_dice=[0.4, 0.0])
    trainer.current_epoch = epoch
    assert trainer._overfits() is expected


@pytest.mark.parametrize(
    "settings", [{}, {"scheme": "free", "replays": 2}], ids=["fgsm_rs", "free"]
)
def test_a_continued_run_ends_where_an_uninterrupted_one_ends(make, settings):
    settings = {**settings, "epsilon": 0.05, "ramp_up": 1.0, "clean_share": 0.25}
    whole = make(nnUNetTrainerLNGSWRAT, settings)
    whole.run_training()
    trainer = make(nnUNetTrainerLNGSWRAT, settings)
    begin = trainer.on_epoch_start

    def killed_in_the_second_epoch():
        if trainer.current_epoch == 1:
            raise Killed
        begin()

    trainer.on_epoch_start = killed_in_the_second_epoch
    with pytest.raises(Killed):
        trainer.run_training()
    continued = make(nnUNetTrainerLNGSWRAT, settings)
    continued.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    continued.run_training()
    expected, found = weights(whole), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert all(whole._logged[key] == continued._logged[key] for key in LOGGED)


# --- bad input


@pytest.mark.parametrize("cls", [nnUNetTrainerVanilla, *BOTH])
def test_bad_settings_are_refused_before_any_folder_is_made(make, cls):
    settings = {"epsilom": 0.1} if cls is nnUNetTrainerVanilla else {"epsilon": -1}
    with pytest.raises(ValueError, match='plans: .*"adversarial"'):
        make(cls, settings)
    assert not Path(os.environ["nnUNet_results"]).exists()


def test_integer_images_are_refused_before_the_first_epoch(tmp_path, monkeypatch):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    plans = tiny_dataset.make_dataset(tmp_path)
    tiny_dataset.use(monkeypatch, tmp_path)
    folder = tmp_path / "nnUNet_preprocessed" / tiny_dataset.NAME / "nnUNetPlans_2d"
    for case in tiny_dataset.CASES:
        data, seg, _, properties = nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)
        integers, seg = (100 * data[:]).astype(np.int16), seg[:]
        for file in folder.glob(f"{case}*.b2nd"):
            file.unlink()
        nnUNetDatasetBlosc2.save_case(integers, seg, properties, str(folder / case))
    trainer = tiny_dataset.make_trainer(nnUNetTrainerAT, plans, entry=SHORT)
    with pytest.raises(
        ValueError, match="floating-point images, but the preprocessed case case0 holds int16"
    ):
        trainer.on_train_start()


def test_another_entry_is_refused_in_the_same_results_folder(make):
    make(nnUNetTrainerAT, FULL).on_train_start()
    make(nnUNetTrainerAT, FULL).on_train_start()
    with pytest.raises(ValueError, match='holds another "lngswr" entry'):
        make(nnUNetTrainerAT, {**FULL, "norm": "l2"}).on_train_start()


def test_one_entry_serves_all_arms(make):
    for cls in (nnUNetTrainerVanilla, nnUNetTrainerLNGSWR, *BOTH):
        make(cls, FULL).on_train_start()
