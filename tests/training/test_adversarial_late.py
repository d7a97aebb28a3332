"""Late adversarial training: plain training first, then the attack and another learning rate."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetv2_lngswr.trainers import (
    nnUNetTrainerAT,
    nnUNetTrainerAT_1epoch,
    nnUNetTrainerLateAT,
    nnUNetTrainerLNGSWR,
    nnUNetTrainerLNGSWRAT,
    nnUNetTrainerLNGSWRLateAT,
    nnUNetTrainerVanilla,
)
from nnunetv2_lngswr.utils.checkpoints import load_checkpoint
from nnunetv2_lngswr.utils.errors import UserError
from tests.training.tiny_training import (
    FULL,
    Killed,
    interrupt,
    started,
    weights,
)

LATE = {"start": 0.5, **FULL}
FOUR = {"num_epochs": 4}
NOISE = {"noise_sigma_input": 1.0, "noise_sigma_stages": 0.5, "noise_ramp_up": 0.0}
"""What the arms' defaults do not share."""
PLAIN = [(nnUNetTrainerAT, nnUNetTrainerVanilla), (nnUNetTrainerLNGSWRAT, nnUNetTrainerLNGSWR)]


def trained(trainer, until=None):
    """The trainer after its training, or as it is when epoch `until` begins."""
    if until is not None:
        interrupt(trainer, until)
        with pytest.raises(Killed):
            trainer.run_training()
    else:
        trainer.run_training()
    return trainer


def log_of(trainer) -> str:
    files = sorted(Path(trainer.output_folder).glob("training_log*.txt"))
    return "".join(file.read_text() for file in files)


def momentum(trainer) -> list[torch.Tensor]:
    return [state["momentum_buffer"] for state in trainer.optimizer.state.values()]


@pytest.mark.parametrize("cls", [nnUNetTrainerLateAT, nnUNetTrainerLNGSWRLateAT])
def test_the_late_trainers_attack_in_the_last_fifth_alone(make, cls):
    trainer = started(make(cls, {}, num_epochs=5))
    attacking = []
    for trainer.current_epoch in range(5):
        attacking.append(trainer._attacking)
    assert attacking == [False] * 4 + [True]
    assert trainer._at.epsilon_fraction == 8 / 255
    assert make(nnUNetTrainerAT, {})._at.start == 0


def test_late_lngswr_has_the_noise_of_lngswr_and_a_quarter_of_it_at_last(make):
    assert nnUNetTrainerLNGSWRLateAT.method == nnUNetTrainerLNGSWR.method
    trainer = started(make(nnUNetTrainerLNGSWRLateAT, {}, num_epochs=5))
    factors = []
    for trainer.current_epoch in range(5):
        factors.append(trainer._noise_factor)
    assert factors == [1.0] * 4 + [0.25]


# --- the first phase


@pytest.mark.parametrize("cls, plain", PLAIN)
@pytest.mark.parametrize(
    "settings",
    [
        {"consistency": 6.0},
        {"scheme": "free", "replays": 3, "restart_lr": 0.1, "late_noise": 0.25},
    ],
    ids=["consistency", "free"],
)
def test_until_the_last_phase_it_is_the_plain_training_of_as_many_epochs(
    make, cls, plain, settings
):
    own = trained(make(plain, num_epochs=2, **NOISE))
    late = trained(make(cls, {**LATE, **settings}, **FOUR, **NOISE), until=2)
    expected, found = weights(own), weights(late)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    assert all(torch.equal(a, b) for a, b in zip(momentum(own), momentum(late), strict=True))
    told = own.logger.local_logger.my_fantastic_logging
    for key in ("lrs", "train_losses", "val_losses", "mean_fg_dice", "ema_fg_dice"):
        assert late._logged[key] == told[key], key
    best = [Path(t.output_folder) / "checkpoint_best.pth" for t in (own, late)]
    ours, theirs = (load_checkpoint(path)["network_weights"] for path in best)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("cls, plain", PLAIN)
def test_until_the_last_phase_no_network_is_asked_more_often(make, cls, plain):
    counts = []
    for trainer, until in ((make(plain, num_epochs=2), None), (make(cls, LATE, **FOUR), 2)):
        trainer.initialize()
        calls = []
        trainer.network.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        trained(trainer, until)
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


# --- the last phase


