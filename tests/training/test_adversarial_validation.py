"""Adversarial training: validation, the robust curve, checkpoint_best, overfitting."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerLNGSWRAT,
)
from nnunetv2_lngswr.training import adversarial_trainer, robust_curve
from nnunetv2_lngswr.training.history import LOGGED
from nnunetv2_lngswr.training.plans_entry import PlansEntryTrainer
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from tests import tiny_dataset
from tests.training.tiny_training import (
    FULL,
    SHORT,
    batches,
    partly_ignored,
    started,
)


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


@pytest.mark.parametrize(
    "labels, order",
    [
        ({"background": 0, "lower": 1, "upper": 2, "ignore": 3}, None),
        ({"background": 0, "ball": [1, 2], "upper": [2], "ignore": 3}, [1, 2]),
    ],
    ids=["labels", "regions"],
)
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
    robust = trainer._robust[0]["strong"]
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
        "Robust pseudo dice (apgd_dice-5, epsilon 0.0500)" in log
        and "New best criterion (0.5 clean + 0.5 robust)" in log
    )
    logged = load_checkpoint(folder / "checkpoint_final.pth")["logging"]
    assert all(len(logged[key]) == 2 for key in LOGGED)
    assert logged["robust_attack"] == ["apgd_dice"] * 2
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
    trainer._logged["robust_attack"] = ["apgd_dice"]
    labels = []
    monkeypatch.setattr(
        Figure,
        "savefig",
        lambda figure, path: labels.extend(
            line.get_label() for a in figure.axes for line in a.lines
        ),
    )
    trainer.logger.plot_progress_png(str(tmp_path))
    assert {
        "pseudo dice",
        "robust pseudo dice (apgd_dice)",
        "robust pseudo dice (apgd_dice, mov. avg.)",
    } <= set(labels)


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


def test_best_checkpoint_of_a_late_training_is_of_the_last_phase_alone(make, dice_of_epoch):
    # clean Dice was best before, and falls in the last epoch more than robust Dice rises
    trainer = make(nnUNetTrainerAT, {**FULL, "start": 0.4, "fallback": False}, num_epochs=5)
    trainer.initialize()
    curves = {"clean": [0.9, 0.95, 0.5, 0.6, 0.1], "fgsm": [0.3, 0.5, 0.6], "pgd": [0.3, 0.5, 0.6]}
    dice_of_epoch(trainer, **curves)
    best = []
    end = trainer.on_epoch_end

    def record():
        end()
        path = Path(trainer.output_folder) / "checkpoint_best.pth"
        best.append(load_checkpoint(path)["current_epoch"] - 1)

    trainer.on_epoch_end = record
    trainer.run_training()
    assert best == [0, 1, 2, 3, 3]  # plain training's, then that of the last phase
    logged = trainer._logged
    average = [0.5, 0.9 * 0.5 + 0.1 * 0.6, 0.81 * 0.5 + 0.09 * 0.6 + 0.1 * 0.1]
    robust = [0.3, 0.9 * 0.3 + 0.1 * 0.5, 0.81 * 0.3 + 0.09 * 0.5 + 0.1 * 0.6]
    assert logged["ema_robust_fg_dice"][2:] == pytest.approx(robust)
    assert logged["selection"][2:] == pytest.approx(np.add(average, robust) / 2)
    for key in ("robust_fg_dice", "ema_robust_fg_dice", "fgsm_fg_dice", "selection"):
        assert np.isnan(logged[key][:2]).all() and len(logged[key]) == 5
    assert logged["robust_attack"] == ["apgd_dice"] * 5 and logged["at_fallback"] == [0] * 5


def test_a_kill_while_the_latest_is_written_leaves_the_best(make, dice_of_epoch):
    trainer = make(nnUNetTrainerAT, {**FULL, "fallback": False}, num_epochs=3)
    trainer.initialize()
    dice_of_epoch(trainer, clean=[0.5, 0.6, 0.7], fgsm=[0.4, 0.5, 0.6], pgd=[0.4, 0.5, 0.6])
    folder, own = Path(trainer.output_folder), PlansEntryTrainer.save_checkpoint

    def save(self, filename):
        if Path(filename).name == "checkpoint_latest.pth" and self.current_epoch == 1:
            raise KeyboardInterrupt
        own(self, filename)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlansEntryTrainer, "save_checkpoint", save)
        with pytest.raises(KeyboardInterrupt):
            trainer.run_training()
    latest, best = (load_checkpoint(folder / f"checkpoint_{k}.pth") for k in ("latest", "best"))
    assert (latest["current_epoch"], best["current_epoch"]) == (1, 2)


def test_an_epoch_without_foreground_does_not_end_the_choice_of_the_best(make, dice_of_epoch):
    trainer = make(nnUNetTrainerAT, {**FULL, "fallback": False}, num_epochs=3)
    trainer.initialize()
    nothing = float("nan")
    dice_of_epoch(
        trainer, clean=[nothing, 0.6, 0.7], fgsm=[nothing, 0.5, 0.6], pgd=[nothing, 0.5, 0.6]
    )
    trainer.run_training()
    best = load_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth")
    assert best["current_epoch"] == 3
    assert trainer._logged["selection"][1:] == pytest.approx([0.55, (0.61 + 0.51) / 2])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_what_has_no_weight_in_the_criterion_may_be_undefined(make, dice_of_epoch, weight):
    trainer = make(nnUNetTrainerAT, {**FULL, "robust_weight": weight}, num_epochs=1)
    trainer.initialize()
    values = [[0.6], [float("nan")]]
    clean, robust = values if weight == 0 else values[::-1]
    dice_of_epoch(trainer, clean=clean, fgsm=robust, pgd=robust)
    trainer.run_training()
    assert trainer._logged["selection"] == pytest.approx([0.6])


@pytest.mark.parametrize("first", [0, 1])
def test_without_foreground_the_first_epoch_leaves_a_best_checkpoint(make, dice_of_epoch, first):
    trainer = make(nnUNetTrainerAT, {**FULL, "start": first / 3}, num_epochs=3)
    trainer.initialize()
    nothing = [float("nan")] * 3
    dice_of_epoch(trainer, clean=[0.7] * 3, fgsm=nothing, pgd=nothing)
    trainer.run_training()
    best = load_checkpoint(Path(trainer.output_folder) / "checkpoint_best.pth")
    assert best["current_epoch"] == first + 1


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

    def in_training(epoch):
        return [s for e, s in gradients if e == epoch and s != trainer._at.val_steps][:2]

    assert in_training(3) == [2, 2] and in_training(1) == [1, 1][: 2 * steps_before]
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text()
    said = "pseudo Dice under apgd_dice-5 fell from 0.500 (epoch 1) to 0.000 while under FGSM"
    assert f"CATASTROPHIC OVERFITTING: {said}" in log
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


@pytest.mark.parametrize(
    "settings, epoch, expected",
    [
        ({"ramp_up": 0.5}, 1, False),  # nothing is trained against this epsilon yet
        ({"ramp_up": 0.5}, 2, True),
        ({"ramp_up": 0.0, "scheme": "free"}, 1, True),
        ({"ramp_up": 0.0, "scheme": "pgd", "steps": 1}, 1, True),
        ({"ramp_up": 0.0, "scheme": "pgd"}, 1, False),  # PGD-3 gains nothing by PGD-2
    ],
    ids=str,
)
def test_overfitting_is_that_of_a_single_step_at_the_full_epsilon(make, settings, epoch, expected):
    trainer = make(nnUNetTrainerAT, settings, num_epochs=4)
    trainer.initialize()
    trainer._logged.update(fgsm_fg_dice=[0.5, 0.9], robust_fg_dice=[0.4, 0.0])
    trainer.current_epoch = epoch
    assert trainer._overfits() is expected


@pytest.mark.parametrize("epoch, expected", [(5, False), (6, True)])
def test_overfitting_is_looked_for_after_the_ramp_of_the_last_phase(make, epoch, expected):
    trainer = make(nnUNetTrainerAT, {"start": 0.5, "ramp_up": 0.5}, num_epochs=8)
    trainer.initialize()
    nothing = [float("nan")] * 4  # of the epochs before
    trainer._logged.update(fgsm_fg_dice=[*nothing, 0.5, 0.9], robust_fg_dice=[*nothing, 0.4, 0.0])
    trainer.current_epoch = epoch
    assert trainer._overfits() is expected