@pytest.mark.parametrize("scheme, dimension", [("fgsm_rs", 2), ("free", 3)])
def test_the_attack_comes_with_the_last_phase(make, trained_on, monkeypatch, scheme, dimension):
    trainer = make(nnUNetTrainerAT, {**LATE, "scheme": scheme}, dimension, **FOUR)
    given, train_step = [], trainer.train_step

    def record(batch):
        given.append((trainer.current_epoch, batch["keys"], batch["data"].clone()))
        return train_step(batch)

    monkeypatch.setattr(trainer, "train_step", record)
    trainer.run_training()
    attacked = [
        epoch
        for (epoch, _, clean), seen in zip(given, trained_on, strict=True)
        if not torch.equal(clean, seen["data"])
    ]
    # the first step of "free" has no gradient yet
    assert attacked == ([2, 3] if scheme == "free" else [2, 2, 3, 3])
    replayed = [a is b for (_, a, _), (_, b, _) in zip(given[::2], given[1::2])]
    assert replayed == [False, False, scheme == "free", scheme == "free"]


def test_epsilon_grows_within_the_last_phase(make):
    trainer = make(
        nnUNetTrainerAT,
        {"start": 0.5, "ramp_up": 0.5, "epsilon": 0.04},
        num_epochs=8,
        num_iterations_per_epoch=4,
    )
    trainer.initialize()
    found = []
    for epoch in range(4, 8):
        trainer.current_epoch = epoch
        for trainer._step in range(4):
            found.append(trainer._epsilon())
    assert found == pytest.approx([0.04 * min(1, step / 8) for step in range(16)])


def test_noise_of_the_last_phase(make):
    trainer = started(make(nnUNetTrainerLNGSWRAT, {**LATE, "late_noise": 0.25}, **FOUR))
    strengths = []
    for trainer.current_epoch in range(4):
        trainer.train_step(next(trainer.dataloader_train))
        strengths.append(float(trainer.lngswr.image.noise.strength))
    assert strengths == [1.0, 1.0, 0.25, 0.25]


def test_what_is_logged_of_the_schedule(make):
    trainer = trained(make(nnUNetTrainerAT, {**LATE, "restart_lr": 0.5}, **FOUR))
    decayed = 0.5**0.9
    assert trainer._logged["lrs"] == pytest.approx([0.01, 0.01 * decayed, 0.005, 0.005 * decayed])
    log = log_of(trainer)
    said = "Last phase: adversarial training for 2 epochs, the learning rate starts again at 0.005"
    assert log.count("Last phase") == 1 and said in log
    assert log.index("Epoch 2") < log.index(said) < log.index("Epoch 3")
    announced = (
        "epochs 0 to 1 are plain, epochs 2 to 3 are the last phase (start 0.5, restart_lr 0.5)"
    )
    assert log.count(announced) == 1 and log.index(announced) < log.index("Epoch 0")
    assert log.count("Robust pseudo dice") == 2


# --- continuing


@pytest.mark.parametrize(
    "scheme",
    [
        {},
        {"scheme": "free"},
        {"scheme": "free", "replays": 2, "rolling": True, "weight_average": 0.9},
    ],
    ids=["fgsm_rs", "free", "rolling, averaged"],
)
def test_continued_in_either_phase_and_between_them_it_ends_as_uninterrupted(make, scheme):
    settings = {**LATE, "ramp_up": 1.0, **scheme, "restart_lr": 0.5, "late_noise": 0.5}
    whole = trained(make(nnUNetTrainerLNGSWRAT, settings, **FOUR))
    for until in (1, 2, 3, None):
        continued = make(nnUNetTrainerLNGSWRAT, settings, **FOUR)
        if until != 1:
            continued.load_checkpoint(str(Path(whole.output_folder) / "checkpoint_latest.pth"))
        trained(continued, until)
    expected, found = weights(whole), weights(continued)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    for key, values in whole._logged.items():
        if "timestamps" not in key and key != "robust_attack":
            assert np.array_equal(values, continued._logged[key], equal_nan=True), key


@pytest.mark.parametrize(
    "other, said",
    [
        ({"start": 0.75}, '"adversarial": "start" 0.5 there, 0.75 here'),
        ({"start": 0.0}, '"start" 0.5 there, 0.0 here'),
        ({"restart_lr": 0.5}, '"restart_lr" 1.0 there, 0.5 here'),
        ({"late_noise": 0.5}, '"late_noise" 1.0 there, 0.5 here'),
        ({"restart_ramp_up": 0.5}, '"restart_ramp_up" 0.0 there, 0.5 here'),
    ],
    ids=str,
)
def test_a_run_is_not_continued_with_another_schedule(make, other, said):
    killed = trained(make(nnUNetTrainerAT, LATE, **FOUR), until=1)
    latest = Path(killed.output_folder) / "checkpoint_latest.pth"
    content = latest.read_bytes()
    continued = make(nnUNetTrainerAT, {**LATE, **other}, **FOUR)
    continued.load_checkpoint(str(latest))
    with pytest.raises(UserError, match=f'holds another "lngswr" entry: .*{said}.*plans_name'):
        continued.run_training()
    assert latest.read_bytes() == content


def test_a_budget_that_has_changed_in_the_trainer_is_another_schedule_too(make):
    class Budget(nnUNetTrainerAT):
        epochs = 4

    killed = trained(make(Budget, LATE, num_epochs=None), until=3)
    latest = Path(killed.output_folder) / "checkpoint_latest.pth"
    content = latest.read_bytes()
    for epochs in (4, 6):
        Budget.epochs = epochs
        continued = make(Budget, LATE, num_epochs=None)
        continued.load_checkpoint(str(latest))
        if epochs == 4:
            continued.on_train_start()
            continue
        said = "another schedule: the learning rate of epoch 1 was 0.00535887 there and is 0.00694"
        with pytest.raises(UserError, match=f"{said}.* start 0.5 of 6 epochs .*without --c$"):
            continued.run_training()
    assert latest.read_bytes() == content


def test_the_ramp_of_the_rate_is_that_of_the_last_phase(make):
    trainer = make(nnUNetTrainerAT, {**LATE, "restart_ramp_up": 0.5}, num_epochs=8)
    trainer.initialize()
    rates = []
    for epoch in range(8):
        trainer.lr_scheduler.step(epoch)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    plain = [0.01 * (1 - epoch / 4) ** 0.9 for epoch in range(4)]
    assert rates == pytest.approx([*plain, plain[0] / 2, *plain[1:]])


# --- bad input


def test_a_last_phase_of_no_whole_epoch_is_refused_before_any_folder_is_made(make):
    for cls, epochs in ((nnUNetTrainerAT, 1), (nnUNetTrainerAT_1epoch, None)):
        with pytest.raises(UserError, match='"adversarial": start must leave at least one whole e'):
            make(cls, LATE, num_epochs=epochs)
    assert not Path(os.environ["nnUNet_results"]).exists()


def test_a_budget_that_only_a_subclass_knows_is_held_to_the_same_rule(make):
    class Longer(nnUNetTrainerAT):  # as nnU-Net's own variants set theirs
        def __init__(self, plans, configuration, fold, dataset_json, device):
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = 1

    with pytest.raises(UserError, match="got 0.5 of 1 in all"):
        make(Longer, LATE, num_epochs=None).initialize()


# --- the last phase alone, of a model that exists


@pytest.mark.parametrize("cls, plain", PLAIN)
def test_a_finished_model_is_made_robust_by_the_last_phase_alone(make, trained_on, cls, plain):
    finished = trained(make(nnUNetTrainerVanilla, num_epochs=2))
    source = str(Path(finished.output_folder) / "checkpoint_final.pth")
    settings = {**FULL, "restart_lr": 0.5}
    late = make(cls, settings, num_epochs=2, warm_start=source, plans_name="robustified")
    late.on_train_start()
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected, found = (t.network.eval()(x)[0] for t in (finished, late))
    assert torch.allclose(expected, found, atol=1e-5)
    trained_on.clear()
    clean = []
    train_step = late.train_step
    late.train_step = lambda batch: clean.append(batch["data"].clone()) or train_step(batch)
    late.run_training()
    assert not any(torch.equal(a, b["data"]) for a, b in zip(clean, trained_on, strict=True))
    # the rates of the last phase of one long training
    long = trained(make(cls, {**settings, "start": 0.5}, **FOUR, plans_name="long"))
    assert late._logged["lrs"] == long._logged["lrs"][2:]
    assert all(np.isfinite(late._logged["robust_fg_dice"]))
    assert "Last phase" in log_of(long) and "Last phase" not in log_of(late)


# --- as nnU-Net runs it elsewhere


def test_a_compiled_network_with_a_gradient_scaler_goes_through_both_phases_alike(make):
    found = []
    for compiled in (False, True):
        trainer = make(nnUNetTrainerAT, LATE)  # an epoch each
        trainer.initialize()
        if compiled:  # what nnU-Net does on a GPU, less the code generation
            trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
            trainer.network = torch.compile(trainer.network, backend="eager")
        found.append(weights(trained(trainer)))
    assert all(torch.allclose(found[0][k], found[1][k], atol=1e-5) for k in found[0])
